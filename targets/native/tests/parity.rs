//! The pipelines of the fixtures against diffusers: every graph, f32 and f16, batch 1 and 2, and whole runs.
//!
//! The reference numbers are diffusers' own in f32 (`fixtures/make_graph_reference.py`, `fixtures/make_reference.py`); the
//! bounds are those of the contract.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use snapc_format::Stage;
use snapc_ir::{Program, Tensor};
use snapc_native::Native;
use snapc_pipeline::{InitLatents, Request};
use snapc_runtime::{Options, Runtime};
use snapc_target::{
    AttentionForm, EmitOptions, Precision, Silent, Target, VerifiedProgram, legalize,
};
use support::engine::run;
use support::{fixtures, program, psnr, read_tensors};

const GRAPHS: [(Stage, &[&str], &[&str]); 3] = [
    (
        Stage::TextEncoder,
        &["input_ids"],
        &["last_hidden_state", "pooler_output"],
    ),
    (
        Stage::Unet,
        &["sample", "timestep", "encoder_hidden_states"],
        &["out_sample"],
    ),
    (Stage::VaeDecoder, &["latent_sample"], &["sample"]),
];

/// Checkpoints with their reference files, relative to `fixtures`: SD 1.x, SD 2.x, fewer layers, a plan of blocks, and
/// single files with the original key names.
const CHECKPOINTS: [(&str, &str); 6] = [
    ("tiny", "tiny/graphs.safetensors"),
    ("variants/sd2", "variants/sd2/graphs.safetensors"),
    ("variants/lean", "variants/lean/graphs.safetensors"),
    ("variants/blocks", "variants/blocks/graphs.safetensors"),
    (
        "variants/ldm_sd1.safetensors",
        "variants/ldm_sd1.graphs.safetensors",
    ),
    (
        "variants/ldm_sd2.safetensors",
        "variants/ldm_sd2.graphs.safetensors",
    ),
];

/// The passes that rewrite layers into others, all of them.
const REWRITES: &str = "fold-constants,remove-no-ops,eliminate-common-subexpressions,fold-scaling,fold-norm-affine,\
                        split-concat-convolution,split-upsample-convolution{min_gain=0},merge-projections,\
                        eliminate-dead-code";

/// Emits a program as the driver does and opens what was written, which keeps every rule of the format.
fn emitted(mut program: Program, options: &EmitOptions, dir: &Path) -> Runtime {
    let capabilities = Native.capabilities(options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &capabilities).unwrap();
    }
    let verified = VerifiedProgram::new(&program).unwrap();
    let emitted = Native.emit(&verified, options, dir, &Silent).unwrap();
    assert_eq!(Native.verify(dir).unwrap(), []);
    let planned = Native.artifact_bytes(&program, options);
    let bytes: u64 = emitted.files.iter().map(|f| f.bytes).sum();
    assert_eq!(planned, bytes);
    Runtime::open(&dir.join("model.snap"), &Options::with_threads(2)).unwrap()
}

/// The PSNR of every output, by `graph.bN.output`.
fn graph_parity(runtime: &Runtime, reference: &BTreeMap<String, Tensor>) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for (stage, inputs, outputs) in GRAPHS {
        let mut network = runtime.network(stage).unwrap();
        for batch in [1, 2] {
            let key = |name: &str| format!("{stage}.b{batch}.{name}");
            let input = |name: &&str| ((*name).to_owned(), reference[&key(name)].clone());
            let inputs = inputs.iter().map(input).collect();
            let result = run(&mut network, batch, &inputs);
            for &output in outputs {
                let expected = reference[&key(output)].floats();
                found.insert(key(output), psnr(expected, &result[output]));
            }
        }
    }
    found
}

fn assert_graph_parity(passes: &str, options: &EmitOptions, bound: f64) {
    for (checkpoint, reference) in CHECKPOINTS {
        let dir = tempfile::tempdir().unwrap();
        let runtime = emitted(program(checkpoint, passes), options, dir.path());
        let reference = read_tensors(&fixtures().join(reference));
        let found = graph_parity(&runtime, &reference);
        assert_eq!(found.len(), 8);
        for (key, db) in &found {
            assert!(
                *db >= bound,
                "{checkpoint}, {passes}, {key}: {db:.1} dB, at least {bound} expected"
            );
        }
    }
}

#[test]
fn f32_equals_diffusers() {
    assert_graph_parity("f32", &EmitOptions::default(), 100.0);
}

#[test]
fn f16_is_close_to_diffusers() {
    assert_graph_parity("f16", &EmitOptions::default(), 65.0);
}

#[test]
fn rewritten_layers_equal_diffusers() {
    assert_graph_parity(REWRITES, &EmitOptions::default(), 100.0);
}

#[test]
fn decomposed_attention_equals_diffusers() {
    let options = EmitOptions {
        attention: AttentionForm::Decomposed,
        ..EmitOptions::default()
    };
    assert_graph_parity("f32", &options, 100.0);
}

/// The whole run of the reference from its latents, in dB of the final latents and of the decoded image.
fn run_parity(precision: Precision) -> [f64; 2] {
    let path = fixtures().join("tiny/reference.safetensors");
    let reference = read_tensors(&path);
    let facts = reference_facts(&path);
    let dir = tempfile::tempdir().unwrap();
    let options = EmitOptions {
        precision,
        ..EmitOptions::default()
    };
    let program = program("tiny", precision.name());
    let runtime = emitted(program, &options, dir.path());
    let defaults = runtime.schedule().unwrap();
    assert_eq!((defaults.steps, defaults.guidance), (8, 7.5));
    let mut pipeline = runtime.into_pipeline().unwrap();
    let request = Request {
        prompt: facts["prompt"].as_str().unwrap().to_owned(),
        negative_prompt: facts["negative"].as_str().unwrap().to_owned(),
        steps: facts["steps"].as_u64().unwrap() as usize,
        guidance: facts["guidance"].as_f64().unwrap() as f32,
        init_latents: InitLatents::Given(reference["init_latents"].floats().to_vec()),
    };
    let generation = pipeline
        .generate(&request, |_| ControlFlow::Continue(()))
        .unwrap();
    let last = format!("step_{}.latents", request.steps - 1);
    let expected = [&reference[&last], &reference["image"]].map(Tensor::floats);
    // diffusers clamps its image.
    let image: Vec<f32> = generation
        .decoded
        .iter()
        .map(|x| x.clamp(-1.0, 1.0))
        .collect();
    [
        psnr(expected[0], &generation.latents),
        psnr(expected[1], &image),
    ]
}

/// The metadata key `snapc` of a reference file.
fn reference_facts(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    serde_json::from_str(&metadata["snapc"]).unwrap()
}

#[test]
fn a_run_in_f32_gives_the_latents_of_diffusers() {
    let [latents, image] = run_parity(Precision::F32);
    assert!(
        latents >= 100.0 && image >= 100.0,
        "{latents:.1} dB, {image:.1} dB"
    );
}

#[test]
fn a_run_in_f16_is_close_to_diffusers() {
    let [latents, image] = run_parity(Precision::F16);
    assert!(
        latents >= 55.0 && image >= 55.0,
        "{latents:.1} dB, {image:.1} dB"
    );
}
