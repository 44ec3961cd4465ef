//! Products with weights that are stored as codes, against sums in f64 over what the codes stand for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use half::f16;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use snapc_kernels::{
    Codebook, Codes, Conv2d, Epilogue, PANEL_WIDTH, PanelMatrix, Weights, pack_codes, reference,
};
use support::{assert_near, config, engines, numbers, rng};

/// Codes of a matrix `[columns][depth]`, packed; and the codes themselves.
fn codes(rng: &mut TestRng, [columns, depth]: [usize; 2], bits: usize) -> (Vec<u8>, Vec<u8>) {
    let mask = 0xff >> (8 - bits);
    let plain: Vec<u8> = (0..columns * depth)
        .map(|_| (rng.next_u32() >> 16) as u8 & mask)
        .collect();
    let mut packed = Vec::new();
    for panel in 0..columns.div_ceil(PANEL_WIDTH) {
        for d in 0..depth {
            let code = |c: usize| {
                let column = panel * PANEL_WIDTH + c;
                if column < columns {
                    plain[column * depth + d]
                } else {
                    0
                }
            };
            pack_codes(&std::array::from_fn(code), bits, &mut packed);
        }
    }
    (packed, plain)
}

/// The panels of a matrix `[columns][depth]`.
fn panels(matrix: &[f32], columns: usize, depth: usize) -> Vec<f32> {
    let packed = PanelMatrix::pack(Weights::F32(matrix), columns, depth).unwrap();
    match packed.panels() {
        Some(Weights::F32(panels)) => panels.to_vec(),
        _ => panic!("packing keeps the type"),
    }
}

/// A signed code of so many bits.
fn signed(code: u8, bits: usize) -> f64 {
    let shift = 8 - bits;
    f64::from((code << shift).cast_signed() >> shift)
}

/// `a · weightsᵀ` in f64.
fn product([rows, columns, depth]: [usize; 3], a: &[f32], weights: &[f64]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let terms =
                (0..depth).map(|d| f64::from(a[row * depth + d]) * weights[column * depth + d]);
            out.push(terms.sum::<f64>() as f32);
        }
    }
    out
}

