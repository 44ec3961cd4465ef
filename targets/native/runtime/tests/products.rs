//! Linear, convolution, products and attention against the reference evaluator.

mod support;

use proptest::prelude::*;
use snapc_format::{DType, TensorPlan};
use snapc_ir::ops;
use snapc_ir::{Operator, Tensor};
use snapc_kernels::Kernels;
use snapc_program::{Activation, Codebook, Codes, Dim, Op, Storage, Type, Weight};
use support::{
    Given, Model, Numbers, Stored, StoredWeight, Values, batched, check, constant, fixed, rounded,
    run,
};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

const ACTIVATIONS: [Activation; 4] = [
    Activation::None,
    Activation::Silu,
    Activation::Gelu,
    Activation::QuickGelu,
];

fn activated(activation: Activation, x: Tensor) -> Tensor {
    match activation {
        Activation::None => x,
        Activation::Silu => ops::Silu {}.eval(&[&x]),
        Activation::Gelu => ops::Gelu {}.eval(&[&x]),
        Activation::QuickGelu => ops::QuickGelu {}.eval(&[&x]),
    }
}

fn transposed(x: &Tensor, perm: &[usize]) -> Tensor {
    let perm = perm.to_vec();
    ops::Transpose { perm }.eval(&[x])
}

/// Bias and residual as operands, with the result that the evaluator gives for them.
fn finished(
    numbers: &mut Numbers,
    product: Tensor,
    (activation, residual): (Activation, bool),
    operands: &mut Vec<Given>,
) -> Tensor {
    let result = activated(activation, product);
    if !residual {
        return result;
    }
    let residual = numbers.floats(&result.shape);
    operands.push(batched(&residual));
    ops::Add {}.eval(&[&result, &residual])
}

