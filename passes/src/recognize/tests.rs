//! Each pattern, and what looks like it and is not. The evaluator says whether the function is the same.

use std::collections::BTreeMap;

use snapc_ir::ops::{
    Add, ArgMax, Attention, Cast, Div, Erf, Gather, GroupNorm, MatMul, Mul, ReduceMean, Reshape,
    Sigmoid, Softmax, Sqrt, Sub, Transpose,
};
use snapc_ir::{DType, Graph, LazyTensor, Op, Shape, Tensor, TensorType, ValueId, eval, verify};

use super::recognize;

/// A graph under construction, with one output.
struct Sketch {
    graph: Graph,
}

impl Sketch {
    fn new() -> Self {
        Sketch {
            graph: Graph::new("g"),
        }
    }

    fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let ty = TensorType::new(DType::F32, Shape::fixed(shape));
        self.graph.input(name, ty)
    }

    /// Uneven values around 0.
    fn weight(&mut self, shape: &[usize]) -> ValueId {
        self.graph.parameter("w", wave(shape, 0.7))
    }

    fn filled(&mut self, shape: &[usize], value: f32) -> ValueId {
        let elements = shape.iter().product();
        let tensor = LazyTensor::from_f32(shape, &vec![value; elements]);
        self.graph.constant("c", tensor)
    }

    fn scalar(&mut self, value: f32) -> ValueId {
        self.filled(&[], value)
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.graph.add(op, operands, "n").unwrap()
    }

    fn reshape(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        let shape = Shape::fixed(shape).0;
        self.add(Reshape { shape }, &[x])
    }

    fn transpose(&mut self, x: ValueId, perm: &[usize]) -> ValueId {
        let perm = perm.to_vec();
        self.add(Transpose { perm }, &[x])
    }

    /// The operators that the graph has after recognition, sorted. Its results must not have changed.
    fn recognized(mut self, y: ValueId) -> Vec<&'static str> {
        self.graph.output("y", y);
        let found = recognize(&self.graph).unwrap();
        verify::verify(&found).expect("verifies");
        let inputs = self.graph.inputs().iter().enumerate().map(|(i, input)| {
            let sizes = self.graph.ty(input.value).shape.bind(1);
            let data = wave(&sizes, 0.3 + i as f32).to_f32().unwrap();
            (input.name.clone(), Tensor::float(&sizes, data))
        });
        let inputs: BTreeMap<String, Tensor> = inputs.collect();
        let before = &eval::run(&self.graph, &inputs).unwrap()["y"];
        let after = &eval::run(&found, &inputs).unwrap()["y"];
        assert_eq!(before.shape, after.shape);
        for (b, a) in before.floats().iter().zip(after.floats()) {
            assert!((b - a).abs() < 1e-4, "{b} became {a}");
        }
        let mut ops: Vec<&'static str> = found.nodes().iter().map(|n| n.op.name()).collect();
        ops.sort_unstable();
        ops
    }
}

fn wave(shape: &[usize], phase: f32) -> LazyTensor {
    let elements: usize = shape.iter().product();
    let data: Vec<f32> = (0..elements)
        .map(|i| (i as f32 * 1.7 + phase).sin())
        .collect();
    LazyTensor::from_f32(shape, &data)
}

#[test]
fn a_product_with_its_own_sigmoid_is_silu() {
    let mut s = Sketch::new();
    let (x, z) = (s.input("x", &[2, 3]), s.input("z", &[2, 3]));
    let gate = s.add(Sigmoid {}, &[x]);
    let silu = s.add(Mul {}, &[gate, x]);
    let other = s.add(Mul {}, &[z, gate]);
    let y = s.add(Add {}, &[silu, other]);
    assert_eq!(s.recognized(y), ["add", "mul", "sigmoid", "silu"]);
}

#[test]
fn quick_gelu_has_its_slope() {
    for (slope, found) in [
        (1.702, vec!["quick_gelu"]),
        (1.6, vec!["mul", "mul", "sigmoid"]),
    ] {
        let mut s = Sketch::new();
        let x = s.input("x", &[2, 3]);
        let slope = s.scalar(slope);
        let inside = s.add(Mul {}, &[x, slope]);
        let gate = s.add(Sigmoid {}, &[inside]);
        let y = s.add(Mul {}, &[x, gate]);
        assert_eq!(s.recognized(y), found);
    }
}

