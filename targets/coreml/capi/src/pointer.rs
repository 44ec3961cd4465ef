//! What a C caller hands over, checked as far as it can be: null, length.
//!
//! That a pointer which is not null leads to what the header says is the caller's promise. Every function here has it as
//! its safety condition.

use std::ffi::c_void;
use std::ptr;
use std::slice;

use snapc_ffi::ArgumentError;

use crate::failure::Failure;

/// The elements of an argument; null stands for none.
///
/// # Safety
/// A pointer that is not null leads to `count` aligned elements that do not change during `'a`.
pub(crate) unsafe fn list<'a, T>(
    pointer: *const T,
    count: usize,
    name: &'static str,
) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(ArgumentError::Null(name).into());
    }
    let bytes = count.checked_mul(size_of::<T>());
    if bytes.is_none_or(|bytes| bytes > isize::MAX.unsigned_abs()) {
        let found = bytes.unwrap_or(usize::MAX);
        return Err(Failure::Length { name, found });
    }
    // SAFETY: `count` elements that fit in memory are there.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// Writes a buffer for results, which the caller need not have set to anything.
///
/// # Safety
/// A pointer that is not null leads to as many bytes as `bytes` has, which nobody else uses.
pub(crate) unsafe fn fill(
    pointer: *mut c_void,
    bytes: &[u8],
    name: &'static str,
) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(ArgumentError::Null(name).into());
    }
    // SAFETY: the buffer has the bytes, and they are apart from those of this library.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer.cast(), bytes.len()) };
    Ok(())
}
