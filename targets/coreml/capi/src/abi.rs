//! The functions of `snap_coreml.h`, which documents them.
//!
//! Each one turns its arguments into safe types and runs within [`failure::call`](crate::failure::call). The header's promises
//! about pointers are the condition of every function.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr;

use snapc_ffi::{ArgumentError, borrow, text};

use crate::failure::{Failure, Status, call};
use crate::model::{Model, check};
use crate::pointer::{fill, list};

/// `snap_coreml_input`: a named buffer to read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Name of the feature.
    pub name: *const c_char,
    /// Its values.
    pub data: *const c_void,
    /// Bytes of `data`.
    pub bytes: usize,
}

/// `snap_coreml_output`: a named buffer to fill.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Name of the feature.
    pub name: *const c_char,
    /// Room for its values.
    pub data: *mut c_void,
    /// Bytes of `data`.
    pub bytes: usize,
}

/// `snap_coreml_last_error`.
#[unsafe(no_mangle)]
pub extern "C" fn snap_coreml_last_error() -> *const c_char {
    snapc_ffi::last_message()
}

/// `snap_coreml_check`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_coreml_check(path: *const c_char) -> Status {
    call(|| {
        // SAFETY: the text ends with a zero.
        let path = unsafe { text(path, "path")? };
        check(Path::new(path))
    })
}

/// `snap_coreml_open`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_coreml_open(
    path: *const c_char,
    function: *const c_char,
    model: *mut *mut Model,
) -> Status {
    call(|| {
        if model.is_null() {
            return Err(ArgumentError::Null("model").into());
        }
        // SAFETY: `model` leads to memory for a pointer.
        unsafe { model.write(ptr::null_mut()) };
        // SAFETY: the text ends with a zero.
        let path = unsafe { text(path, "path")? };
        let function = match function.is_null() {
            true => None,
            // SAFETY: the text ends with a zero.
            false => Some(unsafe { text(function, "function")? }),
        };
        let opened = Model::open(Path::new(path), function)?;
        // SAFETY: `model` leads to memory for a pointer.
        unsafe { model.write(Box::into_raw(Box::new(opened))) };
        Ok(())
    })
}

/// `snap_coreml_close`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_coreml_close(model: *mut Model) {
    call(|| {
        if !model.is_null() {
            // SAFETY: a handle is from `snap_coreml_open` and is closed once.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// `snap_coreml_description`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_coreml_description(
    handle: *const Model,
    json: *mut *const c_char,
) -> Status {
    call(|| {
        if json.is_null() {
            return Err(ArgumentError::Null("json").into());
        }
        // SAFETY: `json` leads to memory for a pointer.
        unsafe { json.write(ptr::null()) };
        // SAFETY: the handle is one.
        let text = unsafe { borrow(handle, "model")? }.json();
        // SAFETY: `json` leads to memory for a pointer.
        unsafe { json.write(text.as_ptr()) };
        Ok(())
    })
}

/// `snap_coreml_predict`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_coreml_predict(
    handle: *const Model,
    inputs: *const Input,
    input_count: usize,
    outputs: *const Output,
    output_count: usize,
) -> Status {
    call(|| {
        // SAFETY: the handle is one, and the lists are as long as their counts.
        let (model, inputs, outputs) = unsafe {
            let outputs = list(outputs, output_count, "outputs")?;
            (
                borrow(handle, "model")?,
                list(inputs, input_count, "inputs")?,
                outputs,
            )
        };
        let inputs = inputs.iter().map(|input| {
            // SAFETY: the text ends with a zero, and the buffer has its bytes.
            unsafe {
                let data = list(input.data.cast::<u8>(), input.bytes, "data")?;
                Ok((text(input.name, "name")?, data))
            }
        });
        let inputs: Vec<(&str, &[u8])> = inputs.collect::<Result<_, Failure>>()?;
        let wanted = outputs.iter().map(|output| {
            if output.data.is_null() {
                return Err(ArgumentError::Null("data").into());
            }
            // SAFETY: the text ends with a zero.
            let name = unsafe { text(output.name, "name")? };
            model.output(name, output.bytes)
        });
        let wanted: Vec<usize> = wanted.collect::<Result<_, Failure>>()?;
        let results = model.predict(&inputs, &wanted)?;
        for (output, result) in outputs.iter().zip(&results) {
            // SAFETY: the buffer has as many bytes as the result, which `Model::output` has checked. The inputs are read.
            unsafe { fill(output.data, result, "data")? };
        }
        Ok(())
    })
}
