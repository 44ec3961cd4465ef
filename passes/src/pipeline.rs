//! Pipelines: which passes run, with which options, in which order.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::info::PassInfo;
use crate::pass::{Pass, Property};
use crate::text::parse_steps;

/// A pass in a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Name of the pass.
    pub pass: String,
    /// Its options as they were given.
    pub options: Map<String, Value>,
}

/// A pipeline with a name.
#[derive(Clone, Copy, Debug)]
pub struct NamedPipeline {
    /// The name, to be given in place of a list of passes.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// The passes.
    pub passes: &'static str,
}

/// The pipelines that have a name. `O0` to `O2` are the levels of `-O`; a level of its own for a target carries the
/// target's name behind it; no level rounds.
pub const NAMED_PIPELINES: &[NamedPipeline] = &[
    NamedPipeline {
        name: "none",
        description: "the graphs as imported",
        passes: "",
    },
    NamedPipeline {
        name: "O0",
        description: "only what other passes rely on",
        passes: "eliminate-dead-code",
    },
    NamedPipeline {
        name: "O1",
        description: "clean-up",
        passes: "fold-constants,remove-identity-blocks,remove-no-ops,\
                 eliminate-common-subexpressions,eliminate-dead-code",
    },
    NamedPipeline {
        name: "O2",
        description: "clean-up and rewrites that save work",
        passes: "fold-constants,remove-identity-blocks,fold-scaling,remove-no-ops,\
                 eliminate-common-subexpressions,eliminate-dead-code",
    },
    NamedPipeline {
        name: "O2-native",
        description: "clean-up and rewrites that save work on the native engine",
        passes: "fold-constants,remove-identity-blocks,fold-scaling,split-upsample-convolution,\
                 split-concat-convolution,remove-no-ops,eliminate-common-subexpressions,eliminate-dead-code",
    },
    NamedPipeline {
        name: "recognize",
        description: "the composites of graphs that were read from files",
        passes: "remove-no-ops,fuse-activations,fuse-norms,fuse-attention,fuse-gathers,fuse-linears,\
                 eliminate-dead-code",
    },
    NamedPipeline {
        name: "f32",
        description: "clean-up, in full precision",
        passes: "fold-constants,remove-no-ops,eliminate-common-subexpressions,eliminate-dead-code",
    },
    NamedPipeline {
        name: "f16",
        description: "clean-up, and rounding to f16",
        passes: "fold-constants,remove-no-ops,eliminate-common-subexpressions,eliminate-dead-code,\
                 cast-precision{to=f16}",
    },
];

/// The pipeline of an optimization level (0 to 2) for a target: the target's own, else the general one; `None` beyond 2.
pub fn level(level: u8, target: &str) -> Option<&'static NamedPipeline> {
    let own = format!("O{level}-{target}");
    let general = format!("O{level}");
    let named = |name: &str| NAMED_PIPELINES.iter().find(|p| p.name == name);
    named(&own).or_else(|| named(&general))
}

/// Why a pipeline cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The text is not a list of passes.
    #[error("pipeline '{text}': expected {expected} at byte {position}")]
    Syntax {
        /// The text.
        text: String,
        /// Where the reader stopped, in bytes from the start.
        position: usize,
        /// What should stand there.
        expected: String,
    },
    /// There is no such pass.
    #[error("unknown pass '{pass}'; known are {known}")]
    UnknownPass {
        /// The name given.
        pass: String,
        /// All names.
        known: String,
    },
    /// A pass does not take an option or its value.
    #[error("pass '{pass}': {source}")]
    Options {
        /// Name of the pass.
        pass: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A pass stands where what it needs does not hold.
    #[error("pass '{pass}' needs {property}, which {cause}")]
    Order {
        /// Name of the pass.
        pass: &'static str,
        /// What does not hold.
        property: Property,
        /// Which earlier pass spoiled it, or which pass to put before.
        cause: String,
    },
}

impl PipelineError {
    pub(crate) fn unknown_pass(pass: &str) -> Self {
        let known: Vec<&str> = crate::all().iter().map(|info| info.name).collect();
        PipelineError::UnknownPass {
            pass: pass.to_owned(),
            known: known.join(", "),
        }
    }
}

/// Passes with options, in an order that their properties allow.
#[derive(Debug)]
pub struct Pipeline {
    steps: Vec<Step>,
    passes: Vec<Box<dyn Pass>>,
}

