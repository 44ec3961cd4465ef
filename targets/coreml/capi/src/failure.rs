//! Why a call failed, and what its caller is told.

use std::io;

use snapc_coreml::ReadError;
use snapc_ffi::ArgumentError;
use snapc_ir::DType;
use snapc_passes::PassError;
use snapc_runtime::RuntimeError;
use snapc_target::{Finding, TargetError};

/// `snap_coreml_status`: what came of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `SNAP_COREML_OK`.
    Ok = 0,
    /// `SNAP_COREML_ERROR_ARGUMENT`.
    Argument = 1,
    /// `SNAP_COREML_ERROR_PACKAGE`.
    Package = 2,
    /// `SNAP_COREML_ERROR_RUN`.
    Run = 3,
    /// `SNAP_COREML_ERROR_INTERNAL`.
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
    #[error("'{name}' has {found} bytes, more than memory has")]
    Length { name: &'static str, found: usize },
    #[error("the model has no {kind} '{name}'; it has {known}")]
    Unknown {
        kind: &'static str,
        name: String,
        known: String,
    },
    #[error("{kind} '{name}' is given twice")]
    Twice { kind: &'static str, name: String },
    #[error("input '{0}' is required but was not given")]
    Missing(String),
    #[error("{kind} '{name}' is {dtype}{shape:?}, which takes {expected} bytes, not {found}")]
    Bytes {
        kind: &'static str,
        name: String,
        dtype: DType,
        shape: Vec<usize>,
        expected: usize,
        found: usize,
    },
    #[error("value {index} of input '{name}' is {value}, and the model casts it to an integer")]
    NotAnInteger {
        name: String,
        index: usize,
        value: f32,
    },
    #[error("'{package}' breaks the rules of the format:{}", lines(findings))]
    Findings {
        package: String,
        findings: Vec<Finding>,
    },
    #[error("'{package}': {reason}")]
    Feature { package: String, reason: String },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Recognize(#[from] PassError),
    #[error(transparent)]
    Compile(#[from] TargetError),
    #[error("no temporary folder for the compiled model")]
    Temporary(#[source] io::Error),
    #[error("the compiled model does not open")]
    Open(#[source] RuntimeError),
    #[error("the model does not run")]
    Run(#[source] RuntimeError),
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("\n  {f}")).collect()
}

impl snapc_ffi::Failure for Failure {
    type Status = Status;

    fn status(&self) -> Status {
        match self {
            Self::Argument(_)
            | Self::Length { .. }
            | Self::Unknown { .. }
            | Self::Twice { .. }
            | Self::Missing(_)
            | Self::Bytes { .. }
            | Self::NotAnInteger { .. } => Status::Argument,
            Self::Findings { .. }
            | Self::Feature { .. }
            | Self::Read(_)
            | Self::Recognize(_)
            | Self::Compile(_)
            | Self::Open(_) => Status::Package,
            Self::Temporary(_) | Self::Run(_) => Status::Run,
        }
    }
}

/// Runs the body of a function of the interface: its error and its panic become a status and the thread's message.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    snapc_ffi::call(body)
}
