//! The small pipeline of the fixtures with every matrix and kernel stored as codes: ONNX Runtime against the evaluator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snapc_import::{ImportOptions, open};
use snapc_ir::{BuildError, Encoding, Graph, LazyTensor, Program, Tensor, eval};
use snapc_onnx::OnnxTarget;
use snapc_passes::{Pipeline, RunOptions};
use snapc_target::Target;
use support::{Call, psnr, read_tensors, run_onnx, workspace};

/// How codes are chosen for the elements of a weight.
type Choice = fn(&[usize], &[f32]) -> Option<Encoding>;

fn largest(values: &[f32]) -> f32 {
    let half = |x: f32| half::f16::from_f32(x).to_f32();
    half(values.iter().fold(1e-3f32, |a, x| a.max(x.abs())))
}

/// 8 bits, a scale per row of the first dimension.
fn int8(shape: &[usize], values: &[f32]) -> Option<Encoding> {
    let rows = values.chunks(values.len() / shape[0]);
    let scale = rows.map(|row| half::f16::from_f32(largest(row) / 127.0).to_f32());
    let mut groups = vec![1; shape.len()];
    groups[0] = shape[0];
    Encoding::affine(8, &groups, scale.collect(), Vec::new()).ok()
}

/// 4 bits, blocks of 8 input channels.
fn int4(shape: &[usize], values: &[f32]) -> Option<Encoding> {
    if !shape[1].is_multiple_of(8) {
        return None;
    }
    let mut groups = vec![1; shape.len()];
    groups[..2].copy_from_slice(&[shape[0], shape[1] / 8]);
    let block = 8 * shape[2..].iter().product::<usize>();
    let scale = values
        .chunks(block)
        .map(|b| half::f16::from_f32(largest(b) / 7.0).to_f32());
    Encoding::affine(4, &groups, scale.collect(), Vec::new()).ok()
}

/// A palette of 6 bits with equal distances.
fn palette6(shape: &[usize], values: &[f32]) -> Option<Encoding> {
    let end = largest(values);
    let entry = |i: u8| half::f16::from_f32(end * (f32::from(i) / 31.5 - 1.0)).to_f32();
    Encoding::palette(6, &vec![1; shape.len()], (0..64).map(entry).collect()).ok()
}

fn encoded(graph: &Graph, choice: Choice) -> Graph {
    let changed = graph.rebuild::<BuildError>(|rebuild, node| {
        for &operand in &node.operands {
            let weight = rebuild.old().weight_of(operand);
            let Some(weight) = weight.filter(|w| w.is_parameter && w.tensor.shape().len() > 1)
            else {
                continue;
            };
            let values = weight.tensor.to_f32().unwrap();
            if let Some(encoding) = choice(weight.tensor.shape(), &values) {
                let tensor: LazyTensor = weight.tensor.clone().encode(Arc::new(encoding));
                let value = rebuild.graph.parameter(weight.name.clone(), tensor);
                rebuild.bind(operand, value);
            }
        }
        rebuild.copy(node).map(Some)
    });
    changed.unwrap()
}

/// Every output of every graph at batch 2 has at least `bound` dB against the evaluation of the encoded graph.
fn assert_parity(pipeline: &str, choice: Choice, bound: f64) {
    let checkpoint = workspace().join("fixtures/tiny");
    let program = open(&checkpoint, &ImportOptions::default())
        .unwrap()
        .import()
        .unwrap();
    let passes: Pipeline = pipeline.parse().unwrap();
    let (mut program, _): (Program, _) = passes.run(program, &RunOptions::default()).unwrap();
    program
        .graphs
        .iter_mut()
        .for_each(|graph| *graph = encoded(graph, choice));
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let graphs = program.graphs.clone();
    support::emit(program, dir.path());
    assert_eq!(OnnxTarget.verify(dir.path()).unwrap(), []);

    let reference = read_tensors(&workspace().join("fixtures/tiny/graphs.safetensors"));
    let inputs = |graph: &Graph| -> BTreeMap<String, Tensor> {
        let named = graph.inputs().iter().map(|i| {
            let tensor = reference[&format!("{}.b2.{}", graph.name(), i.name)].clone();
            (i.name.clone(), tensor)
        });
        named.collect()
    };
    let model = |dir: &Path, graph: &Graph| dir.join(graph.name()).join("model.onnx");
    let call = |graph: &Graph| Call {
        model: model(dir.path(), graph),
        inputs: inputs(graph),
    };
    let found = run_onnx(&graphs.iter().map(call).collect::<Vec<_>>(), scratch.path());
    let sizes = BTreeMap::from([("batch".to_owned(), 2)]);
    for (graph, found) in graphs.iter().zip(&found) {
        let expected = eval::run(graph, &inputs(graph)).unwrap();
        let read = snapc_onnx::read(&model(dir.path(), graph), &sizes).unwrap();
        let codes = |g: &Graph| {
            g.weights()
                .iter()
                .filter(|w| w.tensor.encoding().is_some())
                .count()
        };
        assert_eq!(codes(&read), codes(graph), "{}", graph.name());
        let read = eval::run(&read, &inputs(graph)).unwrap();
        for (name, expected) in &expected {
            for (who, found) in [("ONNX Runtime", &found[name]), ("the reader", &read[name])] {
                let db = psnr(expected, found);
                assert!(
                    db >= bound,
                    "{pipeline}, {}.{name}, {who}: {db:.1} dB",
                    graph.name()
                );
            }
        }
    }
}

#[test]
fn int8_per_channel_equals_the_evaluator() {
    assert_parity("f32", int8, 100.0);
    assert_parity("f16", int8, 65.0);
}

#[test]
fn int4_blocks_equal_the_evaluator() {
    assert_parity("f32", int4, 100.0);
    assert_parity("f16", int4, 65.0);
}

#[test]
fn palettes_of_6_bits_equal_the_evaluator() {
    assert_parity("f32", palette6, 100.0);
    assert_parity("f16", palette6, 65.0);
}
