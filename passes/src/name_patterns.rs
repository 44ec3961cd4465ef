//! Lists of names in options: which layers are meant.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Names joined by `+`, as in `conv_in+up_blocks.3`. A name of a layer or weight is meant when a pattern stands in it as
/// whole parts, where parts are what dots and slashes separate: `up_blocks.3` means `up_blocks.3.resnets.0.conv1`, not
/// `up_blocks.30`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamePatterns(Vec<String>);

impl NamePatterns {
    /// The patterns of this list.
    pub(crate) fn of(patterns: &[&str]) -> Self {
        NamePatterns(patterns.iter().map(|&p| p.to_owned()).collect())
    }

    /// Whether a pattern means the name.
    pub(crate) fn mean(&self, name: &str) -> bool {
        let parts =
            |text: &str| -> Vec<String> { text.split(['.', '/']).map(str::to_owned).collect() };
        let name = parts(name);
        self.0.iter().any(|pattern| {
            let pattern = parts(pattern);
            name.windows(pattern.len()).any(|part| part == pattern)
        })
    }
}

impl fmt::Display for NamePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("+"))
    }
}

impl<'de> Deserialize<'de> for NamePatterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let patterns: Vec<String> = text.split('+').map(str::to_owned).collect();
        if patterns.iter().any(String::is_empty) {
            return Err(D::Error::custom(format!(
                "'{text}' is not a list of names joined by '+'"
            )));
        }
        Ok(NamePatterns(patterns))
    }
}

/// Some names in full and the number of the others, for a note.
pub(crate) fn shortened(names: &[String]) -> String {
    const IN_FULL: usize = 8;
    let (shown, rest) = names.split_at(names.len().min(IN_FULL));
    let more = if rest.is_empty() {
        String::new()
    } else {
        format!(" and {} more", rest.len())
    };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_whole_parts_of_names() {
        let patterns: NamePatterns = serde_json::from_str("\"conv_in+up_blocks.3\"").unwrap();
        assert!(patterns.mean("conv_in.weight"));
        assert!(patterns.mean("decoder.conv_in.weight"));
        assert!(patterns.mean("/up_blocks.3/resnets.0/conv1/Conv"));
        assert!(!patterns.mean("up_blocks.30.conv.weight"));
        assert!(!patterns.mean("my_conv_in.weight"));
        assert!(!patterns.mean("up_blocks.1.resnets.3"));
        assert_eq!(patterns.to_string(), "conv_in+up_blocks.3");
        assert!(serde_json::from_str::<NamePatterns>("\"a++b\"").is_err());
        assert!(serde_json::from_str::<NamePatterns>("\"\"").is_err());
    }

    #[test]
    fn long_lists_are_shortened() {
        let names: Vec<String> = (0..10).map(|i| format!("w{i}")).collect();
        assert_eq!(shortened(&names[..2]), "w0, w1");
        assert!(shortened(&names).ends_with("w6, w7 and 2 more"));
    }
}
