//! The functions of `snap.h` that are the parts of a run, for loops of the caller's own. The header documents them.

use std::ffi::c_char;

use snapc_pipeline::{UnetInput, standard_normal};

use snapc_ffi::{borrow, text};

use crate::failure::{Failure, Status, call};
use crate::model::Model;
use crate::pointer::{buffer, check_apart, clear, leak, values};
use crate::types::Image;

/// `snap_noise`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_noise(seed: u64, noise: *mut f32, count: usize) -> Status {
    call(|| {
        // SAFETY: the caller has as many floats there.
        let noise = unsafe { buffer(noise, count, Some(count), "noise")? };
        noise.copy_from_slice(&standard_normal(seed, count));
        Ok(())
    })
}

/// `snap_timesteps`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_timesteps(
    handle: *const Model,
    timesteps: *mut u32,
    steps: usize,
) -> Status {
    call(|| {
        // SAFETY: the handle is one.
        let schedule = unsafe { borrow(handle, "model")? }.schedule(steps)?;
        // SAFETY: the caller has as many numbers there.
        let timesteps = unsafe { buffer(timesteps, steps, Some(schedule.len()), "timesteps")? };
        for (timestep, step) in timesteps.iter_mut().zip(&schedule) {
            // Schedules have fewer steps than 32 bits count.
            *timestep = step.timestep as u32;
        }
        Ok(())
    })
}

/// `snap_encode_text`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_encode_text(
    handle: *mut Model,
    given: *const c_char,
    embeddings: *mut f32,
    embeddings_count: usize,
) -> Status {
    call(|| {
        // SAFETY: the handle is one, and the text ends with a zero.
        let (model, text) = unsafe { (borrow(handle, "model")?, text(given, "text")?) };
        let expected = Some(model.text_values);
        // SAFETY: the caller has as many floats there.
        let out = unsafe { buffer(embeddings, embeddings_count, expected, "embeddings")? };
        model.encode_text(text, out)
    })
}

/// `snap_denoise`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_denoise(
    handle: *mut Model,
    timestep: u32,
    batch: usize,
    latents: *const f32,
    latents_count: usize,
    embeddings: *const f32,
    embeddings_count: usize,
    predictions: *mut f32,
    predictions_count: usize,
) -> Status {
    call(|| {
        // SAFETY: the handle is one.
        let model = unsafe { borrow(handle, "model")? };
        if batch == 0 {
            return Err(Failure::Number {
                name: "batch",
                found: batch,
                advice: "give at least one text",
            });
        }
        let row = model.geometry.latent_values();
        let result = (predictions.cast_const(), predictions_count, "predictions");
        check_apart((latents, latents_count, "latents"), result)?;
        check_apart((embeddings, embeddings_count, "embeddings"), result)?;
        let all = |values: usize| values.checked_mul(batch);
        let states = all(model.text_values);
        // SAFETY: the caller has as many floats there, and results apart from the rest.
        let (latents, text_embeddings, predictions) = unsafe {
            (
                values(latents, latents_count, Some(row), "latents")?,
                values(embeddings, embeddings_count, states, "embeddings")?,
                buffer(predictions, predictions_count, all(row), "predictions")?,
            )
        };
        let input = UnetInput {
            // Nothing is kept from one call to the next.
            step: 0,
            timestep: timestep as usize,
            batch,
            latents,
            text_embeddings,
        };
        model.denoise(input, predictions)
    })
}

/// `snap_advance`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_advance(
    handle: *const Model,
    step: usize,
    steps: usize,
    prediction: *const f32,
    latents: *mut f32,
    latents_count: usize,
) -> Status {
    call(|| {
        // SAFETY: the handle is one.
        let model = unsafe { borrow(handle, "model")? };
        let schedule = model.schedule(steps)?;
        let constants = schedule.get(step).ok_or(Failure::Number {
            name: "step",
            found: step,
            advice: "steps are counted from 0",
        })?;
        let count = latents_count;
        check_apart(
            (prediction, count, "prediction"),
            (latents.cast_const(), count, "latents"),
        )?;
        let expected = Some(model.geometry.latent_values());
        // SAFETY: the caller has as many floats there, apart from each other.
        let (before, prediction) = unsafe {
            (
                values(latents, count, expected, "latents")?.to_vec(),
                values(prediction, count, expected, "prediction")?,
            )
        };
        // SAFETY: as above; the latents are read no more.
        let after = unsafe { buffer(latents, count, expected, "latents")? };
        constants.advance(&before, prediction, after);
        Ok(())
    })
}

/// `snap_decode`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn snap_decode(
    handle: *mut Model,
    latents: *const f32,
    latents_count: usize,
    image: *mut Image,
) -> Status {
    call(|| {
        // SAFETY: there is memory for a picture, and the handle is one.
        let model = unsafe {
            clear(image)?;
            borrow(handle, "model")?
        };
        let expected = Some(model.geometry.latent_values());
        // SAFETY: the caller has as many floats there.
        let latents = unsafe { values(latents, latents_count, expected, "latents")? };
        let picture = model.decode(latents)?;
        // SAFETY: there is memory for a picture.
        unsafe { image.write_unaligned(leak(picture)) };
        Ok(())
    })
}
