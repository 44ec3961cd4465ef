//! Weights that are stored as codes, run by ONNX Runtime and read back, against the evaluator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use snapc_ir::ops::{Add, Conv2d, FakeQuantize, Gather, GroupNorm, Linear, Slice};
use snapc_ir::{
    DType, Encoding, Graph, LazyTensor, Shape, Tensor, TensorType, ValueId, eval, verify,
};
use snapc_onnx::proto::ModelProto;
use support::{Call, Noise, emit_graphs, psnr, run_onnx};

const BATCH: usize = 2;

/// Values of a weight, between -1 and 1.
fn values(shape: &[usize], seed: u64) -> LazyTensor {
    let tensor = Noise::new(seed).floats(shape, -1.0, 1.0);
    LazyTensor::from_f32(shape, tensor.floats())
}

/// Numbers on the grid of f16, as a pass makes scales and tables for graphs in half precision.
fn half(values: Vec<f32>) -> Vec<f32> {
    let narrow = values.into_iter().map(half::f16::from_f32);
    narrow.map(half::f16::to_f32).collect()
}

/// Signed codes; scales differ from group to group, as do zero points.
fn affine(bits: u32, groups: &[usize], with_zero_points: bool) -> Encoding {
    let count: usize = groups.iter().product();
    let step = if bits == 8 { 0.008 } else { 0.15 };
    let scale = (0..count).map(|i| step * (1.0 + (i % 7) as f32 / 10.0));
    let zero = (0..count).map(|i| (i % 5) as i8 - 2);
    let zero: Vec<i8> = if with_zero_points {
        zero.collect()
    } else {
        Vec::new()
    };
    Encoding::affine(bits, groups, half(scale.collect()), zero).unwrap()
}

/// Tables whose entries are not equally far from each other, another one in every group.
fn palette(bits: u32, groups: &[usize]) -> Encoding {
    let count: usize = groups.iter().product();
    let entries = 1 << bits;
    let table = (0..count).flat_map(|group| {
        (0..entries).map(move |i| {
            let x = (i as f32 + 0.5) / entries as f32 * 2.0 - 1.0;
            x * (0.6 + 0.4 * x.abs()) + group as f32 / 64.0
        })
    });
    Encoding::palette(bits, groups, half(table.collect())).unwrap()
}

/// An operator whose weight is encoded.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// Weight `[20, 24]`, in a product of matrices.
    Gemm,
    /// The same in a product of batches of matrices, which takes it transposed.
    MatMul,
    /// Weight `[6, 8, 3, 3]`.
    Conv,
    /// Weight `[6, 8, 1, 1]`.
    Pointwise,
    /// Table `[10, 6]`, of which rows are taken.
    Rows,
    /// Scale of a normalization, `[8]`, which becomes `[8, 1, 1]`.
    Channels,
}

impl Use {
    fn weight(self) -> &'static [usize] {
        match self {
            Use::Gemm | Use::MatMul => &[20, 24],
            Use::Conv => &[6, 8, 3, 3],
            Use::Pointwise => &[6, 8, 1, 1],
            Use::Rows => &[10, 6],
            Use::Channels => &[8],
        }
    }

    fn input(self) -> TensorType {
        match self {
            Use::Gemm => TensorType::new(DType::F32, Shape::batched(&[24])),
            Use::MatMul => TensorType::new(DType::F32, Shape::batched(&[5, 24])),
            Use::Conv | Use::Pointwise | Use::Channels => {
                TensorType::new(DType::F32, Shape::batched(&[8, 6, 6]))
            }
            Use::Rows => TensorType::new(DType::I64, Shape::batched(&[7])),
        }
    }

    fn add(self, graph: &mut Graph, x: ValueId, weight: ValueId, dtype: DType) -> ValueId {
        let name = "layer";
        match self {
            Use::Gemm | Use::MatMul => graph.add(Linear {}, &[x, weight], name),
            Use::Conv | Use::Pointwise => {
                let pads = if matches!(self, Use::Conv) {
                    [1; 4]
                } else {
                    [0; 4]
                };
                let op = Conv2d {
                    strides: [1, 1],
                    pads,
                    groups: 1,
                };
                graph.add(op, &[x, weight], name)
            }
            Use::Rows => graph.add(
                Gather {
                    axis: 0,
                    batch_dims: 0,
                },
                &[weight, x],
                name,
            ),
            Use::Channels => {
                let bias =
                    graph.parameter("bias", LazyTensor::from_f32(&[8], &[0.5; 8]).cast(dtype));
                graph.add(
                    GroupNorm {
                        groups: 2,
                        epsilon: 1e-5,
                    },
                    &[x, weight, bias],
                    name,
                )
            }
        }
        .unwrap()
    }
}

