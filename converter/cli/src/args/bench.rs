//! Arguments of `bench`.

use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;
use super::engine::positive;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  snapc bench out/onnx --engine ort --iterations 10")]
pub struct BenchArgs {
    /// Artifact folder, or the .snap file in one
    pub artifact: PathBuf,
    /// Timed calls of each network, after one that is not timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    pub iterations: usize,
    /// Also share out the time of each network among the kinds of its instructions
    #[arg(long)]
    pub profile: bool,
    /// What runs the networks.
    #[command(flatten)]
    pub engine: EngineArgs,
}
