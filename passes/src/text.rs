//! The text form of pipelines: `fold-constants,cast-precision{to=f16}`. A value of an option is a word, or JSON.

use std::fmt;

use serde_json::{Map, Value};

use crate::pipeline::{PipelineError, Step};

/// Reads steps; blanks around words are allowed, an empty text is an empty pipeline.
///
/// # Errors
/// [`PipelineError::Syntax`] with the byte position.
pub(crate) fn parse_steps(text: &str) -> Result<Vec<Step>, PipelineError> {
    let mut reader = Reader { text, position: 0 };
    let mut steps = Vec::new();
    if reader.peek().is_none() {
        return Ok(steps);
    }
    loop {
        let pass = reader.word("a pass name")?.to_owned();
        let mut options = Map::new();
        if reader.eat('{') {
            while !reader.eat('}') {
                let name = reader.word("an option name or '}'")?.to_owned();
                reader.expect('=')?;
                let value = reader.value()?;
                options.insert(name, value);
                if !reader.eat(',') {
                    reader.expect('}')?;
                    break;
                }
            }
        }
        steps.push(Step { pass, options });
        match reader.peek() {
            None => return Ok(steps),
            Some(_) => reader.expect(',')?,
        }
    }
}

/// Truth values and numbers are themselves, everything else is a string.
fn value(word: &str) -> Value {
    match serde_json::from_str(word) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => Value::String(word.to_owned()),
    }
}

/// Whether words are written with this character.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "-_.+/".contains(c)
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.position..];
        self.position += rest.len() - rest.trim_start().len();
        self.text[self.position..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.position += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), PipelineError> {
        if self.eat(wanted) {
            return Ok(());
        }
        Err(self.error(format!("'{wanted}'")))
    }

    fn word(&mut self, expected: &str) -> Result<&'a str, PipelineError> {
        self.peek();
        let rest = &self.text[self.position..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error(expected.to_owned()));
        }
        self.position += end;
        Ok(&rest[..end])
    }

    /// A word, or a list, an object or a string in JSON.
    fn value(&mut self) -> Result<Value, PipelineError> {
        if !matches!(self.peek(), Some('[' | '{' | '"')) {
            return Ok(value(self.word("an option value")?));
        }
        let rest = &self.text[self.position..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                self.position += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) => Err(self.error(format!("a value in JSON ({error})"))),
            None => Err(self.error("an option value".to_owned())),
        }
    }

    fn error(&self, expected: String) -> PipelineError {
        PipelineError::Syntax {
            text: self.text.to_owned(),
            position: self.position,
            expected,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pass)?;
        for (i, (name, value)) in self.options.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            match value {
                Value::String(word) if !word.is_empty() && word.chars().all(is_word) => {
                    write!(f, "{before}{name}={word}")?;
                }
                other => write!(f, "{before}{name}={other}")?,
            }
        }
        f.write_str(if self.options.is_empty() { "" } else { "}" })
    }
}
