//! Why a call failed, and what its caller is told.

use snapc_ffi::ArgumentError;
use snapc_pipeline::{ImageError, PipelineError, ScheduleError};
use snapc_runtime::RuntimeError;

/// `snap_status`: what came of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `SNAP_OK`.
    Ok = 0,
    /// `SNAP_CANCELLED`.
    Cancelled = 1,
    /// `SNAP_ERROR_ARGUMENT`.
    Argument = 2,
    /// `SNAP_ERROR_FILE`.
    File = 3,
    /// `SNAP_ERROR_MEMORY`.
    Memory = 4,
    /// `SNAP_ERROR_RUN`.
    Run = 5,
    /// `SNAP_ERROR_BUSY`.
    Busy = 6,
    /// `SNAP_ERROR_INTERNAL`.
    Internal = 70,
}

impl snapc_ffi::Status for Status {
    const OK: Self = Self::Ok;
    const INTERNAL: Self = Self::Internal;
}

/// Why a call failed. Arguments are called as in the header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("'{name}' has {found} values, the model has {expected}; take the counts of snap_info")]
    Count {
        name: &'static str,
        expected: usize,
        found: usize,
    },
    #[error("'{0}' is not aligned")]
    Alignment(&'static str),
    #[error("'{0}' and '{1}' share memory; use a buffer for each")]
    Overlap(&'static str, &'static str),
    #[error("'{name}' is {found}; {advice}")]
    Number {
        name: &'static str,
        found: usize,
        advice: &'static str,
    },
    #[error(
        "struct_size of {name} is {found}; set all of the struct to zero, and struct_size to sizeof({name})"
    )]
    StructSize { name: &'static str, found: usize },
    #[error(
        "{name} asks for something that this library ({version}) does not know; set the fields to zero that are new"
    )]
    UnknownField {
        name: &'static str,
        version: &'static str,
    },
    #[error("the model runs; wait for the call that is running")]
    Busy,
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Pipeline(Box<PipelineError<RuntimeError>>),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("value {index} of '{name}' is not finite")]
    NotFinite { name: &'static str, index: usize },
    #[error("{path}")]
    Write {
        path: String,
        source: std::io::Error,
    },
}

impl From<PipelineError<RuntimeError>> for Failure {
    fn from(error: PipelineError<RuntimeError>) -> Self {
        Self::Pipeline(Box::new(error))
    }
}

impl snapc_ffi::Failure for Failure {
    type Status = Status;

    fn status(&self) -> Status {
        match self {
            Self::Argument(_)
            | Self::Count { .. }
            | Self::Alignment(_)
            | Self::Overlap(..)
            | Self::Number { .. }
            | Self::StructSize { .. }
            | Self::UnknownField { .. }
            | Self::NotFinite { .. }
            | Self::Schedule(_) => Status::Argument,
            Self::Busy => Status::Busy,
            Self::Runtime(error) => of_runtime(error),
            Self::Pipeline(error) => of_pipeline(error),
            Self::Image(_) => Status::Run,
            Self::Write { .. } => Status::File,
        }
    }
}

fn of_runtime(error: &RuntimeError) -> Status {
    match error {
        RuntimeError::Format(_)
        | RuntimeError::Section { .. }
        | RuntimeError::NoGraph { .. }
        | RuntimeError::Weight { .. }
        | RuntimeError::Tokenizer { .. }
        | RuntimeError::Interface { .. }
        | RuntimeError::Pipeline { .. } => Status::File,
        RuntimeError::Threads(_) | RuntimeError::Plan { .. } | RuntimeError::Memory { .. } => {
            Status::Memory
        }
        _ => Status::Run,
    }
}

fn of_pipeline(error: &PipelineError<RuntimeError>) -> Status {
    match error {
        PipelineError::Cancelled { .. } => Status::Cancelled,
        PipelineError::Guidance { .. }
        | PipelineError::InitLatents { .. }
        | PipelineError::InitLatentsNotFinite { .. }
        | PipelineError::Steps { .. }
        | PipelineError::Schedule(_) => Status::Argument,
        PipelineError::Engine { source, .. } => of_runtime(source),
        _ => Status::Run,
    }
}

/// Runs the body of a function of the interface: its error and its panic become a status and the thread's message.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    snapc_ffi::call(body)
}
