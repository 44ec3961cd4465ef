//! The pipelines of the fixtures as ONNX models, read back into the IR and evaluated against diffusers.
//!
//! The reference numbers are diffusers' own in f32 (`fixtures/make_graph_reference.py`); the bounds are those of the
//! contract for one call of a graph.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use snapc_import::{ImportOptions, open};
use snapc_ir::{DType, Graph, Tensor, eval, verify};
use snapc_passes::{Pipeline, RunOptions, recognize};
use support::{psnr, read_tensors, workspace};

/// Checkpoints with their reference files, relative to `fixtures`.
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

const GRAPHS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// Converts a checkpoint of the fixtures; gives its graphs as the passes left them.
fn convert(checkpoint: &str, pipeline: &str, dir: &Path) -> Vec<Graph> {
    let checkpoint = workspace().join("fixtures").join(checkpoint);
    // A single file's networks are smaller than those of the releases.
    let config = checkpoint.with_extension("config.json");
    let options = ImportOptions {
        config: config.exists().then_some(config),
        ..ImportOptions::default()
    };
    let opened = open(&checkpoint, &options).expect("opens");
    let program = opened.import().expect("imports");
    let pipeline: Pipeline = pipeline.parse().expect("is a pipeline");
    let (program, _) = pipeline.run(program, &RunOptions::default()).expect("runs");
    let graphs = program.graphs.clone();
    support::emit(program, dir);
    graphs
}

fn read(dir: &Path, graph: &str, batch: usize) -> Graph {
    let sizes = BTreeMap::from([("batch".to_owned(), batch)]);
    let model = dir.join(graph).join("model.onnx");
    let read = snapc_onnx::read(&model, &sizes).unwrap_or_else(|e| panic!("{e}"));
    let read = recognize(&read).expect("is a valid graph");
    assert_eq!(read.name(), graph);
    verify::verify(&read).expect("verifies");
    read
}

/// Every output of every graph at batch 1 and 2 has at least `bound` dB.
fn assert_reads_back(pipeline: &str, bound: f64) {
    for (checkpoint, reference) in CHECKPOINTS {
        let dir = tempfile::tempdir().unwrap();
        convert(checkpoint, pipeline, dir.path());
        let reference = read_tensors(&workspace().join("fixtures").join(reference));
        for graph in GRAPHS {
            for batch in [1, 2] {
                let read = read(dir.path(), graph, batch);
                let tensor = |name: &str| reference[&format!("{graph}.b{batch}.{name}")].clone();
                let names = read.inputs().iter().map(|i| i.name.clone());
                let inputs: BTreeMap<String, Tensor> =
                    names.map(|n| (n.clone(), tensor(&n))).collect();
                for (name, found) in eval::run(&read, &inputs).unwrap() {
                    let db = psnr(&tensor(&name), &found);
                    assert!(
                        db >= bound,
                        "{checkpoint}, {pipeline}, {graph}.b{batch}.{name}: {db:.1} dB, at least {bound} expected"
                    );
                }
            }
        }
    }
}

#[test]
fn f32_reads_back_as_diffusers() {
    assert_reads_back("f32", 100.0);
}

#[test]
fn rewritten_layers_read_back_as_diffusers() {
    assert_reads_back(REWRITES, 100.0);
}

#[test]
fn f16_reads_back_close_to_diffusers() {
    assert_reads_back("f16", 65.0);
}

#[test]
fn f16_reads_back_as_the_graph_that_was_written_to_the_bit() {
    for (checkpoint, reference) in CHECKPOINTS {
        let dir = tempfile::tempdir().unwrap();
        let reference = read_tensors(&workspace().join("fixtures").join(reference));
        for written in convert(checkpoint, "f16", dir.path()) {
            let graph = written.name();
            let inputs = written.inputs().iter().map(|i| {
                let tensor = reference[&format!("{graph}.b2.{}", i.name)].clone();
                (i.name.clone(), tensor)
            });
            let inputs: BTreeMap<String, Tensor> = inputs.collect();
            let expected = eval::run(&written, &inputs).unwrap();
            let found = eval::run(&read(dir.path(), graph, 2), &inputs).unwrap();
            assert_eq!(found, expected, "{checkpoint}, {graph}");
        }
    }
}

/// Operators and names of the nodes that hold weights, and how often the others occur.
fn outline(graph: &Graph) -> (Vec<(&'static str, String)>, BTreeMap<&'static str, usize>) {
    let weighted = ["conv2d", "group_norm", "layer_norm", "linear"];
    let mut counts = BTreeMap::new();
    let mut named = Vec::new();
    for node in graph.nodes() {
        match node.op.name() {
            op if weighted.contains(&op) => named.push((op, node.name.clone())),
            op => *counts.entry(op).or_default() += 1,
        }
    }
    (named, counts)
}

#[test]
fn composites_and_module_paths_survive_the_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    for written in convert("tiny", "f32", dir.path()) {
        let read = read(dir.path(), written.name(), 2);
        let (written_named, written_counts) = outline(&written);
        let (read_named, read_counts) = outline(&read);
        assert_eq!(read_named, written_named);
        for op in [
            "attention",
            "gelu",
            "quick_gelu",
            "silu",
            "upsample_nearest",
        ] {
            assert_eq!(read_counts.get(op), written_counts.get(op), "{op}");
        }
        for primitive in ["matmul", "softmax", "sigmoid", "erf"] {
            assert!(!read_counts.contains_key(primitive), "{read_counts:?}");
        }
    }
}

#[test]
fn weights_keep_their_bytes_in_the_data_file() {
    let dir = tempfile::tempdir().unwrap();
    convert("tiny", "f16", dir.path());
    let unet = read(dir.path(), "unet", 1);
    let conv_in = unet
        .weights()
        .iter()
        .find(|w| w.name == "conv_in.weight")
        .unwrap();
    assert_eq!(conv_in.tensor.dtype(), DType::F16);
    assert!(conv_in.is_parameter);
    // Nothing is copied: the tensor is the file's bytes with no step between.
    assert!(conv_in.tensor.transforms().is_empty());
    let bytes = conv_in.tensor.bytes().unwrap();
    assert!(matches!(bytes, std::borrow::Cow::Borrowed(_)));
    let data = std::fs::read(dir.path().join("unet/model.onnx_data")).unwrap();
    assert!(data.windows(bytes.len()).any(|w| w == bytes.as_ref()));
}
