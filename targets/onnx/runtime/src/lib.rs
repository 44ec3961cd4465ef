//! The ONNX engine: `text_encoder/model.onnx`, `unet/model.onnx` and `vae_decoder/model.onnx` of a folder, run by ONNX
//! Runtime as the [`Network`](snapc_pipeline::Network)s of a pipeline.
//!
//! The folder is one that snapc wrote or one that Optimum exported. The library of ONNX Runtime, 1.17 or newer, is loaded
//! when the first model is opened ([`Options::library`]); nothing is linked.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use snapc_onnx_runtime::{Options, open_engine};
//! use snapc_pipeline::Engine;
//!
//! let options = Options {
//!     library: Some("libonnxruntime.so".into()),
//!     ..Options::default()
//! };
//! let engine = open_engine(Path::new("pipeline-onnx"), &options)?;
//! println!("{:?}", engine.geometry());
//! # Ok::<(), snapc_onnx_runtime::Error>(())
//! ```

#![forbid(unsafe_code)]

mod element;
mod error;
mod library;
mod network;
mod options;
mod sizes;

use std::path::Path;

use snapc_pipeline::{NetworkEngine, NetworkKind};

pub use error::Error;
pub use library::LIBRARY_VARIABLE;
pub use network::OrtNetwork;
pub use options::{ComputeUnits, CoreMl, Options, Provider};

/// The engine of the three models of a folder.
///
/// # Errors
/// When the library or a model cannot be loaded, or the models do not make a pipeline.
pub fn open_engine(artifact: &Path, options: &Options) -> Result<NetworkEngine<OrtNetwork>, Error> {
    let open = |kind| OrtNetwork::open(artifact, kind, options);
    Ok(NetworkEngine::with_timesteps(
        open(NetworkKind::TextEncoder)?,
        open(NetworkKind::Unet)?,
        open(NetworkKind::VaeDecoder)?,
        &options.timesteps,
    )?)
}
