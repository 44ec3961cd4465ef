//! Arguments of `reference`.

use std::path::PathBuf;

use clap::Args;

use super::CheckpointArgs;
use super::engine::positive;

/// Arguments of `reference`.
#[derive(Debug, Args)]
#[command(
    after_help = "The reference evaluator computes one operator after the other in f32: clear rather than fast. \
    fixtures/make_reference.py makes the same file with diffusers.\n\nExample:\n  snapc reference my-checkpoint -o \
    my-checkpoint.ref.safetensors"
)]
pub struct ReferenceArgs {
    /// Diffusers folder (with model_index.json) or original single-file .safetensors
    pub checkpoint: PathBuf,
    /// What the picture should show
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "a watercolour of a fox, 3 birds & it's raining"
    )]
    pub prompt: String,
    /// What it should not show
    #[arg(long, value_name = "TEXT", default_value = "blurry")]
    pub negative: String,
    /// Seed of the noise, the same as torch's for a generator on the CPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Number of denoising steps
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub steps: usize,
    /// Guidance scale; none at 1 and below
    #[arg(
        long,
        value_name = "SCALE",
        default_value_t = 7.5,
        allow_negative_numbers = true
    )]
    pub guidance: f32,
    /// Reference file to write; refused when it exists, unless --force is given
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// How the checkpoint is read.
    #[command(flatten)]
    pub checkpoint_args: CheckpointArgs,
}