impl Pipeline {
    /// The pipeline of these steps.
    ///
    /// # Errors
    /// When a pass or option does not exist, or the order is impossible.
    pub fn new(steps: Vec<Step>) -> Result<Self, PipelineError> {
        let make = |step: &Step| crate::by_name(&step.pass, step.options.clone());
        let passes = steps.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        let infos: Vec<&PassInfo> = passes
            .iter()
            .filter_map(|p| crate::info(p.name()))
            .collect();
        check_order(&infos)?;
        Ok(Pipeline { steps, passes })
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn passes(&self) -> &[Box<dyn Pass>] {
        &self.passes
    }
}

impl FromStr for Pipeline {
    type Err = PipelineError;

    /// Reads a list of passes; the name of a pipeline stands for its passes.
    fn from_str(text: &str) -> Result<Self, PipelineError> {
        let mut steps = Vec::new();
        for step in parse_steps(text)? {
            let named = NAMED_PIPELINES.iter().find(|p| p.name == step.pass);
            match named.filter(|_| step.options.is_empty()) {
                Some(named) => steps.extend(parse_steps(named.passes)?),
                None => steps.push(step),
            }
        }
        Pipeline::new(steps)
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn check_order(passes: &[&PassInfo]) -> Result<(), PipelineError> {
    let mut holds = Property::IMPORTED.to_vec();
    for (i, info) in passes.iter().enumerate() {
        if let Some(&property) = info.requires.iter().find(|p| !holds.contains(p)) {
            return Err(PipelineError::Order {
                pass: info.name,
                property,
                cause: cause(property, &passes[..i]),
            });
        }
        holds.retain(|p| !info.invalidates.contains(p));
        holds.extend(info.establishes);
    }
    Ok(())
}

/// Why a property does not hold after the passes before.
fn cause(property: Property, before: &[&PassInfo]) -> String {
    let spoiler = before
        .iter()
        .rev()
        .find(|info| info.invalidates.contains(&property));
    let maker = crate::all()
        .iter()
        .find(|info| info.establishes.contains(&property));
    match (maker, spoiler) {
        (Some(maker), _) => format!("'{}' establishes; put it before", maker.name),
        (None, Some(spoiler)) => format!("'{}' ends; put that after", spoiler.name),
        (None, None) => "no pass establishes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Pipeline>().unwrap_err().to_string()
    }

    #[test]
    fn text_round_trips() {
        let text = "fold-constants,eliminate-dead-code,cast-precision{to=f16}";
        assert_eq!(text.parse::<Pipeline>().unwrap().to_string(), text);
        let spaced = " fold-constants , eliminate-dead-code,cast-precision { to = f16, } ";
        assert_eq!(spaced.parse::<Pipeline>().unwrap().to_string(), text);
        assert_eq!("".parse::<Pipeline>().unwrap().to_string(), "");
    }

    #[test]
    fn values_may_be_json() {
        let text = r#"a{plan={"remove":["x.0"]},steps=[1,2],word=f16,text="two words"},b"#;
        let steps = parse_steps(text).unwrap();
        assert_eq!(steps[0].options["plan"]["remove"][0], "x.0");
        assert_eq!(steps[0].options["steps"], serde_json::json!([1, 2]));
        let shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(","), text);
        assert!(error("cast-precision{to=[1}").contains("expected a value in JSON"));
    }

    #[test]
    fn a_name_in_a_list_stands_for_its_passes() {
        let made = "O0,cast-precision{to=f16}".parse::<Pipeline>().unwrap();
        assert_eq!(
            made.to_string(),
            "eliminate-dead-code,cast-precision{to=f16}"
        );
        assert_eq!(level(0, "onnx").map(|p| p.name), Some("O0"));
        assert!(level(3, "onnx").is_none());
    }

    #[test]
    fn named_pipelines_are_possible() {
        for named in NAMED_PIPELINES {
            assert_eq!(
                named.name.parse::<Pipeline>().unwrap().to_string(),
                named.passes
            );
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        assert_eq!(
            error("fold-constants,,"),
            "pipeline 'fold-constants,,': expected a pass name at byte 15"
        );
        assert_eq!(
            error("cast-precision{to}"),
            "pipeline 'cast-precision{to}': expected '=' at byte 17"
        );
        assert!(error("fold").starts_with("unknown pass 'fold'; known are cast-precision, "));
        assert!(error("fold-constants{size=1}").contains("unknown field `size`"));
        let bad = error("eliminate-dead-code,cast-precision{to=i32}");
        assert!(bad.starts_with("pass 'cast-precision': "), "{bad}");
    }

    #[test]
    fn impossible_orders_are_refused() {
        assert_eq!(
            error("cast-precision{to=f16}"),
            "pass 'cast-precision' needs no-dead-code, which 'eliminate-dead-code' establishes; put it before"
        );
        assert_eq!(
            error("eliminate-dead-code,cast-precision{to=f16},fold-constants"),
            "pass 'fold-constants' needs full-precision, which 'cast-precision' ends; put that after"
        );
    }
}
