//! Writing the artifact: one package per graph, and the tokenizer's files.

use std::path::Path;

use prost::Message;
use snapc_ir::{DType, Graph, TensorType};
use snapc_target::{
    EmitOptions, Emitted, EmittedGraph, Feature, Interface, PICTURE_ROLE, Progress, TargetError,
    VerifiedProgram, write_file,
};

use crate::describe::Description;
use crate::level::Level;
use crate::lower::{IntegerFeatures, Lowered, lower};
use crate::package;
use crate::proto::{
    ArrayDataType, ArrayFeatureType, ColorSpace, FeatureDescription, FeatureType, ImageFeatureType,
    Model, ModelDescription,
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
    let graphs: Vec<&Graph> = program.graphs().iter().map(|g| &**g).collect();
    let mut emitted = Emitted::default();
    for (graph, lowered) in lowered {
        let file = package_name(graph.name());
        let about = Description::new(graph, &graphs, options, program.pipeline());
        let model = model_of(&lowered, level, &about);
        progress.start(&file, lowered.weights.len() + model.encoded_len() as u64);
        let files = package::write(dir, &file, graph.name(), &model, &lowered.weights, progress)?;
        emitted.files.extend(files);
        emitted.graphs.push(EmittedGraph {
            name: graph.name().to_owned(),
            file,
            inputs: Lowered::features(&lowered.inputs),
            outputs: outputs(&lowered, &about),
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

/// The outputs for the manifest.
fn outputs(lowered: &Lowered, about: &Description<'_>) -> Vec<Feature> {
    let mut features = Lowered::features(&lowered.outputs);
    for feature in features.iter_mut().filter(|f| about.is_image(&f.name)) {
        feature.dtype = DType::U8.name().to_owned();
        feature.role = Some(PICTURE_ROLE.to_owned());
    }
    features
}

/// The model file of a lowered graph.
pub(crate) fn model_of(lowered: &Lowered, level: Level, about: &Description<'_>) -> Model {
    let input = |(name, ty): &(String, TensorType)| FeatureDescription {
        name: name.clone(),
        short_description: about.input(name, ty),
        ty: Some(multi_array(ty)),
    };
    let output = |(name, ty): &(String, TensorType)| FeatureDescription {
        name: name.clone(),
        short_description: about.output(name, ty),
        ty: Some(match about.is_image(name) {
            true => image(ty),
            false => multi_array(ty),
        }),
    };
    Model {
        specification_version: level.specification(),
        description: Some(ModelDescription {
            input: lowered.inputs.iter().map(input).collect(),
            output: lowered.outputs.iter().map(output).collect(),
            metadata: Some(about.metadata()),
        }),
        ml_program: Some(lowered.program.clone()),
    }
}

fn multi_array(ty: &TensorType) -> FeatureType {
    let data_type = match ty.dtype {
        DType::F16 => ArrayDataType::Float16,
        DType::F32 => ArrayDataType::Float32,
        DType::I32 => ArrayDataType::Int32,
        DType::BF16 | DType::I64 | DType::Bool | DType::I8 | DType::U8 => {
            unreachable!("lowering refuses such features")
        }
    };
    FeatureType {
        multi_array: Some(ArrayFeatureType {
            shape: sizes(ty),
            data_type: data_type as i32,
        }),
        ..FeatureType::default()
    }
}

/// The image that a value `[1, 3, rows, columns]` of levels is.
fn image(ty: &TensorType) -> FeatureType {
    let [.., height, width] = sizes(ty)[..] else {
        unreachable!("a picture has rows and columns");
    };
    FeatureType {
        image: Some(ImageFeatureType {
            width,
            height,
            color_space: ColorSpace::Rgb as i32,
        }),
        ..FeatureType::default()
    }
}

fn sizes(ty: &TensorType) -> Vec<i64> {
    let size = |n: &usize| i64::try_from(*n).expect("lowering refuses dimensions beyond 31 bits");
    ty.shape.bind(1).iter().map(size).collect()
}
