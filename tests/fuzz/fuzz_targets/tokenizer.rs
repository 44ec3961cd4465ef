//! The tokenizer: any prompt with CLIP's merges, and any files of merges and vocabulary.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use snapc_fuzz::split;
use snapc_pipeline::Tokenizer;

const MERGES: &[u8] = include_bytes!("../../../fixtures/clip/merges.txt");

/// CLIP's two special tokens and SD v2.x' padding, with the length of a sequence.
const START: u32 = 49406;
const END: u32 = 49407;
const EXCLAMATION_MARK: u32 = 0;
const LENGTH: usize = 77;

/// As SD v1.x and SD v2.x pad.
static CLIP: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
    let tokenizer = |pad| Tokenizer::new(MERGES, pad, LENGTH).expect("the merges are CLIP's");
    [END, EXCLAMATION_MARK].map(tokenizer)
});

fuzz_target!(|input: &[u8]| {
    let Some((&kind, input)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => check(&CLIP[0], START, END, &String::from_utf8_lossy(input)),
        1 => check(
            &CLIP[1],
            START,
            EXCLAMATION_MARK,
            &String::from_utf8_lossy(input),
        ),
        _ => check_files(input),
    }
});

/// `[length of the merges: u16 LE] [merges] [padding: u16 LE] [length of a sequence] [length of vocab.json: u16 LE]
/// [vocab.json] [prompt]`
fn check_files(input: &[u8]) {
    let (merges, rest) = split(input);
    let Some(([low, high, length], rest)) = rest.split_first_chunk() else {
        return;
    };
    let pad = u32::from(u16::from_le_bytes([*low, *high]));
    let Ok(tokenizer) = Tokenizer::new(merges, pad, usize::from(*length)) else {
        return;
    };
    let (vocabulary, prompt) = split(rest);
    // The first id of a sequence is the start token, the one before the last.
    let start = tokenizer.encode("")[0];
    check(&tokenizer, start, pad, &String::from_utf8_lossy(prompt));
    if let Ok(entries) = serde_json::from_slice::<BTreeMap<String, u32>>(vocabulary) {
        let listed = entries.iter().map(|(token, &id)| (token.as_str(), id));
        if tokenizer.check_vocabulary(listed).is_ok() {
            assert_eq!(entries.len(), start as usize + 2);
        }
    }
}

/// What holds for the sequence of any prompt. The end token follows the start token.
fn check(tokenizer: &Tokenizer, start: u32, pad: u32, prompt: &str) {
    let tokens = tokenizer.tokenize(prompt);
    assert!(tokens.iter().all(|&id| id <= start + 1), "{tokens:?}");
    // A token covers a byte or more of the prompt in NFC and lower case, which is at most 18 times as long.
    assert!(tokens.len() <= 18 * prompt.len(), "{tokens:?}");

    let kept = tokens.len().min(tokenizer.length() - 2);
    let mut expected = vec![start];
    expected.extend(&tokens[..kept]);
    expected.push(start + 1);
    expected.resize(tokenizer.length(), pad);
    assert_eq!(tokenizer.encode(prompt), expected);

    // White space around a prompt says nothing.
    assert_eq!(tokenizer.tokenize(&format!(" {prompt}\n")), tokens);
}
