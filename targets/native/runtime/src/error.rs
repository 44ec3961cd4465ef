//! What keeps a file or a network from running.

use snapc_format::{DType, FormatError, LayoutId, Stage};
use snapc_kernels::KernelError;
use snapc_pipeline::{InterfaceError, PipelineError, TokenizerError};
use snapc_program::{DecodeError, PlanError, Storage};

/// Why a file cannot be opened or a network not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file is no container, is damaged, or lacks a section.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A section is not what this version writes.
    #[error("{file}: section '{section}': {source}; convert the checkpoint again")]
    Section {
        /// The file.
        file: String,
        /// Name of the section.
        section: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The program has no graph for a stage.
    #[error("{file}: the program has no graph for {stage}; convert the whole pipeline")]
    NoGraph {
        /// The file.
        file: String,
        /// The stage.
        stage: Stage,
    },
    /// A weight is not in the file as the program reads it.
    #[error("{file}: {stage}, weight '{name}': {fault}; convert the checkpoint again")]
    Weight {
        /// The file.
        file: String,
        /// The graph.
        stage: Stage,
        /// The weight.
        name: String,
        /// What is wrong with it.
        fault: WeightFault,
    },
    /// The merges or the padding token do not make a tokenizer.
    #[error("{file}: {source}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong.
        source: TokenizerError,
    },
    /// The threads do not start.
    #[error("{0}; ask for fewer threads")]
    Threads(#[source] KernelError),
    /// The networks do not have the features of a pipeline.
    #[error("{file}: {source}")]
    Interface {
        /// The file.
        file: String,
        /// What is wrong.
        source: InterfaceError,
    },
    /// Networks, tokenizer and schedule do not make a pipeline.
    #[error("{file}: {source}")]
    Pipeline {
        /// The file.
        file: String,
        /// What is wrong.
        source: Box<PipelineError<RuntimeError>>,
    },
    /// The values have no place at this batch.
    #[error("{stage}: {source}")]
    Plan {
        /// The graph.
        stage: Stage,
        /// Why.
        source: PlanError,
    },
    /// The system has not enough memory for the values.
    #[error("{stage}: no memory for {bytes} bytes of values; choose a smaller batch")]
    Memory {
        /// The graph.
        stage: Stage,
        /// Bytes asked for.
        bytes: usize,
    },
    /// More or fewer inputs or outputs are given than the graph has.
    #[error("{stage}: {found} {what} are given, the graph has {expected}")]
    PortCount {
        /// The graph.
        stage: Stage,
        /// Inputs or outputs.
        what: &'static str,
        /// How many the graph has.
        expected: usize,
        /// How many are given.
        found: usize,
    },
    /// An input or output does not go with its port.
    #[error("{stage}: '{port}' must have {expected} values of {dtype}, has {found}")]
    Port {
        /// The graph.
        stage: Stage,
        /// Name of the port.
        port: String,
        /// Its elements.
        dtype: &'static str,
        /// Values it has at this batch.
        expected: usize,
        /// What is given.
        found: String,
    },
    /// A kernel refuses an instruction.
    #[error("{stage}, instruction {index} ({op} of '{name}'): {source}")]
    Instruction {
        /// The graph.
        stage: Stage,
        /// Number of the instruction.
        index: usize,
        /// What it computes.
        op: &'static str,
        /// The module it comes from.
        name: String,
        /// Why.
        source: KernelError,
    },
}

/// What is wrong with a weight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightFault {
    /// The table does not have it.
    #[error("is not in the tensor table")]
    Missing,
    /// The table has another shape.
    #[error("the program reads shape {expected:?}, the tensor table has {found:?}")]
    Shape {
        /// Shape that the program asks for.
        expected: Vec<u64>,
        /// Shape in the table.
        found: Vec<u64>,
    },
    /// The table does not have the arrangement.
    #[error("has no variant of layout {layout}, which the program reads")]
    Layout {
        /// The layout.
        layout: LayoutId,
    },
    /// The elements are of a type that the instructions do not read.
    #[error("is stored as {dtype}, which does not go with {storage:?}")]
    DType {
        /// Type in the table.
        dtype: DType,
        /// How the program reads it.
        storage: Storage,
    },
    /// The data are longer or shorter than the shape says.
    #[error("has {found} bytes, its shape and type ask for {expected}")]
    Length {
        /// Bytes by shape and type.
        expected: u64,
        /// Bytes in the table.
        found: u64,
    },
    /// The data do not begin at a multiple of their size.
    #[error("is not aligned in memory; map the file, or read it to memory aligned to 64 bytes")]
    Alignment,
}