/// `1 + erf(x/√2)`
fn error_gate(s: &mut Sketch, x: ValueId) -> ValueId {
    let (root, one) = (s.scalar(std::f32::consts::SQRT_2), s.scalar(1.0));
    let inside = s.add(Div {}, &[x, root]);
    let error = s.add(Erf {}, &[inside]);
    s.add(Add {}, &[error, one])
}

#[test]
fn gelu_is_found_in_every_order_of_its_factors() {
    for order in 0..3 {
        let mut s = Sketch::new();
        let (a, b) = (s.input("a", &[2, 3]), s.input("b", &[2, 3]));
        // The operand is a product itself, as behind a gate.
        let x = s.add(Mul {}, &[a, b]);
        let gate = error_gate(&mut s, x);
        let factors = [x, gate, s.scalar(0.5)];
        let [first, second, third] = [0, 1, 2].map(|i| factors[(i + order) % 3]);
        let product = s.add(Mul {}, &[first, second]);
        let y = s.add(Mul {}, &[product, third]);
        assert_eq!(s.recognized(y), ["gelu", "mul"]);
    }
}

#[test]
fn a_gate_of_another_value_is_not_gelu() {
    let mut s = Sketch::new();
    let (x, z) = (s.input("x", &[2, 3]), s.input("z", &[2, 3]));
    let gate = error_gate(&mut s, z);
    let half = s.scalar(0.5);
    let halved = s.add(Mul {}, &[x, half]);
    let y = s.add(Mul {}, &[halved, gate]);
    assert!(!s.recognized(y).contains(&"gelu"));
}

#[test]
fn products_with_constant_matrices_are_linear() {
    let mut s = Sketch::new();
    let x = s.input("x", &[2, 3, 4]);
    let (weight, bias, square) = (s.weight(&[4, 5]), s.weight(&[5]), s.weight(&[5, 5]));
    let product = s.add(MatMul {}, &[x, weight]);
    let first = s.add(Add {}, &[bias, product]);
    let y = s.add(MatMul {}, &[first, square]);
    assert_eq!(s.recognized(y), ["linear", "linear"]);
}

#[test]
fn a_sum_that_is_no_bias_stays() {
    let mut s = Sketch::new();
    let x = s.input("x", &[2, 4]);
    let (weight, column) = (s.weight(&[4, 5]), s.weight(&[2, 1]));
    let product = s.add(MatMul {}, &[x, weight]);
    let y = s.add(Add {}, &[product, column]);
    assert_eq!(s.recognized(y), ["add", "linear"]);
}

/// `(x - mean) / √(var + epsilon)`
fn normalized(s: &mut Sketch, x: ValueId, axes: &[usize]) -> ValueId {
    let over = ReduceMean {
        axes: axes.to_vec(),
    };
    let mean = s.add(over.clone(), &[x]);
    let centered = s.add(Sub {}, &[x, mean]);
    let squares = s.add(Mul {}, &[centered, centered]);
    let variance = s.add(over, &[squares]);
    let epsilon = s.scalar(1e-3);
    let positive = s.add(Add {}, &[variance, epsilon]);
    let deviation = s.add(Sqrt {}, &[positive]);
    s.add(Div {}, &[centered, deviation])
}

#[test]
fn layer_norm_is_over_the_last_axis() {
    for (axis, is_norm) in [(2, true), (1, false)] {
        let mut s = Sketch::new();
        let x = s.input("x", &[2, 4, 4]);
        let normal = normalized(&mut s, x, &[axis]);
        let (scale, bias) = (s.weight(&[4]), s.weight(&[4]));
        let scaled = s.add(Mul {}, &[normal, scale]);
        let y = s.add(Add {}, &[scaled, bias]);
        let ops = s.recognized(y);
        assert_eq!(ops == ["layer_norm"], is_norm, "{ops:?}");
    }
}

#[test]
fn channels_normalized_in_groups_are_group_norm() {
    // As torch exports them for images and for rows of positions, and decomposed.
    for (shape, grouped, decomposed) in [
        (vec![2, 6, 2, 3], vec![2, 3, 4, 3], false),
        (vec![2, 6, 5], vec![2, 3, 10, 1], false),
        (vec![2, 6, 2, 3], vec![2, 3, 12], true),
    ] {
        let mut s = Sketch::new();
        let x = s.input("x", &shape);
        let groups = s.reshape(x, &grouped);
        let normal = if decomposed {
            normalized(&mut s, groups, &[2])
        } else {
            let (ones, zeros) = (s.filled(&[3], 1.0), s.filled(&[3], 0.0));
            let op = GroupNorm {
                groups: 3,
                epsilon: 1e-3,
            };
            s.add(op, &[groups, ones, zeros])
        };
        let normal = s.reshape(normal, &shape);
        let per_channel = [vec![6], vec![1; shape.len() - 2]].concat();
        let (scale, bias) = (s.weight(&per_channel), s.weight(&per_channel));
        let scaled = s.add(Mul {}, &[normal, scale]);
        let y = s.add(Add {}, &[scaled, bias]);
        let mut ops = s.recognized(y);
        // A row of positions becomes an image and back.
        ops.retain(|&op| op != "reshape");
        assert_eq!(ops, ["group_norm"], "{shape:?}");
    }
}

