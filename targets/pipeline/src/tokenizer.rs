//! CLIP's tokenizer: prompts to token ids.
//!
//! The ids are those of transformers' `CLIPTokenizer` without `ftfy`, the class that diffusers' Stable Diffusion pipelines
//! load. In order:
//!
//! 1. The special tokens and the padding token are cut out wherever they stand verbatim. The padding token takes part
//!    because transformers registers it with the special ones: with SD v2.x, which pads with `!`, every `!` of a prompt is id 0.
//! 2. What lies between is cleaned, split into words at whitespace, put into NFC and lower case.
//! 3. Words are cut into pieces by CLIP's pattern: contractions, runs of letters, single digits, runs of everything else.
//! 4. The UTF-8 bytes of a piece are joined to tokens by the merges (byte-pair encoding).
//!
//! Others differ. `CLIPTokenizerFast` keeps control and format characters (a joiner between two emoji gives tokens of its
//! own) and does not set spaces around CJK ideographs. With `ftfy` installed, `CLIPTokenizer` repairs mojibake and
//! straightens quotes first. Which code points are unassigned, and so dropped, follows the Unicode version: transformers has
//! that of its Python, this crate that of its tables. A code point that both assign counts the same unless Unicode has
//! changed its category in between.

mod byte_pairs;
mod clean;
mod pieces;
mod vocabulary;

use byte_pairs::merge_piece;
use clean::clean;
use pieces::{Piece, Pieces};
use vocabulary::Vocabulary;

/// Why there is no tokenizer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file of merges is not text.
    #[error(
        "merges.txt is not UTF-8 from byte {offset} on; take the file that came with the checkpoint"
    )]
    NotText {
        /// Offset of the first wrong byte.
        offset: usize,
    },
    /// The first line is not the version line.
    #[error(
        "merges.txt does not start with a line that holds '#version'; take the file that came with the checkpoint"
    )]
    NoVersion,
    /// A line is not two tokens.
    #[error("merges.txt, line {line}: expected two tokens, found {found}")]
    MergeParts {
        /// Number of the line, from 1.
        line: usize,
        /// How many words it has.
        found: usize,
    },
    /// A line joins something that no earlier line makes.
    #[error("merges.txt, line {line}: '{part}' is neither a byte nor made by an earlier line")]
    UnknownPart {
        /// Number of the line, from 1.
        line: usize,
        /// The unknown token.
        part: String,
    },
    /// Two lines make the same token, so that ids do not follow from the merges.
    #[error("merges.txt, line {line}: '{token}' exists already")]
    RepeatedToken {
        /// Number of the line, from 1.
        line: usize,
        /// The repeated token.
        token: String,
    },
    /// The padding token does not exist.
    #[error("padding token {id} does not exist; the vocabulary has {size} tokens")]
    PadToken {
        /// The id asked for.
        id: u32,
        /// Number of tokens.
        size: usize,
    },
    /// No room for the start and end tokens.
    #[error(
        "a sequence of {length} tokens has no room for the start and end tokens; the length is at least 2"
    )]
    Length {
        /// The length asked for.
        length: usize,
    },
    /// The vocabulary of the checkpoint has another number of tokens.
    #[error(
        "vocab.json has {found} tokens, but {expected} follow from merges.txt; the two do not belong together"
    )]
    VocabularySize {
        /// Tokens that follow from the merges.
        expected: usize,
        /// Tokens given.
        found: usize,
    },
    /// The vocabulary of the checkpoint gives a token another id.
    #[error(
        "vocab.json gives '{token}' the id {id}, which does not follow from merges.txt; the two do not belong together"
    )]
    VocabularyEntry {
        /// The token.
        token: String,
        /// The id given.
        id: u32,
    },
}

/// CLIP's tokenizer with a padding token and a length.
///
/// ```
/// use snapc_pipeline::Tokenizer;
///
/// // Stands in for a checkpoint's `tokenizer/merges.txt`: the ids of the two special tokens follow from its length.
/// let merges = b"#version: 0.2\nc a\nca t</w>\n";
/// let tokenizer = Tokenizer::new(merges, 515, 6)?;
/// assert_eq!(tokenizer.encode("Cat"), [514, 513, 515, 515, 515, 515]);
/// # Ok::<(), snapc_pipeline::TokenizerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    /// Texts that are one token wherever they stand, longest first, with their ids.
    verbatim: Vec<(String, u32)>,
    pad: u32,
    length: usize,
}

