//! The graphs of an artifact, read back from its files.

use std::path::{Component, Path, PathBuf};

use snapc_ir::Graph;
use snapc_passes::recognize;
use snapc_pipeline::NetworkKind;
use snapc_target::{PICTURE_ROLE, TargetError, chunk_names, from_picture_levels, join};

use crate::artifact::Artifact;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::targets;

/// The graphs `text_encoder`, `unet` and `vae_decoder` of an artifact, read back by its target: chunks joined, composites found
/// again, pictures in levels as values from -1 to 1. `batch` is the size that
/// an open batch of the UNet gets; the others run one row at a time.
///
/// # Errors
/// When the artifact does not have the three graphs, its files hold no graphs of the IR, or one cannot be read.
pub fn graphs(artifact: &Artifact, batch: usize) -> Result<[Graph; 3], Failure> {
    let [text_encoder, unet, vae_decoder] = NetworkKind::ALL;
    Ok([
        graph(artifact, text_encoder, 1)?,
        graph(artifact, unet, batch)?,
        graph(artifact, vae_decoder, 1)?,
    ])
}

fn graph(artifact: &Artifact, kind: NetworkKind, batch: usize) -> Result<Graph, Failure> {
    let name = &artifact.manifest.target;
    let target = targets::find(name).map_err(|_| {
        artifact.invalid(&format!(
            "the manifest names the target '{name}', which this snapc does not have"
        ))
    })?;
    let read = |graph: &str| -> Result<Graph, Failure> {
        let file = file_of(artifact, graph)?;
        let read = match function_of(artifact, graph) {
            Some(function) => target.read_function(&file, function)?,
            None => target.read(&file, batch)?,
        };
        let read = read.ok_or_else(|| {
            let error = anyhow::anyhow!("the files of {name} artifacts hold no graph to evaluate");
            Failure::new(Exit::Usage, error).help("use --engine snap")
        })?;
        let read = recognize(&read)?;
        Ok(match picture_output(artifact, graph) {
            Some(output) => from_picture_levels(&read, output).map_err(TargetError::from)?,
            None => read,
        })
    };
    let [first, second] = chunk_names(kind.name());
    let is_chunked = artifact.manifest.graphs.iter().any(|g| g.name == first);
    if !is_chunked {
        return read(kind.name());
    }
    let joined = join(&read(&first)?, &read(&second)?, kind.name());
    joined.map_err(|error| Failure::new(Exit::InvalidInput, error))
}

/// The function of a graph for the size that was asked for.
fn function_of<'a>(artifact: &'a Artifact, graph: &str) -> Option<&'a str> {
    let name = artifact.function.as_deref()?;
    let mut graphs = artifact.manifest.graphs.iter();
    let functions = &graphs.find(|g| g.name == graph)?.functions;
    functions.iter().any(|f| f.name == name).then_some(name)
}

/// The output of a graph that the manifest says is an image.
fn picture_output<'a>(artifact: &'a Artifact, graph: &str) -> Option<&'a str> {
    let mut graphs = artifact.manifest.graphs.iter();
    let mut outputs = graphs.find(|g| g.name == graph)?.outputs.iter();
    let image = outputs.find(|o| o.role.as_deref() == Some(PICTURE_ROLE))?;
    Some(&image.name)
}

/// Whether the decoder gives a picture of 8 bits per channel.
pub fn gives_picture(artifact: &Artifact) -> bool {
    picture_output(artifact, NetworkKind::VaeDecoder.name()).is_some()
}

/// The file of a graph, which lies in the artifact whatever the manifest says.
///
/// # Errors
/// When the manifest names none, or one elsewhere.
pub fn file(artifact: &Artifact, kind: NetworkKind) -> Result<PathBuf, Failure> {
    file_of(artifact, kind.name())
}

fn file_of(artifact: &Artifact, name: &str) -> Result<PathBuf, Failure> {
    let mut graphs = artifact.manifest.graphs.iter();
    let graph = graphs
        .find(|graph| graph.name == name)
        .ok_or_else(|| artifact.invalid(&format!("the manifest lists no graph '{name}'")))?;
    let path = Path::new(&graph.file);
    if !path.components().all(|c| matches!(c, Component::Normal(_))) {
        let file = &graph.file;
        return Err(artifact.invalid(&format!(
            "the path '{file}' of graph '{name}' leads out of it"
        )));
    }
    Ok(artifact.folder.join(path))
}
