//! snapc's own runtime as an engine.

use std::path::Path;

use snapc_format::Stage;
use snapc_native::compile_as_stated;
use snapc_pipeline::{NetworkKind, Tokenizer};
use snapc_runtime::{Options, Runtime, RuntimeError, RuntimeNetwork};
use snapc_target::known_prompt::KnownPrompt;

use super::read_back;
use crate::artifact::Artifact;
use crate::exit::Exit;
use crate::failure::Failure;

/// The target whose artifacts the runtime opens as they are.
const TARGET: &str = "native";

/// Name of the compiled file in its temporary folder.
const COMPILED: &str = "model.snap";

/// Whether the runtime opens the artifact's own file.
pub fn runs_as_it_is(artifact: &Artifact) -> bool {
    artifact.manifest.target == TARGET
}

/// The tokenizer in the file of a native artifact.
///
/// # Errors
/// When the file cannot be opened, or has no valid tokenizer.
pub fn tokenizer(artifact: &Artifact) -> Result<Tokenizer, Failure> {
    let file = read_back::file(artifact, NetworkKind::TextEncoder)?;
    let runtime = Runtime::open(&file, &Options::with_threads(1)).map_err(failure)?;
    runtime.tokenizer().map_err(failure)
}

/// The prompt whose encoding the file of a native artifact keeps.
///
/// # Errors
/// When the file cannot be opened.
pub fn known_prompt(artifact: &Artifact) -> Result<Option<KnownPrompt>, Failure> {
    let file = read_back::file(artifact, NetworkKind::TextEncoder)?;
    let runtime = Runtime::open(&file, &Options::with_threads(1)).map_err(failure)?;
    let known = runtime.known_prompt();
    Ok(known.map(|(input_ids, values)| KnownPrompt { input_ids, values }))
}

/// The networks of an artifact. What is not native is read back and compiled for the runtime, in a temporary folder, with
/// results rounded as the artifact's graphs state it. `batch` is the size that an open batch of the UNet gets then.
///
/// # Errors
/// When a file of the artifact is missing or malformed, or holds what the runtime cannot run.
pub fn networks(
    artifact: &Artifact,
    threads: Option<usize>,
    batch: usize,
) -> Result<[RuntimeNetwork; 3], Failure> {
    let options = threads.map_or_else(Options::default, Options::with_threads);
    if runs_as_it_is(artifact) {
        let file = read_back::file(artifact, NetworkKind::Unet)?;
        return open(&file, &options);
    }
    let graphs = read_back::graphs(artifact, batch)?;
    let stages = [Stage::TextEncoder, Stage::Unet, Stage::VaeDecoder];
    let folder = tempfile::tempdir().map_err(|e| Failure::write(&std::env::temp_dir(), e))?;
    let file = folder.path().join(COMPILED);
    compile_as_stated(&stages.into_iter().zip(&graphs).collect::<Vec<_>>(), &file)?;
    // The file is mapped when it is open, so that the folder may go.
    open(&file, &options)
}

fn open(file: &Path, options: &Options) -> Result<[RuntimeNetwork; 3], Failure> {
    let runtime = Runtime::open(file, options).map_err(failure)?;
    let network = |stage| runtime.network(stage).map_err(failure);
    Ok([
        network(Stage::TextEncoder)?,
        network(Stage::Unet)?,
        network(Stage::VaeDecoder)?,
    ])
}

fn failure(error: RuntimeError) -> Failure {
    Failure::new(Exit::InvalidInput, error)
}
