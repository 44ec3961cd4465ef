//! Operators over whole tensors: functions, broadcasts, permutations, run-time products, rounding.

mod support;

use half::{bf16, f16};
use proptest::prelude::*;
use snapc_kernels::{
    Activation, Binary, Kernels, Matmul, Pool, Storage, Strided, Unary, reference,
};
use support::{assert_near, config, engines, numbers, rng};

/// Strides of a row-major tensor.
fn row_major(extents: &[usize]) -> Vec<usize> {
    let inner = |i: usize| extents[i + 1..].iter().product();
    (0..extents.len()).map(inner).collect()
}

/// Element `at` of the row-major result, found in `x` dimension by dimension.
fn element(x: Strided<'_>, extents: &[usize], mut at: usize) -> f32 {
    let mut index = 0;
    for (extent, stride) in extents.iter().zip(x.strides).rev() {
        index += at % extent * stride;
        at /= extent;
    }
    x.data[index]
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn functions(len in prop_oneof![0usize..50, 4090usize..13000], seed: u8) {
        let x: Vec<f32> = numbers(&mut rng(seed), len).iter().map(|x| x * 12.0).collect();
        for (function, unit) in [
            (Unary::Activation(Activation::Gelu), 1e-6),
            (Unary::Sigmoid, 1e-6),
            (Unary::Exp, 1e-6),
            // Small results come from a difference of numbers near 1.
            (Unary::Erf, 0.1),
            (Unary::Sqrt, 1e-6),
            (Unary::Sin, 1e-6),
            (Unary::Cos, 1e-6),
            (Unary::Grid { scale: 0.03125, zero_point: 117 }, 1e-6),
        ] {
            let positive = |x: f32| if function == Unary::Sqrt { x.abs() } else { x };
            let expected: Vec<f32> =
                x.iter().map(|&x| reference::unary(function, f64::from(positive(x))) as f32).collect();
            for (kernels, pool) in engines() {
                let mut out: Vec<f32> = x.iter().map(|&x| positive(x)).collect();
                kernels.unary(&pool, function, &mut out);
                assert_near(&format!("{function:?} of {}", kernels.name()), &out, &expected, unit);
            }
        }
    }

    #[test]
    fn geglu(rows in 1usize..20, width in 1usize..200, seed: u8) {
        let input: Vec<f32> = numbers(&mut rng(seed), rows * 2 * width).iter().map(|x| x * 4.0).collect();
        let mut expected = vec![0.0; rows * width];
        reference::geglu(rows, &input, &mut expected);
        for (kernels, pool) in engines() {
            let mut out = vec![f32::NAN; rows * width];
            kernels.geglu(&pool, rows, &input, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, 1e-3);
        }
    }

    #[test]
    fn binary(
        extents in prop_oneof![prop::collection::vec(1usize..7, 0..5), prop::collection::vec(5000usize..9000, 1..2)],
        repeated in prop::array::uniform2(prop::collection::vec(any::<bool>(), 5)),
        seed: u8,
    ) {
        let len = extents.iter().product::<usize>();
        let mut rng = rng(seed);
        // Divisors away from zero.
        let data: Vec<f32> = numbers(&mut rng, len).iter().map(|x| x + 2.0).collect();
        let strides = repeated.map(|repeated| {
            let all = row_major(&extents).into_iter().zip(repeated);
            all.map(|(stride, repeated)| if repeated { 0 } else { stride }).collect::<Vec<_>>()
        });
        let [a, b] = [0, 1].map(|i| Strided { data: &data, strides: &strides[i] });
        type Function = fn(f32, f32) -> f32;
        let operators: [(Binary, Function); 4] = [
            (Binary::Add, |a, b| a + b),
            (Binary::Sub, |a, b| a - b),
            (Binary::Mul, |a, b| a * b),
            (Binary::Div, |a, b| a / b),
        ];
        for (operator, function) in operators {
            let expected: Vec<f32> =
                (0..len).map(|at| function(element(a, &extents, at), element(b, &extents, at))).collect();
            for threads in [1, 3] {
                let pool = Pool::new(threads).unwrap();
                let mut out = vec![f32::NAN; len];
                Kernels::detect().binary(&pool, operator, &extents, a, b, &mut out).unwrap();
                assert_eq!(&out, &expected);
            }
        }
    }

    #[test]
    fn permute(
        (extents, order) in prop_oneof![
            prop::collection::vec(1usize..40, 3..4),
            prop::collection::vec(1usize..8, 0..6),
        ]
        .prop_flat_map(|extents| {
            let order: Vec<usize> = (0..extents.len()).collect();
            (Just(extents), Just(order).prop_shuffle())
        }),
        seed: u8,
    ) {
        let data = numbers(&mut rng(seed), extents.iter().product());
        let from = row_major(&extents);
        let strides: Vec<usize> = order.iter().map(|&i| from[i]).collect();
        let extents: Vec<usize> = order.iter().map(|&i| extents[i]).collect();
        let input = Strided { data: &data, strides: &strides };
        let expected: Vec<f32> = (0..data.len()).map(|at| element(input, &extents, at)).collect();
        for threads in [1, 3] {
            let pool = Pool::new(threads).unwrap();
            let mut out = vec![f32::NAN; data.len()];
            Kernels::detect().permute(&pool, &extents, input, &mut out).unwrap();
            assert_eq!(&out, &expected);
        }
    }

    #[test]
    fn matmul(
        batch in 1usize..5,
        (rows, columns) in (prop_oneof![3 => 1usize..40, 1 => 220usize..260], 1usize..80),
        depth in prop_oneof![0usize..40, 250usize..300],
        (transposed, shared) in any::<(bool, bool)>(),
        seed: u8,
    ) {
        let shape = Matmul { batch, rows, depth, columns, transposed, shared };
        let mut rng = rng(seed);
        let a = numbers(&mut rng, batch * rows * depth);
        let b = numbers(&mut rng, if shared { 1 } else { batch } * depth * columns);
        let mut expected = vec![0.0; batch * rows * columns];
        reference::matmul(shape, &a, &b, &mut expected);
        for (kernels, pool) in engines() {
            let mut out = vec![f32::NAN; expected.len()];
            kernels.matmul(&pool, shape, &a, &b, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, (depth as f32).sqrt().max(1.0));
        }
    }
}

