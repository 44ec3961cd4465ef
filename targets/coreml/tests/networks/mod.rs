//! The small pipelines of the fixtures: as programs, as packages, and what their networks must compute.

#![allow(dead_code, reason = "every test file uses a part")]

use std::path::Path;

use snapc_import::ImportOptions;
use snapc_ir::{Program, Tensor};
use snapc_passes::{Calibration, NAMED_PIPELINES, Pipeline, RunOptions};
use snapc_target::schedule::timesteps;
use snapc_target::{EmitOptions, Emitted, Interface, Precision, WeightForm};

use super::foreign_reader::{Job, Tensors, read_safetensors, repository};

/// The graphs of a pipeline.
pub const GRAPHS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// A checkpoint of `fixtures` after the passes of a precision.
pub fn optimized(checkpoint: &str, precision: Precision) -> Program {
    let path = repository().join("fixtures").join(checkpoint);
    let checkpoint = snapc_import::open(&path, &ImportOptions::default()).unwrap();
    let program = checkpoint.import().unwrap();
    let named = NAMED_PIPELINES
        .iter()
        .find(|p| p.name == precision.name())
        .unwrap();
    let pipeline: Pipeline = named.passes.parse().unwrap();
    pipeline.run(program, &RunOptions::default()).unwrap().0
}

/// The tiny pipeline after the passes that `snapc convert` runs for these options.
pub fn converted(options: &EmitOptions) -> Program {
    let path = repository().join("fixtures/tiny");
    let checkpoint = snapc_import::open(&path, &ImportOptions::default()).unwrap();
    lowered(checkpoint.import().unwrap(), options)
}

/// A program after those passes.
pub fn lowered(program: Program, options: &EmitOptions) -> Program {
    let mut passes = vec![snapc_passes::level(2, "coreml").unwrap().passes.to_owned()];
    if options.interface == Interface::Snap {
        let steps = timesteps(&program.pipeline.scheduler, options.steps).unwrap();
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        let steps = steps.join("/");
        passes.push(format!("specialize-schedule{{timesteps={steps}}}"));
        passes.push("hoist-text-projections,eliminate-dead-code".to_owned());
    }
    if options.precision == Precision::F16 {
        passes.push("cast-precision{to=f16}".to_owned());
    }
    match options.weights {
        None => {}
        Some(WeightForm::W8a8) => passes.push("quantize-weights,quantize-activations".to_owned()),
        Some(WeightForm::Mixed) => {
            passes.push("quantize-weights{form=mixed,min_psnr=40}".to_owned())
        }
        Some(form) => passes.push(format!("quantize-weights{{form={form}}}")),
    }
    let pipeline: Pipeline = passes.join(",").parse().unwrap();
    let calibration = calibration(&program);
    let mut run = RunOptions::default();
    let is_calibrated = options.weights.is_some_and(is_calibrated);
    run.context.calibration = is_calibrated.then_some(&calibration);
    pipeline.run(program, &run).unwrap().0
}

/// Whether the form looks at activations.
pub fn is_calibrated(form: WeightForm) -> bool {
    matches!(form, WeightForm::Mixed | WeightForm::W8a8)
}

/// One recorded call of each graph.
fn calibration(program: &Program) -> Calibration {
    let reference = repository().join("fixtures/tiny/reference.safetensors");
    let reference = read_safetensors(&std::fs::read(reference).unwrap());
    let first = |name: &str| {
        let mut row = reference[name].clone();
        let values = row.floats().len() / row.shape[0];
        row.shape[0] = 1;
        Tensor::float(&row.shape, row.floats()[..values].to_vec())
    };
    let scale = program.pipeline.latent.scaling_factor as f32;
    let latents = reference["step_7.latents"].floats();
    let latents = latents.iter().map(|x| x / scale).collect();
    let mut calibration = Calibration::default();
    let ids = reference["input_ids"].clone();
    calibration.add("text_encoder", [("input_ids".to_owned(), ids)].into());
    let unet = [
        ("sample", first("init_latents")),
        ("timestep", Tensor::float(&[], vec![876.0])),
        ("encoder_hidden_states", first("text_embeddings")),
    ];
    let unet = unet.map(|(name, value)| (name.to_owned(), value));
    calibration.add("unet", unet.into());
    let latents = Tensor::float(&[1, 4, 16, 16], latents);
    calibration.add(
        "vae_decoder",
        [("latent_sample".to_owned(), latents)].into(),
    );
    calibration
}