/// A unit for comparisons: the largest magnitude of a weight times the root of the number of terms.
fn unit(weights: &[f64], depth: usize) -> f32 {
    let largest = weights.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
    (largest * (depth as f64).sqrt()).max(1e-6) as f32
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn scales(
        rows in prop_oneof![3 => 1usize..40, 1 => 220usize..260],
        columns in 1usize..100,
        (blocks, block_rows, repeats) in (1usize..5, 1usize..90, 1usize..4),
        bits in prop_oneof![Just(4usize), Just(8)],
        (has_zero_point, half) in any::<(bool, bool)>(),
        seed: u8,
    ) {
        let depth = blocks * block_rows * repeats;
        let mut rng = rng(seed);
        let a = numbers(&mut rng, rows * depth);
        let (packed, plain) = codes(&mut rng, [columns, depth], bits);
        let scale: Vec<f32> = numbers(&mut rng, columns * blocks)
            .iter()
            .map(|x| f16::from_f32(0.01 + x.abs() / 16.0).to_f32())
            .collect();
        let zero: Vec<f32> = numbers(&mut rng, columns * blocks).iter().map(|x| (x * 7.0).round()).collect();
        let weights: Vec<f64> = plain.iter().enumerate().map(|(i, &code)| {
            let group = i / depth * blocks + i % depth / block_rows % blocks;
            let zero = if has_zero_point { f64::from(zero[group]) } else { 0.0 };
            (signed(code, bits) - zero) * f64::from(scale[group])
        }).collect();
        let expected = product([rows, columns, depth], &a, &weights);
        let scale = panels(&scale, columns, blocks);
        let narrow: Vec<f16> = scale.iter().map(|&x| f16::from_f32(x)).collect();
        let zero = panels(&zero, columns, blocks);
        let book = Codebook::Scales {
            scale: if half { Weights::F16(&narrow) } else { Weights::F32(&scale) },
            zero_point: has_zero_point.then_some(Weights::F32(&zero)),
            blocks,
            block_rows,
        };
        let codes = Codes { bits, rows: &packed, book };
        for (kernels, pool) in engines() {
            let matrix = PanelMatrix::from_codes(codes, columns, depth).unwrap();
            let mut out = vec![f32::NAN; rows * columns];
            kernels.gemm(&pool, rows, &a, &matrix, Epilogue::default(), &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, unit(&weights, depth));
        }
    }

    #[test]
    fn palettes(
        rows in 1usize..40,
        (groups, size) in prop_oneof![(1usize..4, 1usize..70), (1usize..4, Just(32)), (1usize..70, Just(1))],
        depth in prop_oneof![1usize..40, 300usize..400],
        bits in prop_oneof![Just(1usize), Just(2), Just(3), Just(4), Just(6), Just(8)],
        seed: u8,
    ) {
        let columns = groups * size;
        let mut rng = rng(seed);
        let a = numbers(&mut rng, rows * depth);
        let (packed, plain) = codes(&mut rng, [columns, depth], bits);
        let table = numbers(&mut rng, groups << bits);
        let weights: Vec<f64> = plain.iter().enumerate().map(|(i, &code)| {
            let group = i / depth / size;
            f64::from(table[(group << bits) + usize::from(code)])
        }).collect();
        let expected = product([rows, columns, depth], &a, &weights);
        let codes = Codes { bits, rows: &packed, book: Codebook::Palette { table: &table, groups } };
        for (kernels, pool) in engines() {
            let matrix = PanelMatrix::from_codes(codes, columns, depth).unwrap();
            let mut out = vec![f32::NAN; rows * columns];
            kernels.gemm(&pool, rows, &a, &matrix, Epilogue::default(), &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, unit(&weights, depth));
        }
    }

    #[test]
    fn convolutions_with_blocks_of_channels(
        (height, width) in (1usize..9, 1usize..9),
        (blocks, block) in (1usize..4, prop_oneof![1usize..8, 21usize..40]),
        out_channels in 1usize..70,
        kernel in prop_oneof![Just([1, 1]), Just([3, 3]), Just([2, 3])],
        pads in prop::array::uniform4(1usize..3),
        seed: u8,
    ) {
        let channels = blocks * block;
        let shape = Conv2d { batch: 1, height, width, channels, kernel, stride: [1, 1], pads };
        let [rows, columns] = shape.output_size().unwrap();
        let mut rng = rng(seed);
        let input = numbers(&mut rng, height * width * channels);
        let depth = kernel[0] * kernel[1] * channels;
        let (packed, plain) = codes(&mut rng, [out_channels, depth], 8);
        // Powers of two, so that the weights are exact.
        let scale: Vec<f32> = (0..out_channels * blocks).map(|i| (0.5f32).powi(4 + (i % 3) as i32)).collect();
        let weights: Vec<f32> = plain.iter().enumerate().map(|(i, &code)| {
            signed(code, 8) as f32 * scale[i / depth * blocks + i % channels / block]
        }).collect();
        let mut expected = vec![0.0; rows * columns * out_channels];
        reference::conv2d(shape, out_channels, &input, &weights, Epilogue::default(), &mut expected);
        let scale = panels(&scale, out_channels, blocks);
        let book = Codebook::Scales { scale: Weights::F32(&scale), zero_point: None, blocks, block_rows: block };
        let codes = Codes { bits: 8, rows: &packed, book };
        for (kernels, pool) in engines() {
            let matrix = PanelMatrix::from_codes(codes, out_channels, depth).unwrap();
            let mut out = vec![f32::NAN; expected.len()];
            kernels.conv2d(&pool, shape, &input, &matrix, Epilogue::default(), &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, 8.0 * (depth as f32).sqrt());
        }
    }
}
