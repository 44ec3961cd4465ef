//! Products of codes of eight bits against sums of integers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use half::f16;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use snapc_kernels::{
    Activation, Codebook, Codes, Conv2d, Epilogue, InstructionSet, Kernels, PANEL_WIDTH,
    PanelMatrix, Pool, Quantized, Weights, pack_codes, reference,
};
use support::{assert_near, config, engines, numbers, rng};

/// A matrix `[columns][depth]` of codes, its panels, and a scale per column.
struct Matrix {
    codes: Vec<i8>,
    rows: Vec<u8>,
    scale: Vec<f32>,
    scale_panels: Vec<f16>,
}

impl Matrix {
    fn random(rng: &mut TestRng, columns: usize, depth: usize) -> Self {
        // The ends are there, where narrower sums would saturate.
        let code = |x: u32| match x % 4 {
            0 => -128,
            1 => 127,
            _ => (x >> 16) as i8,
        };
        let codes: Vec<i8> = (0..columns * depth).map(|_| code(rng.next_u32())).collect();
        let mut rows = Vec::new();
        for panel in 0..columns.div_ceil(PANEL_WIDTH) {
            for d in 0..depth {
                let code = |c: usize| {
                    let at = (panel * PANEL_WIDTH + c) * depth + d;
                    codes.get(at).map_or(0, |code| code.cast_unsigned())
                };
                let own: [u8; PANEL_WIDTH] = std::array::from_fn(code);
                pack_codes(&own, 8, &mut rows);
            }
        }
        let scale: Vec<f32> = (0..columns)
            .map(|c| f16::from_f32(0.01 + c as f32 / 999.0).to_f32())
            .collect();
        let mut scale_panels: Vec<f16> = scale.iter().map(|&x| f16::from_f32(x)).collect();
        scale_panels.resize(columns.next_multiple_of(PANEL_WIDTH), f16::ZERO);
        Matrix {
            codes,
            rows,
            scale,
            scale_panels,
        }
    }

    fn panels(&self, depth: usize) -> PanelMatrix<'_> {
        let book = Codebook::Scales {
            scale: Weights::F16(&self.scale_panels),
            zero_point: None,
            blocks: 1,
            block_rows: depth.max(1),
        };
        let codes = Codes {
            bits: 8,
            rows: &self.rows,
            book,
        };
        PanelMatrix::from_codes(codes, self.scale.len(), depth).unwrap()
    }
}

/// Codes of a left operand and the numbers on the grid that they are.
fn left(rng: &mut TestRng, len: usize, scale: f32, zero_point: u8) -> (Vec<u8>, Vec<f32>) {
    let code = |x: u32| match x % 4 {
        0 => 255,
        1 => 0,
        _ => (x >> 16) as u8,
    };
    let codes: Vec<u8> = (0..len).map(|_| code(rng.next_u32())).collect();
    let number = |&code: &u8| (f32::from(code) - f32::from(zero_point)) * scale;
    let x = codes.iter().map(number).collect();
    (codes, x)
}

/// The exact sum, scaled in f64.
fn product(a: &[u8], zero_point: u8, weights: &[i8], scales: f64) -> f32 {
    let terms = a.iter().zip(weights);
    let sum: i64 = terms
        .map(|(&a, &w)| (i64::from(a) - i64::from(zero_point)) * i64::from(w))
        .sum();
    (sum as f64 * scales) as f32
}

/// The largest sum, in the scales of the results.
fn unit(depth: usize, scale: f32) -> f32 {
    // One part in 10⁵ of this is below a unit of the sum: the tests would see a wrong code.
    (depth as f32).sqrt() * scale
}

