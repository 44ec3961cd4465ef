//! Prompts, and files of a tokenizer.

use crate::join;

use super::Seeds;

/// Prompts with something that the tokenizer has a rule for.
const PROMPTS: [(&str, &str); 11] = [
    ("accents", "e\u{301}te\u{301} \u{212b} ﬁn ſtraße ΣΑΣ İ"),
    ("cjk", "一只猫 ネコ 고양이 𠀀"),
    (
        "contractions",
        "I'm sure they'll say it's what we've DON'T 'S",
    ),
    ("controls", "a\u{200d}b\u{7f}c\u{fffd}d\u{e000}e\u{378}f"),
    ("digits", "4k 1920x1080 ½ Ⅻ ٣"),
    ("emoji", "👩\u{200d}🚀 ❤\u{fe0f} 🇩🇪!!"),
    ("empty", ""),
    (
        "over-long",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z",
    ),
    (
        "photo",
        "a photo of an astronaut riding a horse on mars, highly detailed",
    ),
    ("special", "<|startoftext|>cat<|endoftext|> <|ENDOFTEXT|>!"),
    (
        "white-space",
        " \t\u{a0}two\r\n\u{3000}words\u{2028}\u{345} ",
    ),
];

/// `[kind] [prompt]`, or `[2] [merges, padding, length, vocabulary, prompt]`.
pub(super) fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, prompt) in PROMPTS {
        for (kind, version) in [(0, "v1"), (1, "v2")] {
            let input = [&[kind], prompt.as_bytes()].concat();
            seeds.insert(format!("{name}-{version}"), input);
        }
    }
    let merges = "#version: 0.2\nc a\nca t</w>\nĠ !\nt h\nth e</w>\n";
    let vocabulary = r#"{"!": 0, "c": 66, "ca": 512, "cat</w>": 513, "the</w>": 516}"#;
    let prompt = "The cat! thecat";
    for (name, pad, length) in [("files", 518u16, 77), ("files-short", 0, 2)] {
        let [low, high] = pad.to_le_bytes();
        let rest = join(vocabulary.as_bytes(), prompt.as_bytes());
        let rest = [&[low, high, length], rest.as_slice()].concat();
        let input = [&[2], join(merges.as_bytes(), &rest).as_slice()].concat();
        seeds.insert(name.to_owned(), input);
    }
    seeds
}
