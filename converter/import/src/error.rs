//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use snapc_ir::BuildError;

use crate::report::WeightReport;

/// Why a checkpoint cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A configuration or tokenizer file is not one by its kind or size.
    #[error("{}: {reason}; put a configuration or tokenizer file in its place", path.display())]
    UnsuitableFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The path is neither of the two layouts.
    #[error(
        "{}: {reason}; expected a diffusers folder with model_index.json or one original .safetensors checkpoint",
        path.display()
    )]
    NotACheckpoint {
        /// What was given.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// A configuration file was given for a checkpoint that has its own.
    #[error(
        "{}: a configuration file goes with a single-file checkpoint; a diffusers folder has its own",
        config.display()
    )]
    UnexpectedConfig {
        /// The file given.
        config: PathBuf,
    },
    /// A file that the pipeline needs is not there.
    #[error("{file} is missing: {hint}")]
    MissingFile {
        /// The file.
        file: String,
        /// What to do.
        hint: String,
    },
    /// A JSON file does not parse.
    #[error("{file}: invalid JSON: {source}")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A weight file is truncated or not a safetensors file.
    #[error("{file}: not a valid safetensors file: {reason}; fetch or save it again")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The index of a sharded checkpoint is wrong.
    #[error("{file}: shard '{shard}' {problem}")]
    Shard {
        /// The index file.
        file: String,
        /// The shard as the index names it.
        shard: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A configuration asks for something that snapc does not build, or makes no sense.
    #[error("{file}: '{key}' is {value}; supported: {supported}")]
    Config {
        /// The configuration file.
        file: String,
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What would be accepted.
        supported: String,
    },
    /// The image size does not fit the network.
    #[error(
        "image size {width}x{height} is not supported: both sides must be multiples of {multiple} and at most {max}"
    )]
    Size {
        /// Rows asked for.
        height: usize,
        /// Columns asked for.
        width: usize,
        /// What both must be multiples of: pixels per latent cell × 2^(UNet stages - 1).
        multiple: usize,
        /// The largest side accepted.
        max: usize,
    },
    /// Weights are missing, unknown, misshapen or not finite; all of them at once.
    #[error("{0}")]
    Weights(WeightReport),
    /// The configuration describes a network whose parts do not fit together.
    #[error("the configuration describes a network that does not fit together: {0}")]
    Build(#[from] BuildError),
}
