//! Every operator, emitted alone and run by ONNX Runtime, against the reference evaluator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use snapc_ir::ops::{Cast, Example};
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Graph, LazyTensor, Op, Shape, Tensor, TensorType, ValueId, eval};
use support::{Call, Noise, emit_graphs, run_onnx};

/// Size of the open batch in these tests.
const BATCH: usize = 2;

struct Case {
    name: String,
    graph: Graph,
    inputs: BTreeMap<String, Tensor>,
}

/// Values for which the operator is far from a pole.
fn range(op: &Op) -> (f32, f32) {
    match op.name() {
        "div" | "sqrt" => (0.5, 2.0),
        _ => (-2.0, 2.0),
    }
}

/// A graph of the operator alone. Operands after the first are constants when `constants`.
fn case(name: String, example: &Example, constants: bool) -> Option<Case> {
    let mut noise = Noise::new(7);
    let mut graph = Graph::new(name.clone());
    let mut inputs = BTreeMap::new();
    let mut operands = Vec::new();
    let mut has_constant = false;
    for (i, ty) in example.operands.iter().enumerate() {
        let shape = ty.shape.bind(BATCH);
        let mut tensor = noise.tensor(ty.dtype, &shape, range(&example.op), example.int_bound);
        if let (Elements::Int(data), "div") = (&mut tensor.elements, example.op.name()) {
            data.iter_mut().for_each(|x| *x += 1);
        }
        let operand = format!("x{i}");
        match &tensor.elements {
            Elements::Float(data) if constants && i > 0 && !ty.shape.has_batch() => {
                has_constant = true;
                let tensor = LazyTensor::from_f32(&shape, data).cast(ty.dtype);
                operands.push(graph.parameter(operand, tensor));
            }
            _ => {
                operands.push(input(&mut graph, &operand, ty));
                inputs.insert(operand, tensor);
            }
        }
    }
    let mut result = graph
        .add(example.op.clone(), &operands, example.op.name())
        .expect("examples are valid");
    if graph.ty(result).dtype == DType::BF16 {
        result = graph
            .add(Cast { to: DType::F32 }, &[result], "widened")
            .expect("a float casts");
    }
    graph.output("y", result);
    (!constants || has_constant).then_some(Case {
        name,
        graph,
        inputs,
    })
}

/// An input. numpy has no bfloat16, so such values go in and out as f32, which holds them exactly.
fn input(graph: &mut Graph, name: &str, ty: &TensorType) -> ValueId {
    if ty.dtype != DType::BF16 {
        return graph.input(name, ty.clone());
    }
    let wide = graph.input(name, TensorType::new(DType::F32, ty.shape.clone()));
    graph
        .add(Cast { to: DType::BF16 }, &[wide], "narrowed")
        .expect("a float casts")
}

/// The example with f16 in place of f32, when the operator takes that.
fn in_half(example: &Example) -> Option<Example> {
    let narrow = |ty: &TensorType| match ty.dtype {
        DType::F32 => TensorType::new(DType::F16, ty.shape.clone()),
        _ => ty.clone(),
    };
    let mut half = example.clone();
    half.operands = example.operands.iter().map(narrow).collect();
    let types: Vec<&TensorType> = half.operands.iter().collect();
    (half.operands != example.operands && half.op.infer(&types).is_ok()).then_some(half)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, example) in Op::examples().iter().enumerate() {
        let half = in_half(example);
        for (suffix, example) in [("f32", Some(example)), ("f16", half.as_ref())] {
            let Some(example) = example else { continue };
            let name = format!("{}_{i}_{suffix}", example.op.name());
            cases.extend(case(name.clone(), example, false));
            cases.extend(case(format!("{name}_weights"), example, true));
        }
    }
    cases
}

fn compare(name: &str, dtype: DType, expected: &Tensor, found: &Tensor) {
    assert_eq!(expected.shape, found.shape, "{name}");
    match (&expected.elements, &found.elements) {
        (Elements::Int(expected), Elements::Int(found)) => assert_eq!(expected, found, "{name}"),
        (Elements::Float(expected), Elements::Float(found)) => {
            let tolerance = if dtype == DType::F16 { 2e-3 } else { 2e-6 };
            let largest = expected.iter().fold(1f32, |a, x| a.max(x.abs()));
            for (i, (e, f)) in expected.iter().zip(found).enumerate() {
                assert!(
                    (e - f).abs() <= tolerance * largest,
                    "{name}, element {i}: {e} expected, {f} found"
                );
            }
        }
        _ => panic!("{name}: floats and integers are mixed"),
    }
}

#[test]
fn every_operator_equals_the_evaluator() {
    let cases = cases();
    let covered: BTreeSet<&str> = cases
        .iter()
        .flat_map(|c| c.graph.nodes())
        .map(|n| n.op.name())
        .collect();
    assert_eq!(covered, Op::NAMES.iter().copied().collect());

    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    emit_graphs(cases.iter().map(|c| c.graph.clone()).collect(), dir.path());
    let call = |case: &Case| Call {
        model: dir.path().join(&case.name).join("model.onnx"),
        inputs: case.inputs.clone(),
    };
    let calls: Vec<Call> = cases.iter().map(call).collect();
    let outputs = run_onnx(&calls, scratch.path());
    for (case, found) in cases.iter().zip(&outputs) {
        let expected = eval::run(&case.graph, &case.inputs).expect("evaluates");
        let dtype = case.graph.ty(case.graph.outputs()[0].value).dtype;
        compare(&case.name, dtype, &expected["y"], &found["y"]);
    }
}

#[test]
fn a_foreign_decoder_sees_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut graph = Graph::new("g");
    let x = graph.input("x", TensorType::new(DType::F32, Shape::batched(&[3])));
    let weight = graph.parameter("w", LazyTensor::from_f32(&[2, 3], &[1.0; 6]));
    let y = graph
        .add(snapc_ir::ops::Linear {}, &[x, weight], "proj")
        .unwrap();
    graph.output("y", y);
    emit_graphs(vec![graph], dir.path());

    let model = decode(&dir.path().join("g/model.onnx"));
    assert_eq!(model.producer_name, "snapc");
    assert_eq!(model.opset_import[0].version, 17);
    let nodes: Vec<&str> = model
        .graph
        .node
        .iter()
        .map(|n| n.op_type.as_str())
        .collect();
    assert_eq!(nodes, ["Gemm"]);
    let initializers: Vec<&str> = model
        .graph
        .initializer
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(initializers, ["w"]);
    let ones: Vec<u8> = [1f32; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(model.graph.initializer[0].raw_data.to_vec(), ones);
}

fn decode(path: &Path) -> onnx_protobuf::ModelProto {
    let bytes = std::fs::read(path).unwrap();
    protobuf::Message::parse_from_bytes(&bytes).unwrap()
}
