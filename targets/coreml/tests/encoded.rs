//! Weights stored as codes: what each level has a form for, read by coremltools and by snapc's own reader.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod reading;

use std::sync::Arc;

use foreign_reader::{Job, Tensors, emit_program, program, psnr, run};
use reading::evaluate;
use snapc_coreml::{CoreMl, Level};
use snapc_ir::ops::{Add, Conv2d, FakeQuantize, Gather, Linear};
use snapc_ir::{DType, Encoding, Graph, LazyTensor, Shape, Tensor, TensorType, eval};
use snapc_target::{EmitOptions, Precision, Silent, Target, VerifiedProgram};

const SHAPE: [usize; 3] = [6, 8, 4];

/// An encoding with its first level, and what its codes stand for by the formulas of the format.
struct Case {
    name: String,
    since: Level,
    encoding: Encoding,
    codes: Vec<u8>,
    values: Vec<f32>,
}

/// Multiples of 2^-6 below 2, which f16 holds: the products with codes below are rounded once.
fn fine(i: usize) -> f32 {
    (i * 37 % 101 + 1) as f32 / 64.0
}

/// The group of an element, by the definition: every dimension is cut into equal parts, numbered row-major.
fn group_of(position: usize, groups: [usize; 3]) -> usize {
    let index = [position / 32, position / 4 % 8, position % 4];
    let part = |d: usize| index[d] / (SHAPE[d] / groups[d]);
    (part(0) * groups[1] + part(1)) * groups[2] + part(2)
}

fn affine(since: Level, bits: u32, groups: [usize; 3], zeros: bool) -> Case {
    let count: usize = groups.iter().product();
    let scale: Vec<f32> = (0..count).map(fine).collect();
    let end = 1i32 << (bits - 1);
    let zero_point: Vec<i8> = match zeros {
        true => (0..count)
            .map(|g| (g as i32 * 5 % (2 * end) - end) as i8)
            .collect(),
        false => Vec::new(),
    };
    let codes: Vec<i8> = (0..192).map(|i| (i * 29 % (2 * end) - end) as i8).collect();
    let values = codes.iter().enumerate().map(|(i, &q)| {
        let g = group_of(i, groups);
        let zero = zero_point.get(g).copied().unwrap_or(0);
        scale[g] * f32::from(i16::from(q) - i16::from(zero))
    });
    let values = values.collect();
    Case {
        name: format!("affine_{bits}_{groups:?}_{zeros}"),
        since,
        encoding: Encoding::affine(bits, &groups, scale, zero_point).unwrap(),
        codes: codes.iter().map(|q| q.cast_unsigned()).collect(),
        values,
    }
}

fn palette(since: Level, bits: u32, groups: [usize; 3]) -> Case {
    let count: usize = groups.iter().product();
    let entries = 1usize << bits;
    let table: Vec<f32> = (0..count * entries)
        .map(|i| (i % entries) as f32 / 32.0 - fine(i / entries))
        .collect();
    let codes: Vec<u8> = (0..192).map(|i| (i * 29 % entries) as u8).collect();
    let values = codes.iter().enumerate();
    let values = values.map(|(i, &q)| table[group_of(i, groups) * entries + usize::from(q)]);
    Case {
        name: format!("palette_{bits}_{groups:?}"),
        since,
        values: values.collect(),
        encoding: Encoding::palette(bits, &groups, table).unwrap(),
        codes,
    }
}

fn cases() -> Vec<Case> {
    use Level::{Ios16, Ios18};
    let one = [1, 1, 1];
    let mut cases = vec![
        affine(Ios16, 8, one, false),
        affine(Ios16, 8, one, true),
        affine(Ios16, 8, [6, 1, 1], false),
        affine(Ios16, 8, [6, 1, 1], true),
        affine(Ios16, 8, [1, 8, 1], true),
        affine(Ios18, 8, [3, 1, 1], false),
        affine(Ios18, 8, [6, 2, 1], true),
        affine(Ios18, 4, one, false),
        affine(Ios18, 4, [6, 1, 1], true),
        affine(Ios18, 4, [6, 4, 2], true),
        palette(Ios18, 3, one),
        palette(Ios18, 4, [3, 1, 1]),
        palette(Ios18, 6, [2, 2, 2]),
    ];
    cases.extend([1, 2, 4, 6, 8].map(|bits| palette(Ios16, bits, one)));
    cases
}

fn tensor_of(case: &Case, dtype: DType) -> LazyTensor {
    let buffer = Arc::new(case.codes.clone());
    let codes = LazyTensor::from_buffer(buffer, 0..192, case.encoding.code_dtype(), &SHAPE);
    LazyTensor::from_codes(codes, Arc::new(case.encoding.clone()), dtype)
}