struct Case {
    name: String,
    graph: Graph,
    inputs: BTreeMap<String, Tensor>,
}

fn case(form: Use, encoding: Encoding, dtype: DType) -> Case {
    let kind = match encoding.codebook() {
        snapc_ir::Codebook::Affine { zero_point, .. } if zero_point.is_empty() => "symmetric",
        snapc_ir::Codebook::Affine { .. } => "affine",
        snapc_ir::Codebook::Palette { .. } => "palette",
    };
    let groups: Vec<String> = encoding.groups().iter().map(ToString::to_string).collect();
    let bits = encoding.bits();
    let name = format!("{form:?}_{kind}{bits}_{}_{dtype}", groups.join("x"));
    let mut graph = Graph::new(name.clone());
    let mut noise = Noise::new(11);
    let mut ty = form.input();
    let input = noise.tensor(ty.dtype, &ty.shape.bind(BATCH), (-2.0, 2.0), 10);
    if ty.dtype.is_float() {
        ty.dtype = dtype;
    }
    let mut input_tensor = input;
    input_tensor.round_to(ty.dtype);
    let x = graph.input("x", ty);
    let weight = values(form.weight(), 5)
        .cast(dtype)
        .encode(Arc::new(encoding));
    let weight = graph.parameter("layer.weight", weight);
    let y = form.add(&mut graph, x, weight, dtype);
    graph.output("y", y);
    Case {
        name,
        graph,
        inputs: BTreeMap::from([("x".to_owned(), input_tensor)]),
    }
}

/// Every form of codes under every operator that takes it another way.
fn cases(dtype: DType) -> Vec<Case> {
    let mut cases = Vec::new();
    for form in [Use::Gemm, Use::MatMul, Use::Conv, Use::Pointwise, Use::Rows] {
        let rank = form.weight().len();
        let [rows, columns] = [form.weight()[0], form.weight()[1]];
        let groups = |rows: usize, columns: usize| {
            let mut groups = vec![1; rank];
            groups[..2].copy_from_slice(&[rows, columns]);
            groups
        };
        for with_zero_points in [false, true] {
            for bits in [4, 8] {
                for parts in [[1, 1], [rows, 1], [rows, 2], [1, columns], [2, 2], [2, 1]] {
                    let encoding = affine(bits, &groups(parts[0], parts[1]), with_zero_points);
                    cases.push(case(form, encoding, dtype));
                }
            }
        }
        for bits in [1, 2, 3, 4, 6, 8] {
            for parts in [[1, 1], [2, 1], [rows, 1], [1, 2], [2, 2]] {
                cases.push(case(
                    form,
                    palette(bits, &groups(parts[0], parts[1])),
                    dtype,
                ));
            }
        }
    }
    for encoding in [
        affine(8, &[8], true),
        affine(8, &[2], false),
        palette(4, &[1]),
        palette(3, &[2]),
    ] {
        cases.push(case(Use::Channels, encoding, dtype));
    }
    cases
}

fn emitted(cases: &[Case]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    emit_graphs(cases.iter().map(|c| c.graph.clone()).collect(), dir.path());
    dir
}

fn model(dir: &Path, case: &Case) -> std::path::PathBuf {
    dir.join(&case.name).join("model.onnx")
}

fn read(dir: &Path, case: &Case) -> Graph {
    let sizes = BTreeMap::from([("batch".to_owned(), BATCH)]);
    let graph = snapc_onnx::read(&model(dir, case), &sizes);
    let graph = graph.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    verify::verify(&graph).expect("verifies");
    graph
}

fn assert_runs_as_evaluated(cases: &[Case], bound: f64) {
    let dir = emitted(cases);
    let scratch = tempfile::tempdir().unwrap();
    let call = |case: &Case| Call {
        model: model(dir.path(), case),
        inputs: case.inputs.clone(),
    };
    let calls: Vec<Call> = cases.iter().map(call).collect();
    let found = run_onnx(&calls, scratch.path());
    for (case, found) in cases.iter().zip(&found) {
        let expected = eval::run(&case.graph, &case.inputs).unwrap();
        let db = psnr(&expected["y"], &found["y"]);
        assert!(db >= bound, "{}: {db:.1} dB", case.name);
    }
}

#[test]
fn onnx_runtime_computes_with_codes_as_the_evaluator() {
    assert_runs_as_evaluated(&cases(DType::F32), 100.0);
}

#[test]
fn onnx_runtime_computes_with_codes_in_half_precision() {
    assert_runs_as_evaluated(&cases(DType::F16), 65.0);
}
