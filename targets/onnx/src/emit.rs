//! Writing models, their data files and their companions.

use std::fs;
use std::path::Path;

use prost::Message;
use snapc_ir::Verified;
use snapc_target::stream::BlobFile;
use snapc_target::{
    ArtifactFile, Emitted, EmittedGraph, Feature, Progress, TargetError, VerifiedProgram,
    write_file,
};

use crate::companion;
use crate::external_data::Layout;
use crate::lower::{Lowered, declared_input, lower};
use crate::proto::{ModelProto, OperatorSetIdProto};

/// Name of a model in its folder.
pub(crate) const MODEL_FILE: &str = "model.onnx";
/// Name of a model's external data, as Optimum calls it.
pub(crate) const DATA_FILE: &str = "model.onnx_data";
/// The ONNX operator set of models whose weights are floats; `docs/decisions/0005-onnx-opset.md` says why.
pub(crate) const OPSET: i64 = 17;
/// Operator sets that models are written in, with the first ONNX IR version of a release that has them.
pub(crate) const VERSIONS: [(i64, i64); 4] = [(OPSET, 8), (18, 8), (19, 9), (21, 10)];
/// `producer_name` of every model.
pub(crate) const PRODUCER: &str = "snapc";

/// Writes the whole artifact; see [`snapc_target::Target::emit`].
pub(crate) fn emit(
    program: &VerifiedProgram<'_>,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Emitted, TargetError> {
    let companions = companion::files(program.pipeline())?;
    let lowered = program
        .graphs()
        .iter()
        .map(lower)
        .collect::<Result<Vec<_>, _>>()?;
    let layouts: Vec<Layout<'_>> = lowered
        .iter()
        .map(|l| Layout::new(&l.initializers))
        .collect();
    progress.start("write", layouts.iter().map(Layout::tensor_bytes).sum());

    let mut emitted = Emitted::default();
    for ((graph, lowered), layout) in program.graphs().iter().zip(&lowered).zip(&layouts) {
        emitted
            .files
            .extend(write_graph(graph, lowered, layout, dir, progress)?);
        emitted.graphs.push(describe(graph));
    }
    for (path, bytes) in companions {
        emitted.files.push(write_file(dir, &path, &bytes)?);
    }
    emitted.files.sort();
    Ok(emitted)
}

/// Bytes that a graph takes on disk: its model and its data file.
pub(crate) fn graph_bytes(graph: &Verified<'_>) -> Result<u64, TargetError> {
    let lowered = lower(graph)?;
    let layout = Layout::new(&lowered.initializers);
    let model = model(graph.name(), &lowered, &layout)?;
    Ok(layout.len + model.encoded_len() as u64)
}

fn write_graph(
    graph: &Verified<'_>,
    lowered: &Lowered,
    layout: &Layout<'_>,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Vec<ArtifactFile>, TargetError> {
    let name = graph.name();
    let folder = dir.join(name);
    fs::create_dir_all(&folder).map_err(TargetError::io(&folder))?;
    let mut files = Vec::new();
    if layout.len > 0 {
        let file = BlobFile {
            graph: name,
            prefix: &[],
            blobs: &layout.blobs,
            len: layout.len,
        };
        files.push(ArtifactFile {
            path: format!("{name}/{DATA_FILE}"),
            bytes: layout.len,
            sha256: file.write(&folder.join(DATA_FILE), progress)?,
        });
    }
    let model = model(name, lowered, layout)?;
    files.push(write_file(
        dir,
        &format!("{name}/{MODEL_FILE}"),
        &model.encode_to_vec(),
    )?);
    Ok(files)
}

fn model(name: &str, lowered: &Lowered, layout: &Layout<'_>) -> Result<ModelProto, TargetError> {
    let mut graph = lowered.graph.clone();
    graph.initializer = layout.messages(name, &lowered.initializers, DATA_FILE)?;
    let known = VERSIONS.iter().find(|(opset, _)| *opset == lowered.opset);
    let &(opset, ir_version) = known.expect("lowering asks for sets of the list");
    Ok(ModelProto {
        ir_version: Some(ir_version),
        producer_name: Some(PRODUCER.to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(opset),
        }],
    })
}

fn describe(graph: &Verified<'_>) -> EmittedGraph {
    let inputs = graph.inputs().iter();
    let outputs = graph.outputs().iter();
    EmittedGraph {
        functions: Vec::new(),
        name: graph.name().to_owned(),
        file: format!("{}/{MODEL_FILE}", graph.name()),
        inputs: inputs
            .map(|i| Feature::new(&i.name, &declared_input(graph.ty(i.value))))
            .collect(),
        outputs: outputs
            .map(|o| Feature::new(&o.name, graph.ty(o.value)))
            .collect(),
    }
}
