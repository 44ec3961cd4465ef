//! What people are told about a model.

/// Characters that a statement may have: a paragraph. Models are shown with it wherever they are listed.
const MAX_CHARACTERS: usize = 2000;

/// What people are told about a model; a field that nobody has stated is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What the model is, in a sentence or two.
    pub description: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Under which licence it may be used: a name, an SPDX identifier or a text.
    pub license: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

impl About {
    /// These statements, and for those that are absent the ones of `other`.
    pub fn or(self, other: About) -> About {
        About {
            description: self.description.or(other.description),
            author: self.author.or(other.author),
            license: self.license.or(other.license),
            version: self.version.or(other.version),
        }
    }

    /// A statement as it is shown: on one line, without blanks around it; `None` for one that says nothing.
    ///
    /// # Errors
    /// When it is longer than 2000 characters.
    pub fn statement(text: &str) -> Result<Option<String>, StatementTooLong> {
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let line = words.join(" ");
        let characters = line.chars().count();
        match characters {
            0 => Ok(None),
            1..=MAX_CHARACTERS => Ok(Some(line)),
            _ => Err(StatementTooLong { characters }),
        }
    }
}

/// A statement about a model is longer than anything that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has {characters} characters, {MAX_CHARACTERS} at most")]
pub struct StatementTooLong {
    characters: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_one_line() {
        let shown = |text| About::statement(text).unwrap();
        assert_eq!(shown(" A. \n\tB\u{7} "), Some("A. B".to_owned()));
        assert_eq!(shown(" \n"), None);
        let longest = "é".repeat(2000);
        assert_eq!(shown(&longest), Some(longest.clone()));
        let error = About::statement(&format!("{longest}!")).unwrap_err();
        assert_eq!(error.to_string(), "it has 2001 characters, 2000 at most");
    }

    #[test]
    fn what_is_stated_first_wins() {
        let about = |author: Option<&str>, license: Option<&str>| About {
            author: author.map(str::to_owned),
            license: license.map(str::to_owned),
            ..About::default()
        };
        let both = about(Some("a"), None).or(about(Some("b"), Some("MIT")));
        assert_eq!(both, about(Some("a"), Some("MIT")));
    }
}
