//! Arguments of `run`.

use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;
use super::engine::positive;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  snapc run out/onnx --prompt \"a red fox in the snow\" -o fox.png\n  \
    snapc run out/coreml --prompt \"a red fox\" --seed 7 --save fox.safetensors -o fox.png"
)]
pub struct RunArgs {
    /// Artifact folder, or the .snap file in one
    pub artifact: PathBuf,
    /// What the picture should show
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// What it should not show
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub negative: String,
    /// Seed of the noise, the same as torch's for a generator on the CPU
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "init_latents"
    )]
    pub seed: u64,
    /// Number of denoising steps [default: the artifact's]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub steps: Option<usize>,
    /// Guidance scale; none at 1 and below [default: the artifact's]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub guidance: Option<f32>,
    /// Start from `init_latents` of this safetensors file instead of noise
    #[arg(long, value_name = "FILE")]
    pub init_latents: Option<PathBuf>,
    /// Also write the run as a reference file: embeddings, predictions and latents of every step
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Also write the picture as it is after each step, into this new folder
    #[arg(long, value_name = "DIR")]
    pub preview: Option<PathBuf>,
    /// Picture to write, a PNG file; refused when it exists, unless --force is given
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// What runs the networks.
    #[command(flatten)]
    pub engine: EngineArgs,
}
