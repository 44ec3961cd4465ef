//! What is known about a pass without running it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::pass::{Pass, Property};
use crate::pipeline::PipelineError;

/// The constants of a pass, beside its code in the pass's file.
pub(crate) trait Describe: Pass + DeserializeOwned + 'static {
    /// What [`Pass::name`] gives.
    const NAME: &'static str;
    /// What has to hold before.
    const REQUIRES: &'static [Property] = &[];
    /// What holds afterwards.
    const ESTABLISHES: &'static [Property] = &[];
    /// What may no longer hold afterwards.
    const INVALIDATES: &'static [Property] = &[];
}

/// What is known about a pass without running it.
#[derive(Clone, Copy, Debug)]
pub struct PassInfo {
    /// The name in pipelines.
    pub name: &'static str,
    /// What has to hold before.
    pub requires: &'static [Property],
    /// What holds afterwards.
    pub establishes: &'static [Property],
    /// What may no longer hold afterwards.
    pub invalidates: &'static [Property],
    source: &'static str,
    make: fn(Value) -> Result<Box<dyn Pass>, serde_json::Error>,
}

impl PassInfo {
    pub(crate) const fn of<P: Describe>(source: &'static str) -> Self {
        PassInfo {
            name: P::NAME,
            requires: P::REQUIRES,
            establishes: P::ESTABLISHES,
            invalidates: P::INVALIDATES,
            source,
            make: |options| Ok(Box::new(serde_json::from_value::<P>(options)?)),
        }
    }

    /// The pass with these options; options that are not given have their default.
    ///
    /// # Errors
    /// When the pass does not take an option or its value.
    pub fn make(&self, options: Map<String, Value>) -> Result<Box<dyn Pass>, PipelineError> {
        (self.make)(Value::Object(options)).map_err(|source| PipelineError::Options {
            pass: self.name.to_owned(),
            source,
        })
    }

    /// The documentation, which is the module documentation of the pass's file.
    pub fn documentation(&self) -> Documentation {
        let lines = self
            .source
            .lines()
            .map_while(|line| line.strip_prefix("//!"));
        let lines: Vec<&str> = lines
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        Documentation::parse(&lines)
    }
}

/// The documentation of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documentation {
    /// The first paragraph, one line.
    pub summary: String,
    /// Heading and Markdown text of each section.
    pub sections: Vec<(&'static str, String)>,
}

impl Documentation {
    fn parse(lines: &[&'static str]) -> Self {
        let mut summary = Vec::new();
        let mut sections: Vec<(&'static str, Vec<&str>)> = Vec::new();
        for &line in lines {
            if let Some(heading) = line.strip_prefix("# ") {
                sections.push((heading, Vec::new()));
            } else if let Some((_, text)) = sections.last_mut() {
                text.push(line);
            } else {
                summary.push(line);
            }
        }
        let join = |(heading, text): (&'static str, Vec<&str>)| {
            (heading, text.join("\n").trim().to_owned())
        };
        Documentation {
            summary: summary.join(" ").trim().to_owned(),
            sections: sections.into_iter().map(join).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_is_split_at_headings() {
        let lines = [
            "Does a",
            "thing.",
            "",
            "# What it does",
            "",
            "Text.",
            "",
            "# Options",
            "None.",
        ];
        let documentation = Documentation::parse(&lines);
        assert_eq!(documentation.summary, "Does a thing.");
        let expected = [
            ("What it does", "Text.".to_owned()),
            ("Options", "None.".to_owned()),
        ];
        assert_eq!(documentation.sections, expected);
    }
}
