//! The plain loops against numbers from elsewhere: worked by hand, or from Python's `math` module.

use snapc_kernels::{Activation, Attention, Conv2d, Epilogue, GroupNorm, Heads, reference};

fn assert_close(found: f64, expected: f64) {
    let near = (found - expected).abs() <= 1e-13 * expected.abs().max(1e-300);
    assert!(near, "{found} is not {expected}");
}

#[test]
fn error_function() {
    for (x, erf) in [
        (0.1, 0.112_462_916_018_284_9),
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (4.0, 0.999_999_984_582_742_1),
    ] {
        assert_close(reference::erf(x), erf);
        assert_close(reference::erf(-x), -erf);
    }
    assert_close(reference::erfc(3.0), 2.209_049_699_858_543_8e-5);
    assert_close(reference::erfc(5.0), 1.537_459_794_428_035_1e-12);
}

#[test]
fn activations() {
    let gelu = [
        (-6.0, -5.919_525_870_226_207e-9),
        (-1.0, -0.158_655_253_931_457_07),
        (0.5, 0.345_731_230_637_006_56),
        (3.0, 2.995_950_305_905_11),
    ];
    let silu = [
        (-3.0, -0.142_277_619_532_700_35),
        (0.5, 0.311_229_665_600_927_3),
        (2.0, 1.761_594_155_955_764_6),
    ];
    let quick_gelu = [
        (-3.0, -0.018_071_309_707_785_96),
        (0.5, 0.350_388_436_606_380_14),
        (2.0, 1.935_658_623_144_208_3),
    ];
    let all = [
        (Activation::Gelu, gelu.as_slice()),
        (Activation::Silu, &silu),
        (Activation::QuickGelu, &quick_gelu),
    ];
    for (activation, cases) in all {
        for &(x, y) in cases {
            let found = reference::activate(activation, x);
            assert!(
                (found - y).abs() <= 1e-12 * y.abs(),
                "{activation:?}({x}) is {found}"
            );
        }
    }
}

#[test]
fn gemm_by_hand() {
    let mut out = [0.0; 4];
    let epilogue = Epilogue {
        bias: Some(&[0.5, -0.5]),
        residual: Some(&[1.0, 2.0, 3.0, 4.0]),
        ..Epilogue::default()
    };
    // [1 2 3; 4 5 6] times the rows [1 0 -1] and [2 1 0].
    reference::gemm(
        [2, 2, 3],
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        &[1.0, 0.0, -1.0, 2.0, 1.0, 0.0],
        epilogue,
        &mut out,
    );
    assert_eq!(out, [-0.5, 5.5, 1.5, 16.5]);
}

#[test]
fn convolution_by_hand() {
    // 3 × 3 sums over the image 1..9 with a border of zeros, at the corners and edges that stride 2 reaches.
    let shape = Conv2d {
        batch: 1,
        height: 3,
        width: 3,
        channels: 1,
        kernel: [3, 3],
        stride: [2, 2],
        pads: [1; 4],
    };
    let input = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let mut out = [0.0; 4];
    reference::conv2d(shape, 1, &input, &[1.0; 9], Epilogue::default(), &mut out);
    assert_eq!(out, [12.0, 16.0, 24.0, 28.0]);

    // Two channels and a kernel of one row, padded only on the right, as diffusers' asymmetric downsampling.
    let shape = Conv2d {
        batch: 1,
        height: 1,
        width: 2,
        channels: 2,
        kernel: [1, 2],
        stride: [1, 1],
        pads: [0, 0, 0, 1],
    };
    let mut out = [0.0; 2];
    let weights = [1.0, 10.0, 100.0, 1000.0];
    reference::conv2d(
        shape,
        1,
        &[1.0, 2.0, 3.0, 4.0],
        &weights,
        Epilogue::default(),
        &mut out,
    );
    assert_eq!(out, [4321.0, 43.0]);
}

#[test]
fn norms_by_hand() {
    // 1, 3 have mean 2 and deviation 1; 10, 30 have mean 20 and deviation 10.
    let shape = GroupNorm {
        batch: 1,
        positions: 2,
        channels: 2,
        groups: 2,
        eps: 0.0,
        activation: Activation::None,
    };
    let mut x = [1.0, 10.0, 3.0, 30.0];
    reference::group_norm(shape, &[1.0, 2.0], &[0.0, 5.0], &mut x);
    assert_eq!(x, [-1.0, 3.0, 1.0, 7.0]);
    // The variance 1 plus eps 3 makes the divisor 2.
    let mut x = [1.0, 3.0];
    reference::layer_norm(&[1.0, 4.0], &[0.5, 0.0], 3.0, &mut x);
    assert_eq!(x, [0.0, 2.0]);
}

#[test]
fn attention_by_hand() {
    // Scores 0 and ln 3 give the weights 1/4 and 3/4.
    let ln3 = 3.0f32.ln();
    let heads = |data| Heads { data, stride: 1 };
    let shape = Attention {
        batch: 1,
        heads: 1,
        head_dim: 1,
        queries: 2,
        keys: 2,
        scale: 0.5,
    };
    let (q, k, v) = ([2.0, 2.0], [0.0, ln3], [4.0, 8.0]);
    let mask = [0.0, 0.0, 0.0, f32::NEG_INFINITY];
    let mut out = [0.0; 2];
    reference::attention(
        shape,
        heads(&q),
        heads(&k),
        heads(&v),
        Some(&mask),
        &mut out,
    );
    assert!((out[0] - 7.0).abs() < 1e-6, "{out:?}");
    assert_eq!(out[1], 4.0);
}
