//! The functions of `snap.h` but those in [`parts`](crate::parts). The header documents them.
//!
//! Each one turns its arguments into safe types, first of all sets its results to nothing, and runs within
//! [`failure::call`](crate::failure::call). The header's promises about pointers are the condition of every function.

use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::ptr;

use snapc_pipeline::InitLatents;

use snapc_ffi::{ArgumentError, borrow, text};

use crate::failure::{Failure, Status, call};
use crate::model::{Model, ModelEngine};
use crate::pointer::{NO_IMAGE, clear, leak, read, values, write};
use crate::types::{Image, Info, Options, Progress, Request};

/// `snap_progress_fn`: called after every step; anything but 0 cancels.
pub type ProgressFn = unsafe extern "C" fn(progress: *const Progress, user: *mut c_void) -> c_int;

/// `snap_version`.
#[unsafe(no_mangle)]
pub extern "C" fn snap_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// `snap_last_error`.
#[unsafe(no_mangle)]
pub extern "C" fn snap_last_error() -> *const c_char {
    snapc_ffi::last_message()
}

/// `snap_open`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_open(
    path: *const c_char,
    options: *const Options,
    model: *mut *mut Model,
) -> Status {
    call(|| {
        if model.is_null() {
            return Err(ArgumentError::Null("model").into());
        }
        // SAFETY: `model` leads to memory for a pointer.
        unsafe { model.write(ptr::null_mut()) };
        // SAFETY: the text and the struct are as the header says.
        let (path, options) = unsafe { (text(path, "path")?, read(options)?) };
        let opened = Model::open(path, options.map_or(0, |o| o.threads))?;
        // SAFETY: `model` leads to memory for a pointer.
        unsafe { model.write(Box::into_raw(Box::new(opened))) };
        Ok(())
    })
}

