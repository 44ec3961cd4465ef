//! A whole pipeline: its graphs and the facts that lie outside them.

use std::collections::BTreeMap;

use crate::about::About;
use crate::graph::Graph;

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionType {
    /// The added noise.
    Epsilon,
    /// `v = alpha * eps - sigma * x` (SnapFusion section 2, SD 2.x).
    VPrediction,
}

impl PredictionType {
    /// The name in diffusers' scheduler configs.
    pub fn name(self) -> &'static str {
        match self {
            PredictionType::Epsilon => "epsilon",
            PredictionType::VPrediction => "v_prediction",
        }
    }
}

/// How beta grows over the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaSchedule {
    /// Linearly.
    Linear,
    /// Its square root linearly (Stable Diffusion).
    ScaledLinear,
}

impl BetaSchedule {
    /// The name in diffusers' scheduler configs.
    pub fn name(self) -> &'static str {
        match self {
            BetaSchedule::Linear => "linear",
            BetaSchedule::ScaledLinear => "scaled_linear",
        }
    }
}

/// Where in the training schedule the inference steps lie (diffusers `timestep_spacing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Multiples of `train_steps / steps`, plus the offset.
    Leading,
    /// Counted down from the last training step.
    Trailing,
}

impl TimestepSpacing {
    /// The name in diffusers' scheduler configs.
    pub fn name(self) -> &'static str {
        match self {
            TimestepSpacing::Leading => "leading",
            TimestepSpacing::Trailing => "trailing",
        }
    }
}

/// The DDIM schedule of the pipeline, from the checkpoint's own scheduler config.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerSpec {
    /// Number of training steps (diffusers `num_train_timesteps`).
    pub train_steps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// How beta grows between the two.
    pub beta_schedule: BetaSchedule,
    /// What the UNet predicts.
    pub prediction_type: PredictionType,
    /// Where the inference steps lie.
    pub timestep_spacing: TimestepSpacing,
    /// Added to every leading timestep.
    pub steps_offset: usize,
    /// Whether the step before the first one has alpha 1 rather than that of timestep 0.
    pub set_alpha_to_one: bool,
}

/// Size of the latent tensor of one image, and its relation to the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentSpec {
    /// Channels of the latent (4).
    pub channels: usize,
    /// Rows of the latent.
    pub height: usize,
    /// Columns of the latent.
    pub width: usize,
    /// Image pixels per latent cell along each side (8).
    pub pixels_per_cell: usize,
    /// The decoder takes latents divided by this (0.18215 for SD v1).
    pub scaling_factor: f64,
}

/// Facts of the pipeline that no graph holds.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineSpec {
    /// The schedule.
    pub scheduler: SchedulerSpec,
    /// Latent and image size.
    pub latent: LatentSpec,
    /// Number of prompt tokens (77).
    pub tokens: usize,
    /// Files of the checkpoint that go with an artifact unchanged (configs, tokenizer), by path relative to the
    /// pipeline folder with `/` between parts, e.g. `tokenizer/vocab.json`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What people are told about the model.
    pub about: About,
}

/// A pipeline: graphs in the order they run, and the facts around them.
#[derive(Clone, Debug)]
pub struct Program {
    /// `text_encoder`, `unet`, `vae_decoder`.
    pub graphs: Vec<Graph>,
    /// The rest of the pipeline.
    pub pipeline: PipelineSpec,
}

impl Program {
    /// The graph of that name.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        self.graphs.iter().find(|g| g.name() == name)
    }
}
