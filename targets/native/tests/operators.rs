//! Every operator, compiled alone and run by the native engine, against the reference evaluator; and the layouts that it can
//! meet, in random graphs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::ops::Example;
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Graph, LazyTensor, Op, Tensor, TensorType, eval};
use snapc_native::Activations;
use support::Noise;
use support::engine::{network, run};

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
        let count = shape.iter().product();
        let operand = format!("x{i}");
        let is_constant = constants && i > 0 && !ty.shape.has_batch();
        has_constant |= is_constant;
        let tensor = if ty.dtype.is_float() {
            let mut tensor = Tensor::float(&shape, noise.floats(count, range(&example.op)));
            tensor.round_to(ty.dtype);
            tensor
        } else {
            Tensor::int(&shape, noise.ints(count, example.int_bound))
        };
        if is_constant {
            let lazy = match &tensor.elements {
                Elements::Float(data) => LazyTensor::from_f32(&shape, data).cast(ty.dtype),
                Elements::Int(data) => LazyTensor::from_i64(&shape, data).cast(ty.dtype),
            };
            operands.push(graph.parameter(operand, lazy));
        } else {
            operands.push(graph.input(operand.clone(), ty.clone()));
            inputs.insert(operand, tensor);
        }
    }
    let result = graph.add(example.op.clone(), &operands, "node").unwrap();
    graph.output("y", result);
    (!constants || has_constant).then_some(Case {
        name,
        graph,
        inputs,
    })
}

/// The example with another float type, when the operator takes that.
fn in_type(example: &Example, dtype: DType) -> Option<Example> {
    let narrow = |ty: &TensorType| match ty.dtype {
        DType::F32 => TensorType::new(dtype, ty.shape.clone()),
        _ => ty.clone(),
    };
    let mut narrowed = example.clone();
    narrowed.operands = example.operands.iter().map(narrow).collect();
    let types: Vec<&TensorType> = narrowed.operands.iter().collect();
    let changed = narrowed.operands != example.operands;
    (changed && narrowed.op.infer(&types).is_ok()).then_some(narrowed)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, example) in Op::examples().iter().enumerate() {
        let forms = [
            ("f32", Some(example.clone())),
            ("f16", in_type(example, DType::F16)),
            ("bf16", in_type(example, DType::BF16)),
        ];
        for (suffix, example) in forms {
            let Some(example) = example else { continue };
            let name = format!("{}_{i}_{suffix}", example.op.name());
            cases.extend(case(name.clone(), &example, false));
            cases.extend(case(format!("{name}_weights"), &example, true));
        }
    }
    cases
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    match &tensor.elements {
        Elements::Float(v) => v.clone(),
        Elements::Int(v) => v.iter().map(|&x| x as f32).collect(),
    }
}

fn compare(name: &str, tolerance: f32, expected: &Tensor, found: &[f32]) {
    let expected = floats(expected);
    assert_eq!(expected.len(), found.len(), "{name}");
    let largest = expected.iter().fold(1f32, |a, x| a.max(x.abs()));
    for (i, (e, f)) in expected.iter().zip(found).enumerate() {
        let close = (e - f).abs() <= tolerance * largest || e.is_nan() && f.is_nan();
        assert!(close, "{name}, element {i}: {e} expected, {f} found");
    }
}

/// A unit in the last place of the type, twice: where the sum before the rounding differs.
fn tolerance(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => 4e-6,
    }
}

#[test]
fn every_operator_equals_the_evaluator() {
    let mut covered = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for case in cases() {
        let dtype = case.graph.ty(case.graph.outputs()[0].value).dtype;
        let op = case.graph.nodes()[0].op.name();
        let expected = eval::run(&case.graph, &case.inputs).unwrap();
        for activations in [Activations::F32, Activations::Declared] {
            let mut network = match network(&case.graph, activations) {
                Ok(network) => network,
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("node 'node'"), "{text}");
                    refused.insert((op, dtype.name()));
                    continue;
                }
            };
            let found = run(&mut network, BATCH, &case.inputs);
            let name = format!("{}, {activations:?}", case.name);
            compare(&name, tolerance(dtype), &expected["y"], &found["y"]);
            covered.insert(op);
        }
    }
    let all: BTreeSet<&str> = Op::NAMES.iter().copied().collect();
    assert_eq!(covered, all);
    // Integers are not computed with, and the weights of a convolution are known when it is compiled.
    let expected = [
        ("add", "i32"),
        ("conv2d", "bf16"),
        ("conv2d", "f16"),
        ("conv2d", "f32"),
        ("div", "i32"),
        ("mul", "i32"),
        ("sub", "i32"),
    ];
    assert_eq!(refused, expected.into());
}
