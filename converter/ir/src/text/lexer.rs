//! Words of the text form.

use std::str::Chars;

use super::parse::{ParseError, Problem};

/// A word or sign.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A bare word: `graph`, `conv2d`, `f32`, `true`, `N`.
    Word(String),
    /// A string in double quotes, unescaped.
    Text(String),
    /// A value number, written `%7`.
    Value(usize),
    /// A number that has no fraction.
    Int(i64),
    /// Any other number.
    Float(f32),
    /// One of `{ } ( ) [ ] = : ,`.
    Sign(char),
    /// Nothing is left.
    End,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(w) => write!(f, "'{w}'"),
            Token::Text(t) => write!(f, "{t:?}"),
            Token::Value(n) => write!(f, "%{n}"),
            Token::Int(n) => write!(f, "{n}"),
            Token::Float(x) => write!(f, "{x:?}"),
            Token::Sign(c) => write!(f, "'{c}'"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// Cuts the text into tokens with their line numbers; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ParseError> {
    let mut all = Vec::new();
    let mut last = 0;
    for (number, line) in text.lines().enumerate() {
        last = number + 1;
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with(';') {
            let (token, after) = token(rest).map_err(|problem| problem.at(last))?;
            all.push((last, token));
            rest = after.trim_start();
        }
    }
    all.push((last, Token::End));
    Ok(all)
}

fn token(rest: &str) -> Result<(Token, &str), Problem> {
    let first = rest.chars().next().unwrap_or(' ');
    if "{}()[]=:,".contains(first) {
        return Ok((Token::Sign(first), &rest[1..]));
    }
    if first == '"' {
        return text(rest);
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_%.+-".contains(c);
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let token = if let Some(number) = word.strip_prefix('%') {
        number.parse().ok().map(Token::Value)
    } else if first.is_ascii_digit() || "+-.".contains(first) {
        let int = word.parse().ok().map(Token::Int);
        int.or_else(|| word.parse().ok().map(Token::Float))
    } else if word == "inf" || word == "NaN" {
        word.parse().ok().map(Token::Float)
    } else if word.is_empty() {
        None
    } else {
        Some(Token::Word(word.to_owned()))
    };
    match token {
        Some(token) => Ok((token, after)),
        None if word.is_empty() => Err(Problem::Character(first)),
        None => Err(Problem::Word(word.to_owned())),
    }
}

/// A quoted string with the escapes that Rust's `{:?}` writes.
fn text(rest: &str) -> Result<(Token, &str), Problem> {
    let mut value = String::new();
    let mut chars = rest.chars();
    chars.next();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), chars.as_str())),
            '\\' => value.push(escape(&mut chars).ok_or(Problem::Escape)?),
            c => value.push(c),
        }
    }
    Err(Problem::OpenText)
}

/// The character that the escape behind a backslash stands for; `None` when there is no such escape.
fn escape(chars: &mut Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        '0' => '\0',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        c @ ('"' | '\\' | '\'') => c,
        'u' => {
            let (digits, after) = chars.as_str().strip_prefix('{')?.split_once('}')?;
            *chars = after.chars();
            // The parser of numbers takes a sign as well.
            if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
                return None;
            }
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
        }
        _ => return None,
    })
}
