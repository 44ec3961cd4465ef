//! The small pipeline of the fixtures against diffusers: every network, and the whole run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use snapc_onnx_runtime::{Options, OrtNetwork, open_engine};
use snapc_pipeline::{
    BetaSchedule, Data, Generation, InitLatents, Network, NetworkKind, Pipeline, Port, PortType,
    PredictionType, Request, SchedulerConfig, TimestepSpacing, Tokenizer,
};
use support::{emit_tiny, options, psnr, tensors};

/// `fixtures/tiny/scheduler/scheduler_config.json`.
const SCHEDULER: SchedulerConfig = SchedulerConfig {
    train_steps: 1000,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: BetaSchedule::ScaledLinear,
    prediction_type: PredictionType::Epsilon,
    timestep_spacing: TimestepSpacing::Leading,
    steps_offset: 1,
    set_alpha_to_one: false,
};

/// Checks all outputs of every network at batch 1 and 2 against `fixtures/tiny/graphs.safetensors`.
fn assert_networks(artifact: &Path, bound: f64) {
    let reference = tensors("fixtures/tiny/graphs.safetensors");
    for kind in NetworkKind::ALL {
        let mut network = OrtNetwork::open(artifact, kind, &options()).unwrap();
        for batch in [1, 2] {
            let tensor =
                |port: &Port| &reference[&format!("{}.b{batch}.{}", kind.name(), port.name)];
            let integers: Vec<Vec<i32>> = network
                .inputs()
                .iter()
                .map(|port| tensor(port).iter().map(|&v| v as i32).collect())
                .collect();
            let inputs: Vec<Data<'_>> = network
                .inputs()
                .iter()
                .zip(&integers)
                .map(|(port, integers)| match port.dtype {
                    PortType::F32 => Data::F32(tensor(port)),
                    PortType::I32 => Data::I32(integers),
                })
                .collect();
            let ports = network.outputs().to_vec();
            let mut found: Vec<Vec<f32>> = ports
                .iter()
                .map(|port| vec![f32::NAN; port.values(batch).unwrap()])
                .collect();
            let mut outputs: Vec<Option<&mut [f32]>> =
                found.iter_mut().map(|v| Some(&mut v[..])).collect();
            network.run(batch, &inputs, &mut outputs).unwrap();
            for (port, found) in ports.iter().zip(&found) {
                let figure = psnr(found, tensor(port));
                assert!(
                    figure >= bound,
                    "{kind}, batch {batch}, {port}: {figure:.1} dB"
                );
            }
        }
    }
}

fn generate(artifact: &Path, options: &Options) -> Generation {
    let merges = std::fs::read(artifact.join("tokenizer/merges.txt")).unwrap();
    let tokenizer = Tokenizer::new(&merges, 49407, 77).unwrap();
    let engine = open_engine(artifact, options).unwrap();
    let mut pipeline = Pipeline::new(engine, tokenizer, SCHEDULER, 0.18215).unwrap();
    let reference = tensors("fixtures/tiny/reference.safetensors");
    let request = Request {
        prompt: "a watercolour of a fox, 3 birds & it's raining".to_owned(),
        negative_prompt: "blurry".to_owned(),
        steps: 8,
        guidance: 7.5,
        init_latents: InitLatents::Given(reference["init_latents"].clone()),
    };
    pipeline
        .generate(&request, |_| ControlFlow::Continue(()))
        .unwrap()
}

/// Checks the whole run against `fixtures/tiny/reference.safetensors`.
fn assert_run(artifact: &Path, options: &Options, bound: f64) {
    let reference = tensors("fixtures/tiny/reference.safetensors");
    let found = generate(artifact, options);
    let ids: Vec<f32> = found.input_ids.iter().map(|&id| id as f32).collect();
    assert_eq!(ids, reference["input_ids"]);
    // The reference file holds the picture as it is shown.
    let shown: Vec<f32> = found.decoded.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
    for (what, found, expected) in [
        ("latents", &found.latents, &reference["step_7.latents"]),
        ("picture", &shown, &reference["image"]),
    ] {
        let figure = psnr(found, expected);
        assert!(figure >= bound, "{what}: {figure:.1} dB");
    }
}

#[test]
fn f32_equals_diffusers() {
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    assert_networks(dir.path(), 100.0);
    assert_run(dir.path(), &options(), 100.0);
}

#[test]
fn f16_is_close_to_diffusers() {
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f16", dir.path());
    assert_networks(dir.path(), 65.0);
    assert_run(dir.path(), &options(), 55.0);
}

#[test]
fn a_fixed_batch_gives_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    let fixed = Options {
        fixed_batch: true,
        ..options()
    };
    let unet = OrtNetwork::open(dir.path(), NetworkKind::Unet, &fixed).unwrap();
    let ports: Vec<String> = unet.inputs().iter().map(Port::to_string).collect();
    assert_eq!(
        ports,
        [
            "'sample' f32 [2,4,16,16]",
            "'timestep' f32 []",
            "'encoder_hidden_states' f32 [2,77,32]"
        ]
    );
    assert_run(dir.path(), &fixed, 100.0);
}
