//! Random small graphs for property tests.

use proptest::prelude::*;
use snapc_ir::ops::{
    Add, Cast, Concat, Linear, Mul, Reshape, Sigmoid, Silu, Slice, Softmax, Sub, Transpose,
};
use snapc_ir::{DType, Dim, Graph, LazyTensor, Op, Shape, TensorType, ValueId};

/// Which operator, and numbers that choose its operands and attributes.
type Choice = (usize, usize, usize);

/// Graphs of the inputs `x` f32[2,3,4] and `y` f32[N,3,4], weights, and up to 24 nodes.
pub(crate) fn graphs() -> impl Strategy<Value = Graph> {
    let choice = (0..13usize, any::<usize>(), any::<usize>());
    let outputs = proptest::collection::vec(any::<usize>(), 1..4);
    let choices = proptest::collection::vec(choice, 1..24);
    (choices, outputs).prop_map(|(choices, outputs)| build(&choices, &outputs))
}

fn build(choices: &[Choice], outputs: &[usize]) -> Graph {
    let mut g = Graph::new("random");
    let ty = |shape| TensorType::new(DType::F32, shape);
    let mut values = vec![
        g.input("x", ty(Shape::fixed(&[2, 3, 4]))),
        g.input("y", ty(Shape::batched(&[3, 4]))),
    ];
    let counting: Vec<f32> = (0..24).map(|i| i as f32 * 0.25 - 3.0).collect();
    for name in ["w", "v"] {
        values.push(g.parameter(name, LazyTensor::from_f32(&[2, 3, 4], &counting)));
    }
    for (name, number) in [("zero", 0.0), ("half", 0.5)] {
        values.push(g.parameter(name, LazyTensor::from_f32(&[4, 4], &[number; 16])));
    }
    for (i, number) in [0.0, 1.0, 1.0, -0.5].into_iter().enumerate() {
        values.push(g.constant(format!("c{i}"), LazyTensor::from_f32(&[4], &[number; 4])));
    }
    for (i, &(kind, a, b)) in choices.iter().enumerate() {
        let (op, operands) = node(&g, &values, kind, a, b);
        let projects = matches!(op, Op::Linear(_));
        // An operator that does not take these operands is left out.
        if let Ok(value) = g.add(op, &operands, format!("node{i}")) {
            values.push(value);
            // Half of the projections end a residual branch.
            let sum = [operands[0], value];
            if projects
                && b % 4 < 2
                && let Ok(sum) = g.add(Add {}, &sum, format!("sum{i}"))
            {
                values.push(sum);
            }
        }
    }
    for (i, &choice) in outputs.iter().enumerate() {
        // The last values are the interesting ones, but any value may be an output.
        let back = if choice.is_multiple_of(4) {
            choice / 4 % values.len()
        } else {
            i % values.len()
        };
        g.output(format!("out{i}"), values[values.len() - 1 - back]);
    }
    g
}

fn node(g: &Graph, values: &[ValueId], kind: usize, a: usize, b: usize) -> (Op, Vec<ValueId>) {
    let recent = |n: usize| values[values.len() - 1 - n % values.len().min(8)];
    let (first, second) = (recent(a), values[b % values.len()]);
    let dims = g.ty(first).shape.dims().to_vec();
    let axis = b % dims.len().max(1);
    match kind {
        0 => (Add {}.into(), vec![first, second]),
        1 => (Mul {}.into(), vec![first, second]),
        2 => (Sub {}.into(), vec![first, second]),
        3 => {
            let elements = g.ty(first).shape.elements_per_batch().unwrap_or(1);
            let mut shape: Vec<_> = dims
                .iter()
                .copied()
                .filter(|d| d.fixed().is_none())
                .collect();
            let rows = [1, 2, 3, 4][b % 4];
            shape.extend([rows, elements / rows].map(Dim::Fixed));
            (Reshape { shape }.into(), vec![first])
        }
        4 => {
            let mut perm: Vec<usize> = (0..dims.len()).collect();
            // A rotation and an exchange, so that the order of two transposes matters; sometimes neither.
            if !b.is_multiple_of(3) {
                perm.rotate_left(b % dims.len().max(1));
            }
            if b % 4 > 1 && perm.len() > 1 {
                perm.swap(0, 1);
            }
            (Transpose { perm }.into(), vec![first])
        }
        5 => {
            let to = [DType::F32, DType::F16][b % 2];
            (Cast { to }.into(), vec![first])
        }
        6 | 7 => {
            let size = dims.get(axis).and_then(|d| d.fixed()).unwrap_or(1);
            let start = if kind == 6 { 0 } else { a % size.max(1) };
            let op = Slice {
                axis,
                start,
                end: size,
            };
            (op.into(), vec![first])
        }
        8 => {
            let operands = if b.is_multiple_of(2) {
                vec![first]
            } else {
                vec![first, first]
            };
            (Concat { axis }.into(), operands)
        }
        9 => (Silu {}.into(), vec![first]),
        10 => (Sigmoid {}.into(), vec![first]),
        11 => (Linear {}.into(), vec![first, values[4 + b % 2]]),
        _ => (Softmax { axis }.into(), vec![first]),
    }
}
