//! Every instruction set against the plain loops of `reference`, over odd sizes, alignments and threads.

mod support;

use half::{bf16, f16};
use proptest::prelude::*;
use snapc_kernels::{
    Activation, Attention, Conv2d, Epilogue, GroupNorm, Heads, Kernels, PanelMatrix, Pool, Weights,
    reference, upsample_nearest,
};
use support::{assert_near, config, engines, numbers, rng};

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Silu),
        Just(Activation::Gelu),
        Just(Activation::QuickGelu)
    ]
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn gemm(
        rows in prop_oneof![3 => 1usize..80, 1 => 220usize..260],
        columns in 1usize..100,
        depth in prop_oneof![0usize..40, 250usize..600],
        activation in activation(),
        (has_bias, has_residual) in any::<(bool, bool)>(),
        seed: u8,
    ) {
        let mut rng = rng(seed);
        // One element further than the allocation: no vector is aligned.
        let a = numbers(&mut rng, rows * depth + 1);
        let a = &a[1..];
        let weights = numbers(&mut rng, columns * depth);
        let (bias, residual) = (numbers(&mut rng, columns), numbers(&mut rng, rows * columns));
        let epilogue = Epilogue {
            bias: has_bias.then_some(bias.as_slice()),
            activation,
            residual: has_residual.then_some(residual.as_slice()),
        };
        let mut expected = vec![0.0; rows * columns];
        reference::gemm([rows, columns, depth], a, &weights, epilogue, &mut expected);
        for (kernels, pool) in engines() {
            let panels = PanelMatrix::pack(Weights::F32(&weights), columns, depth).unwrap();
            let mut out = vec![f32::NAN; rows * columns + 1];
            kernels.gemm(&pool, rows, a, &panels, epilogue, &mut out[1..]).unwrap();
            assert_near(kernels.name(), &out[1..], &expected, (depth as f32).sqrt().max(1.0));
        }
    }

    #[test]
    fn conv2d(
        (batch, height, width) in (1usize..3, 1usize..12, 1usize..12),
        (channels, out_channels) in (prop_oneof![3 => 1usize..70, 1 => 321usize..330], 1usize..40),
        kernel in prop_oneof![Just([1, 1]), Just([3, 3]), Just([2, 3])],
        stride in prop_oneof![Just([1, 1]), Just([2, 2]), Just([1, 3])],
        pads in prop::array::uniform4(0usize..3),
        seed: u8,
    ) {
        let shape = Conv2d { batch, height, width, channels, kernel, stride, pads };
        let Ok([rows, columns]) = shape.output_size() else { return Ok(()) };
        let mut rng = rng(seed);
        let input = numbers(&mut rng, batch * height * width * channels);
        let depth = kernel[0] * kernel[1] * channels;
        let weights = numbers(&mut rng, out_channels * depth);
        let bias = numbers(&mut rng, out_channels);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        let mut expected = vec![0.0; batch * rows * columns * out_channels];
        reference::conv2d(shape, out_channels, &input, &weights, epilogue, &mut expected);
        for (kernels, pool) in engines() {
            let panels = PanelMatrix::pack(Weights::F32(&weights), out_channels, depth).unwrap();
            let mut out = vec![f32::NAN; expected.len()];
            kernels.conv2d(&pool, shape, &input, &panels, epilogue, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, (depth as f32).sqrt());
        }
    }

    #[test]
    fn attention(
        (batch, heads) in (1usize..3, 1usize..4),
        head_dim in prop_oneof![Just(40usize), Just(64), Just(80), Just(160), Just(300), 1usize..20],
        (queries, keys) in (prop_oneof![3 => 1usize..60, 1 => 220usize..260], prop_oneof![1usize..90, 250usize..530]),
        masked: bool,
        seed: u8,
    ) {
        let scale = 4.0 / (head_dim as f32).sqrt();
        let shape = Attention { batch, heads, head_dim, queries, keys, scale };
        let mut rng = rng(seed);
        let width = heads * head_dim;
        let q = numbers(&mut rng, batch * queries * width);
        // Keys and values side by side.
        let kv = numbers(&mut rng, batch * keys * 2 * width);
        let mask: Vec<f32> = numbers(&mut rng, queries * keys)
            .into_iter()
            .map(|x| if x > 0.5 { f32::NEG_INFINITY } else { x })
            .collect();
        let mask = masked.then_some(mask.as_slice());
        let q = Heads { data: &q, stride: width };
        let k = Heads { data: &kv, stride: 2 * width };
        let v = Heads { data: &kv[width..], stride: 2 * width };
        let mut expected = vec![0.0; batch * queries * width];
        reference::attention(shape, q, k, v, mask, &mut expected);
        for (kernels, pool) in engines() {
            let mut out = vec![f32::NAN; expected.len()];
            kernels.attention(&pool, shape, q, k, v, mask, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, 1.0);
        }
    }

    #[test]
    fn group_norm(
        (batch, positions) in (1usize..3, 1usize..200),
        (groups, per_group) in (1usize..40, 1usize..12),
        activation in activation(),
        offset in prop_oneof![Just(0.0f32), Just(30.0)],
        seed: u8,
    ) {
        // A single element per group has no variance: its result is rounding noise times 1 / sqrt(eps).
        prop_assume!(positions * per_group >= 4);
        let channels = groups * per_group;
        let shape = GroupNorm { batch, positions, channels, groups, eps: 1e-5, activation };
        let mut rng = rng(seed);
        let x: Vec<f32> = numbers(&mut rng, batch * positions * channels).iter().map(|x| x + offset).collect();
        let (gamma, beta) = (numbers(&mut rng, channels), numbers(&mut rng, channels));
        let mut expected = x.clone();
        reference::group_norm(shape, &gamma, &beta, &mut expected);
        for (kernels, pool) in engines() {
            let mut out = x.clone();
            kernels.group_norm_in_place(&pool, shape, &gamma, &beta, &mut out).unwrap();
            // The mean is rounded to f32 when it is subtracted.
            assert_near(kernels.name(), &out, &expected, 1.0 + offset);
            let mut moved = vec![f32::NAN; x.len()];
            kernels.group_norm(&pool, shape, &gamma, &beta, &x, &mut moved).unwrap();
            assert_eq!(moved, out);
        }
    }

    #[test]
    fn layer_norm(rows in 1usize..20, width in 4usize..800, seed: u8) {
        let mut rng = rng(seed);
        let x = numbers(&mut rng, rows * width);
        let (gamma, beta) = (numbers(&mut rng, width), numbers(&mut rng, width));
        let mut expected = x.clone();
        reference::layer_norm(&gamma, &beta, 1e-5, &mut expected);
        for (kernels, pool) in engines() {
            let mut out = x.clone();
            kernels.layer_norm_in_place(&pool, &gamma, &beta, 1e-5, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, 1.0);
            let mut moved = vec![f32::NAN; x.len()];
            kernels.layer_norm(&pool, &gamma, &beta, 1e-5, &x, &mut moved).unwrap();
            assert_eq!(moved, out);
        }
    }

    #[test]
    fn softmax(rows in 1usize..20, width in 1usize..200, seed: u8) {
        let x: Vec<f32> = numbers(&mut rng(seed), rows * width).iter().map(|x| x * 20.0).collect();
        let expected: Vec<f32> = x
            .chunks(width)
            .flat_map(|row| reference::softmax(&row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()))
            .map(|x| x as f32)
            .collect();
        for (kernels, pool) in engines() {
            let mut out = x.clone();
            kernels.softmax(&pool, rows, &mut out).unwrap();
            assert_near(kernels.name(), &out, &expected, 1e-6);
        }
    }

    #[test]
    fn elementwise(len in prop_oneof![0usize..50, 4090usize..13000], activation in activation(), seed: u8) {
        let mut rng = rng(seed);
        let x: Vec<f32> = numbers(&mut rng, len).iter().map(|x| x * 12.0).collect();
        let y = numbers(&mut rng, len);
        let expected: Vec<f32> = x.iter().map(|&x| reference::activate(activation, f64::from(x)) as f32).collect();
        let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        for (kernels, pool) in engines() {
            let mut out = x.clone();
            kernels.activate(&pool, activation, &mut out);
            // Relative down to 1e-6; the tails below lose precision where multiplications and additions are not fused.
            assert_near(kernels.name(), &out, &expected, 1e-6);
            let mut out = x.clone();
            kernels.add(&pool, &mut out, &y).unwrap();
            assert_eq!(out, sum);
        }
    }
}

