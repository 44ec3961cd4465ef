//! What a C caller hands over, checked as far as it can be: null, size, alignment.
//!
//! That a pointer which is not null leads to what the header says is the caller's promise. Every function here has it as
//! its safety condition.

use std::mem::{MaybeUninit, size_of};
use std::ptr;
use std::slice;

use snapc_ffi::ArgumentError;

use crate::failure::Failure;
use crate::types::{Image, Info, Options, Request};

/// A struct that begins with the size that its caller knows, and may grow at its end.
///
/// # Safety
/// The type is `repr(C)`, its first field is a `usize`, and any bits are a value of it.
pub(crate) unsafe trait Versioned {
    /// Name in the header.
    const NAME: &'static str;
    /// Bytes of the struct in the first version that had it.
    const FIRST: usize;
}

// SAFETY: `repr(C)`, the size first, numbers only.
unsafe impl Versioned for Options {
    const NAME: &'static str = "snap_options";
    const FIRST: usize = size_of::<Self>();
}

// SAFETY: `repr(C)`, the size first, numbers and raw pointers only.
unsafe impl Versioned for Request {
    const NAME: &'static str = "snap_request";
    const FIRST: usize = size_of::<Self>();
}

// SAFETY: `repr(C)`, the size first, numbers only.
unsafe impl Versioned for Info {
    const NAME: &'static str = "snap_info";
    const FIRST: usize = size_of::<Self>();
}

/// Larger sizes are those of callers that did not set them.
const MAX_SIZE: usize = 4096;

/// The size that a caller has set.
///
/// # Safety
/// The pointer leads to a struct that begins with its size.
unsafe fn declared_size<T: Versioned>(pointer: *const T) -> Result<usize, Failure> {
    // SAFETY: the struct begins with a size.
    let found = unsafe { pointer.cast::<usize>().read_unaligned() };
    let name = T::NAME;
    match (T::FIRST..=MAX_SIZE).contains(&found) {
        true => Ok(found),
        false => Err(Failure::StructSize { name, found }),
    }
}

/// The struct that a caller has filled in; `None` for null. Fields that the caller does not know are zero, those that are
/// not known here must be.
///
/// # Safety
/// A pointer that is not null leads to a struct of the size that is its first field.
pub(crate) unsafe fn read<T: Versioned>(pointer: *const T) -> Result<Option<T>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the pointer leads to such a struct.
    let size = unsafe { declared_size(pointer)? };
    let known = size.min(size_of::<T>());
    // SAFETY: the caller has `size` bytes there.
    let bytes = unsafe { slice::from_raw_parts(pointer.cast::<u8>(), size) };
    if bytes[known..].iter().any(|&b| b != 0) {
        let (name, version) = (T::NAME, env!("CARGO_PKG_VERSION"));
        return Err(Failure::UnknownField { name, version });
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` is at most the size of either side, and the new value is apart from the caller's.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), known) };
    // SAFETY: any bits are a value of the type.
    Ok(Some(unsafe { value.assume_init() }))
}

/// Writes a struct as far as its caller knows it, all but the size; what is not known here becomes zero.
///
/// # Safety
/// A pointer that is not null leads to a struct of the size that is its first field, and nobody else uses it.
pub(crate) unsafe fn write<T: Versioned>(pointer: *mut T, value: &T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(ArgumentError::Null("info").into());
    }
    // SAFETY: the pointer leads to such a struct.
    let size = unsafe { declared_size(pointer)? };
    let (first, known) = (size_of::<usize>(), size.min(size_of::<T>()));
    let target = pointer.cast::<u8>();
    // SAFETY: the caller has `size` bytes there, and `known` is at most that.
    unsafe { target.add(known).write_bytes(0, size - known) };
    let source = ptr::from_ref(value).cast::<u8>();
    // SAFETY: both sides have `known` bytes, which is more than the first field has, and are apart.
    unsafe { ptr::copy_nonoverlapping(source.add(first), target.add(first), known - first) };
    Ok(())
}

/// Checks a buffer of an argument without looking into it.
fn check<T>(
    pointer: *const T,
    count: usize,
    expected: Option<usize>,
    name: &'static str,
) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(ArgumentError::Null(name).into());
    }
    if !pointer.is_aligned() {
        return Err(Failure::Alignment(name));
    }
    let expected = expected.unwrap_or(usize::MAX);
    let bytes = count.checked_mul(size_of::<T>());
    if count != expected || bytes.is_none_or(|n| n > isize::MAX.unsigned_abs()) {
        return Err(Failure::Count {
            name,
            expected,
            found: count,
        });
    }
    Ok(())
}

/// The `count` values of an argument, which must be `expected`; `None` is more than there can be.
///
/// # Safety
/// A pointer that is not null leads to `count` values that do not change during `'a`.
pub(crate) unsafe fn values<'a, T>(
    pointer: *const T,
    count: usize,
    expected: Option<usize>,
    name: &'static str,
) -> Result<&'a [T], Failure> {
    check(pointer, count, expected, name)?;
    // SAFETY: the pointer is aligned, and `count` values that fit in memory are there.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A buffer of `count` values, which must be `expected`, for results. It is set to zero, as C need not have done so.
///
/// # Safety
/// A pointer that is not null leads to `count` values that nobody else uses during `'a`, of a type for which zero bits are
/// a value.
pub(crate) unsafe fn buffer<'a, T>(
    pointer: *mut T,
    count: usize,
    expected: Option<usize>,
    name: &'static str,
) -> Result<&'a mut [T], Failure> {
    check(pointer, count, expected, name)?;
    // SAFETY: the pointer is aligned, and `count` values are there.
    unsafe { pointer.write_bytes(0, count) };
    // SAFETY: as above, and all of them have a value now.
    Ok(unsafe { slice::from_raw_parts_mut(pointer, count) })
}

/// Refuses a buffer for results that shares memory with an input.
pub(crate) fn check_apart<T>(
    (input, input_count, input_name): (*const T, usize, &'static str),
    (result, result_count, result_name): (*const T, usize, &'static str),
) -> Result<(), Failure> {
    let end = |start: *const T, count: usize| {
        let bytes = count.saturating_mul(size_of::<T>());
        start.addr().saturating_add(bytes)
    };
    let apart =
        end(input, input_count) <= result.addr() || end(result, result_count) <= input.addr();
    match apart {
        true => Ok(()),
        false => Err(Failure::Overlap(input_name, result_name)),
    }
}

/// No picture.
pub(crate) const NO_IMAGE: Image = Image {
    width: 0,
    height: 0,
    pixels: ptr::null(),
    owner: ptr::null_mut(),
};

/// Sets a picture to nothing.
///
/// # Safety
/// A pointer that is not null leads to memory for a picture.
pub(crate) unsafe fn clear(image: *mut Image) -> Result<(), Failure> {
    if image.is_null() {
        return Err(ArgumentError::Null("image").into());
    }
    // SAFETY: there is memory for a picture.
    unsafe { image.write_unaligned(NO_IMAGE) };
    Ok(())
}

/// Hands a picture over.
pub(crate) fn leak(image: snapc_pipeline::Image) -> Image {
    let image = Box::new(image);
    Image {
        width: image.width(),
        height: image.height(),
        pixels: image.pixels().as_ptr(),
        owner: Box::into_raw(image).cast(),
    }
}