#[test]
fn groups_with_a_scale_of_their_own_stay() {
    let mut s = Sketch::new();
    let x = s.input("x", &[2, 6, 2, 3]);
    let groups = s.reshape(x, &[2, 3, 4, 3]);
    let (scale, bias) = (s.weight(&[3]), s.weight(&[3]));
    let op = GroupNorm {
        groups: 3,
        epsilon: 1e-3,
    };
    let normal = s.add(op, &[groups, scale, bias]);
    let normal = s.reshape(normal, &[2, 6, 2, 3]);
    let (scale, bias) = (s.weight(&[6, 1, 1]), s.weight(&[6, 1, 1]));
    let scaled = s.add(Mul {}, &[normal, scale]);
    let y = s.add(Add {}, &[scaled, bias]);
    assert!(s.recognized(y).contains(&"mul"));
}

/// `[2,L,6]` as `[2,3,L,2]`, transposed further.
fn heads(s: &mut Sketch, x: ValueId, length: usize, perm: [usize; 4]) -> ValueId {
    let split = s.reshape(x, &[2, length, 3, 2]);
    s.transpose(split, &perm)
}

/// Queries, keys and values of 4 and 5 rows.
fn operands(s: &mut Sketch) -> [ValueId; 3] {
    [("q", 4), ("k", 5), ("v", 5)].map(|(name, rows)| s.input(name, &[2, rows, 6]))
}

fn scaled(s: &mut Sketch, x: ValueId, factor: f32) -> ValueId {
    let factor = s.scalar(factor);
    s.add(Mul {}, &[x, factor])
}

fn joined(s: &mut Sketch, logits: ValueId, v: ValueId) -> ValueId {
    let weights = s.add(Softmax { axis: 3 }, &[logits]);
    let mixed = s.add(MatMul {}, &[weights, v]);
    let rows = s.transpose(mixed, &[0, 2, 1, 3]);
    s.reshape(rows, &[2, 4, 6])
}

#[test]
fn attention_with_a_factor_on_both_sides_and_a_mask() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
    let k = heads(&mut s, k, 5, [0, 2, 3, 1]);
    let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
    let (q, k) = (scaled(&mut s, q, 0.8), scaled(&mut s, k, 0.9));
    let logits = s.add(MatMul {}, &[q, k]);
    let mask = s.weight(&[1, 1, 4, 5]);
    let logits = s.add(Add {}, &[logits, mask]);
    let y = joined(&mut s, logits, v);
    assert_eq!(s.recognized(y), ["attention"]);
}

#[test]
fn attention_with_a_factor_before_the_split_and_after_the_product() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let q = scaled(&mut s, q, 0.8);
    let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
    // Transposed in two steps over flattened heads, as the newer exporter of torch does.
    let k = heads(&mut s, k, 5, [0, 2, 1, 3]);
    let k = s.reshape(k, &[6, 5, 2]);
    let k = s.transpose(k, &[0, 2, 1]);
    let k = s.reshape(k, &[2, 3, 2, 5]);
    let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
    let logits = s.add(MatMul {}, &[q, k]);
    let logits = scaled(&mut s, logits, 0.5);
    let y = joined(&mut s, logits, v);
    assert_eq!(s.recognized(y), ["attention"]);
}

#[test]
fn attention_over_images_and_heads_in_one_axis() {
    let mut s = Sketch::new();
    let operands = operands(&mut s);
    let [q, k, v] = [(operands[0], 4), (operands[1], 5), (operands[2], 5)].map(|(x, rows)| {
        let split = heads(&mut s, x, rows, [0, 2, 1, 3]);
        s.reshape(split, &[6, rows, 2])
    });
    let k = s.transpose(k, &[0, 2, 1]);
    let logits = s.add(MatMul {}, &[q, k]);
    let weights = s.add(Softmax { axis: 2 }, &[logits]);
    let mixed = s.add(MatMul {}, &[weights, v]);
    let split = s.reshape(mixed, &[2, 3, 4, 2]);
    let rows = s.transpose(split, &[0, 2, 1, 3]);
    let y = s.reshape(rows, &[2, 4, 6]);
    assert_eq!(s.recognized(y), ["attention"]);
}

