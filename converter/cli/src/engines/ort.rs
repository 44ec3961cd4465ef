//! ONNX Runtime as an engine.

use std::num::NonZeroUsize;

use snapc_onnx_runtime::{Error, Options, OrtNetwork, Provider};
use snapc_pipeline::NetworkKind;

use crate::artifact::Artifact;
use crate::exit::Exit;
use crate::failure::Failure;

/// The target whose artifacts ONNX Runtime runs.
const TARGET: &str = "onnx";

/// The networks of an ONNX artifact.
///
/// # Errors
/// When the artifact is another one, the library is missing, or a model cannot be loaded.
pub fn networks(artifact: &Artifact, threads: Option<usize>) -> Result<[OrtNetwork; 3], Failure> {
    let target = &artifact.manifest.target;
    if target != TARGET {
        let message = format!("ONNX Runtime runs {TARGET} artifacts, and this is one of {target}");
        return Err(Failure::usage(message).help("use --engine snap"));
    }
    let options = Options {
        threads: threads.and_then(NonZeroUsize::new),
        providers: Provider::of_this_system(),
        ..Options::default()
    };
    let open = |kind| OrtNetwork::open(&artifact.folder, kind, &options).map_err(failure);
    let [text_encoder, unet, vae_decoder] = NetworkKind::ALL;
    Ok([open(text_encoder)?, open(unet)?, open(vae_decoder)?])
}

fn failure(error: Error) -> Failure {
    let exit = match &error {
        Error::NoLibrary | Error::OpenLibrary { .. } | Error::LoadLibrary { .. } => Exit::Usage,
        _ => Exit::InvalidInput,
    };
    Failure::new(exit, error)
}
