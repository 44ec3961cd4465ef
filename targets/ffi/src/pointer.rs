//! What a C caller hands over, checked as far as it can be: null and UTF-8.
//!
//! That a pointer which is not null leads to what the header says is the caller's promise. Every function here has it as
//! its safety condition.

use std::ffi::{CStr, c_char};

/// What an argument should not be. Arguments are called as in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A null pointer where there must be something.
    #[error("'{0}' is null")]
    Null(&'static str),
    /// Text in another encoding.
    #[error("'{0}' is not UTF-8")]
    Text(&'static str),
}

/// The text of an argument.
///
/// # Errors
/// When it is null or not UTF-8.
///
/// # Safety
/// A pointer that is not null leads to bytes that end with a zero and do not change during `'a`.
pub unsafe fn text<'a>(
    pointer: *const c_char,
    name: &'static str,
) -> Result<&'a str, ArgumentError> {
    if pointer.is_null() {
        return Err(ArgumentError::Null(name));
    }
    // SAFETY: the bytes end with a zero.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|_| ArgumentError::Text(name))
}

/// What a handle stands for.
///
/// # Errors
/// When it is null.
///
/// # Safety
/// A handle that is not null is one that the interface gave out and that is not closed during `'a`.
pub unsafe fn borrow<'a, T>(handle: *const T, name: &'static str) -> Result<&'a T, ArgumentError> {
    // SAFETY: the handle leads to its value.
    unsafe { handle.as_ref() }.ok_or(ArgumentError::Null(name))
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn null_and_other_encodings_are_refused() {
        let read = |bytes: &'static CStr| unsafe {
            // SAFETY: the bytes are static and end with a zero.
            text(bytes.as_ptr(), "prompt")
        };
        assert_eq!(read(c"caf\xc3\xa9"), Ok("café"));
        assert_eq!(read(c"caf\xe9"), Err(ArgumentError::Text("prompt")));
        // SAFETY: null is allowed.
        let (none, no_handle) = unsafe {
            (
                text(ptr::null(), "prompt"),
                borrow(ptr::null::<u8>(), "model"),
            )
        };
        assert_eq!(none, Err(ArgumentError::Null("prompt")));
        assert_eq!(no_handle, Err(ArgumentError::Null("model")));
    }
}