/// `y = x + weight`.
fn sum(name: &str, weight: LazyTensor) -> Graph {
    let mut graph = Graph::new(name);
    let ty = TensorType::new(weight.dtype(), Shape::fixed(&SHAPE));
    let x = graph.input("x", ty);
    let weight = graph.parameter("weight", weight);
    let y = graph.add(Add {}, &[x, weight], "sum").unwrap();
    graph.output("y", y);
    graph
}

fn options(level: Level, dtype: DType) -> EmitOptions {
    EmitOptions {
        min_ios: Some(level.ios()),
        precision: match dtype {
            DType::F16 => Precision::F16,
            _ => Precision::F32,
        },
        ..EmitOptions::default()
    }
}

fn refusal(graph: Graph, options: &EmitOptions) -> String {
    let program = program(vec![graph]);
    let verified = VerifiedProgram::new(&program).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused = CoreMl.emit(&verified, options, dir.path(), &Silent);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    refused.unwrap_err().to_string()
}

/// Every code of every form, to the last bit; what a level has no form for is refused by name.
#[test]
fn codes_stand_for_the_same_values_in_coremltools_and_in_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (mut jobs, mut expected) = (Vec::new(), Vec::new());
    for level in Level::ALL {
        for dtype in [DType::F32, DType::F16] {
            let options = options(level, dtype);
            let folder = dir.path().join(format!("{}-{dtype}", level.ios()));
            std::fs::create_dir(&folder).unwrap();
            let mut graphs = Vec::new();
            for (i, case) in cases().iter().enumerate() {
                let graph = sum(&format!("case{i}"), tensor_of(case, dtype));
                if level < case.since {
                    let error = refusal(graph, &options);
                    let start = format!("graph 'case{i}', node 'sum': ");
                    assert!(error.starts_with(&start), "{error}");
                    assert!(error.contains("weight 'weight'"), "{error}");
                    assert!(error.contains("use --min-ios 18"), "{error}");
                    continue;
                }
                let mut values = Tensor::float(&SHAPE, case.values.clone());
                values.round_to(dtype);
                expected.push((values, case.encoding.clone()));
                jobs.push(Job {
                    name: format!("{level} {dtype} {}", case.name),
                    package: folder.join(format!("case{i}.mlpackage")),
                    inputs: Tensors::from([(
                        "x".to_owned(),
                        Tensor::float(&SHAPE, vec![0.0; 192]),
                    )]),
                });
                graphs.push(graph);
            }
            let (program, emitted) = emit_program(program(graphs), &options, &folder);
            assert_planned(&program, &emitted, &options);
        }
    }
    let list: Vec<&Job> = jobs.iter().collect();
    for ((job, outputs), (values, encoding)) in jobs.iter().zip(run(&list)).zip(expected) {
        assert_eq!(outputs["y"], values, "{}", job.name);
        assert_eq!(
            evaluate(&job.package, &job.inputs)["y"],
            values,
            "{}",
            job.name
        );
        let graph = snapc_coreml::read(&job.package).unwrap();
        let read = graph.weights()[0].tensor.encoding().unwrap();
        assert_eq!(read.bits(), encoding.bits(), "{}", job.name);
        assert_eq!(read.groups(), encoding.groups(), "{}", job.name);
    }
}

/// The planned size is that of the weight files and of the runtime beside them.
fn assert_planned(
    program: &snapc_ir::Program,
    emitted: &snapc_target::Emitted,
    options: &EmitOptions,
) {
    let is_planned = |path: &str| path.ends_with(".bin") || path.starts_with("runtime/");
    let files = emitted.files.iter().filter(|f| is_planned(&f.path));
    let written: u64 = files.map(|f| f.bytes).sum();
    let planned = CoreMl.artifact_bytes(program, options);
    // Small parameters stand in the model file, and take 64 bytes of metadata and up to 64 of data in the plan.
    let slack = 3 * 192 * emitted.graphs.len() as u64;
    assert!(planned.abs_diff(written) <= slack, "{planned}, {written}");
}

/// A convolution, a linear layer and a table whose weights are encoded, with activations on a grid.
fn network(dtype: DType, encode: &dyn Fn(LazyTensor) -> LazyTensor) -> Graph {
    let mut graph = Graph::new("unet");
    let random = |shape: &[usize], seed: usize| {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| ((i * 7919 + seed * 31) % 1009) as f32 / 504.0 - 1.0);
        LazyTensor::from_f32(shape, &data.collect::<Vec<_>>()).cast(dtype)
    };
    let x = graph.input("x", TensorType::new(dtype, Shape::fixed(&[1, 8, 5, 5])));
    let ids = graph.input("ids", TensorType::new(DType::I32, Shape::fixed(&[1, 5])));
    let grid = FakeQuantize {
        scale: 0.03125,
        zero_point: 100,
    };
    let x = graph.add(grid, &[x], "conv_in").unwrap();
    let weight = graph.parameter("conv.weight", encode(random(&[4, 8, 3, 3], 1)));
    let bias = graph.parameter("conv.bias", random(&[4], 2));
    let conv = Conv2d {
        strides: [1, 1],
        pads: [1, 1, 1, 1],
        groups: 1,
    };
    let y = graph.add(conv, &[x, weight, bias], "conv").unwrap();
    let table = graph.parameter("table.weight", encode(random(&[16, 8], 3)));
    let gather = Gather {
        axis: 0,
        batch_dims: 0,
    };
    let rows = graph.add(gather, &[table, ids], "table").unwrap();
    let weight = graph.parameter("fc.weight", encode(random(&[5, 8], 4)));
    let z = graph.add(Linear {}, &[rows, weight], "fc").unwrap();
    let sum = graph.add(Add {}, &[y, z], "sum").unwrap();
    graph.output("y", sum);
    graph
}