#[test]
fn attention_over_images_and_heads_in_one_axis_with_a_mask() {
    // The same for all, one per image and head, and one per image, which repeats along no axis of the logits.
    for (mask, found) in [
        (&[1, 4, 5][..], vec!["attention"]),
        (&[6, 4, 5], vec!["attention", "reshape"]),
        (&[6, 1, 5], vec![]),
    ] {
        let mut s = Sketch::new();
        let operands = operands(&mut s);
        let [q, k, v] = [(operands[0], 4), (operands[1], 5), (operands[2], 5)].map(|(x, rows)| {
            let split = heads(&mut s, x, rows, [0, 2, 1, 3]);
            s.reshape(split, &[6, rows, 2])
        });
        let k = s.transpose(k, &[0, 2, 1]);
        let logits = s.add(MatMul {}, &[q, k]);
        let mask = s.input("mask", mask);
        let logits = s.add(Add {}, &[logits, mask]);
        let weights = s.add(Softmax { axis: 2 }, &[logits]);
        let mixed = s.add(MatMul {}, &[weights, v]);
        let split = s.reshape(mixed, &[2, 3, 4, 2]);
        let rows = s.transpose(split, &[0, 2, 1, 3]);
        let y = s.reshape(rows, &[2, 4, 6]);
        let ops = s.recognized(y);
        match found.is_empty() {
            true => assert!(ops.contains(&"softmax"), "{ops:?}"),
            false => assert_eq!(ops, found),
        }
    }
}

#[test]
fn attention_whose_logits_are_divided() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
    let k = heads(&mut s, k, 5, [0, 2, 3, 1]);
    let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
    let logits = s.add(MatMul {}, &[q, k]);
    let root = s.scalar(std::f32::consts::SQRT_2);
    let logits = s.add(Div {}, &[logits, root]);
    let y = joined(&mut s, logits, v);
    s.graph.output("y", y);
    let found = recognize(&s.graph).unwrap();
    let node = &found.nodes()[0];
    // The usual scale for heads of two channels, without the rounding of the division.
    let scale = std::f32::consts::FRAC_1_SQRT_2;
    assert_eq!(node.op, Attention { heads: 3, scale }.into());
    assert_eq!(found.nodes().len(), 1);
}

#[test]
fn attention_on_keys_that_are_split_or_transposed_before_the_graph() {
    // Heads split off already; transposed, so that no rows [N,T,C] exist; channels in front as in images.
    for (shape, perm) in [
        ([2, 3, 5, 2], Some([0, 1, 3, 2])),
        ([2, 3, 2, 5], None),
        ([2, 6, 1, 5], None),
    ] {
        let mut s = Sketch::new();
        let [q, _, v] = operands(&mut s);
        let keys = s.input("keys", &shape);
        let k = match perm {
            Some(perm) => s.transpose(keys, &perm),
            None => s.reshape(keys, &[2, 3, 2, 5]),
        };
        let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
        let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
        let k = scaled(&mut s, k, 0.7);
        let logits = s.add(MatMul {}, &[q, k]);
        let y = joined(&mut s, logits, v);
        let mut ops = s.recognized(y);
        ops.retain(|&op| op != "reshape" && op != "transpose");
        assert_eq!(ops, ["attention"], "{shape:?}");
    }
}

#[test]
fn a_scale_per_head_and_a_softmax_over_queries_stay() {
    for (shape, axis) in [(&[3, 1, 1][..], 3), (&[], 2)] {
        let mut s = Sketch::new();
        let [q, k, v] = operands(&mut s);
        let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
        let k = heads(&mut s, k, 5, [0, 2, 3, 1]);
        let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
        let logits = s.add(MatMul {}, &[q, k]);
        let factors = s.weight(shape);
        let logits = s.add(Mul {}, &[logits, factors]);
        let weights = s.add(Softmax { axis }, &[logits]);
        let mixed = s.add(MatMul {}, &[weights, v]);
        let rows = s.transpose(mixed, &[0, 2, 1, 3]);
        let y = s.reshape(rows, &[2, 4, 6]);
        assert!(s.recognized(y).contains(&"softmax"), "{shape:?} {axis}");
    }
}

