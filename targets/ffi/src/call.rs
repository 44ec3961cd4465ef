//! From a result or a panic to a status and the thread's message.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a C interface returns: a `repr(C)` enum.
pub trait Status {
    /// The call did what it should.
    const OK: Self;
    /// The library has a defect.
    const INTERNAL: Self;
}

/// Why a call of a C interface failed.
pub trait Failure: Error {
    /// What the interface returns.
    type Status: Status;

    /// What it returns for this failure.
    fn status(&self) -> Self::Status;
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs the body of a function of a C interface: its error and its panic become a status and the thread's message.
pub fn call<F: Failure>(body: impl FnOnce() -> Result<(), F>) -> F::Status {
    // What a body may leave behind half done is the caller's buffers and the engine's memory, which mean nothing then.
    let (status, text) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return F::Status::OK,
        Ok(Err(failure)) => (failure.status(), with_causes(&failure)),
        Err(panic) => {
            let text = panic_text(panic.as_ref());
            let text = format!("a defect of the library: {text}; please report it");
            (F::Status::INTERNAL, text)
        }
    };
    let message = c_string(text);
    // A thread that is about to end may have no message any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = message);
    status
}

/// The thread's message, which the next failure in [`call`] replaces; empty before the first.
pub fn last_message() -> *const c_char {
    const EMPTY: &CStr = c"";
    let message = LAST.try_with(|last| last.borrow().as_ptr());
    message.unwrap_or(EMPTY.as_ptr())
}

/// Text for C, without the zeros that would end it.
pub fn c_string(text: String) -> CString {
    let mut bytes = text.into_bytes();
    bytes.retain(|&b| b != 0);
    CString::new(bytes).unwrap_or_default()
}

/// The error with its causes, without those that it names itself.
fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Outcome {
        Done,
        Refused,
        Defect,
    }

    impl Status for Outcome {
        const OK: Self = Self::Done;
        const INTERNAL: Self = Self::Defect;
    }

    #[derive(Debug, thiserror::Error)]
    enum Refusal {
        #[error("{0}")]
        Write(&'static str, #[source] io::Error),
        #[error("it is full: {0}")]
        Full(#[source] io::Error),
    }

    impl Failure for Refusal {
        type Status = Outcome;

        fn status(&self) -> Outcome {
            Outcome::Refused
        }
    }

    fn last() -> String {
        LAST.with(|last| last.borrow().to_str().expect("UTF-8").to_owned())
    }

    #[test]
    fn a_panic_becomes_a_status() {
        let status = call::<Refusal>(|| panic!("index {} of 3", 7));
        assert_eq!(status, Outcome::Defect);
        assert_eq!(
            last(),
            "a defect of the library: index 7 of 3; please report it"
        );
    }

    #[test]
    fn messages_name_every_cause_once() {
        let source = || io::Error::other("disk\0full");
        let status = call(|| Err(Refusal::Write("a.png", source())));
        assert_eq!(
            (status, last().as_str()),
            (Outcome::Refused, "a.png: diskfull")
        );
        assert_eq!(call::<Refusal>(|| Ok(())), Outcome::Done);
        call(|| Err(Refusal::Full(source())));
        assert_eq!(last(), "it is full: diskfull");
    }

    #[test]
    fn messages_are_those_of_the_thread() {
        call(|| Err(Refusal::Write("a.png", io::Error::other("gone"))));
        let other = std::thread::spawn(last).join();
        assert_eq!(other.ok().as_deref(), Some(""));
        assert_eq!(last(), "a.png: gone");
    }
}
