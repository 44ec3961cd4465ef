//! Why a call failed, and what its caller is told.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use snapc_coreml::ReadError;
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

/// Why a call failed. Arguments are called as in the header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("'{0}' is null")]
    Null(&'static str),
    #[error("'{0}' is not UTF-8")]
    Text(&'static str),
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
    #[error("a defect of the library: {0}; please report it")]
    Panic(String),
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("\n  {f}")).collect()
}

impl Failure {
    fn status(&self) -> Status {
        match self {
            Self::Null(_)
            | Self::Text(_)
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
            Self::Panic(_) => Status::Internal,
        }
    }

    /// The error with its causes, without those that it names itself.
    fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        message
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs the body of a function of the ABI: its error and its panic become a status and the thread's message.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    // What a body may leave behind half done is the caller's buffers and the engine's memory, which mean nothing then.
    let result = catch_unwind(AssertUnwindSafe(body));
    let failure = match result {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::Panic(panic_text(panic.as_ref())),
    };
    let message = c_string(failure.message());
    // A thread that is about to end may have no message any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = message);
    failure.status()
}

/// The thread's message, which [`call`] replaces.
pub(crate) fn last_message() -> *const c_char {
    const EMPTY: &CStr = c"";
    let message = LAST.try_with(|last| last.borrow().as_ptr());
    message.unwrap_or(EMPTY.as_ptr())
}

/// Text for C, without the zeros that would end it.
pub(crate) fn c_string(text: String) -> CString {
    let mut bytes = text.into_bytes();
    bytes.retain(|&b| b != 0);
    CString::new(bytes).unwrap_or_default()
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        LAST.with(|last| last.borrow().to_str().expect("UTF-8").to_owned())
    }

    #[test]
    fn a_panic_becomes_a_status() {
        let status = call(|| panic!("index {} of 3", 7));
        assert_eq!(status, Status::Internal);
        assert_eq!(
            last(),
            "a defect of the library: index 7 of 3; please report it"
        );
    }

    #[test]
    fn messages_name_causes_and_belong_to_the_thread() {
        let source = io::Error::other("disk\0full");
        assert_eq!(call(|| Err(Failure::Temporary(source))), Status::Run);
        let expected = "no temporary folder for the compiled model: diskfull";
        assert_eq!(last(), expected);
        let other = std::thread::spawn(last).join();
        assert_eq!(other.ok().as_deref(), Some(""));
    }
}