/// Terms of a sum that nearly cancel: numbers lose what integers keep.
#[test]
fn codes_of_a_grid_are_multiplied_as_integers() {
    const DEPTH: usize = 2048;
    let mut model = Model::default();
    let dims = [Dim::Batch, Dim::Fixed(DEPTH as u32)];
    let x = model.input("x", Type::f32(dims));
    let grid = Op::FakeQuantize {
        scale: 0.1,
        zero_point: 100,
    };
    let x = model.push(grid, &[x]);
    let scale = Tensor::float(&[1, 1], vec![0.3]);
    model.weight(Storage::Panels, DType::F32, &scale);
    // Codes from -127 to 127 in the first half; those of the second half take nearly all of their products off again.
    let code = |i: usize| (i % (DEPTH / 2) * 89 % 255) as i32 - 127;
    let left = |i: usize| (i % (DEPTH / 2) * 57 % 150) as i32;
    let weight = |i: usize| if i < DEPTH / 2 { code(i) } else { -code(i) };
    let extra = |i: usize| i32::from(i == DEPTH / 2);
    let mut bytes = vec![0; DEPTH * 32];
    for i in 0..DEPTH {
        bytes[32 * i] = (weight(i) as i8).cast_unsigned();
    }
    let plan = TensorPlan::new("weight1", &[1, DEPTH as u64, 32], DType::U8);
    model.weights.push(StoredWeight { plan, bytes });
    let book = Codebook::Scales {
        scale: 0,
        zero_point: None,
    };
    let codes = Codes { bits: 8, book };
    let weight_of = Weight {
        name: "weight1".to_owned(),
        storage: Storage::Codes(codes),
        dims: vec![1, DEPTH as u32],
    };
    let w = model.graph.weight(weight_of).unwrap();
    let linear = Op::Linear {
        bias: false,
        activation: Activation::None,
        residual: false,
    };
    let y = model.push(linear, &[x, w]);
    model.output("y", y);
    let input: Vec<f32> = (0..DEPTH)
        .map(|i| (left(i) + extra(i)) as f32 * 0.1)
        .collect();
    let sum: i32 = (0..DEPTH).map(|i| (left(i) + extra(i)) * weight(i)).sum();
    assert_eq!(sum, 127);
    let found = run(&mut model.network(1), 1, &[Values::Floats(input)]);
    let expected = 127.0 * (0.1f32 * 0.3);
    let error = (found[0][0] - expected).abs();
    if Kernels::detect().multiplies_integers() {
        assert!(error <= 1e-6, "{error}");
    } else {
        assert!(error <= 0.1, "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear(
        seed: u64, n in 1..4usize, middle in prop::option::of(1..5usize), cin in 1..40usize, cout in 1..70usize,
        bias: bool, activation in 0..4usize, residual: bool, dtype in 0..3usize,
    ) {
        let mut numbers = Numbers::new(seed);
        let (activation, dtype) = (ACTIVATIONS[activation], DTYPES[dtype]);
        let lead: Vec<usize> = [n].into_iter().chain(middle).collect();
        let x = numbers.floats(&[&lead[..], &[cin]].concat());
        let weight = rounded(numbers.floats(&[cout, cin]), dtype);
        let vector = numbers.floats(&[cout]);
        let product = match bias {
            true => ops::Linear {}.eval(&[&x, &weight, &vector]),
            false => ops::Linear {}.eval(&[&x, &weight]),
        };
        let mut operands = vec![batched(&x), Stored(Storage::Panels, dtype, weight)];
        if bias {
            operands.push(constant(&vector));
        }
        let expected = finished(&mut numbers, product, (activation, residual), &mut operands);
        check(&Op::Linear { bias, activation, residual }, &operands, &expected, 1e-5);
    }

    #[test]
    fn conv2d(
        seed: u64, n in 1..4usize, height in 3..8usize, width in 3..8usize, cin in 1..9usize, cout in 1..40usize,
        kernel in prop::array::uniform2(1..4usize), strides in prop::array::uniform2(1..3usize),
        pads in prop::array::uniform4(0..3usize), bias: bool, activation in 0..4usize, residual: bool,
        dtype in 0..3usize,
    ) {
        let mut numbers = Numbers::new(seed);
        let (activation, dtype) = (ACTIVATIONS[activation], DTYPES[dtype]);
        let x = numbers.floats(&[n, cin, height, width]);
        let weight = rounded(numbers.floats(&[cout, cin, kernel[0], kernel[1]]), dtype);
        let vector = numbers.floats(&[cout]);
        let conv = ops::Conv2d { strides, pads, groups: 1 };
        let product = match bias {
            true => conv.eval(&[&x, &weight, &vector]),
            false => conv.eval(&[&x, &weight]),
        };
        let product = transposed(&product, &[0, 2, 3, 1]);
        let packed = transposed(&weight, &[0, 2, 3, 1]);
        let mut operands = vec![
            batched(&transposed(&x, &[0, 2, 3, 1])),
            Stored(Storage::Panels, dtype, packed),
        ];
        if bias {
            operands.push(constant(&vector));
        }
        let expected = finished(&mut numbers, product, (activation, residual), &mut operands);
        let op = Op::Conv2d {
            strides: strides.map(|n| n as u32),
            pads: pads.map(|n| n as u32),
            bias,
            activation,
            residual,
        };
        check(&op, &operands, &expected, 1e-5);
    }

    #[test]
    fn geglu(seed: u64, n in 1..4usize, rows in 1..5usize, width in 1..40usize) {
        let x = Numbers::new(seed).floats(&[n, rows, 2 * width]);
        let half = |start, end| ops::Slice { axis: 2, start, end }.eval(&[&x]);
        let gelu = ops::Gelu {}.eval(&[&half(width, 2 * width)]);
        let expected = ops::Mul {}.eval(&[&half(0, width), &gelu]);
        check(&Op::Geglu, &[batched(&x)], &expected, 1e-6);
    }

    #[test]
    fn matmul(
        seed: u64, lead in prop::collection::vec(1..4usize, 0..4), drop_a in 0..4usize, drop_b in 0..4usize,
        ones_a in prop::array::uniform4(any::<bool>()), ones_b in prop::array::uniform4(any::<bool>()),
        m in 1..9usize, k in 1..20usize, p in 1..40usize, turned: bool,
    ) {
        let mut numbers = Numbers::new(seed);
        // Each side lacks some leading dimensions and has others of size 1.
        let side = |drop: usize, ones: [bool; 4], matrix: [usize; 2]| {
            let kept = lead.iter().enumerate().skip(drop);
            let lead = kept.map(|(i, &n)| if ones[i] { 1 } else { n });
            lead.chain(matrix).collect::<Vec<usize>>()
        };
        let a = numbers.floats(&side(drop_a, ones_a, [m, k]));
        let b = numbers.floats(&side(drop_b, ones_b, [k, p]));
        let expected = ops::MatMul {}.eval(&[&a, &b]);
        let given = if turned {
            let rank = b.shape.len();
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 1, rank - 2);
            transposed(&b, &perm)
        } else {
            b
        };
        let op = Op::MatMul { transposed: turned };
        check(&op, &[fixed(&a), fixed(&given)], &expected, 1e-5);
    }

    #[test]
    fn attention(
        seed: u64, n in 1..4usize, queries in 1..9usize, keys in 1..9usize, heads in 1..4usize, width in 1..9usize,
        mask in prop::option::of((prop::array::uniform4(any::<bool>()), 0..5usize)),
    ) {
        let mut numbers = Numbers::new(seed);
        let channels = heads * width;
        let q = numbers.floats(&[n, queries, channels]);
        let k = numbers.floats(&[n, keys, channels]);
        let v = numbers.floats(&[n, keys, channels]);
        let scale = 0.7;
        let attention = ops::Attention { heads, scale };
        let mut operands = vec![batched(&q), batched(&k), batched(&v)];
        let op = Op::Attention { heads: heads as u32, scale, mask: mask.is_some() };
        let expected = match mask {
            None => attention.eval(&[&q, &k, &v]),
            Some((ones, drop)) => {
                let sizes = [n, heads, queries, keys];
                let shape = (drop..4).map(|i| if ones[i] { 1 } else { sizes[i] });
                let mask = numbers.floats(&shape.collect::<Vec<_>>());
                // Only what has the size of the batch can be an input with it.
                let leads = mask.shape.len() == 4 && (mask.shape[0] == n && !ones[0]);
                operands.push(if leads { batched(&mask) } else { constant(&mask) });
                attention.eval(&[&q, &k, &v, &mask])
            }
        };
        check(&op, &operands, &expected, 1e-5);
    }
}

#[test]
fn a_vector_is_a_row() {
    // By hand: (1, 2) times the rows (3, 4) and (5, 6), plus (0.5, -0.5).
    let x = Tensor::float(&[2], vec![1.0, 2.0]);
    let weight = Tensor::float(&[2, 2], vec![3.0, 4.0, 5.0, 6.0]);
    let bias = Tensor::float(&[2], vec![0.5, -0.5]);
    let expected = Tensor::float(&[2], vec![11.5, 16.5]);
    let op = Op::Linear {
        bias: true,
        activation: Activation::None,
        residual: false,
    };
    let weight = Stored(Storage::Panels, DType::F32, weight);
    check(&op, &[fixed(&x), weight, constant(&bias)], &expected, 0.0);
}