#[test]
fn heads_that_are_read_before_they_are_joined_stay() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
    let k = heads(&mut s, k, 5, [0, 2, 3, 1]);
    let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
    let logits = s.add(MatMul {}, &[q, k]);
    let weights = s.add(Softmax { axis: 3 }, &[logits]);
    let mixed = s.add(MatMul {}, &[weights, v]);
    let rows = s.transpose(mixed, &[0, 2, 1, 3]);
    let rows = s.reshape(rows, &[2, 4, 6]);
    let flat = s.reshape(mixed, &[2, 4, 6]);
    let y = s.add(Add {}, &[rows, flat]);
    assert!(!s.recognized(y).contains(&"attention"));
}

#[test]
fn attention_of_one_head_that_is_not_split_off() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let k = s.transpose(k, &[0, 2, 1]);
    let logits = s.add(MatMul {}, &[q, k]);
    let weights = s.add(Softmax { axis: 2 }, &[logits]);
    let y = s.add(MatMul {}, &[weights, v]);
    assert_eq!(s.recognized(y), ["attention"]);
}

#[test]
fn heads_that_are_joined_in_another_order_are_no_attention() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let q = heads(&mut s, q, 4, [0, 2, 1, 3]);
    let k = heads(&mut s, k, 5, [0, 2, 3, 1]);
    let v = heads(&mut s, v, 5, [0, 2, 1, 3]);
    let logits = s.add(MatMul {}, &[q, k]);
    let weights = s.add(Softmax { axis: 3 }, &[logits]);
    let mixed = s.add(MatMul {}, &[weights, v]);
    // Without the transpose the heads are not side by side.
    let y = s.reshape(mixed, &[2, 4, 6]);
    assert!(!s.recognized(y).contains(&"attention"));
}

#[test]
fn a_softmax_that_is_used_twice_stays() {
    let mut s = Sketch::new();
    let [q, k, v] = operands(&mut s);
    let k = s.transpose(k, &[0, 2, 1]);
    let logits = s.add(MatMul {}, &[q, k]);
    let weights = s.add(Softmax { axis: 2 }, &[logits]);
    let mixed = s.add(MatMul {}, &[weights, v]);
    let means = s.add(ReduceMean { axes: vec![2] }, &[weights]);
    let y = s.add(Add {}, &[mixed, means]);
    assert!(s.recognized(y).contains(&"softmax"));
}

#[test]
fn rows_of_a_flattened_batch_are_gathered_by_image() {
    for (starts, found) in [
        ([0, 4], vec!["arg_max", "gather"]),
        ([0, 3], vec!["add", "arg_max", "gather", "reshape"]),
    ] {
        let mut s = Sketch::new();
        let x = s.input("x", &[2, 4, 6]);
        let ids = s.input("ids", &[2, 4]);
        let position = s.add(ArgMax { axis: 1 }, &[ids]);
        let starts = s
            .graph
            .constant("starts", LazyTensor::from_i32(&[2], &starts));
        let rows = s.add(Add {}, &[starts, position]);
        let flat = s.reshape(x, &[8, 6]);
        let op = Gather {
            axis: 0,
            batch_dims: 0,
        };
        let y = s.add(op, &[flat, rows]);
        assert_eq!(s.recognized(y), found);
    }
}

#[test]
fn neutral_operands_are_dropped_where_they_keep_the_shape() {
    let mut s = Sketch::new();
    let x = s.input("x", &[2, 1]);
    let (one, zero, row) = (s.scalar(1.0), s.scalar(0.0), s.filled(&[1, 1, 1], 0.0));
    let y = s.add(Div {}, &[x, one]);
    let y = s.add(Add {}, &[zero, y]);
    let y = s.add(Add {}, &[y, row]);
    let y = s.add(Div {}, &[one, y]);
    assert_eq!(s.recognized(y), ["add", "div"]);
}

#[test]
fn constants_in_f16_count_as_what_they_round() {
    let mut s = Sketch::new();
    let x = s.input("x", &[2, 3]);
    let half = s.add(Cast { to: DType::F16 }, &[x]);
    let slope = LazyTensor::from_f32(&[], &[1.702]).cast(DType::F16);
    let slope = s.graph.constant("slope", slope);
    let inside = s.add(Mul {}, &[half, slope]);
    let gate = s.add(Sigmoid {}, &[inside]);
    let y = s.add(Mul {}, &[half, gate]);
    s.graph.output("y", y);
    let found = recognize(&s.graph).unwrap();
    let ops: Vec<&str> = found.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, ["cast", "quick_gelu"]);
}
