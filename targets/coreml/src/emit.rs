//! Writing the artifact: one package per graph, and the tokenizer's files.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use snapc_ir::{DType, Graph, TensorType};
use snapc_target::{
    EmitOptions, Emitted, EmittedGraph, Interface, Progress, TargetError, VerifiedProgram,
    write_file,
};

use crate::level::Level;
use crate::lower::{IntegerFeatures, Lowered, lower};
use crate::package;
use crate::proto::{
    ArrayDataType, ArrayFeatureType, FeatureDescription, FeatureType, Metadata, Model,
    ModelDescription,
};

/// Files of the checkpoint's tokenizer that go with the packages, under their names beside them.
const TOKENIZER_FILES: [&str; 2] = ["vocab.json", "merges.txt"];

/// The folder of a graph's package.
pub(crate) fn package_name(graph: &str) -> String {
    let name = match graph {
        "text_encoder" => "TextEncoder",
        "unet" => "Unet",
        "unet_chunk1" => "UnetChunk1",
        "unet_chunk2" => "UnetChunk2",
        "vae_decoder" => "VAEDecoder",
        other => other,
    };
    format!("{name}.mlpackage")
}

/// Writes the packages of a program; see [`snapc_target::Target::emit`].
///
/// # Errors
/// What a graph holds that Core ML lacks, weights that cannot be made, files that cannot be written.
pub(crate) fn emit(
    program: &VerifiedProgram<'_>,
    options: &EmitOptions,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Emitted, TargetError> {
    let level = Level::of(options)?;
    let integers = match options.interface {
        Interface::Plain | Interface::Snap => IntegerFeatures::Int32,
        Interface::Apple => IntegerFeatures::Float32,
    };
    // All graphs are lowered before anything is written, so that what is not supported is said at once.
    let lowered = program
        .graphs()
        .iter()
        .map(|graph| Ok((graph, lower(graph, level, integers, options.attention)?)))
        .collect::<Result<Vec<_>, TargetError>>()?;
    let mut emitted = Emitted::default();
    for (graph, lowered) in lowered {
        let file = package_name(graph.name());
        let facts = [
            ("snapc.graph", graph.name()),
            ("snapc.interface", options.interface.name()),
            ("snapc.precision", options.precision.name()),
        ];
        let model = model_of(graph, &lowered, level, &facts);
        progress.start(&file, lowered.weights.len() + model.encoded_len() as u64);
        let files = package::write(dir, &file, graph.name(), &model, &lowered.weights, progress)?;
        emitted.files.extend(files);
        emitted.graphs.push(EmittedGraph {
            name: graph.name().to_owned(),
            file,
            inputs: Lowered::features(&lowered.inputs),
            outputs: Lowered::features(&lowered.outputs),
        });
    }
    for name in TOKENIZER_FILES {
        if let Some(bytes) = program.pipeline().files.get(&format!("tokenizer/{name}")) {
            emitted.files.push(write_file(dir, name, bytes)?);
        }
    }
    emitted.files.sort();
    Ok(emitted)
}

/// The model file of a lowered graph, with facts about it for people.
pub(crate) fn model_of(
    graph: &Graph,
    lowered: &Lowered,
    level: Level,
    facts: &[(&str, &str)],
) -> Model {
    let describe = |list: &[(String, TensorType)]| {
        let features = list.iter().map(|(name, ty)| feature(name, ty));
        features.collect()
    };
    let user_defined: BTreeMap<String, String> = facts
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let metadata = Metadata {
        short_description: format!("Stable Diffusion, {}", graph.name().replace('_', " ")),
        version_string: env!("CARGO_PKG_VERSION").to_owned(),
        author: "snapc".to_owned(),
        user_defined,
        ..Metadata::default()
    };
    Model {
        specification_version: level.specification(),
        description: Some(ModelDescription {
            input: describe(&lowered.inputs),
            output: describe(&lowered.outputs),
            metadata: Some(metadata),
        }),
        ml_program: Some(lowered.program.clone()),
    }
}

fn feature(name: &str, ty: &TensorType) -> FeatureDescription {
    let data_type = match ty.dtype {
        DType::F16 => ArrayDataType::Float16,
        DType::F32 => ArrayDataType::Float32,
        DType::I32 => ArrayDataType::Int32,
        DType::BF16 | DType::I64 | DType::Bool | DType::I8 | DType::U8 => {
            unreachable!("lowering refuses such features")
        }
    };
    let size = |n: &usize| i64::try_from(*n).expect("lowering refuses dimensions beyond 31 bits");
    FeatureDescription {
        name: name.to_owned(),
        short_description: String::new(),
        ty: Some(FeatureType {
            multi_array: Some(ArrayFeatureType {
                shape: ty.shape.bind(1).iter().map(size).collect(),
                data_type: data_type as i32,
            }),
            is_optional: false,
        }),
    }
}
