//! The tokenizer against transformers' `CLIPTokenizer`: `fixtures/tokenizer/corpus.jsonl`, made by
//! `fixtures/make_tokenizer_corpus.py`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use snapc_pipeline::Tokenizer;

/// Ids of "<|endoftext|>" and "!".
const END: u32 = 49407;
const EXCLAMATION: u32 = 0;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(path)
}

fn read(path: &str) -> Vec<u8> {
    let path = fixture(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn tokenizer(pad: u32, length: usize) -> Tokenizer {
    Tokenizer::new(&read("clip/merges.txt"), pad, length).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let tokenizers = BTreeMap::from([
        ("<|endoftext|>".to_owned(), (END, tokenizer(END, 77))),
        ("!".to_owned(), (EXCLAMATION, tokenizer(EXCLAMATION, 77))),
    ]);
    let corpus = String::from_utf8(read("tokenizer/corpus.jsonl")).unwrap();
    let mut texts = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in corpus.lines() {
        let (text, pad, mut expected): (String, String, Vec<u32>) =
            serde_json::from_str(line).unwrap();
        let (pad, tokenizer) = &tokenizers[&pad];
        // The corpus leaves out the padding at the end.
        expected.resize(77, *pad);
        let found = tokenizer.encode(&text);
        if found != expected {
            wrong.push(format!(
                "{text:?}, padded with {pad}:\n  {found:?}\n  {expected:?}"
            ));
        }
        texts.insert(text);
    }
    assert!(
        texts.len() >= 2000,
        "the corpus has {} strings",
        texts.len()
    );
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// What prompts are made of stands in the corpus, each often enough that a rule for it shows.
#[test]
fn the_corpus_has_every_kind_of_text() {
    let corpus = String::from_utf8(read("tokenizer/corpus.jsonl")).unwrap();
    let lines = corpus.lines().map(|line| {
        let (text, _, ids): (String, String, Vec<u32>) = serde_json::from_str(line).unwrap();
        (text, ids)
    });
    let texts: BTreeMap<String, Vec<u32>> = lines.collect();
    let count = |is: &dyn Fn(&str) -> bool| texts.keys().filter(|text| is(text)).count();
    let has = |is: fn(char) -> bool| count(&|text| text.chars().any(is));
    let contraction = |text: &str| {
        let text = text.to_lowercase();
        ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
            .iter()
            .any(|end| text.contains(end))
    };
    let accent =
        |c: char| ('\u{c0}'..='\u{24f}').contains(&c) || ('\u{300}'..='\u{36f}').contains(&c);
    let cjk = |c: char| matches!(c, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}');
    let kinds = [
        ("punctuation", has(|c| c.is_ascii_punctuation())),
        ("digits", has(|c| c.is_ascii_digit())),
        ("contractions", count(&contraction)),
        ("emoji", has(|c| ('\u{1f300}'..='\u{1faff}').contains(&c))),
        ("Chinese, Japanese and Korean", has(cjk)),
        ("accents", has(accent)),
    ];
    for (kind, found) in kinds {
        assert!(found >= 100, "{kind}: {found} strings");
    }
    assert!(texts.contains_key("") && texts.contains_key(" "));
    // Start, 75 tokens of the text, and the end, which the corpus leaves out where it is the padding as well.
    let cut = texts.values().filter(|ids| ids.len() >= 76);
    assert!(cut.count() >= 30);
}

#[test]
fn the_vocabulary_of_the_checkpoint_follows_from_its_merges() {
    let json = read("tiny/tokenizer/vocab.json");
    let vocabulary: BTreeMap<String, u32> = serde_json::from_slice(&json).unwrap();
    assert_eq!(vocabulary.len(), 49408);
    let entries = vocabulary.iter().map(|(token, id)| (token.as_str(), *id));
    tokenizer(END, 77).check_vocabulary(entries).unwrap();
}

#[test]
fn the_end_token_survives_at_every_length() {
    for length in [2, 3, 16, 77] {
        let ids = tokenizer(END, length).encode(&"word ".repeat(100));
        assert_eq!(ids.len(), length);
        assert_eq!((ids[0], ids[length - 1]), (49406, END));
        assert!(ids[1..length - 1].iter().all(|id| *id == 2653));
    }
}

// Counts and last ids are those of transformers' `CLIPTokenizer.tokenize`.
#[test]
fn long_words_have_the_tokens_of_transformers() {
    let tokenizer = tokenizer(END, 77);
    let marks = tokenizer.tokenize(&"!".repeat(1 << 20));
    assert_eq!(marks.len(), 65_537);
    assert_eq!(marks[65_534..], [30146, 11281, 21622]);
    let letters = tokenizer.tokenize(&"ab".repeat(500_000));
    assert_eq!(letters.len(), 500_000);
    assert_eq!(letters[499_997..], [596, 596, 3937]);
}
