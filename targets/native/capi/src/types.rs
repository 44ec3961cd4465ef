//! The structs of `snap.h`, which documents their fields.

use std::ffi::{c_char, c_void};

/// `snap_options`: how a file is run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size that the caller knows.
    pub struct_size: usize,
    /// Threads; 0 for as many as there are.
    pub threads: usize,
}

/// `snap_info`: what a model takes and gives.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Size that the caller knows.
    pub struct_size: usize,
    /// Tokens of a prompt.
    pub text_length: usize,
    /// Width of an embedding.
    pub text_width: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Rows of the latents.
    pub latent_height: usize,
    /// Columns of the latents.
    pub latent_width: usize,
    /// Pixels in a row.
    pub image_width: usize,
    /// Rows of pixels.
    pub image_height: usize,
    /// Floats of one prompt's embeddings.
    pub embeddings_count: usize,
    /// Floats of one picture's latents.
    pub latents_count: usize,
    /// Threads that share the work.
    pub threads: usize,
    /// Steps that the model was made for.
    pub steps: u32,
    /// Guidance scale that the model was made for.
    pub guidance: f32,
}

/// `snap_request`: what to make.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Size that the caller knows.
    pub struct_size: usize,
    /// What the picture should show.
    pub prompt: *const c_char,
    /// What it should not show, or null.
    pub negative_prompt: *const c_char,
    /// Where the run starts, or null.
    pub latents: *const f32,
    /// Floats of `latents`.
    pub latents_count: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Steps; 0 for the model's.
    pub steps: u32,
    /// Guidance scale; 0 for the model's.
    pub guidance: f32,
}

/// `snap_image`: a picture.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green and blue, within `owner`.
    pub pixels: *const u8,
    /// A boxed [`snapc_pipeline::Image`].
    pub owner: *mut c_void,
}

/// `snap_progress`: a step that has run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Size that the library knows.
    pub struct_size: usize,
    /// Steps that have run.
    pub steps_done: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Latents after the step.
    pub latents: *const f32,
    /// Floats of `latents`.
    pub latents_count: usize,
    /// The [`snapc_pipeline::Progress`] of the step.
    pub run: *mut c_void,
}