/// `snap_close`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_close(model: *mut Model) {
    call(|| {
        if !model.is_null() {
            // SAFETY: a handle is from `snap_open` and is closed once.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// `snap_get_info`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_get_info(handle: *const Model, info: *mut Info) -> Status {
    call(|| {
        // SAFETY: the handle is one.
        let model = unsafe { borrow(handle, "model")? };
        let geometry = model.geometry;
        let value = Info {
            struct_size: size_of::<Info>(),
            text_length: geometry.text_length,
            text_width: geometry.text_width,
            latent_channels: geometry.latent_channels,
            latent_height: geometry.latent_height,
            latent_width: geometry.latent_width,
            image_width: geometry.image_width(),
            image_height: geometry.image_height(),
            embeddings_count: model.text_values,
            latents_count: geometry.latent_values(),
            threads: model.threads,
            steps: model.steps,
            guidance: model.guidance,
        };
        // SAFETY: the struct is as the header says.
        unsafe { write(info, &value) }
    })
}

/// The request of a struct.
///
/// # Safety
/// As the header says.
unsafe fn request(
    model: &Model,
    request: *const Request,
) -> Result<snapc_pipeline::Request, Failure> {
    // SAFETY: the struct is as the header says.
    let given = unsafe { read(request)? }.ok_or(ArgumentError::Null("request"))?;
    // SAFETY: the text ends with a zero.
    let prompt = unsafe { text(given.prompt, "prompt")? };
    let negative_prompt = match given.negative_prompt.is_null() {
        true => "",
        // SAFETY: as for the prompt.
        false => unsafe { text(given.negative_prompt, "negative_prompt")? },
    };
    let init_latents = match given.latents.is_null() {
        true => InitLatents::Seed(given.seed),
        false => {
            let expected = Some(model.geometry.latent_values());
            // SAFETY: the caller has as many floats there.
            let latents =
                unsafe { values(given.latents, given.latents_count, expected, "latents")? };
            InitLatents::Given(latents.to_vec())
        }
    };
    let or_default = |given: f32, default: f32| if given == 0.0 { default } else { given };
    let steps = match given.steps {
        0 => model.steps,
        steps => steps,
    };
    Ok(snapc_pipeline::Request {
        prompt: prompt.to_owned(),
        negative_prompt: negative_prompt.to_owned(),
        steps: steps as usize,
        guidance: or_default(given.guidance, model.guidance),
        init_latents,
    })
}

/// `snap_generate`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_generate(
    handle: *mut Model,
    given: *const Request,
    progress: Option<ProgressFn>,
    user: *mut c_void,
    image: *mut Image,
) -> Status {
    call(|| {
        // SAFETY: the header says so of each.
        let (model, request) = unsafe {
            clear(image)?;
            let model = borrow(handle, "model")?;
            (model, request(model, given)?)
        };
        let generation = model.generate(&request, |step| match progress {
            // SAFETY: the function is the caller's, and `user` what it asked for.
            Some(function) => unsafe { observe(step, function, user) },
            None => ControlFlow::Continue(()),
        })?;
        // SAFETY: there is memory for a picture.
        unsafe { image.write_unaligned(leak(generation.image)) };
        Ok(())
    })
}

/// Shows a step to the caller.
///
/// # Safety
/// `function` can be called with `user`.
unsafe fn observe(
    step: &mut snapc_pipeline::Progress<'_, ModelEngine>,
    function: ProgressFn,
    user: *mut c_void,
) -> ControlFlow<()> {
    let progress = Progress {
        struct_size: size_of::<Progress>(),
        steps_done: step.step + 1,
        steps: step.steps,
        latents: step.latents.as_ptr(),
        latents_count: step.latents.len(),
        run: ptr::from_mut(step).cast(),
    };
    // SAFETY: the caller's function takes this struct.
    match unsafe { function(&progress, user) } {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// `snap_preview`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_preview(progress: *const Progress, image: *mut Image) -> Status {
    call(|| {
        // SAFETY: there is memory for a picture.
        unsafe { clear(image)? };
        // SAFETY: the struct is the one that the progress function was given.
        let progress = unsafe { progress.as_ref() }.ok_or(ArgumentError::Null("progress"))?;
        let run = progress
            .run
            .cast::<snapc_pipeline::Progress<'_, ModelEngine>>();
        // SAFETY: `observe` is waiting for the progress function, and uses the step no more before that returns.
        let step = unsafe { run.as_mut() }.ok_or(ArgumentError::Null("progress"))?;
        let preview = step.preview()?;
        // SAFETY: there is memory for a picture.
        unsafe { image.write_unaligned(leak(preview)) };
        Ok(())
    })
}

/// `snap_save_png`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_save_png(image: *const Image, path: *const c_char) -> Status {
    call(|| {
        // SAFETY: the picture is one of this library.
        let image = unsafe { image.as_ref() }.ok_or(ArgumentError::Null("image"))?;
        // SAFETY: a picture's owner is the boxed picture, until `snap_image_free`.
        let picture = unsafe { image.owner.cast::<snapc_pipeline::Image>().as_ref() };
        let picture = picture.ok_or(ArgumentError::Null("image"))?;
        // SAFETY: the text ends with a zero.
        let path = unsafe { text(path, "path")? };
        let written = std::fs::write(path, picture.to_png()?);
        written.map_err(|source| Failure::Write {
            path: path.to_owned(),
            source,
        })
    })
}

/// `snap_image_free`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_image_free(image: *mut Image) {
    call(|| {
        // SAFETY: a pointer that is not null leads to a picture.
        let Some(image) = (unsafe { image.as_mut() }) else {
            return Ok(());
        };
        let owner = image.owner.cast::<snapc_pipeline::Image>();
        *image = NO_IMAGE;
        if !owner.is_null() {
            // SAFETY: the owner is the boxed picture, and is freed once, since it is null now.
            drop(unsafe { Box::from_raw(owner) });
        }
        Ok(())
    });
}
