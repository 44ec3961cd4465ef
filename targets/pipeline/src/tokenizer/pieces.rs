//! CLIP's pattern over cleaned text.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Text of the token that starts a sequence.
pub(super) const START: &str = "<|startoftext|>";

/// Text of the token that ends a sequence.
pub(super) const END: &str = "<|endoftext|>";

/// Contractions, in the order in which the pattern tries them.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// One match of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// The start token, spelled out in a prompt in any case.
    Start,
    /// The end token, spelled out in a prompt in any case.
    End,
    /// Text to be encoded byte by byte; never empty.
    Text(&'a str),
}

/// The matches in order. The pattern, without regard to case, is
/// `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`.
pub(super) struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    /// The matches in a text in lower case.
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Takes the first `length` bytes.
    fn take(&mut self, length: usize) -> &'a str {
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }

    /// Bytes of the leading characters of a class.
    fn run(&self, class: Class) -> usize {
        let end = self.rest.find(|c| Class::of(c) != class);
        end.unwrap_or(self.rest.len())
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let gap = self.run(Class::Gap);
        self.take(gap);
        let first = self.rest.chars().next()?;
        let fixed = [START, END].into_iter().chain(CONTRACTIONS);
        let length = fixed.filter_map(|text| prefix(self.rest, text)).next();
        let length = length.unwrap_or_else(|| match Class::of(first) {
            Class::Number => first.len_utf8(),
            class => self.run(class),
        });
        Some(match self.take(length) {
            START => Piece::Start,
            END => Piece::End,
            text => Piece::Text(text),
        })
    }
}

/// What the pattern takes a character for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Other,
    /// Matched by no alternative.
    Gap,
}

impl Class {
    fn of(c: char) -> Self {
        // Without regard to case U+0345 is the letter iota: the last alternative excludes it, and the one for letters,
        // where case plays no part, does not take it.
        if c.is_whitespace() || c == '\u{345}' {
            return Self::Gap;
        }
        match c.general_category_group() {
            GeneralCategoryGroup::Letter => Self::Letter,
            GeneralCategoryGroup::Number => Self::Number,
            _ => Self::Other,
        }
    }
}

/// Bytes of `text` that match `pattern` at its start without regard to case. The long s is the only other form of a
/// letter of the patterns that lower case keeps.
fn prefix(text: &str, pattern: &str) -> Option<usize> {
    let mut rest = text.chars();
    for expected in pattern.chars() {
        let found = rest.next()?;
        if found != expected && !(found == 'ſ' && expected == 's') {
            return None;
        }
    }
    Some(text.len() - rest.as_str().len())
}
