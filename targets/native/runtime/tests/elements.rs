//! Movements, elementwise functions, reductions and norms against the reference evaluator.

mod support;

use proptest::prelude::*;
use snapc_format::DType;
use snapc_ir::ops;
use snapc_ir::{Operator, Tensor};
use snapc_program::{Activation, Binary, Dim, Element, Op, Storage, Unary};
use support::{Given, Numbers, Stored, batched, check, constant, fixed, rounded};

/// A shape, its dimensions multiplying to a few hundred at most.
fn shape(rank: std::ops::Range<usize>) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..6usize, rank)
}

fn eval_binary(function: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    match function {
        Binary::Add => ops::Add {}.eval(&[a, b]),
        Binary::Sub => ops::Sub {}.eval(&[a, b]),
        Binary::Mul => ops::Mul {}.eval(&[a, b]),
        Binary::Div => ops::Div {}.eval(&[a, b]),
    }
}

/// Two shapes that broadcast.
fn broadcast_pair() -> impl Strategy<Value = [Vec<usize>; 2]> {
    let flags = prop::collection::vec(any::<(bool, bool)>(), 4);
    (shape(0..5), flags, 0..5usize, any::<bool>()).prop_map(|(dims, flags, drop, first)| {
        let side = |ones: Vec<bool>, drop: usize| -> Vec<usize> {
            let dims = dims.iter().zip(ones).skip(drop.min(dims.len()));
            dims.map(|(&n, one)| if one { 1 } else { n }).collect()
        };
        let (a, b) = flags
            .into_iter()
            .unzip::<bool, bool, Vec<bool>, Vec<bool>>();
        // A first operand of the full shape is the common case, which may be written over.
        let a = if first { vec![false; 4] } else { a };
        [side(a, 0), side(b, drop)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn permute(seed: u64, dims in shape(0..6), keys in prop::collection::vec(any::<u32>(), 6), integer: bool) {
        let mut order: Vec<u8> = (0..dims.len() as u8).collect();
        order.sort_by_key(|&i| keys[usize::from(i)]);
        let mut numbers = Numbers::new(seed);
        let x = if integer { numbers.ints(&dims, -9, 9) } else { numbers.floats(&dims) };
        let perm = order.iter().map(|&i| usize::from(i)).collect();
        let expected = ops::Transpose { perm }.eval(&[&x]);
        check(&Op::Permute { order }, &[fixed(&x)], &expected, 0.0);
    }

    #[test]
    fn view(seed: u64, dims in shape(1..5), weight: bool) {
        let x = Numbers::new(seed).floats(&dims);
        let flat = vec![Dim::Fixed(x.len() as u32)];
        let expected = Tensor::float(&[x.len()], x.floats().to_vec());
        let x = if weight { constant(&x) } else { fixed(&x) };
        check(&Op::View { dims: flat }, &[x], &expected, 0.0);
    }

    #[test]
    fn slice(seed: u64, dims in shape(1..5), axis in 0..5usize, from in 0..5usize, to in 0..5usize) {
        let axis = axis % dims.len();
        let start = from % dims[axis];
        let end = start + 1 + to % (dims[axis] - start);
        let x = Numbers::new(seed).ints(&dims, i64::from(i32::MIN), i64::from(i32::MAX));
        let expected = ops::Slice { axis, start, end }.eval(&[&x]);
        let op = Op::Slice { axis: axis as u8, start: start as u32, end: end as u32 };
        check(&op, &[fixed(&x)], &expected, 0.0);
    }

    #[test]
    fn concat(seed: u64, dims in shape(1..5), axis in 0..5usize, sizes in prop::collection::vec(1..4usize, 1..5)) {
        let axis = axis % dims.len();
        let mut numbers = Numbers::new(seed);
        let parts = sizes.iter().map(|&size| {
            let mut dims = dims.clone();
            dims[axis] = size;
            numbers.floats(&dims)
        });
        let parts: Vec<Tensor> = parts.collect();
        let expected = ops::Concat { axis }.eval(&parts.iter().collect::<Vec<_>>());
        let operands: Vec<Given> = parts.iter().map(fixed).collect();
        check(&Op::Concat { axis: axis as u8 }, &operands, &expected, 0.0);
    }

    #[test]
    fn gather(seed: u64, dims in shape(1..5), axis in 0..5usize, own in shape(0..3), batch_dims in 0..2usize, integer: bool) {
        let axis = axis % dims.len();
        let batch_dims = batch_dims.min(axis);
        let mut numbers = Numbers::new(seed);
        let x = if integer { numbers.ints(&dims, -9, 9) } else { numbers.floats(&dims) };
        let size = dims[axis] as i64;
        // Some are outside.
        let indices = numbers.ints(&[&dims[..batch_dims], &own].concat(), -size - 1, size + 1);
        let expected = ops::Gather { axis, batch_dims }.eval(&[&x, &indices]);
        let op = Op::Gather { axis: axis as u8, batch_dims: batch_dims as u8 };
        check(&op, &[fixed(&x), fixed(&indices)], &expected, 0.0);
        if batch_dims == 0 {
            check(&op, &[constant(&x), constant(&indices)], &expected, 0.0);
        }
    }

    #[test]
    fn embedding(seed: u64, n in 1..4usize, rows in 1..9usize, width in 1..20usize, dtype in 0..3usize) {
        let dtype = [DType::F32, DType::F16, DType::Bf16][dtype];
        let mut numbers = Numbers::new(seed);
        let table = rounded(numbers.floats(&[rows, width]), dtype);
        let ids = numbers.ints(&[n, 5], 0, rows as i64);
        let expected = ops::Gather { axis: 0, batch_dims: 0 }.eval(&[&table, &ids]);
        let op = Op::Gather { axis: 0, batch_dims: 0 };
        check(&op, &[Stored(Storage::Rows, dtype, table), batched(&ids)], &expected, 0.0);
    }

    #[test]
    fn upsample_nearest(seed: u64, n in 1..4usize, h in 1..5usize, w in 1..5usize, c in 1..9usize, scale in 1..4usize) {
        let x = Numbers::new(seed).floats(&[n, c, h, w]);
        let last = |x: &Tensor| ops::Transpose { perm: vec![0, 2, 3, 1] }.eval(&[x]);
        let expected = last(&ops::UpsampleNearest { scale }.eval(&[&x]));
        check(&Op::UpsampleNearest { scale: scale as u32 }, &[batched(&last(&x))], &expected, 0.0);
    }

    #[test]
    fn unary(seed: u64, dims in shape(0..5)) {
        let x = Numbers::new(seed).floats(&dims);
        let positive = Tensor::float(&dims, x.floats().iter().map(|x| x.abs()).collect());
        for (function, expected) in [
            (Unary::Silu, ops::Silu {}.eval(&[&x])),
            (Unary::Gelu, ops::Gelu {}.eval(&[&x])),
            (Unary::QuickGelu, ops::QuickGelu {}.eval(&[&x])),
            (Unary::Sigmoid, ops::Sigmoid {}.eval(&[&x])),
            (Unary::Exp, ops::Exp {}.eval(&[&x])),
            (Unary::Sin, ops::Sin {}.eval(&[&x])),
            (Unary::Cos, ops::Cos {}.eval(&[&x])),
            (Unary::Erf, ops::Erf {}.eval(&[&x])),
        ] {
            check(&Op::Unary(function), &[fixed(&x)], &expected, 1e-6);
        }
        let roots = ops::Sqrt {}.eval(&[&positive]);
        check(&Op::Unary(Unary::Sqrt), &[fixed(&positive)], &roots, 1e-6);
    }

    #[test]
    fn binary(seed: u64, shapes in broadcast_pair()) {
        let mut numbers = Numbers::new(seed);
        let (a, b) = (numbers.floats(&shapes[0]), numbers.floats(&shapes[1]));
        for function in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
            let expected = eval_binary(function, &a, &b);
            let op = Op::Binary(function);
            check(&op, &[fixed(&a), fixed(&b)], &expected, 0.0);
            check(&op, &[fixed(&a), constant(&b)], &expected, 0.0);
            check(&op, &[constant(&a), fixed(&b)], &expected, 0.0);
        }
    }

    #[test]
    fn equal(seed: u64, shapes in broadcast_pair()) {
        let mut numbers = Numbers::new(seed);
        let (a, b) = (numbers.ints(&shapes[0], 0, 3), numbers.ints(&shapes[1], 0, 3));
        let expected = ops::Equal {}.eval(&[&a, &b]);
        check(&Op::Equal, &[fixed(&a), constant(&b)], &expected, 0.0);
        let float = |x: &Tensor| Tensor::float(&x.shape, x.ints().iter().map(|&i| i as f32).collect());
        check(&Op::Equal, &[fixed(&float(&a)), fixed(&float(&b))], &expected, 0.0);
    }

    #[test]
    fn cast(seed: u64, dims in shape(0..4)) {
        let x = Numbers::new(seed).ints(&dims, -1000, 1000);
        let floats = ops::Cast { to: snapc_ir::DType::F32 }.eval(&[&x]);
        check(&Op::Cast { to: Element::F32 }, &[fixed(&x)], &floats, 0.0);
        check(&Op::Cast { to: Element::I32 }, &[fixed(&x)], &x, 0.0);
        check(&Op::Cast { to: Element::F32 }, &[fixed(&floats)], &floats, 0.0);
    }

    #[test]
    fn softmax(seed: u64, dims in shape(1..5)) {
        let x = Numbers::new(seed).floats(&dims);
        let expected = ops::Softmax { axis: dims.len() - 1 }.eval(&[&x]);
        check(&Op::Softmax, &[fixed(&x)], &expected, 1e-6);
    }

    #[test]
    fn reduce_mean(seed: u64, dims in shape(1..5), keep in prop::collection::vec(any::<bool>(), 4)) {
        let x = Numbers::new(seed).floats(&dims);
        let mut axes: Vec<usize> = (0..dims.len()).filter(|&i| !keep[i]).collect();
        if axes.is_empty() {
            axes.push(0);
        }
        let op = Op::ReduceMean { axes: axes.iter().map(|&i| i as u8).collect() };
        let expected = ops::ReduceMean { axes }.eval(&[&x]);
        check(&op, &[fixed(&x)], &expected, 1e-6);
    }

    #[test]
    fn arg_max(seed: u64, dims in shape(1..5), axis in 0..4usize) {
        let axis = axis % dims.len();
        let x = Numbers::new(seed).ints(&dims, -3, 4);
        let expected = ops::ArgMax { axis }.eval(&[&x]);
        let op = Op::ArgMax { axis: axis as u8 };
        check(&op, &[fixed(&x)], &expected, 0.0);
        let floats = Tensor::float(&dims, x.ints().iter().map(|&i| i as f32).collect());
        check(&op, &[constant(&floats)], &expected, 0.0);
    }

    #[test]
    fn group_norm(seed: u64, n in 1..4usize, h in 1..6usize, w in 1..6usize, groups in 1..5usize, each in 1..5usize, silu: bool) {
        let mut numbers = Numbers::new(seed);
        let channels = groups * each;
        let x = numbers.floats(&[n, channels, h, w]);
        let (gamma, beta) = (numbers.floats(&[channels]), numbers.floats(&[channels]));
        let epsilon = 1e-3;
        let norm = ops::GroupNorm { groups, epsilon }.eval(&[&x, &gamma, &beta]);
        let norm = if silu { ops::Silu {}.eval(&[&norm]) } else { norm };
        let last = |x: &Tensor| ops::Transpose { perm: vec![0, 2, 3, 1] }.eval(&[x]);
        let activation = if silu { Activation::Silu } else { Activation::None };
        let op = Op::GroupNorm { groups: groups as u32, epsilon, activation };
        let operands = [batched(&last(&x)), constant(&gamma), constant(&beta)];
        check(&op, &operands, &last(&norm), 1e-5);
    }

    #[test]
    fn layer_norm(seed: u64, dims in shape(1..4), width in 1..40usize) {
        let mut numbers = Numbers::new(seed);
        let x = numbers.floats(&[&dims[..], &[width]].concat());
        let (gamma, beta) = (numbers.floats(&[width]), numbers.floats(&[width]));
        let epsilon = 1e-3;
        let expected = ops::LayerNorm { epsilon }.eval(&[&x, &gamma, &beta]);
        let operands = [fixed(&x), constant(&gamma), constant(&beta)];
        check(&Op::LayerNorm { epsilon }, &operands, &expected, 1e-5);
    }

    #[test]
    fn timestep_embedding(
        times in prop::collection::vec(0..1000u32, 0..4), half in 2..20u32, flip_sin_to_cos: bool, shifted: bool,
    ) {
        // No times: a scalar.
        let shape: Vec<usize> = if times.is_empty() { vec![] } else { vec![times.len()] };
        let times = if times.is_empty() { vec![999] } else { times };
        let t = Tensor::float(&shape, times.iter().map(|&t| t as f32).collect());
        let (dim, freq_shift) = (2 * half, if shifted { 1.0 } else { 0.0 });
        let expected = ops::TimestepEmbedding {
            dim: dim as usize,
            flip_sin_to_cos,
            freq_shift,
            max_period: 10_000.0,
        };
        let expected = expected.eval(&[&t]);
        let op = Op::TimestepEmbedding { dim, flip_sin_to_cos, freq_shift, max_period: 10_000.0 };
        let t = if shape.is_empty() { fixed(&t) } else { batched(&t) };
        check(&op, &[t], &expected, 1e-6);
    }
}

#[test]
fn a_norm_takes_any_number_of_positions() {
    // By hand: one position, two channels in a group; mean 2, variance 1.
    let x = Tensor::float(&[1, 2], vec![1.0, 3.0]);
    let (gamma, beta) = (
        Tensor::float(&[2], vec![1.0, 2.0]),
        Tensor::float(&[2], vec![0.0, 0.5]),
    );
    let op = Op::GroupNorm {
        groups: 1,
        epsilon: 0.0,
        activation: Activation::None,
    };
    let expected = Tensor::float(&[1, 2], vec![-1.0, 2.5]);
    check(
        &op,
        &[batched(&x), constant(&gamma), constant(&beta)],
        &expected,
        1e-6,
    );
}
