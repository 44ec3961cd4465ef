//! Token ids and merges, from `merges.txt` alone.

use std::collections::HashMap;

use super::TokenizerError;
use super::pieces::{END, START};

/// What ends the text of a token that ends a word.
const WORD_END: &str = "</w>";

/// Number of bytes, each with a token inside a word and one at the end of a word.
const BYTES: u32 = 256;

/// Id of the token that the first merge makes.
const FIRST_MERGE: u32 = 2 * BYTES;

/// Merges that CLIP uses of a longer list; with the bytes and the special tokens these are 49,408 tokens.
const MAX_MERGES: usize = 48_894;

/// Tokens by id and merges by pair.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    /// The two tokens that each merge joins, by rank. Both are older than the token made.
    merges: Vec<[u32; 2]>,
    /// The same, sorted, each with its rank.
    ranks: Vec<([u32; 2], u32)>,
    /// Bytes by the id of their token inside a word.
    alphabet: [u8; 256],
    /// The reverse: the id of each byte.
    byte_ids: [u32; 256],
}

impl Vocabulary {
    /// Reads `merges.txt`: a version line, then one merge a line.
    pub(super) fn parse(file: &[u8]) -> Result<Self, TokenizerError> {
        let text = std::str::from_utf8(file).map_err(|e| TokenizerError::NotText {
            offset: e.valid_up_to(),
        })?;
        let mut lines = (1..).zip(text.trim().split('\n'));
        if !lines.next().is_some_and(|(_, l)| l.contains("#version")) {
            return Err(TokenizerError::NoVersion);
        }
        let alphabet = alphabet();
        let mut ids: HashMap<String, u32> = (0..FIRST_MERGE)
            .map(|id| (byte_text(&alphabet, id), id))
            .collect();
        let mut merges = Vec::new();
        for (line, content) in lines.take(MAX_MERGES) {
            let words: Vec<&str> = content.split_whitespace().collect();
            let &[left, right] = words.as_slice() else {
                let found = words.len();
                return Err(TokenizerError::MergeParts { line, found });
            };
            let id_of = |part: &str| {
                ids.get(part)
                    .copied()
                    .ok_or_else(|| TokenizerError::UnknownPart {
                        line,
                        part: part.to_owned(),
                    })
            };
            let pair = [id_of(left)?, id_of(right)?];
            let token = [left, right].concat();
            let id = FIRST_MERGE + merges.len() as u32;
            if ids.insert(token.clone(), id).is_some() {
                return Err(TokenizerError::RepeatedToken { line, token });
            }
            merges.push(pair);
        }
        let mut ranks: Vec<([u32; 2], u32)> = merges.iter().copied().zip(0..).collect();
        ranks.sort_unstable();
        let mut byte_ids = [0; 256];
        for (id, byte) in (0..).zip(alphabet) {
            byte_ids[usize::from(byte)] = id;
        }
        Ok(Self {
            merges,
            ranks,
            alphabet,
            byte_ids,
        })
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        FIRST_MERGE as usize + self.merges.len() + 2
    }

    /// Id of the token that starts a sequence.
    pub(super) fn start(&self) -> u32 {
        FIRST_MERGE + self.merges.len() as u32
    }

    /// Id of the token that ends a sequence.
    pub(super) fn end(&self) -> u32 {
        self.start() + 1
    }

    /// Id of a byte, at the end of a word or inside it.
    pub(super) fn byte(&self, byte: u8, ends_word: bool) -> u32 {
        self.byte_ids[usize::from(byte)] + if ends_word { BYTES } else { 0 }
    }

    /// Rank of the merge that joins two tokens, if there is one.
    pub(super) fn rank(&self, pair: [u32; 2]) -> Option<u32> {
        let index = self.ranks.binary_search_by_key(&pair, |(p, _)| *p).ok()?;
        Some(self.ranks[index].1)
    }

    /// Id of the token that the merge of a rank makes.
    pub(super) fn merged(rank: u32) -> u32 {
        FIRST_MERGE + rank
    }

    /// A token as `vocab.json` spells it, if it exists.
    pub(super) fn text(&self, id: u32) -> Option<String> {
        if id == self.start() {
            return Some(START.to_owned());
        }
        if id == self.end() {
            return Some(END.to_owned());
        }
        if id > self.end() {
            return None;
        }
        // A file can nest merges deeper than the call stack is.
        let mut text = String::new();
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            match id.checked_sub(FIRST_MERGE) {
                Some(rank) => {
                    let [left, right] = self.merges[rank as usize];
                    pending.extend([right, left]);
                }
                None => text.push_str(&byte_text(&self.alphabet, id)),
            }
        }
        Some(text)
    }
}

/// Number of bytes that Latin-1 prints.
const PRINTABLE: usize = 188;

/// The bytes in the order of their ids (GPT-2's byte-to-unicode rule): those that Latin-1 prints come first.
fn alphabet() -> [u8; 256] {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut bytes = std::array::from_fn(|i| i as u8);
    bytes.sort_by_key(|b| !printable(b));
    bytes
}

/// How the token of a single byte is spelled: its own character when printable, else the next one from U+0100 on; with
/// [`WORD_END`] for the second 256.
fn byte_text(alphabet: &[u8; 256], id: u32) -> String {
    let index = (id % BYTES) as usize;
    let code = match index.checked_sub(PRINTABLE) {
        Some(hidden) => BYTES + hidden as u32,
        None => u32::from(alphabet[index]),
    };
    let mut text: String = char::from_u32(code).into_iter().collect();
    if id >= BYTES {
        text.push_str(WORD_END);
    }
    text
}
