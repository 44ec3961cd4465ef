//! The report on weights that do not fit the networks.

use std::fmt;

/// What is wrong with one weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightProblem {
    /// The network needs it and the checkpoint lacks it.
    Missing,
    /// The checkpoint has it and the network does not use it.
    Extra,
    /// Its shape is not the one the configuration asks for.
    Misshapen {
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape stored.
        found: Vec<usize>,
    },
    /// Its elements are not f32, f16 or bf16.
    ElementType(
        /// The element type, as safetensors names it.
        String,
    ),
    /// It holds infinities or NaNs.
    NonFinite {
        /// How many elements are not finite.
        count: usize,
        /// Row-major position of the first.
        first: usize,
    },
}

impl fmt::Display for WeightProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightProblem::Missing => f.write_str("missing"),
            WeightProblem::Extra => f.write_str("not used by the network"),
            WeightProblem::Misshapen { expected, found } => {
                write!(f, "shape {found:?}, expected {expected:?}")
            }
            WeightProblem::ElementType(found) => {
                write!(f, "element type {found}, expected F32, F16 or BF16")
            }
            WeightProblem::NonFinite { count, first } => {
                write!(f, "{count} elements are not finite, the first at {first}")
            }
        }
    }
}

/// A weight that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightIssue {
    /// The graph that needs it, or whose part of the checkpoint it lies in; `-` when it belongs to none.
    pub graph: String,
    /// The file it was read from or looked for in, relative to the checkpoint.
    pub file: String,
    /// The key in that file.
    pub weight: String,
    /// What is wrong.
    pub problem: WeightProblem,
}

/// All weights of all graphs that do not fit, sorted by graph, file and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightReport {
    issues: Vec<WeightIssue>,
}

impl WeightReport {
    /// A report of these issues.
    pub fn new(mut issues: Vec<WeightIssue>) -> Self {
        issues.sort();
        issues.dedup();
        WeightReport { issues }
    }

    /// The issues, sorted.
    pub fn issues(&self) -> &[WeightIssue] {
        &self.issues
    }

    /// Whether all weights fit.
    pub fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    fn count(&self, of: impl Fn(&WeightProblem) -> bool) -> usize {
        self.issues.iter().filter(|i| of(&i.problem)).count()
    }
}

impl fmt::Display for WeightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.count(|p| *p == WeightProblem::Missing), "missing"),
            (self.count(|p| *p == WeightProblem::Extra), "extra"),
            (
                self.count(|p| matches!(p, WeightProblem::Misshapen { .. })),
                "misshapen",
            ),
            (
                self.count(|p| matches!(p, WeightProblem::ElementType(_))),
                "of an unsupported element type",
            ),
            (
                self.count(|p| matches!(p, WeightProblem::NonFinite { .. })),
                "not finite",
            ),
        ];
        let parts: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        write!(
            f,
            "weights do not fit the configuration: {}",
            parts.join(", ")
        )?;
        for WeightIssue {
            graph,
            file,
            weight,
            problem,
        } in &self.issues
        {
            write!(f, "\n  {graph}: {file}: {weight}: {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_sorted_and_counts_each_kind() {
        let issue = |weight: &str, problem| WeightIssue {
            graph: "unet".to_owned(),
            file: "unet/w.safetensors".to_owned(),
            weight: weight.to_owned(),
            problem,
        };
        let report = WeightReport::new(vec![
            issue("z", WeightProblem::Extra),
            issue("b", WeightProblem::NonFinite { count: 3, first: 7 }),
            issue(
                "a",
                WeightProblem::Misshapen {
                    expected: vec![2],
                    found: vec![3],
                },
            ),
        ]);
        assert_eq!(
            report.to_string(),
            "weights do not fit the configuration: 1 extra, 1 misshapen, 1 not finite\n  \
             unet: unet/w.safetensors: a: shape [3], expected [2]\n  \
             unet: unet/w.safetensors: b: 3 elements are not finite, the first at 7\n  \
             unet: unet/w.safetensors: z: not used by the network"
        );
    }
}
