//! Arguments of `validate`.

use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;

/// Arguments of `validate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every graph is run on the inputs that the reference holds for it, then the whole run from the \
    reference's initial latents. Bars by the artifact's precision: final latents 100 dB (f32), 55 dB (f16); one call of \
    a graph 100 dB (f32), 65 dB (f16). Core ML itself (--engine coreml) makes the whole run only.\n\nExamples:\n  snapc validate out/onnx --reference ref.safetensors\n  \
    snapc validate out/coreml --reference ref.safetensors --per-node --checkpoint stable-diffusion-v1-5\n  \
    snapc validate out/coreml --reference ref.safetensors --engine coreml --compute-units cpu-ane"
)]
pub struct ValidateArgs {
    /// Artifact folder, or the .snap file in one
    pub artifact: PathBuf,
    /// Reference file, from `snapc reference`, `snapc run --save` or diffusers
    #[arg(long, value_name = "FILE")]
    pub reference: PathBuf,
    /// Least PSNR of the final latents; the bars of single calls are lowered to it [default: by precision]
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    pub min_psnr: Option<f64>,
    /// Leave out the single calls: only the whole run from the reference's initial latents
    #[arg(long)]
    pub run_only: bool,
    /// Also compare the nodes of the graph that departs first, or comes closest to it, with those of the checkpoint
    #[arg(long, requires = "checkpoint", conflicts_with = "run_only")]
    pub per_node: bool,
    /// The checkpoint that the artifact was made from, for --per-node
    #[arg(long, value_name = "PATH", requires = "per_node")]
    pub checkpoint: Option<PathBuf>,
    /// With --engine coreml: the processors for Core ML, as snap-run calls them (all, cpu, cpu-gpu, cpu-ane) [default: all]
    #[arg(long, value_name = "UNITS")]
    pub compute_units: Option<String>,
    /// What runs the networks.
    #[command(flatten)]
    pub engine: EngineArgs,
}
