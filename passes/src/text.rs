//! The text form of pipelines: `fold-constants,cast-precision{to=f16}`.

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
                let value = value(reader.word("an option value")?);
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
        let is_word = |c: char| c.is_alphanumeric() || "-_.+/".contains(c);
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error(expected.to_owned()));
        }
        self.position += end;
        Ok(&rest[..end])
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
                Value::String(word) => write!(f, "{before}{name}={word}")?,
                other => write!(f, "{before}{name}={other}")?,
            }
        }
        f.write_str(if self.options.is_empty() { "" } else { "}" })
    }
}
