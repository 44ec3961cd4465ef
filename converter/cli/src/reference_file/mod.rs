//! Reference files: a guided run recorded step by step, as safetensors in f32.
//!
//! Tensors are `input_ids` [2,77] (i32, the negative prompt first), `text_embeddings` [2,77,D], `init_latents`
//! [1,4,H,W], for each step k `step_k.noise_pred` [2,4,H,W] before guidance and `step_k.latents` [1,4,H,W] after the
//! step, and `image` [1,3,8H,8W] in [-1,1]. A run without guidance has one row where a guided one has two. The metadata
//! key `snapc` holds [`Settings`] as JSON.

mod read;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapc_pipeline::Geometry;

pub use read::{read, read_init_latents};
pub use write::encode;

/// Key of the metadata.
const METADATA_KEY: &str = "snapc";

/// A recorded run.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// What was asked for, and who made it.
    pub settings: Settings,
    /// Sizes of the networks.
    pub geometry: Geometry,
    /// Rows of ids, embeddings and predictions: 2 with guidance, else 1.
    pub batch: usize,
    /// Token ids `[batch, text_length]`.
    pub input_ids: Vec<u32>,
    /// Embeddings `[batch, text_length, text_width]`.
    pub text_embeddings: Vec<f32>,
    /// Latents before the first step.
    pub init_latents: Vec<f32>,
    /// The steps in order.
    pub steps: Vec<StepRecord>,
    /// The decoded picture `[1, 3, height, width]`, clamped to [-1, 1].
    pub image: Vec<f32>,
}

/// One recorded step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepRecord {
    /// What the UNet gave, before guidance, `[batch, channels, height, width]`.
    pub noise_pred: Vec<f32>,
    /// Latents after the step.
    pub latents: Vec<f32>,
}

/// The JSON of the metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Guidance scale.
    pub guidance: f32,
    /// The program that recorded the run.
    pub made_by: String,
    /// Negative prompt.
    pub negative: String,
    /// Prompt.
    pub prompt: String,
    /// The scheduler's configuration, with diffusers' keys.
    pub scheduler: Value,
    /// Seed of the initial latents, when they are noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Number of steps.
    pub steps: usize,
    /// The timestep of each step.
    pub timesteps: Vec<usize>,
    /// Versions of what computed it, by name.
    pub versions: BTreeMap<String, String>,
}

impl Reference {
    /// Latents that the UNet is given at a step.
    pub fn latents_before(&self, step: usize) -> &[f32] {
        match step.checked_sub(1) {
            Some(previous) => &self.steps[previous].latents,
            None => &self.init_latents,
        }
    }

    /// Latents after the last step.
    pub fn final_latents(&self) -> &[f32] {
        self.latents_before(self.steps.len())
    }
}
