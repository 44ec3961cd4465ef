//! The files of CLIP's tokenizer, for checkpoints that bring none.
//!
//! All Stable Diffusion checkpoints of the original layout use the same vocabulary, and the list of merges determines
//! it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// OpenAI's merges, as in the `merges.txt` of every CLIP tokenizer.
const MERGES: &str = include_str!("../../../fixtures/clip/merges.txt");

/// Marks the end of a word in a token.
const WORD_END: &str = "</w>";

/// The tokens in order of their ids: 256 bytes, the same at the end of a word, one per merge, two special tokens.
fn tokens() -> impl Iterator<Item = String> {
    let merges = MERGES.lines().skip(1).map(|line| line.replacen(' ', "", 1));
    let ends = byte_symbols()
        .into_iter()
        .map(|symbol| format!("{symbol}{WORD_END}"));
    let specials = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let bytes = byte_symbols().into_iter().map(String::from);
    bytes.chain(ends).chain(merges).chain(specials)
}

/// The printable character that stands for each byte, in order of token ids (GPT-2's rule): bytes that Latin-1 prints
/// stand for themselves and come first, the others are numbered from U+0100.
fn byte_symbols() -> Vec<char> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (shown, hidden): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(printable);
    let shown = shown.into_iter().map(char::from);
    shown.chain(('\u{100}'..).take(hidden.len())).collect()
}

/// `vocab.json`, byte for byte as OpenAI's CLIP has it on the hub.
fn vocabulary() -> Vec<u8> {
    let ids: Map<String, Value> = tokens()
        .zip(0..)
        .map(|(t, id): (_, u32)| (t, id.into()))
        .collect();
    Value::Object(ids).to_string().into_bytes()
}

/// The tokenizer's files by their paths in the pipeline folder. `pad` fills prompts up: `<|endoftext|>` in SD 1.x, `!`
/// in SD 2.x.
pub(crate) fn tokenizer_files(pad: &str) -> BTreeMap<String, Vec<u8>> {
    let specials = json!({
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": pad,
        "unk_token": "<|endoftext|>",
    });
    let config = json!({
        "add_prefix_space": false,
        "bos_token": "<|startoftext|>",
        "do_lower_case": true,
        "eos_token": "<|endoftext|>",
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": "<|endoftext|>",
    });
    let text = |value: &Value| format!("{value:#}\n").into_bytes();
    BTreeMap::from([
        (
            "tokenizer/merges.txt".to_owned(),
            MERGES.as_bytes().to_vec(),
        ),
        (
            "tokenizer/special_tokens_map.json".to_owned(),
            text(&specials),
        ),
        ("tokenizer/tokenizer_config.json".to_owned(), text(&config)),
        ("tokenizer/vocab.json".to_owned(), vocabulary()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_that_of_the_fixture_made_by_python() {
        let expected = include_bytes!("../../../fixtures/tiny/tokenizer/vocab.json");
        let files = tokenizer_files("!");
        assert_eq!(files["tokenizer/vocab.json"], expected.trim_ascii_end());
        // The size of the file in openai/clip-vit-base-patch32.
        assert_eq!(files["tokenizer/vocab.json"].len(), 862_328);
        let map = &files["tokenizer/special_tokens_map.json"];
        assert!(String::from_utf8_lossy(map).contains(r#""pad_token": "!""#));
    }
}
