//! Transcendental functions over vectors.

use super::Simd;
use crate::Activation;

/// Below this `exp` is taken as 0: the results would be subnormal.
const EXP_MIN: f32 = -87.336_54;
/// Above this `exp` is infinite in f32.
const EXP_MAX: f32 = 88.722_83;
/// `ln 2` with the low bits cut off, so that its multiples by small integers are exact.
const LN2_HIGH: f32 = 0.693_359_4;
/// What [`LN2_HIGH`] lacks.
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `n` and `exp(r)` with `x = n ln 2 + r`.
#[inline(always)]
fn exp_parts<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const TAYLOR: [f32; 7] = [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for c in TAYLOR {
        p = s.mul_add(p, r, s.splat(c));
    }
    (n, p)
}

/// `exp(x)`, at most 2 ulp from the exact value; 0 where that is below the smallest normal number.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and the Taylor series of `exp(r)` up to `r⁷` (remainder below 6e-9).
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let (low, high) = (s.splat(EXP_MIN), s.splat(EXP_MAX));
    // In this order of operands "not a number" passes through.
    let clamped = s.min(high, s.max(low, x));
    let (n, p) = exp_parts(s, clamped);
    // n reaches 128, which has no power in f32: two factors.
    let half = s.round(s.mul(n, s.splat(0.5)));
    let y = s.mul(s.mul(p, s.exp2_int(half)), s.exp2_int(s.sub(n, half)));
    let y = s.select_lt(x, low, s.splat(0.0), y);
    s.select_lt(high, x, s.splat(f32::INFINITY), y)
}

/// [`exp`] of numbers up to 0, with less to do.
#[inline(always)]
pub(crate) fn exp_nonpositive<S: Simd>(s: S, x: S::V) -> S::V {
    let low = s.splat(EXP_MIN);
    let (n, p) = exp_parts(s, s.max(low, x));
    s.select_lt(x, low, s.splat(0.0), s.mul(p, s.exp2_int(n)))
}

/// `1 - erf(z)` for `z ≥ 0`, relative error below 1e-6 where the value is a normal number and `mul_add` rounds once;
/// otherwise 6e-8 z² more.
///
/// `erfc(z) = t P(t) exp(-z²)` with `t = 1 / (1 + z/2)`. `P` interpolates `erfc(z) exp(z²) / t` at the eleven Chebyshev
/// nodes of the range of `t` for `z` in 0 to 9.6, relative error 5e-9; beyond, `exp` is 0.
#[inline(always)]
fn erfc<S: Simd>(s: S, z: S::V) -> S::V {
    const P: [f32; 10] = [
        -1.658_314_2e-1,
        3.172_025_4e-1,
        -1.955_119_5e-1,
        -1.095_054_6e-1,
        8.933_779e-2,
        3.265_721_2e-2,
        1.916_270_6e-1,
        2.441_486_8e-1,
        2.823_523e-1,
        2.820_843_5e-1,
    ];
    let one = s.splat(1.0);
    let zero = s.splat(0.0);
    let t = s.div(one, s.mul_add(z, s.splat(0.5), one));
    let mut p = s.splat(3.143_891e-2);
    for c in P {
        p = s.mul_add(p, t, s.splat(c));
    }
    let square = s.mul(z, z);
    // The rounding of z² would be multiplied by z² in the result.
    let rounding = s.mul_add(z, z, s.sub(zero, square));
    let tail = exp(s, s.sub(zero, square));
    let tail = s.sub(tail, s.mul(tail, rounding));
    s.mul(s.mul(t, p), tail)
}

/// `x / (1 + exp(-slope x))`.
#[inline(always)]
fn swish<S: Simd>(s: S, x: S::V, slope: f32) -> S::V {
    let e = exp(s, s.mul(x, s.splat(-slope)));
    s.div(x, s.add(s.splat(1.0), e))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(one, s.add(one, e))
}

/// The error function, absolute error below 1e-6.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    let negative = s.sub(zero, x);
    let above = s.sub(s.splat(1.0), erfc(s, s.max(negative, x)));
    s.select_lt(x, zero, s.sub(zero, above), above)
}

/// `x Φ(x)`: through the tail of the distribution on both sides, so that nothing cancels.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    let absolute = s.max(s.sub(zero, x), x);
    let tail = erfc(s, s.mul(absolute, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    let below = s.mul(s.mul(x, s.splat(0.5)), tail);
    s.select_lt(x, zero, below, s.sub(x, below))
}

/// The activation of each lane.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, x: S::V, activation: Activation) -> S::V {
    match activation {
        Activation::None => x,
        Activation::Silu => swish(s, x, 1.0),
        Activation::QuickGelu => swish(s, x, 1.702),
        Activation::Gelu => gelu(s, x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::portable::Portable;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0f64;
        // Every 1009th f32 of each sign, from 2^-30 to the ends of the range.
        for bits in (0x3080_0000u32..0x42b1_7218).step_by(1009) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                if !(EXP_MIN..=EXP_MAX).contains(&x) {
                    continue;
                }
                let exact = f64::from(x).exp();
                let found = exp(Portable, [x; 8])[0];
                let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1) - exact as f32);
                worst = worst.max((f64::from(found) - exact).abs() / ulp);
                if x <= 0.0 {
                    assert_eq!(exp_nonpositive(Portable, [x; 8])[0], found);
                }
            }
        }
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn erfc_keeps_its_relative_error() {
        for i in 0..9000u16 {
            let z = f32::from(i) * 0.001;
            let exact = crate::reference::erfc(f64::from(z));
            let error = (f64::from(erfc(Portable, [z; 8])[0]) / exact - 1.0).abs();
            let bound = 1e-6 + 6e-8 * f64::from(z * z);
            assert!(error <= bound, "erfc({z}) is off by {error}");
        }
    }

    #[test]
    fn exp_keeps_the_ends() {
        let x = [
            -200.0,
            -88.0,
            0.0,
            88.7,
            89.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ];
        let y = exp(Portable, x);
        assert_eq!(y[..3], [0.0, 0.0, 1.0]);
        assert!(y[3].is_finite());
        assert_eq!(y[4..7], [f32::INFINITY, f32::INFINITY, 0.0]);
        assert!(y[7].is_nan());
        let nonpositive = x.map(|x| if x > 0.0 { -x } else { x });
        let y = exp_nonpositive(Portable, nonpositive);
        assert_eq!((&y[..3], &y[4..7]), (&[0.0, 0.0, 1.0][..], &[0.0; 3][..]));
        assert!(y[7].is_nan());
    }
}
