//! Why a model cannot be read.

use std::io;
use std::path::PathBuf;

/// Why a model cannot be read.
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
    /// The file is no model that this reader takes.
    #[error("'{}': {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An input cannot be given a fixed type.
    #[error("graph '{graph}', input '{input}': {reason}")]
    Input {
        /// Graph name.
        graph: String,
        /// Input name.
        input: String,
        /// What is wrong, and how to bind it.
        reason: String,
    },
    /// A constant has no usable data.
    #[error("graph '{graph}', initializer '{initializer}': {reason}")]
    Initializer {
        /// Graph name.
        graph: String,
        /// Name of the initializer.
        initializer: String,
        /// What is wrong.
        reason: String,
    },
    /// A node is malformed: wrong operands, attributes or names.
    #[error("graph '{graph}', node '{node}' ({op}): {reason}")]
    Node {
        /// Graph name.
        graph: String,
        /// Node name.
        node: String,
        /// ONNX operator.
        op: String,
        /// What is wrong.
        reason: String,
    },
    /// A node is valid ONNX, but has no form in the IR.
    #[error("graph '{graph}', node '{node}': {op} is not supported by this reader: {reason}")]
    Unsupported {
        /// Graph name.
        graph: String,
        /// Node name.
        node: String,
        /// ONNX operator.
        op: String,
        /// What is missing, and what to change in the export.
        reason: String,
    },
    /// An output is not defined.
    #[error("graph '{graph}', output '{output}': {reason}")]
    Output {
        /// Graph name.
        graph: String,
        /// Output name.
        output: String,
        /// What is wrong.
        reason: String,
    },
}

/// What is wrong with a node, before its name is known to the message.
#[derive(Debug)]
pub(super) enum Fault {
    /// See [`ReadError::Node`].
    Malformed(String),
    /// See [`ReadError::Unsupported`].
    Unsupported(String),
}

impl Fault {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Fault::Malformed(reason.into())
    }

    pub(super) fn unsupported(reason: impl Into<String>) -> Self {
        Fault::Unsupported(reason.into())
    }
}

impl From<snapc_ir::ops::InferError> for Fault {
    fn from(error: snapc_ir::ops::InferError) -> Self {
        Fault::Malformed(error.to_string())
    }
}