#[test]
fn half_weights_give_the_product_of_their_values() {
    let (rows, columns, depth) = (17, 45, 300);
    let mut rng = rng(7);
    let a = numbers(&mut rng, rows * depth);
    let weights = numbers(&mut rng, columns * depth);
    let f16s: Vec<f16> = weights.iter().map(|&w| f16::from_f32(w)).collect();
    let bf16s: Vec<bf16> = weights.iter().map(|&w| bf16::from_f32(w)).collect();
    let f16_values: Vec<f32> = f16s.iter().map(|w| w.to_f32()).collect();
    let bf16_values: Vec<f32> = bf16s.iter().map(|w| w.to_f32()).collect();
    for (weights, values) in [
        (Weights::F16(&f16s), f16_values),
        (Weights::Bf16(&bf16s), bf16_values),
    ] {
        let mut expected = vec![0.0; rows * columns];
        reference::gemm(
            [rows, columns, depth],
            &a,
            &values,
            Epilogue::default(),
            &mut expected,
        );
        for (kernels, pool) in engines() {
            let panels = PanelMatrix::pack(weights, columns, depth).unwrap();
            let mut out = vec![0.0; rows * columns];
            kernels
                .gemm(&pool, rows, &a, &panels, Epilogue::default(), &mut out)
                .unwrap();
            assert_near(kernels.name(), &out, &expected, (depth as f32).sqrt());
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (rows, columns, depth) = (300, 100, 700);
    let mut rng = rng(3);
    let a = numbers(&mut rng, rows * depth);
    let weights = numbers(&mut rng, columns * depth);
    let kernels = Kernels::detect();
    let panels = PanelMatrix::pack(Weights::F32(&weights), columns, depth).unwrap();
    let outs = [1, 2, 5].map(|threads| {
        let mut out = vec![0.0; rows * columns];
        let pool = Pool::new(threads).unwrap();
        kernels
            .gemm(&pool, rows, &a, &panels, Epilogue::default(), &mut out)
            .unwrap();
        out
    });
    assert_eq!(outs[0], outs[1]);
    assert_eq!(outs[0], outs[2]);
}

#[test]
fn upsampling_repeats_pixels() {
    // One image of 2 × 2 pixels with two channels.
    let input = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
    let mut out = [0.0; 32];
    upsample_nearest(&Pool::new(2).unwrap(), [1, 2, 2, 2], 2, &input, &mut out).unwrap();
    let rows = [
        [1.0, 10.0, 1.0, 10.0, 2.0, 20.0, 2.0, 20.0],
        [3.0, 30.0, 3.0, 30.0, 4.0, 40.0, 4.0, 40.0],
    ];
    assert_eq!(out, [rows[0], rows[0], rows[1], rows[1]].concat()[..]);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (kernels, pool) = (Kernels::detect(), Pool::new(1).unwrap());
    let panels = PanelMatrix::pack(Weights::F32(&[0.0; 6]), 2, 3).unwrap();
    let none = Epilogue::default();
    let error = kernels
        .gemm(&pool, 2, &[0.0; 6], &panels, none, &mut [0.0; 5])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of gemm holds 5 elements, the shape asks for 4"
    );
    let shape = Conv2d {
        batch: 1,
        height: 2,
        width: 2,
        channels: 1,
        kernel: [3, 3],
        stride: [1, 1],
        pads: [0; 4],
    };
    assert!(shape.output_size().is_err());
    assert!(
        Conv2d {
            stride: [0, 1],
            pads: [1; 4],
            ..shape
        }
        .output_size()
        .is_err()
    );
    let heads = Heads {
        data: &[0.0; 8],
        stride: 3,
    };
    let shape = Attention {
        batch: 1,
        heads: 2,
        head_dim: 2,
        queries: 2,
        keys: 2,
        scale: 1.0,
    };
    assert!(
        kernels
            .attention(&pool, shape, heads, heads, heads, None, &mut [0.0; 8])
            .is_err()
    );
}

#[test]
fn wide_images_are_cut_in_blocks() {
    // More columns than a block has, and more rows; two slices of channels.
    let shape = Conv2d {
        batch: 2,
        height: 9,
        width: 70,
        channels: 330,
        kernel: [3, 3],
        stride: [1, 1],
        pads: [0, 1, 1, 1],
    };
    let (out_channels, depth) = (33, 9 * 330);
    let mut rng = rng(11);
    let input = numbers(&mut rng, 2 * 9 * 70 * 330);
    let weights = numbers(&mut rng, out_channels * depth);
    let [rows, columns] = shape.output_size().unwrap();
    let mut expected = vec![0.0; 2 * rows * columns * out_channels];
    let residual = numbers(&mut rng, expected.len());
    let epilogue = Epilogue {
        activation: Activation::Silu,
        residual: Some(&residual),
        ..Epilogue::default()
    };
    reference::conv2d(
        shape,
        out_channels,
        &input,
        &weights,
        epilogue,
        &mut expected,
    );
    for (kernels, pool) in engines() {
        let panels = PanelMatrix::pack(Weights::F32(&weights), out_channels, depth).unwrap();
        let mut out = vec![f32::NAN; expected.len()];
        kernels
            .conv2d(&pool, shape, &input, &panels, epilogue, &mut out)
            .unwrap();
        assert_near(kernels.name(), &out, &expected, (depth as f32).sqrt());
    }
}