/// Inputs and outputs of the graphs from diffusers, under `<graph>.b<batch>.<feature>`.
pub fn reference(checkpoint: &str) -> Tensors {
    let folder = repository().join("fixtures").join(checkpoint);
    read_safetensors(&std::fs::read(folder.join("graphs.safetensors")).unwrap())
}

/// Name of a feature of the graph in the interface.
fn feature_name(interface: Interface, graph: &str, name: &str) -> String {
    let name = match (interface, graph, name) {
        (Interface::Apple, "text_encoder", "pooler_output") => "pooled_outputs",
        (Interface::Apple, "unet", "out_sample") => "noise_pred",
        (Interface::Apple, "vae_decoder", "latent_sample") => "z",
        (Interface::Apple, "vae_decoder", "sample") => "image",
        _ => name,
    };
    name.to_owned()
}

/// What the caller gives the package for what diffusers gives the graph.
fn feature_value(interface: Interface, name: &str, batch: usize, value: &Tensor) -> Tensor {
    match (interface, name) {
        (Interface::Plain, "timestep") => Tensor::float(&[1], value.floats().to_vec()),
        (Interface::Apple, "timestep") => Tensor::float(&[batch], vec![value.floats()[0]; batch]),
        (Interface::Apple, "input_ids") => Tensor::float(
            &value.shape,
            value.ints().iter().map(|&x| x as f32).collect(),
        ),
        (Interface::Apple, "encoder_hidden_states") => channels_first(value),
        _ => value.clone(),
    }
}

/// `[N,T,D]` as `[N,D,1,T]`.
pub fn channels_first(states: &Tensor) -> Tensor {
    let [n, t, d] = states.shape[..] else {
        panic!("not three dimensions");
    };
    let data = states.floats();
    let mut moved = Vec::with_capacity(data.len());
    for i in 0..n {
        for j in 0..d {
            moved.extend((0..t).map(|k| data[(i * t + k) * d + j]));
        }
    }
    Tensor::float(&[n, d, 1, t], moved)
}

/// A package to evaluate, with what its outputs must be.
pub struct Case {
    /// The package and its inputs.
    pub job: Job,
    /// Its outputs by name.
    pub expected: Tensors,
    /// How close they must be, in dB.
    pub floor: f64,
}

/// The packages of an artifact, with what diffusers gives for them.
pub fn cases(
    what: &str,
    dir: &Path,
    emitted: &Emitted,
    options: &EmitOptions,
    reference: &Tensors,
) -> Vec<Case> {
    let floor = if options.precision == Precision::F16 {
        65.0
    } else {
        100.0
    };
    let interface = options.interface;
    let of_graph = |graph: &str| {
        let batch = options.batch.unwrap_or(if graph == "unet" { 2 } else { 1 });
        let prefix = format!("{graph}.b{batch}.");
        let tensors = reference
            .iter()
            .filter_map(move |(k, v)| Some((k.strip_prefix(&prefix)?, v)));
        let outputs = ["last_hidden_state", "pooler_output", "out_sample"];
        let (mut inputs, mut expected) = (Tensors::new(), Tensors::new());
        for (name, value) in tensors {
            let feature = feature_name(interface, graph, name);
            if outputs.contains(&name) || (graph, name) == ("vae_decoder", "sample") {
                expected.insert(feature, value.clone());
            } else {
                inputs.insert(feature, feature_value(interface, name, batch, value));
            }
        }
        (inputs, expected)
    };
    let case = |graph: &snapc_target::EmittedGraph| {
        let (inputs, expected) = of_graph(&graph.name);
        let job = Job {
            name: format!("{what} {}", graph.name),
            package: dir.join(&graph.file),
            inputs,
        };
        Case {
            job,
            expected,
            floor,
        }
    };
    emitted.graphs.iter().map(case).collect()
}
