//! Unique, readable names for the values of a model.

use std::collections::{BTreeMap, BTreeSet};

/// Hands out every name once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    taken: BTreeSet<String>,
    /// Next suffix to try, by wanted name, so that many equal wishes stay cheap.
    next: BTreeMap<String, usize>,
}

impl Names {
    /// The wanted name, or the first free one of `wanted_1`, `wanted_2`, …
    pub(crate) fn unique(&mut self, wanted: &str) -> String {
        if self.taken.insert(wanted.to_owned()) {
            return wanted.to_owned();
        }
        let next = self.next.entry(wanted.to_owned()).or_insert(1);
        loop {
            let name = format!("{wanted}_{next}");
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_that_is_taken_is_skipped() {
        let mut names = Names::default();
        let given: Vec<String> = ["a", "a_1", "a", "a"].map(|n| names.unique(n)).into();
        assert_eq!(given, ["a", "a_1", "a_2", "a_3"]);
    }
}
