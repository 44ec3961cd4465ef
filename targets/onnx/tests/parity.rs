//! The small pipelines of the fixtures against diffusers: every graph, f32 and f16, batch 1 and 2, as ONNX Runtime computes it.
//!
//! The reference numbers are diffusers' own in f32 (`fixtures/make_graph_reference.py`); the bounds are those of the
//! contract for one call of a graph.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use snapc_import::{ImportOptions, open};
use snapc_ir::Tensor;
use snapc_onnx::OnnxTarget;
use snapc_passes::{Pipeline, RunOptions};
use snapc_target::Target;
use support::{Call, psnr, read_tensors, run_onnx, workspace};

const GRAPHS: [(&str, &[&str], &[&str]); 3] = [
    (
        "text_encoder",
        &["input_ids"],
        &["last_hidden_state", "pooler_output"],
    ),
    (
        "unet",
        &["sample", "timestep", "encoder_hidden_states"],
        &["out_sample"],
    ),
    ("vae_decoder", &["latent_sample"], &["sample"]),
];

fn convert(checkpoint: &Path, pipeline: &str, dir: &Path) {
    let program = open(checkpoint, &import_options(checkpoint))
        .expect("opens")
        .import()
        .expect("imports");
    let pipeline: Pipeline = pipeline.parse().expect("is a pipeline");
    let (program, _) = pipeline.run(program, &RunOptions::default()).expect("runs");
    support::emit(program, dir);
}

/// Converts a checkpoint and gives the PSNR of every output, by `graph.bN.output`.
fn parity(checkpoint: &str, reference: &str, pipeline: &str) -> BTreeMap<String, f64> {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let fixtures = workspace().join("fixtures");
    convert(&fixtures.join(checkpoint), pipeline, dir.path());
    assert_eq!(OnnxTarget.verify(dir.path()).unwrap(), []);

    let reference = read_tensors(&fixtures.join(reference));
    let mut calls = Vec::new();
    let mut prefixes = Vec::new();
    for (graph, inputs, _) in GRAPHS {
        for batch in [1, 2] {
            let prefix = format!("{graph}.b{batch}");
            let input = |name: &&str| -> (String, Tensor) {
                (
                    (*name).to_owned(),
                    reference[&format!("{prefix}.{name}")].clone(),
                )
            };
            calls.push(Call {
                model: dir.path().join(graph).join("model.onnx"),
                inputs: inputs.iter().map(input).collect(),
            });
            prefixes.push((prefix, graph));
        }
    }
    let results = run_onnx(&calls, scratch.path());
    let mut found = BTreeMap::new();
    for ((prefix, graph), result) in prefixes.iter().zip(&results) {
        let (_, _, outputs) = GRAPHS.iter().find(|(name, ..)| name == graph).unwrap();
        for output in *outputs {
            let key = format!("{prefix}.{output}");
            found.insert(key.clone(), psnr(&reference[&key], &result[*output]));
        }
    }
    found
}

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

/// The configuration of a single-file fixture, whose networks are smaller than those of the releases.
fn import_options(checkpoint: &Path) -> ImportOptions {
    let config = checkpoint.with_extension("config.json");
    ImportOptions {
        config: config.exists().then_some(config),
        ..ImportOptions::default()
    }
}

fn assert_parity(pipeline: &str, bound: f64) {
    for (checkpoint, reference) in CHECKPOINTS {
        let found = parity(checkpoint, reference, pipeline);
        assert_eq!(found.len(), 8);
        for (key, db) in &found {
            assert!(
                *db >= bound,
                "{checkpoint}, {pipeline}, {key}: {db:.1} dB, at least {bound} expected"
            );
        }
    }
}

#[test]
fn f32_equals_diffusers() {
    assert_parity("f32", 100.0);
}

#[test]
fn f16_is_close_to_diffusers() {
    assert_parity("f16", 65.0);
}