fn integer_engines() -> Vec<(Kernels, Pool)> {
    let engines = engines();
    engines
        .into_iter()
        .filter(|(k, _)| k.multiplies_integers())
        .collect()
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn gemm(
        rows in prop_oneof![3 => 1usize..60, 1 => 260usize..300],
        columns in 1usize..100,
        depth in prop_oneof![1usize..40, 1270usize..1400, Just(2600usize)],
        zero_point: u8,
        silu: bool,
        (has_bias, has_residual) in any::<(bool, bool)>(),
        seed: u8,
    ) {
        let mut rng = rng(seed);
        let scale = 0.0117;
        let (codes, a) = left(&mut rng, rows * depth, scale, zero_point);
        let matrix = Matrix::random(&mut rng, columns, depth);
        let (bias, residual) = (numbers(&mut rng, columns), numbers(&mut rng, rows * columns));
        let epilogue = Epilogue {
            bias: has_bias.then_some(bias.as_slice()),
            activation: if silu { Activation::Silu } else { Activation::None },
            residual: has_residual.then_some(residual.as_slice()),
        };
        let mut expected = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                let scales = f64::from(scale) * f64::from(matrix.scale[column]);
                let own = &codes[row * depth..][..depth];
                let weights = &matrix.codes[column * depth..][..depth];
                let mut x = f64::from(product(own, zero_point, weights, scales));
                x += epilogue.bias.map_or(0.0, |b| f64::from(b[column]));
                x = reference::unary(epilogue.activation.into(), x);
                x += epilogue.residual.map_or(0.0, |r| f64::from(r[row * columns + column]));
                expected.push(x as f32);
            }
        }
        let panels = matrix.panels(depth);
        let sums = panels.column_sums().unwrap();
        let left = Quantized { scale, zero_point, column_sums: &sums };
        for (kernels, pool) in integer_engines() {
            let mut out = vec![f32::NAN; rows * columns];
            kernels.gemm_quantized(&pool, rows, &a, left, &panels, epilogue, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, unit(depth, scale).max(1.0));
        }
    }

    #[test]
    fn conv2d(
        (batch, height, width) in (1usize..3, 1usize..12, 1usize..12),
        channels in prop_oneof![1usize..70, Just(64usize), Just(68), Just(1288)],
        out_channels in 1usize..40,
        kernel in prop_oneof![Just([1, 1]), Just([3, 3]), Just([2, 3])],
        stride in prop_oneof![Just([1, 1]), Just([2, 2])],
        pads in prop::array::uniform4(0usize..3),
        zero_point: u8,
        seed: u8,
    ) {
        let shape = Conv2d { batch, height, width, channels, kernel, stride, pads };
        let Ok([rows, columns]) = shape.output_size() else { return Ok(()) };
        let mut rng = rng(seed);
        let scale = 0.03125;
        let (_, input) = left(&mut rng, batch * height * width * channels, scale, zero_point);
        let depth = kernel[0] * kernel[1] * channels;
        let matrix = Matrix::random(&mut rng, out_channels, depth);
        // Exact in the reference: small integers times powers of two.
        let weights: Vec<f32> = matrix.codes.iter().map(|&code| f32::from(code)).collect();
        let mut expected = vec![0.0; batch * rows * columns * out_channels];
        reference::conv2d(shape, out_channels, &input, &weights, Epilogue::default(), &mut expected);
        for (i, x) in expected.iter_mut().enumerate() {
            *x *= matrix.scale[i % out_channels];
        }
        let panels = matrix.panels(depth);
        let sums = panels.column_sums().unwrap();
        let left = Quantized { scale, zero_point, column_sums: &sums };
        for (kernels, pool) in integer_engines() {
            let mut out = vec![f32::NAN; expected.len()];
            let epilogue = Epilogue::default();
            kernels.conv2d_quantized(&pool, shape, &input, left, &panels, epilogue, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, unit(depth, scale));
        }
    }
}

#[test]
fn the_longest_sum_does_not_overflow() {
    let depth = 65_536;
    let scale = [1.0f32; 32];
    let rows = vec![(-128i8).cast_unsigned(); depth * PANEL_WIDTH];
    let book = Codebook::Scales {
        scale: Weights::F32(&scale),
        zero_point: None,
        blocks: 1,
        block_rows: depth,
    };
    let codes = Codes {
        bits: 8,
        rows: &rows,
        book,
    };
    let panels = PanelMatrix::from_codes(codes, 1, depth).unwrap();
    let sums = panels.column_sums().unwrap();
    assert_eq!(sums, [-128 * 65_536]);
    for (zero_point, number) in [(0u8, 255.0f32), (255, -255.0)] {
        let a = vec![number; depth];
        let left = Quantized {
            scale: 1.0,
            zero_point,
            column_sums: &sums,
        };
        for (kernels, pool) in integer_engines() {
            let mut out = [f32::NAN];
            let epilogue = Epilogue::default();
            kernels
                .gemm_quantized(&pool, 1, &a, left, &panels, epilogue, &mut out)
                .unwrap();
            assert_eq!(out, [number * -128.0 * 65_536.0], "{}", kernels.name());
        }
    }
    let longer = vec![0; (depth + 1) * PANEL_WIDTH];
    let codes = Codes {
        bits: 8,
        rows: &longer,
        book,
    };
    let panels = PanelMatrix::from_codes(codes, 1, depth + 1).unwrap();
    assert_eq!(panels.column_sums(), None);
}

#[test]
fn other_weights_are_refused() {
    let kernels = Kernels::with(InstructionSet::Portable).unwrap();
    let pool = Pool::new(1).unwrap();
    let panels = PanelMatrix::pack(Weights::F32(&[1.0; 6]), 2, 3).unwrap();
    assert_eq!(panels.column_sums(), None);
    let left = Quantized {
        scale: 1.0,
        zero_point: 0,
        column_sums: &[0; 2],
    };
    let epilogue = Epilogue::default();
    let ran = kernels.gemm_quantized(&pool, 1, &[0.0; 3], left, &panels, epilogue, &mut [0.0; 2]);
    assert_eq!(
        ran.unwrap_err().to_string(),
        "gemm_quantized: the weights are not codes with a scale per column"
    );
}