fn int8_per_channel(weight: LazyTensor) -> LazyTensor {
    let mut groups = vec![1; weight.shape().len()];
    groups[0] = weight.shape()[0];
    let scale = (0..groups[0]).map(|g| (100 + g) as f32 / 8192.0).collect();
    weight.encode(Arc::new(
        Encoding::affine(8, &groups, scale, Vec::new()).unwrap(),
    ))
}

fn palette6(weight: LazyTensor) -> LazyTensor {
    let groups = vec![1; weight.shape().len()];
    let table = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
    weight.encode(Arc::new(Encoding::palette(6, &groups, table).unwrap()))
}

#[test]
fn networks_of_encoded_weights_and_activations_are_evaluated_by_coremltools() {
    let dir = tempfile::tempdir().unwrap();
    let ids = Tensor::int(&[1, 5], vec![3, 0, 15, 7, 7]);
    let (mut jobs, mut expected) = (Vec::new(), Vec::new());
    for level in [Level::Ios17, Level::Ios18] {
        for dtype in [DType::F32, DType::F16] {
            for (i, encode) in [int8_per_channel, palette6].iter().enumerate() {
                let mut x: Vec<f32> = (0..200).map(|i| fine(i) * 4.0 - 3.0).collect();
                // Beyond both ends of the grid.
                x[..2].copy_from_slice(&[-50.0, 50.0]);
                let mut x = Tensor::float(&[1, 8, 5, 5], x);
                x.round_to(dtype);
                let inputs = Tensors::from([("x".to_owned(), x), ("ids".to_owned(), ids.clone())]);
                let graph = network(dtype, encode);
                let y = eval::run(&graph, &inputs).unwrap().remove("y").unwrap();
                let folder = dir.path().join(format!("{}-{dtype}-{i}", level.ios()));
                std::fs::create_dir(&folder).unwrap();
                emit_program(program(vec![graph]), &options(level, dtype), &folder);
                expected.push((y, if dtype == DType::F16 { 65.0 } else { 110.0 }));
                jobs.push(Job {
                    name: format!("{level} {dtype} {i}"),
                    package: folder.join("Unet.mlpackage"),
                    inputs,
                });
            }
        }
    }
    let list: Vec<&Job> = jobs.iter().collect();
    for ((job, outputs), (y, floor)) in jobs.iter().zip(run(&list)).zip(expected) {
        let there = psnr(&y, &outputs["y"]);
        let here = psnr(&y, &evaluate(&job.package, &job.inputs)["y"]);
        let lines = format!(
            "{}: coremltools {there:.1} dB, read back {here:.1} dB",
            job.name
        );
        assert!(there >= floor && here >= floor, "{lines}");
        let graph = snapc_coreml::read(&job.package).unwrap();
        let encoded = graph
            .weights()
            .iter()
            .filter(|w| w.tensor.encoding().is_some());
        assert_eq!(encoded.count(), 3, "{}", job.name);
        let grids = graph
            .nodes()
            .iter()
            .filter(|n| n.op.name() == "fake_quantize");
        assert_eq!(grids.count(), 1, "{}", job.name);
    }
}

#[test]
fn activations_of_8_bits_need_ios_17() {
    let graph = network(DType::F16, &|weight| weight);
    let error = refusal(graph, &options(Level::Ios16, DType::F16));
    assert!(
        error.starts_with("graph 'unet', node 'conv_in': "),
        "{error}"
    );
    assert!(error.contains("use --min-ios 17"), "{error}");
}

/// 2^-26 is below half of the smallest f16.
#[test]
fn a_scale_that_vanishes_in_f16_is_refused() {
    let encoding = Encoding::affine(8, &[1, 1, 1], vec![2f32.powi(-26)], Vec::new()).unwrap();
    let weight = LazyTensor::from_f32(&SHAPE, &[0.0; 192]).cast(DType::F16);
    let graph = sum("unet", weight.encode(Arc::new(encoding)));
    let error = refusal(graph, &options(Level::Ios17, DType::F16));
    assert!(
        error.contains("is zero in f16; use --precision f32"),
        "{error}"
    );
}
