//! Why a target cannot write or read an artifact.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use snapc_ir::{BuildError, Violation, WeightError};

use crate::schedule::ScheduleError;

/// Why a target cannot write or read an artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The target has no form for a node.
    #[error("graph '{graph}', node '{node}': {op} is not supported by this target: {reason}")]
    Unsupported {
        /// Graph name.
        graph: String,
        /// Node name.
        node: String,
        /// Operator name.
        op: &'static str,
        /// What the target lacks, and what to choose instead.
        reason: String,
    },
    /// The target cannot honour an option.
    #[error("option '{option}': {reason}")]
    Option {
        /// The option as on the command line.
        option: &'static str,
        /// Why not, and which values are possible.
        reason: String,
    },
    /// A file cannot be written or read.
    #[error("'{}': {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The data of a weight cannot be made.
    #[error("graph '{graph}', weight '{weight}': {source}")]
    Weight {
        /// Graph name.
        graph: String,
        /// Weight name.
        weight: String,
        /// What is wrong with it.
        source: WeightError,
    },
    /// The target planned a weight file in which parts overlap or lie outside.
    #[error(
        "graph '{graph}', weight '{weight}': planned at {start}..{end}, but {reason}; this is a bug in the target"
    )]
    Layout {
        /// Graph name.
        graph: String,
        /// Weight name.
        weight: String,
        /// First byte planned.
        start: u64,
        /// Byte behind the last one planned.
        end: u64,
        /// What it collides with.
        reason: String,
    },
    /// A graph cannot be changed for the target.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A graph is malformed.
    #[error("graph '{graph}' is malformed:{}", Lines(violations))]
    Verify {
        /// Graph name.
        graph: String,
        /// All violations.
        violations: Vec<Violation>,
    },
    /// The schedule has no such steps.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A file of an artifact is not what its format says.
    #[error("'{}' is malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A program is larger than its format can say.
    #[error("the program does not fit the format: {reason}")]
    Capacity {
        /// What is too large, and the limit.
        reason: String,
    },
    /// A graph of an artifact cannot be read back.
    #[error("'{}' cannot be read back", path.display())]
    ReadBack {
        /// The file or package.
        path: PathBuf,
        /// The reader's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The user stopped the run.
    #[error("cancelled")]
    Cancelled,
}

impl TargetError {
    /// Adapter for `map_err` on file operations.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> TargetError + '_ {
        move |source| TargetError::Io {
            path: path.to_owned(),
            source,
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
