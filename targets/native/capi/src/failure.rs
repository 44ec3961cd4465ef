//! Why a call failed, and what its caller is told.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Why a call failed. Arguments are called as in the header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("'{0}' is null")]
    Null(&'static str),
    #[error("'{0}' is not UTF-8")]
    Text(&'static str),
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
    #[error("a defect of the library: {0}; please report it")]
    Panic(String),
}

impl From<PipelineError<RuntimeError>> for Failure {
    fn from(error: PipelineError<RuntimeError>) -> Self {
        Self::Pipeline(Box::new(error))
    }
}

impl Failure {
    fn status(&self) -> Status {
        match self {
            Self::Null(_)
            | Self::Text(_)
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
    let mut bytes = failure.message().into_bytes();
    bytes.retain(|&b| b != 0);
    let message = CString::new(bytes).unwrap_or_default();
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

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        LAST.with(|last| last.borrow().to_str().unwrap().to_owned())
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
    fn messages_name_the_cause_once() {
        let source = std::io::Error::other("disk\0full");
        let path = "a.png".to_owned();
        let status = call(|| Err(Failure::Write { path, source }));
        assert_eq!((status, last().as_str()), (Status::File, "a.png: diskfull"));
        assert_eq!(call(|| Ok(())), Status::Ok);
        let error = PipelineError::Cancelled { step: 2 };
        assert_eq!(call(|| Err(error.into())), Status::Cancelled);
        assert_eq!(last(), "cancelled after step 2");
    }

    #[test]
    fn messages_are_those_of_the_thread() {
        call(|| Err(Failure::Null("prompt")));
        let other = std::thread::spawn(last).join().unwrap();
        assert_eq!((last().as_str(), other.as_str()), ("'prompt' is null", ""));
    }
}