#[test]
fn slices_and_broadcasts_are_copies_by_strides() {
    let (kernels, pool) = (Kernels::detect(), Pool::new(2).unwrap());
    // Columns 1 and 2 of three rows of four, each row twice.
    let data: Vec<f32> = (0..12u8).map(f32::from).collect();
    let mut out = [0.0; 12];
    let input = Strided {
        data: &data[1..],
        strides: &[4, 0, 1],
    };
    kernels.permute(&pool, &[3, 2, 2], input, &mut out).unwrap();
    assert_eq!(out, [1., 2., 1., 2., 5., 6., 5., 6., 9., 10., 9., 10.]);
    let error = kernels
        .permute(&pool, &[4, 2, 2], input, &mut [0.0; 16])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "input of permute holds 11 elements, the shape asks for 14"
    );
}

#[test]
fn rounding_is_to_the_nearest_half() {
    // The neighbors of 1 are 2^-10 apart in f16 and 2^-7 in bf16; halfway goes to the even one.
    let x = [
        1.0 + 0.000_6,
        1.0 + 0.000_488_281_25,
        1.0 + 0.005,
        1.0 + 0.003_906_25,
        70000.0,
        -0.0,
        3e-8,
    ];
    for (kernels, pool) in engines() {
        let mut out = x;
        kernels.round_to(&pool, Storage::F16, &mut out);
        assert_eq!(out[..2], [1.000_976_6, 1.0]);
        assert_eq!(out[4..], [f32::INFINITY, -0.0, 5.960_464_5e-8]);
        let mut out = x;
        kernels.round_to(&pool, Storage::Bf16, &mut out);
        assert_eq!(out[2..5], [1.007_812_5, 1.0, 70144.0]);
        assert!(out[5].is_sign_negative());
    }
    // All of a long slice, whatever the threads.
    let long = numbers(&mut rng(5), 9001);
    for (kernels, pool) in engines() {
        let mut out = long.clone();
        kernels.round_to(&pool, Storage::F16, &mut out);
        assert!(
            long.iter()
                .zip(&out)
                .all(|(x, y)| f16::from_f32(*x).to_f32() == *y)
        );
        let mut out = long.clone();
        kernels.round_to(&pool, Storage::Bf16, &mut out);
        assert!(
            long.iter()
                .zip(&out)
                .all(|(x, y)| bf16::from_f32(*x).to_f32() == *y)
        );
    }
}
