//! Why a package cannot be read.

use std::io;
use std::path::PathBuf;

use snapc_ir::{BuildError, WeightError};

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file cannot be opened or mapped.
    #[error("'{}': {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what the format says, or no model that this reader takes.
    #[error("'{}': {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An input of the program has no form in the IR.
    #[error("graph '{graph}', input '{input}': {reason}")]
    Input {
        /// Graph name.
        graph: String,
        /// Input name.
        input: String,
        /// What is wrong, and what to change in the conversion.
        reason: String,
    },
    /// An output of the program is not defined.
    #[error("graph '{graph}', output '{output}': {reason}")]
    Output {
        /// Graph name.
        graph: String,
        /// Output name.
        output: String,
        /// What is wrong.
        reason: String,
    },
    /// An operation is malformed: its parameters, constants or types.
    #[error("graph '{graph}', operation '{operation}' ({kind}): {reason}")]
    Operation {
        /// Graph name.
        graph: String,
        /// Name of its first result.
        operation: String,
        /// Name of the operation in MIL.
        kind: String,
        /// What is wrong.
        reason: String,
    },
    /// An operation is valid, but has no form in the IR.
    #[error(
        "graph '{graph}', operation '{operation}': {kind} is not supported by this reader: {reason}"
    )]
    Unsupported {
        /// Graph name.
        graph: String,
        /// Name of its first result.
        operation: String,
        /// Name of the operation in MIL.
        kind: String,
        /// What is missing, and what to change in the conversion.
        reason: String,
    },
}

/// What is wrong, before the place is known to the message.
#[derive(Debug)]
pub(super) enum Fault {
    /// Against the rules of the format.
    Malformed(String),
    /// Valid, but nothing that the IR can say.
    Unsupported(String),
}

impl Fault {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Fault::Malformed(reason.into())
    }

    pub(super) fn unsupported(reason: impl Into<String>) -> Self {
        Fault::Unsupported(reason.into())
    }

    /// The reason alone.
    pub(super) fn reason(self) -> String {
        match self {
            Fault::Malformed(reason) | Fault::Unsupported(reason) => reason,
        }
    }
}

impl From<BuildError> for Fault {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Infer { source, .. } => Fault::Malformed(source.to_string()),
            other => Fault::Malformed(other.to_string()),
        }
    }
}

impl From<WeightError> for Fault {
    fn from(error: WeightError) -> Self {
        Fault::Malformed(error.to_string())
    }
}
