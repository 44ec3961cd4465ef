//! Writing the artifact: one package per graph, and the tokenizer's files.

use std::path::Path;

use prost::Message;
use snapc_ir::{DType, Graph};
use snapc_target::manifest::function_name;
use snapc_target::{
    EmitOptions, Emitted, EmittedFunction, EmittedGraph, Feature, Interface, PICTURE_ROLE,
    Progress, TargetError, VerifiedProgram, write_file,
};

use crate::blob::WeightFile;
use crate::describe::Description;
use crate::level::Level;
use crate::lower::{IntegerFeatures, Lowered, lower};
use crate::model::{MAIN, NamedFunction, model_of};
use crate::package;

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

/// What a package is made of.
struct Package<'a> {
    graph: &'a Graph,
    functions: Vec<NamedFunction>,
    weights: WeightFile,
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
    // All graphs are lowered before anything is written, so that what is not supported is said at once.
    let packages = (0..program.graphs().len()).map(|i| package_of(program, i, level, options));
    let packages = packages.collect::<Result<Vec<_>, TargetError>>()?;
    let graphs: Vec<&Graph> = program.graphs().iter().map(|g| &**g).collect();
    let mut emitted = Emitted::default();
    for Package {
        graph,
        functions,
        weights,
    } in packages
    {
        let file = package_name(graph.name());
        let about = Description::new(graph, &graphs, options, program.pipeline());
        let model = model_of(&functions, level, &about);
        progress.start(&file, weights.len() + model.encoded_len() as u64);
        let files = package::write(dir, &file, graph.name(), &model, &weights, progress)?;
        emitted.files.extend(files);
        emitted
            .graphs
            .push(described(graph.name(), file, &functions, &about));
    }
    for name in TOKENIZER_FILES {
        if let Some(bytes) = program.pipeline().files.get(&format!("tokenizer/{name}")) {
            emitted.files.push(write_file(dir, name, bytes)?);
        }
    }
    emitted.files.sort();
    Ok(emitted)
}

/// Lowers a graph, by its position in the program, for every picture size; one function serves all sizes when the size
/// changes nothing in it.
fn package_of<'a>(
    program: &'a VerifiedProgram<'_>,
    position: usize,
    level: Level,
    options: &EmitOptions,
) -> Result<Package<'a>, TargetError> {
    let integers = match options.interface {
        Interface::Plain | Interface::Snap => IntegerFeatures::Int32,
        Interface::Apple => IntegerFeatures::Float32,
    };
    let mut weights = match program.other_sizes() {
        [] => WeightFile::default(),
        _ => WeightFile::of_functions(),
    };
    let mut functions: Vec<NamedFunction> = Vec::new();
    let programs = std::iter::once(program).chain(program.other_sizes());
    for (number, program) in programs.enumerate() {
        let graph = &program.graphs()[position];
        let mut lowered = lower(graph, level, integers, options.attention, weights)?;
        weights = std::mem::take(&mut lowered.weights);
        let name = options.sizes.get(number).copied().map(function_name);
        let name = name.unwrap_or_else(|| MAIN.to_owned());
        functions.push(NamedFunction { name, lowered });
    }
    let (first, rest) = functions
        .split_first_mut()
        .expect("a package has a function");
    if rest
        .iter()
        .all(|f| f.lowered.function == first.lowered.function)
    {
        first.name = MAIN.to_owned();
        functions.truncate(1);
    }
    let graph = &*program.graphs()[position];
    Ok(Package {
        graph,
        functions,
        weights,
    })
}

/// A package for the manifest.
fn described(
    graph: &str,
    file: String,
    functions: &[NamedFunction],
    about: &Description<'_>,
) -> EmittedGraph {
    let mut described: Vec<EmittedFunction> = functions
        .iter()
        .map(|NamedFunction { name, lowered }| EmittedFunction {
            name: name.clone(),
            inputs: Lowered::features(&lowered.inputs),
            outputs: outputs(lowered, about),
        })
        .collect();
    let first = described[0].clone();
    if described.len() == 1 {
        described.clear();
    }
    EmittedGraph {
        name: graph.to_owned(),
        file,
        inputs: first.inputs,
        outputs: first.outputs,
        functions: described,
    }
}

/// The outputs of a function for the manifest.
fn outputs(lowered: &Lowered, about: &Description<'_>) -> Vec<Feature> {
    let mut features = Lowered::features(&lowered.outputs);
    for feature in features.iter_mut().filter(|f| about.is_image(&f.name)) {
        feature.dtype = DType::U8.name().to_owned();
        feature.role = Some(PICTURE_ROLE.to_owned());
    }
    features
}
