//! Weights that are stored as codes, run by ONNX Runtime and read back, against the evaluator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use snapc_ir::ops::{
    Conv2d, FakeQuantize, Gather, GroupNorm, Linear, MatMul, ReduceMean, Slice, Transpose,
};
use snapc_ir::{
    DType, Encoding, Graph, LazyTensor, Shape, Tensor, TensorType, ValueId, eval, verify,
};
use snapc_onnx::OnnxTarget;
use snapc_onnx::proto::{ModelProto, NodeProto, TensorProto};
use snapc_target::{EmitOptions, Target};
use support::{Call, Noise, emit_graphs, miniature, psnr, run_onnx};

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
        for bits in [4, 8] {
            let per_row = affine(bits, &groups(rows, 1), true);
            cases.push(case(form, per_row, dtype));
            for (i, parts) in [[1, 1], [rows, 1], [rows, 2], [1, columns], [2, 2], [2, 1]]
                .iter()
                .enumerate()
            {
                let encoding = affine(bits, &groups(parts[0], parts[1]), i % 2 == 0);
                cases.push(case(form, encoding, dtype));
            }
        }
        for bits in [1, 2, 3, 4, 6, 8] {
            cases.push(case(form, palette(bits, &groups(1, 1)), dtype));
        }
        for (bits, parts) in [
            (6, [rows, 1]),
            (4, [2, 1]),
            (3, [1, 2]),
            (8, [1, 2]),
            (2, [2, 2]),
        ] {
            cases.push(case(
                form,
                palette(bits, &groups(parts[0], parts[1])),
                dtype,
            ));
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

/// The graph read back, with its layers found again.
fn read(dir: &Path, case: &Case) -> Graph {
    let sizes = BTreeMap::from([("batch".to_owned(), BATCH)]);
    let graph = snapc_onnx::read(&model(dir, case), &sizes);
    let graph = graph.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    verify::verify(&graph).expect("verifies");
    snapc_passes::recognize(&graph).expect("verified")
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

#[test]
fn codes_are_read_back_as_codes() {
    for dtype in [DType::F32, DType::F16] {
        let cases = cases(dtype);
        let dir = emitted(&cases);
        for case in &cases {
            let read = read(dir.path(), case);
            let expected = eval::run(&case.graph, &case.inputs).unwrap();
            let found = eval::run(&read, &case.inputs).unwrap();
            assert_eq!(found["y"], expected["y"], "{}", case.name);

            let written = &case.graph.weights()[0].tensor;
            let weights = read.weights().iter();
            let encoded: Vec<_> = weights.filter(|w| w.tensor.encoding().is_some()).collect();
            assert_eq!(encoded.len(), 1, "{}", case.name);
            assert!(
                encoded[0].name.starts_with("layer.weight"),
                "{}",
                encoded[0].name
            );
            let tensor = &encoded[0].tensor;
            let bits = |t: &LazyTensor| t.encoding().unwrap().bits();
            assert_eq!(bits(tensor), bits(written), "{}", case.name);
            assert_eq!(tensor.shape(), written.shape(), "{}", case.name);
            assert_eq!(
                tensor.to_f32().unwrap(),
                written.to_f32().unwrap(),
                "{}",
                case.name
            );
        }
    }
}

fn decode(path: &Path) -> ModelProto {
    ModelProto::decode(fs::read(path).unwrap().as_slice()).unwrap()
}

/// Bytes of the constants in a model and beside it.
fn constant_bytes(model: &ModelProto) -> usize {
    let initializers = model.graph.as_ref().unwrap().initializer.iter();
    let bytes = initializers.map(|t| match &t.raw_data {
        Some(raw) => raw.len(),
        None => {
            let length = t
                .external_data
                .iter()
                .find(|e| e.key() == "length")
                .unwrap();
            length.value().parse().unwrap()
        }
    });
    bytes.sum()
}

#[test]
fn a_model_is_as_large_as_its_packed_codes() {
    let shape = [48, 32, 3, 3];
    let elements = 48 * 32 * 9;
    // Bytes of the codes, and of scales, zero points and tables in f32.
    let cases = [
        (affine(8, &[48, 1, 1, 1], true), elements, 48 * 5),
        (affine(4, &[48, 2, 1, 1], false), elements / 2, 96 * 4),
        (palette(8, &[1; 4]), elements, 1024),
        (palette(6, &[1; 4]), elements / 4 * 3, 256),
        (palette(4, &[3, 1, 1, 1]), elements / 2, 3 * 64),
        (palette(3, &[1; 4]), elements / 8 * 3, 32),
        (palette(2, &[1; 4]), elements / 4, 16),
        (palette(1, &[1; 4]), elements / 8, 8),
    ];
    for (encoding, codes, meaning) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut graph = Graph::new("g");
        let x = graph.input(
            "x",
            TensorType::new(DType::F32, Shape::batched(&[32, 4, 4])),
        );
        let label = format!("{} bits, {:?}", encoding.bits(), encoding.groups());
        let weight = values(&shape, 3).encode(Arc::new(encoding));
        let weight = graph.parameter("w", weight);
        let op = Conv2d {
            strides: [1, 1],
            pads: [1; 4],
            groups: 1,
        };
        let y = graph.add(op, &[x, weight], "conv").unwrap();
        graph.output("y", y);
        emit_graphs(vec![graph], dir.path());
        let bytes = constant_bytes(&decode(&dir.path().join("g/model.onnx")));
        // Shapes, shifts and masks are small.
        assert!(
            (codes + meaning..codes + meaning + 200).contains(&bytes),
            "{label}: {bytes} bytes, {codes} of codes"
        );
    }
}

#[test]
fn the_operator_set_rises_only_where_codes_need_it() {
    let opset = |encoding: Option<Encoding>, dtype: DType| {
        let dir = tempfile::tempdir().unwrap();
        let mut graph = Graph::new("g");
        let x = graph.input("x", TensorType::new(dtype, Shape::batched(&[24])));
        let mut weight = values(&[20, 24], 3).cast(dtype);
        if let Some(encoding) = encoding {
            weight = weight.encode(Arc::new(encoding));
        }
        let weight = graph.parameter("w", weight);
        let y = graph.add(Linear {}, &[x, weight], "linear").unwrap();
        graph.output("y", y);
        emit_graphs(vec![graph], dir.path());
        let model = decode(&dir.path().join("g/model.onnx"));
        (model.opset_import[0].version(), model.ir_version())
    };
    assert_eq!(opset(None, DType::F16), (17, 8));
    assert_eq!(opset(Some(affine(8, &[20, 1], true)), DType::F32), (17, 8));
    assert_eq!(opset(Some(affine(8, &[20, 1], true)), DType::F16), (19, 9));
    assert_eq!(opset(Some(affine(8, &[20, 2], true)), DType::F32), (21, 10));
    assert_eq!(opset(Some(affine(4, &[20, 1], true)), DType::F32), (21, 10));
    assert_eq!(opset(Some(palette(8, &[1, 1])), DType::F16), (17, 8));
    assert_eq!(opset(Some(palette(6, &[1, 1])), DType::F16), (18, 8));
    assert_eq!(opset(Some(palette(4, &[1, 1])), DType::F16), (21, 10));
}

/// Activations and weights in 8 bits, as a pass with calibration leaves them; and what stands between them.
fn in_eight_bits(name: &str, dtype: DType, scale: f32) -> Case {
    let mut graph = Graph::new(name);
    let ty = TensorType::new(dtype, Shape::batched(&[8, 6, 6]));
    let x = graph.input("x", ty);
    let conv = values(&[12, 8, 3, 3], 5)
        .cast(dtype)
        .encode(Arc::new(affine(8, &[12, 1, 1, 1], false)));
    let conv = graph.parameter("conv.weight", conv);
    let linear = values(&[10, 6], 6)
        .cast(dtype)
        .encode(Arc::new(affine(8, &[10, 1], false)));
    let linear = graph.parameter("linear.weight", linear);
    let quantize = FakeQuantize {
        scale,
        zero_point: 131,
    };
    let x = graph.add(quantize.clone(), &[x], "conv").unwrap();
    let op = Conv2d {
        strides: [1, 1],
        pads: [1; 4],
        groups: 1,
    };
    let x = graph.add(op, &[x, conv], "conv").unwrap();
    let x = graph.add(quantize, &[x], "linear").unwrap();
    let y = graph.add(Linear {}, &[x, linear], "linear").unwrap();
    let y = graph
        .add(ReduceMean { axes: vec![2] }, &[y], "mean")
        .unwrap();
    graph.output("y", y);
    let mut input = Noise::new(4).floats(&[BATCH, 8, 6, 6], -2.0, 2.0);
    input.round_to(dtype);
    Case {
        name: name.to_owned(),
        graph,
        inputs: BTreeMap::from([("x".to_owned(), input)]),
    }
}

#[test]
fn activations_and_weights_in_8_bits_run_and_are_read_back() {
    let f32 = in_eight_bits("f32", DType::F32, 0.021);
    let f16 = in_eight_bits("f16", DType::F16, 0.03125);
    // No f16 is this scale: codes are made in f32.
    let between = in_eight_bits("between", DType::F16, 0.021);
    let cases = [f32, f16, between];
    let dir = emitted(&cases);
    for case in &cases {
        let read = read(dir.path(), case);
        let grids = read
            .nodes()
            .iter()
            .filter(|n| n.op.name() == "fake_quantize");
        assert_eq!(grids.count(), 2, "{}", case.name);
        let expected = eval::run(&case.graph, &case.inputs).unwrap();
        assert_eq!(
            eval::run(&read, &case.inputs).unwrap(),
            expected,
            "{}",
            case.name
        );
    }
    assert_runs_as_evaluated(&cases[..1], 100.0);
    // Half precision moves a value now and then to the next code.
    assert_runs_as_evaluated(&cases[1..], 50.0);
}

#[test]
fn merged_projections_run_and_are_read_back() {
    let mut graph = Graph::new("merged");
    let x = graph.input("x", TensorType::new(DType::F32, Shape::batched(&[5, 8])));
    let encoding = Arc::new(affine(4, &[24, 2], false));
    let weight = graph.parameter("qkv.weight", values(&[24, 8], 5).encode(encoding));
    let all = graph.add(Linear {}, &[x, weight], "qkv").unwrap();
    let mut part = |i: usize| {
        let op = Slice {
            axis: 2,
            start: 8 * i,
            end: 8 * i + 8,
        };
        graph.add(op, &[all], "qkv").unwrap()
    };
    let [q, k, v] = [part(0), part(1), part(2)];
    let k = graph
        .add(
            Transpose {
                perm: vec![0, 2, 1],
            },
            &[k],
            "scores",
        )
        .unwrap();
    let scores = graph.add(MatMul {}, &[q, k], "scores").unwrap();
    let y = graph.add(MatMul {}, &[scores, v], "mix").unwrap();
    graph.output("y", y);
    let case = Case {
        name: "merged".to_owned(),
        graph,
        inputs: BTreeMap::from([(
            "x".to_owned(),
            Noise::new(9).floats(&[BATCH, 5, 8], -1.0, 1.0),
        )]),
    };
    let dir = emitted(std::slice::from_ref(&case));
    let read = read(dir.path(), &case);
    let products = read.nodes().iter().filter(|n| n.op.name() == "linear");
    assert_eq!(products.count(), 1);
    assert_runs_as_evaluated(&[case], 100.0);
}

/// The miniature pipeline with weights in different forms.
fn encoded_pipeline() -> snapc_ir::Program {
    let mut program = miniature::program();
    for graph in &mut program.graphs {
        let changed = graph.rebuild::<snapc_ir::BuildError>(|rebuild, node| {
            for &operand in &node.operands {
                let Some(weight) = rebuild.old().weight_of(operand) else {
                    continue;
                };
                let rows = weight.tensor.shape()[0];
                let encoding = match weight.name.as_str() {
                    "embeddings.weight" => affine(8, &[rows, 1], true),
                    "time.weight" => affine(4, &[rows, 2], true),
                    "text.weight" => palette(4, &[1, 1]),
                    "conv.weight" => palette(6, &[1; 4]),
                    _ => continue,
                };
                let tensor = weight.tensor.clone().encode(Arc::new(encoding));
                let encoded = rebuild.graph.parameter(weight.name.clone(), tensor);
                rebuild.bind(operand, encoded);
            }
            rebuild.copy(node).map(Some)
        });
        *graph = changed.unwrap();
    }
    program
}

#[test]
fn an_artifact_of_codes_is_planned_to_the_byte_and_made_twice_alike() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = support::emit(encoded_pipeline(), a.path());
    assert_eq!(first, support::emit(encoded_pipeline(), b.path()));
    let written: u64 = first.files.iter().map(|f| f.bytes).sum();
    let planned = OnnxTarget.artifact_bytes(&encoded_pipeline(), &EmitOptions::default());
    assert_eq!(planned, written);
    assert_eq!(OnnxTarget.verify(a.path()).unwrap(), []);
}

