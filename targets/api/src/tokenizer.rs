//! What a checkpoint's tokenizer files say beyond the merges.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Files that name the padding token, in the order in which transformers lets them decide.
const TOKEN_FILES: [&str; 2] = [
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
];

/// The padding token of `CLIPTokenizer` when no file names another.
const DEFAULT_PAD: &str = "<|endoftext|>";

/// Id of the token that fills prompts up: 49407 for SD v1.x, 0 for SD v2.x. `files` are those of the pipeline, by path
/// ([`snapc_ir::PipelineSpec::files`]). `None` without a vocabulary that has the token.
pub fn pad_token_id(files: &BTreeMap<String, Vec<u8>>) -> Option<u32> {
    let object = |path: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(files.get(path)?).ok()
    };
    let named = TOKEN_FILES.iter().find_map(|path| {
        let entry = object(path)?.remove("pad_token")?;
        // A token with its flags is an object.
        let text = entry.get("content").unwrap_or(&entry).as_str()?;
        Some(text.to_owned())
    });
    let token = named.as_deref().unwrap_or(DEFAULT_PAD);
    let id = object("tokenizer/vocab.json")?.get(token)?.as_u64()?;
    u32::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(files: &[(&str, &str)]) -> Option<u32> {
        let file =
            |(name, text): &(&str, &str)| (format!("tokenizer/{name}"), text.as_bytes().to_vec());
        pad_token_id(&files.iter().map(file).collect())
    }

    const VOCABULARY: (&str, &str) = ("vocab.json", r#"{"!": 0, "<|endoftext|>": 49407}"#);

    #[test]
    fn the_configuration_decides() {
        let map = (
            "special_tokens_map.json",
            r#"{"pad_token": "<|endoftext|>"}"#,
        );
        let plain = ("tokenizer_config.json", r#"{"pad_token": "!"}"#);
        let flagged = (
            "tokenizer_config.json",
            r#"{"pad_token": {"content": "!", "lstrip": false}}"#,
        );
        assert_eq!(id(&[VOCABULARY, map, plain]), Some(0));
        assert_eq!(id(&[VOCABULARY, map, flagged]), Some(0));
        assert_eq!(id(&[VOCABULARY, map]), Some(49407));
        assert_eq!(id(&[VOCABULARY]), Some(49407));
        assert_eq!(id(&[map]), None);
        assert_eq!(id(&[("vocab.json", r#"{"!": 0}"#)]), None);
    }
}
