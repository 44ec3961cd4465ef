//! Kernels over one row of elements, written once over [`Simd`] and instantiated in `table.rs`.

use crate::simd::Simd;
use crate::simd::math::{activate, erf, exp, exp_nonpositive, gelu, sigmoid};
use crate::{Activation, Epilogue, Unary};

/// Applies `f` to each vector of `x` and of the operands in step with it; the last, partial vector goes through zeros.
macro_rules! for_each_vector {
    ($s:ident, $x:ident $(, $operand:ident)*; |$v:ident| $f:expr) => {{
        let len = $x.len();
        $(let $operand = &$operand[..len];)*
        let whole = len - len % S::LANES;
        let mut i = 0;
        while i < whole {
            let $v = $s.load(&$x[i..]);
            $(let $operand = $s.load(&$operand[i..]);)*
            $s.store(&mut $x[i..], $f);
            i += S::LANES;
        }
        if i < len {
            let $v = $s.load_partial(&$x[i..], 0.0);
            $(let $operand = $s.load_partial(&$operand[i..], 0.0);)*
            $s.store_partial(&mut $x[i..], $f);
        }
    }};
}

/// `x = activation(x + bias) + residual`.
#[inline(always)]
pub(crate) fn epilogue<S: Simd>(s: S, x: &mut [f32], epilogue: Epilogue<'_>) {
    let activation = epilogue.activation;
    if let Some(bias) = epilogue.bias {
        for_each_vector!(s, x, bias; |v| activate(s, s.add(v, bias), activation));
    } else if activation != Activation::None {
        for_each_vector!(s, x; |v| activate(s, v, activation));
    }
    if let Some(residual) = epilogue.residual {
        for_each_vector!(s, x, residual; |v| s.add(v, residual));
    }
}

/// `x = function(x)`.
#[inline(always)]
pub(crate) fn unary<S: Simd>(s: S, x: &mut [f32], function: Unary) {
    match function {
        Unary::Activation(activation) => for_each_vector!(s, x; |v| activate(s, v, activation)),
        Unary::Sigmoid => for_each_vector!(s, x; |v| sigmoid(s, v)),
        Unary::Exp => for_each_vector!(s, x; |v| exp(s, v)),
        Unary::Erf => for_each_vector!(s, x; |v| erf(s, v)),
        // Rounded correctly in any instruction set.
        Unary::Sqrt => x.iter_mut().for_each(|x| *x = x.sqrt()),
        // Of a few numbers per call of a network.
        Unary::Sin => x.iter_mut().for_each(|x| *x = x.sin()),
        Unary::Cos => x.iter_mut().for_each(|x| *x = x.cos()),
        Unary::Grid { scale, zero_point } => {
            let (scale, zero) = (s.splat(scale), s.splat(f32::from(zero_point)));
            for_each_vector!(s, x; |v| s.mul(s.sub(grid_code(s, v, scale, zero), zero), scale))
        }
    }
}

/// `round(x / scale) + zero` from 0 to 255; what is no number stays that.
#[inline(always)]
pub(crate) fn grid_code<S: Simd>(s: S, x: S::V, scale: S::V, zero: S::V) -> S::V {
    let code = s.add(s.round(s.div(x, scale)), zero);
    s.min(s.splat(255.0), s.max(s.splat(0.0), code))
}

/// `x = x · gelu(gate)`, element by element.
#[inline(always)]
pub(crate) fn multiply_gelu<S: Simd>(s: S, x: &mut [f32], gate: &[f32]) {
    for_each_vector!(s, x, gate; |v| s.mul(v, gelu(s, gate)));
}

/// `x = (x - mean) · scale + shift`, then the activation; one value of each per element.
#[inline(always)]
pub(crate) fn normalize<S: Simd>(
    s: S,
    x: &mut [f32],
    mean: &[f32],
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
) {
    for_each_vector!(s, x, mean, scale, shift; |v| {
        activate(s, s.mul_add(s.sub(v, mean), scale, shift), activation)
    });
}