/// What the verifier finds after `damage` to the model of a graph.
fn findings(graph: &str, damage: impl FnOnce(&mut ModelProto)) -> Vec<(&'static str, String)> {
    let dir = tempfile::tempdir().unwrap();
    support::emit(encoded_pipeline(), dir.path());
    let path = dir.path().join(graph).join("model.onnx");
    let mut model = decode(&path);
    damage(&mut model);
    fs::write(&path, model.encode_to_vec()).unwrap();
    let found = OnnxTarget.verify(dir.path()).unwrap();
    found.into_iter().map(|f| (f.rule, f.message)).collect()
}

fn dequantize(model: &mut ModelProto) -> &mut NodeProto {
    let nodes = &mut model.graph.as_mut().unwrap().node;
    nodes
        .iter_mut()
        .find(|n| n.op_type() == "DequantizeLinear")
        .unwrap()
}

fn initializer<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut TensorProto {
    let all = &mut model.graph.as_mut().unwrap().initializer;
    all.iter_mut().find(|t| t.name() == name).unwrap()
}

#[test]
fn codes_that_do_not_fit_are_found() {
    let one = |found: Vec<(&'static str, String)>, rule: &str, message: &str| {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].0 == rule && found[0].1.contains(message),
            "{found:?}"
        );
    };
    let found = findings("unet", |m| dequantize(m).attribute[1].i = Some(4));
    one(
        found,
        "codes",
        "scales [4, 2] do not fit codes [4, 16] along axis 1, block size 4",
    );
    let found = findings("unet", |m| dequantize(m).attribute[0].i = Some(-3));
    one(found, "codes", "do not fit");
    let found = findings("unet", |m| dequantize(m).input.truncate(2));
    assert_eq!(found, []);
    let found = findings("unet", |m| dequantize(m).input[1] = "sample".to_owned());
    one(found, "codes", "its scale is not an initializer");
    let found = findings("text_encoder", |m| {
        initializer(m, "embeddings.weight/zero_point").data_type = Some(2);
    });
    one(
        found,
        "codes",
        "its zero point has not the type of the codes",
    );
    let found = findings("unet", |m| {
        initializer(m, "time.weight/codes").dims = vec![4, 17]
    });
    assert!(
        found.iter().any(|f| f.0 == "codes" || f.0 == "tensor"),
        "{found:?}"
    );
    let found = findings("unet", |m| {
        (m.opset_import[0].version, m.ir_version) = (Some(19), Some(9));
    });
    assert!(
        found.iter().all(|f| f.0 == "codes") && found.len() >= 3,
        "{found:?}"
    );
    let found = findings("vae_decoder", |m| m.opset_import[0].version = Some(17));
    assert!(
        found.iter().all(|f| f.1.contains("operators on bits")),
        "{found:?}"
    );
    assert!(!found.is_empty());
}

/// Many bytes of models with codes changed: an error, or a graph that verifies.
#[test]
fn damaged_codes_are_errors_or_valid_graphs() {
    let dir = tempfile::tempdir().unwrap();
    support::emit(encoded_pipeline(), dir.path());
    let sizes = BTreeMap::from([("batch".to_owned(), 1)]);
    let (mut refused, mut accepted) = (0, 0);
    for graph in ["text_encoder", "unet", "vae_decoder"] {
        let path = dir.path().join(graph).join("model.onnx");
        let bytes = fs::read(&path).unwrap();
        let changes = [0x01, 0x80, 0xff].into_iter().cycle();
        for (i, change) in (0..bytes.len()).step_by(3).zip(changes) {
            let mut damaged = bytes.clone();
            damaged[i] ^= change;
            fs::write(&path, damaged).unwrap();
            match snapc_onnx::read(&path, &sizes) {
                Ok(graph) => {
                    verify::verify(&graph).expect("verifies");
                    accepted += 1;
                }
                Err(_) => refused += 1,
            }
            OnnxTarget.verify(dir.path()).unwrap();
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(
        refused > 300 && accepted > 30,
        "{refused} refused, {accepted} accepted"
    );
}
