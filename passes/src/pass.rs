//! The interface of a pass.

use std::collections::BTreeMap;
use std::fmt;

use snapc_ir::eval::{EvalError, Evaluation};
use snapc_ir::{BuildError, Graph, Node, PipelineSpec, Tensor, Violation, WeightError};

use crate::calibration::Calibration;

/// Something that holds of a program at a point of the pipeline, and that passes rely on or spoil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Floats are as wide as the importer made them.
    FullPrecision,
    /// Every node and weight serves an output.
    NoDeadCode,
    /// No weight is encoded by a pass, so that steps may be added to weights.
    PlainWeights,
}

impl Property {
    /// What holds of a program fresh from the importer.
    pub const IMPORTED: &'static [Property] = &[Property::FullPrecision, Property::PlainWeights];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Property::FullPrecision => "full-precision",
            Property::NoDeadCode => "no-dead-code",
            Property::PlainWeights => "plain-weights",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a pass gets besides the graph.
#[derive(Clone, Copy)]
pub struct PassContext<'a> {
    /// Whether the user wants to stop; a pass that reads weights or runs graphs asks between weights and nodes.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
    /// Inputs to run the graphs on, when there are any; a pass that cannot do without them says so.
    pub calibration: Option<&'a Calibration>,
    /// The facts of the pipeline around the graphs, when the pass runs on a whole program.
    pub pipeline: Option<&'a PipelineSpec>,
}

impl Default for PassContext<'_> {
    /// Never cancelled, nothing known.
    fn default() -> Self {
        PassContext {
            cancelled: &|| false,
            calibration: None,
            pipeline: None,
        }
    }
}

impl PassContext<'_> {
    /// Runs a graph for a pass on all samples at once and shows every node, when it has been evaluated, to `observer`; gives
    /// the outputs of every sample.
    ///
    /// # Errors
    /// When the graph cannot be run on these inputs, the observer fails, or the user wants to stop, which is asked behind
    /// every node.
    pub(crate) fn trace(
        &self,
        pass: &'static str,
        graph: &Graph,
        samples: &[BTreeMap<String, Tensor>],
        mut observer: impl FnMut(&Node, &Evaluation<'_>) -> Result<(), EvalError>,
    ) -> Result<Vec<BTreeMap<String, Tensor>>, PassError> {
        let failed = |source| PassError::Calibration {
            pass,
            source: Box::new(source),
        };
        let mut evaluation = Evaluation::new(graph, samples).map_err(failed)?;
        while let Some(node) = evaluation.step().map_err(failed)? {
            if (self.cancelled)() {
                return Err(PassError::Cancelled);
            }
            observer(node, &evaluation).map_err(failed)?;
        }
        evaluation.outputs().map_err(failed)
    }
}

/// A changed graph.
#[derive(Clone, Debug)]
pub struct Change {
    /// The new graph, with the same inputs and outputs by name.
    pub graph: Graph,
    /// What was done and how often, for the report.
    pub counts: Vec<(&'static str, usize)>,
    /// What was skipped and why, and what else the user should know; one line each.
    pub notes: Vec<String>,
}

impl Change {
    /// A change that needs no explanation.
    pub fn new(graph: Graph, counts: Vec<(&'static str, usize)>) -> Self {
        Change {
            graph,
            counts,
            notes: Vec::new(),
        }
    }
}

/// A transformation of graphs. Its struct holds its options.
pub trait Pass: fmt::Debug + Send + Sync {
    /// The name in pipelines, kebab case, verb first.
    fn name(&self) -> &'static str;

    /// The changed graph, or `None` when there is nothing to do. Running a pass on its own result gives `None`.
    ///
    /// # Errors
    /// When the graph does not allow what the options demand.
    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError>;

    /// The changed graphs of a program, one entry per graph. A pass that moves work from one graph to another has its own;
    /// others work on each graph by itself.
    ///
    /// # Errors
    /// As [`Pass::run`].
    fn run_all(
        &self,
        graphs: &[Graph],
        context: &PassContext<'_>,
    ) -> Result<Vec<Option<Change>>, PassError> {
        graphs
            .iter()
            .map(|graph| self.run(graph, context))
            .collect()
    }

    /// Whether [`Pass::run_all`] does more than [`Pass::run`] on each graph.
    fn works_across_graphs(&self) -> bool {
        false
    }
}

/// What is wrong with a weight.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum WeightFault {
    /// Its data cannot be made.
    #[error(transparent)]
    Data(#[from] WeightError),
    /// A constant holds infinity or NaN.
    #[error("value {value} at element {index} is not finite; use a large finite number instead")]
    NotFinite {
        /// The value.
        value: f32,
        /// Its row-major position.
        index: usize,
    },
}

/// A weight that a pass cannot treat.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightProblem {
    /// Graph name.
    pub graph: String,
    /// Weight name.
    pub weight: String,
    /// What is wrong with it.
    pub source: WeightFault,
}

impl fmt::Display for WeightProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WeightProblem {
            graph,
            weight,
            source,
        } = self;
        write!(f, "graph '{graph}', weight '{weight}': {source}")
    }
}

/// Why a pass fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The new graph cannot be built.
    #[error("pass '{pass}': {source}; this is a bug in the pass")]
    Build {
        /// Name of the pass.
        pass: &'static str,
        /// What does not fit.
        source: Box<BuildError>,
    },
    /// Weights that the pass cannot treat, all of them.
    #[error("pass '{pass}': {} of the weights cannot be used:{}", problems.len(), Lines(problems))]
    Weights {
        /// Name of the pass.
        pass: &'static str,
        /// One entry per weight, in the order of the graph.
        problems: Vec<WeightProblem>,
    },
    /// The graph does not pass the verifier.
    #[error(
        "the graph is malformed after pass '{pass}':{}\nthis is a bug in the pass",
        Lines(violations)
    )]
    Invalid {
        /// Name of the pass.
        pass: &'static str,
        /// All violations.
        violations: Vec<Violation>,
    },
    /// The graph or the options do not allow what the pass is asked for.
    #[error("pass '{pass}', graph '{graph}': {reason}")]
    Refused {
        /// Name of the pass.
        pass: &'static str,
        /// Graph name.
        graph: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The graph cannot be run on the calibration inputs.
    #[error("pass '{pass}': {source}")]
    Calibration {
        /// Name of the pass.
        pass: &'static str,
        /// What is wrong.
        source: Box<snapc_ir::eval::EvalError>,
    },
    /// The user stopped the run.
    #[error("cancelled")]
    Cancelled,
}

impl PassError {
    /// Adapter for `map_err` on graph building.
    pub fn build(pass: &'static str) -> impl Fn(BuildError) -> PassError {
        move |source| PassError::Build {
            pass,
            source: Box::new(source),
        }
    }
}

/// Items one per line, each indented.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "\n  {item}"))
    }
}
