//! Typed access to the keys of one configuration file.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ImportError;

/// The object in a JSON text.
///
/// # Errors
/// When it does not parse or is something else.
pub(crate) fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Json {
        file: file.to_owned(),
        source,
    })
}

/// A value that a key may have when snapc supports only some.
pub(crate) enum Allowed {
    /// `null`, like an absent key.
    Null,
    /// `null` or `false`.
    Off,
    /// This number.
    Number(f64),
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Allowed {
    fn accepts(&self, value: &Value) -> bool {
        match self {
            Allowed::Null => value.is_null(),
            Allowed::Off => match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(list) => list.iter().all(|v| *v == Value::Bool(false)),
                _ => false,
            },
            Allowed::Number(n) => value.as_f64() == Some(*n),
            Allowed::Word(words) => value.as_str().is_some_and(|w| words.contains(&w)),
        }
    }

    fn describe(&self) -> String {
        match self {
            Allowed::Null => "null".to_owned(),
            Allowed::Off => "false".to_owned(),
            Allowed::Number(n) => n.to_string(),
            Allowed::Word(words) => words.join(", "),
        }
    }
}

/// One value for all stages, or one per stage.
#[derive(Deserialize)]
#[serde(untagged)]
enum PerStage {
    One(usize),
    Each(Vec<usize>),
}

/// A configuration file under reading.
pub(crate) struct ConfigReader<'a> {
    file: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> ConfigReader<'a> {
    /// A reader of an object; `file` names it in errors.
    pub(crate) fn new(file: &'a str, map: &'a Map<String, Value>) -> Self {
        ConfigReader { file, map }
    }

    /// The value of a key as it stands.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// The error that the value of a key is not `supported`.
    pub(crate) fn unsupported(&self, key: &str, supported: impl Into<String>) -> ImportError {
        let value = self
            .map
            .get(key)
            .map_or("absent".to_owned(), Value::to_string);
        ImportError::Config {
            file: self.file.to_owned(),
            key: key.to_owned(),
            value,
            supported: supported.into(),
        }
    }

    /// The value of a key, or its default when the key is absent.
    ///
    /// # Errors
    /// When the value is not a `T`.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        key: &str,
        default: T,
        expected: &str,
    ) -> Result<T, ImportError> {
        match self.map.get(key) {
            None => Ok(default),
            Some(v) => T::deserialize(v).map_err(|_| self.unsupported(key, expected)),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the value is something else.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ImportError> {
        self.get(key, default, "true or false")
    }

    /// A whole number from 1 to `max`.
    ///
    /// # Errors
    /// When the value is something else.
    pub(crate) fn count(
        &self,
        key: &str,
        default: usize,
        max: usize,
    ) -> Result<usize, ImportError> {
        let expected = format!("a whole number from 1 to {max}");
        let n = self.get(key, default, &expected)?;
        if (1..=max).contains(&n) {
            return Ok(n);
        }
        Err(self.unsupported(key, expected))
    }

    /// A finite number above 0.
    ///
    /// # Errors
    /// When the value is something else.
    pub(crate) fn positive(&self, key: &str, default: f64) -> Result<f64, ImportError> {
        let x: f64 = self.get(key, default, "a number above 0")?;
        if x.is_finite() && x > 0.0 {
            return Ok(x);
        }
        Err(self.unsupported(key, "a number above 0"))
    }

    /// A list of whole numbers from 1 to `max`, not empty and not longer than `max_len`.
    ///
    /// # Errors
    /// When the value is something else.
    pub(crate) fn counts(
        &self,
        key: &str,
        default: &[usize],
        max: usize,
        max_len: usize,
    ) -> Result<Vec<usize>, ImportError> {
        let expected = format!("a list of 1 to {max_len} whole numbers from 1 to {max}");
        let list: Vec<usize> = self.get(key, default.to_vec(), &expected)?;
        if (1..=max_len).contains(&list.len()) && list.iter().all(|n| (1..=max).contains(n)) {
            return Ok(list);
        }
        Err(self.unsupported(key, expected))
    }

    /// A whole number from 1 to `max` for each of `stages` stages, given once or as a list.
    ///
    /// # Errors
    /// When the value is something else.
    pub(crate) fn per_stage(
        &self,
        key: &str,
        default: usize,
        max: usize,
        stages: usize,
    ) -> Result<Vec<usize>, ImportError> {
        let expected = format!("a whole number from 1 to {max}, or a list of {stages} of them");
        let list = match self.get(key, PerStage::One(default), &expected)? {
            PerStage::One(n) => vec![n; stages],
            PerStage::Each(list) => list,
        };
        if list.len() == stages && list.iter().all(|n| (1..=max).contains(n)) {
            return Ok(list);
        }
        Err(self.unsupported(key, expected))
    }

    /// Checks keys of which only some values are supported; an absent key passes.
    ///
    /// # Errors
    /// Names the first key with another value.
    pub(crate) fn require(&self, rules: &[(&str, Allowed)]) -> Result<(), ImportError> {
        for (key, allowed) in rules {
            if self.map.get(*key).is_some_and(|v| !allowed.accepts(v)) {
                return Err(self.unsupported(key, allowed.describe()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_key_value_and_what_is_supported() {
        let map = parse_object("unet/config.json", br#"{"act_fn": "mish", "n": [1, 0]}"#).unwrap();
        let reader = ConfigReader::new("unet/config.json", &map);
        let error = reader
            .require(&[("act_fn", Allowed::Word(&["silu", "swish"]))])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"unet/config.json: 'act_fn' is "mish"; supported: silu, swish"#
        );
        assert_eq!(
            reader.per_stage("n", 1, 9, 2).unwrap_err().to_string(),
            "unet/config.json: 'n' is [1,0]; supported: a whole number from 1 to 9, or a list of 2 of them"
        );
        assert!(parse_object("f", b"[1]").is_err() && parse_object("f", b"{").is_err());
    }

    #[test]
    fn absent_keys_have_defaults() {
        let map = Map::new();
        let reader = ConfigReader::new("f", &map);
        assert_eq!(reader.per_stage("n", 8, 9, 3).unwrap(), [8, 8, 8]);
        assert_eq!(reader.count("n", 4, 9).unwrap(), 4);
        assert!(
            reader
                .require(&[("x", Allowed::Null), ("y", Allowed::Off)])
                .is_ok()
        );
    }
}
