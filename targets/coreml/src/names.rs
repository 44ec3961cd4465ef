//! Identifiers of a program: `[A-Za-z_][A-Za-z0-9_]*`, unique in a function, no word of the language.

use std::collections::BTreeMap;

/// Words that MIL's text form uses itself, and which coremltools renames.
pub(crate) const RESERVED: [&str; 26] = [
    "any", "bf16", "bool", "dict", "false", "fp16", "fp32", "fp64", "func", "int16", "int32",
    "int64", "int8", "list", "main", "program", "state", "string", "tensor", "true", "tuple",
    "uint16", "uint32", "uint64", "uint8", "const",
];

/// Whether a word may name a value or a feature.
pub(crate) fn is_identifier(word: &str) -> bool {
    let mut chars = word.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The identifier nearest to a diffusers name: dots and the like become underscores.
pub(crate) fn sanitize(name: &str) -> String {
    let mut word: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        word.insert(0, '_');
    }
    word
}

/// The names given out so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// For each name given out, the suffix to try first when it is wanted again.
    taken: BTreeMap<String, usize>,
}

impl Names {
    /// A name that nothing else has: the sanitized `wanted` itself, or that with the first free number behind it.
    pub(crate) fn fresh(&mut self, wanted: &str) -> String {
        let word = sanitize(wanted);
        let free = !self.taken.contains_key(&word) && !RESERVED.contains(&word.as_str());
        if free {
            self.taken.insert(word.clone(), 1);
            return word;
        }
        let mut number = self.taken.get(&word).copied().unwrap_or(1);
        loop {
            let candidate = format!("{word}_{number}");
            number += 1;
            if !self.taken.contains_key(&candidate) {
                self.taken.insert(word, number);
                self.taken.insert(candidate.clone(), 1);
                return candidate;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        for (name, expected) in [
            (
                "down_blocks.0.resnets.1/conv1",
                "down_blocks_0_resnets_1_conv1",
            ),
            ("0", "_0"),
            ("", "_"),
            ("größe", "gr__e"),
        ] {
            assert_eq!(sanitize(name), expected);
            assert!(is_identifier(expected));
        }
        assert!(!is_identifier("a.b") && !is_identifier("1a") && !is_identifier(""));
    }

    #[test]
    fn names_are_given_out_once() {
        let mut names = Names::default();
        let given: Vec<String> = ["a", "a_1", "a", "a", "tensor", "tensor"]
            .iter()
            .map(|n| names.fresh(n))
            .collect();
        assert_eq!(given, ["a", "a_1", "a_2", "a_3", "tensor_1", "tensor_2"]);
    }
}