impl Tokenizer {
    /// A tokenizer from the bytes of `merges.txt`, the id of the padding token (49407 for SD v1.x, 0 for SD v2.x) and the
    /// length of a sequence (77).
    ///
    /// Ids follow from the merges by CLIP's rule: 256 bytes, 256 bytes that end a word, one token per merge, the start
    /// token, the end token. As in transformers, at most 48,894 merges are read.
    ///
    /// # Errors
    /// When the bytes are not such a file, the padding token does not exist, or the length is below 2.
    pub fn new(merges: &[u8], pad: u32, length: usize) -> Result<Self, TokenizerError> {
        if length < 2 {
            return Err(TokenizerError::Length { length });
        }
        let vocabulary = Vocabulary::parse(merges)?;
        let size = vocabulary.len();
        let pad_text = vocabulary
            .text(pad)
            .ok_or(TokenizerError::PadToken { id: pad, size })?;
        let mut verbatim = vec![
            (pieces::START.to_owned(), vocabulary.start()),
            (pieces::END.to_owned(), vocabulary.end()),
        ];
        if pad < vocabulary.start() {
            verbatim.push((pad_text, pad));
        }
        verbatim.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Ok(Self {
            vocabulary,
            verbatim,
            pad,
            length,
        })
    }

    /// The sequence of a prompt: start token, the prompt's tokens as far as they fit, end token, padding. Its length is
    /// always [`Tokenizer::length`].
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = vec![self.vocabulary.start()];
        ids.extend(self.tokenize(text).into_iter().take(self.length - 2));
        ids.push(self.vocabulary.end());
        ids.resize(self.length, self.pad);
        ids
    }

    /// The tokens of a prompt alone: without start and end token, not cut, not padded. What exceeds
    /// [`Tokenizer::length`] - 2 is what [`Tokenizer::encode`] leaves out.
    pub fn tokenize(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < text.len() {
            let rest = &text[at..];
            if let Some((token, id)) = self.verbatim.iter().find(|(t, _)| rest.starts_with(t)) {
                self.tokenize_between(&text[from..at], &mut ids);
                ids.push(*id);
                at += token.len();
                from = at;
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        self.tokenize_between(&text[from..], &mut ids);
        ids
    }

    fn tokenize_between(&self, text: &str, ids: &mut Vec<u32>) {
        for piece in Pieces::new(&clean(text)) {
            match piece {
                Piece::Start => ids.push(self.vocabulary.start()),
                Piece::End => ids.push(self.vocabulary.end()),
                Piece::Text(text) => merge_piece(&self.vocabulary, text, ids),
            }
        }
    }

    /// Number of tokens of a sequence.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Compares the ids with those of a checkpoint's `vocab.json`, which the caller has read.
    ///
    /// # Errors
    /// When the two differ.
    pub fn check_vocabulary<'a>(
        &self,
        entries: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Result<(), TokenizerError> {
        let mut found = 0;
        for (token, id) in entries {
            found += 1;
            if self.vocabulary.text(id).as_deref() != Some(token) {
                let token = token.to_owned();
                return Err(TokenizerError::VocabularyEntry { token, id });
            }
        }
        let expected = self.vocabulary.len();
        if found != expected {
            return Err(TokenizerError::VocabularySize { expected, found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGES: &[u8] = b"#version: 0.2\nc a\nca t</w>\n";

    fn error(merges: &[u8]) -> TokenizerError {
        Tokenizer::new(merges, 0, 77).unwrap_err()
    }

    #[test]
    fn files_that_are_not_merges_are_refused() {
        assert_eq!(
            error(b"#version\n\xff"),
            TokenizerError::NotText { offset: 9 }
        );
        assert_eq!(error(b""), TokenizerError::NoVersion);
        assert_eq!(error(b"c a\nca t</w>\n"), TokenizerError::NoVersion);
        let parts = |line, found| TokenizerError::MergeParts { line, found };
        assert_eq!(error(b"#version\nc a t\n"), parts(2, 3));
        assert_eq!(error(b"#version\nc a\n\nca t"), parts(3, 0));
        let part = "ca".to_owned();
        assert_eq!(
            error(b"#version\nca t\n"),
            TokenizerError::UnknownPart { line: 2, part }
        );
        let token = "aaa".to_owned();
        assert_eq!(
            error(b"#version\na a\naa a\na aa\n"),
            TokenizerError::RepeatedToken { line: 4, token }
        );
    }

    #[test]
    fn impossible_padding_and_length_are_refused() {
        let size = 516;
        assert_eq!(
            Tokenizer::new(MERGES, 516, 77).unwrap_err(),
            TokenizerError::PadToken { id: 516, size }
        );
        assert_eq!(
            Tokenizer::new(MERGES, 0, 1).unwrap_err(),
            TokenizerError::Length { length: 1 }
        );
    }

    #[test]
    fn a_foreign_vocabulary_is_refused() {
        let tokenizer = Tokenizer::new(MERGES, 0, 77).unwrap();
        let wrong = tokenizer.check_vocabulary([("!", 0), ("ca", 513)]);
        let token = "ca".to_owned();
        assert_eq!(
            wrong.unwrap_err(),
            TokenizerError::VocabularyEntry { token, id: 513 }
        );
        let (expected, found) = (516, 2);
        assert_eq!(
            tokenizer.check_vocabulary([("!", 0), ("cat</w>", 513)]),
            Err(TokenizerError::VocabularySize { expected, found })
        );
    }
}
