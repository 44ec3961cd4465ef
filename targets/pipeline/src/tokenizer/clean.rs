//! Text cleaning before the pattern: transformers' `BasicTokenizer` with `strip_accents` and `do_split_on_punc` off.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// The words of a text in NFC and lower case, with one space between them.
///
/// Control, format, private-use and unassigned characters and U+FFFD go, so that text on both sides of them meets;
/// every CJK ideograph is a word.
pub(super) fn clean(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        if is_space(c) {
            spaced.push(' ');
        } else if is_dropped(c) {
            continue;
        } else if is_ideograph(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    let composed: String = spaced.nfc().collect();
    // Word by word, since the lower case of a sigma depends on whether it ends its word.
    let words = composed.split_whitespace().map(str::to_lowercase);
    words.collect::<Vec<String>>().join(" ")
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || c.general_category() == GeneralCategory::SpaceSeparator
}

fn is_dropped(c: char) -> bool {
    c == '\u{fffd}' || c.general_category_group() == GeneralCategoryGroup::Other
}

/// The ranges that BERT's tokenizer takes for Chinese; later extensions are not among them.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4dbf
        | 0x4e00..=0x9fff
        | 0xf900..=0xfaff
        | 0x20000..=0x2a6df
        | 0x2a700..=0x2ceaf
        | 0x2f800..=0x2fa1f)
}