/// `sum += x`, element by element.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, sum: &mut [f32], x: &[f32]) {
    for_each_vector!(s, sum, x; |v| s.add(v, x));
}

/// `sum += (x - mean)²`, element by element.
#[inline(always)]
pub(crate) fn add_squares<S: Simd>(s: S, sum: &mut [f32], x: &[f32], mean: &[f32]) {
    for_each_vector!(s, sum, x, mean; |v| {
        let centered = s.sub(x, mean);
        s.mul_add(centered, centered, v)
    });
}

/// `x = x · factor`.
#[inline(always)]
pub(crate) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for_each_vector!(s, x; |v| s.mul(v, factor));
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut total = s.splat(0.0);
    let chunks = x.chunks_exact(S::LANES);
    let rest = s.load_partial(chunks.remainder(), 0.0);
    for chunk in chunks {
        total = s.add(total, s.load(chunk));
    }
    s.reduce_sum(s.add(total, rest))
}

/// Normalizes a row to mean 0 and variance 1 (with `eps` added), times `gamma` plus `beta`. Two passes, so that a large
/// mean costs no precision.
#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let count = x.len() as f32;
    let mean = s.splat(sum(s, x) / count);
    for_each_vector!(s, x; |v| s.sub(v, mean));
    let mut squares = s.splat(0.0);
    let chunks = x.chunks_exact(S::LANES);
    let rest = s.load_partial(chunks.remainder(), 0.0);
    for chunk in chunks {
        let v = s.load(chunk);
        squares = s.mul_add(v, v, squares);
    }
    let variance = s.reduce_sum(s.mul_add(rest, rest, squares)) / count;
    let factor = s.splat(1.0 / (variance + eps).sqrt());
    for_each_vector!(s, x, gamma, beta; |v| s.mul_add(s.mul(v, factor), gamma, beta));
}

/// Largest element, at least `least`.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32], least: f32) -> f32 {
    let mut most = s.splat(least);
    let chunks = x.chunks_exact(S::LANES);
    let rest = s.load_partial(chunks.remainder(), least);
    for chunk in chunks {
        most = s.max(most, s.load(chunk));
    }
    s.reduce_max(s.max(most, rest))
}

/// `x = exp(x - largest)`; returns the sum.
#[inline(always)]
fn exp_sum<S: Simd>(s: S, x: &mut [f32], largest: f32) -> f32 {
    let largest = s.splat(largest);
    let mut total = s.splat(0.0);
    let mut chunks = x.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let e = exp_nonpositive(s, s.sub(s.load(chunk), largest));
        total = s.add(total, e);
        s.store(chunk, e);
    }
    let rest = chunks.into_remainder();
    let e = exp_nonpositive(s, s.sub(s.load_partial(rest, f32::NEG_INFINITY), largest));
    s.store_partial(rest, e);
    s.reduce_sum(s.add(total, e))
}

/// Softmax of a row. A row of negative infinities, which has none, becomes zeros.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let most = largest(s, x, f32::MIN);
    let sum = exp_sum(s, x, most);
    scale(s, x, if sum > 0.0 { 1.0 / sum } else { 0.0 });
}

/// One step of the online softmax: `scores = exp(scores - largest)`, with the running largest and sum brought up to date.
/// Returns the factor for what was accumulated before. Whole vectors of scores are fastest.
#[inline(always)]
pub(crate) fn softmax_step<S: Simd>(s: S, scores: &mut [f32], state: &mut SoftmaxState) -> f32 {
    let most = largest(s, scores, state.largest);
    let factor = (state.largest - most).exp();
    state.sum = state.sum * factor + exp_sum(s, scores, most);
    state.largest = most;
    factor
}

/// What the online softmax knows of a row after some of its scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoftmaxState {
    /// Largest score.
    pub largest: f32,
    /// Sum of `exp(score - largest)`.
    pub sum: f32,
}

impl SoftmaxState {
    /// Before the first score. Finite, so that a masked score of negative infinity gives 0 and not "not a number".
    pub(crate) const START: Self = Self {
        largest: f32::MIN,
        sum: 0.0,
    };
}
