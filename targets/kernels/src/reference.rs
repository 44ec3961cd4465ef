//! Every operator as plain loops over f64 sums: what the kernels are held to. Layouts are those of the kernels, weights are
//! unpacked.
//!
//! # Panics
//! All functions panic when a buffer is shorter than the shape asks for.

use crate::{Activation, Attention, Conv2d, Epilogue, GroupNorm, Heads, Matmul, Unary};

/// The error function: its series with positive terms only below 3, the continued fraction of its complement above.
#[must_use]
pub fn erf(x: f64) -> f64 {
    1.0 - erfc(x)
}

/// `1 - erf(x)`, with full relative precision for positive `x` as well.
#[must_use]
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let gauss = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * f64::EPSILON {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 * gauss * sum;
    }
    // x + (1/2)/(x + 1/(x + (3/2)/(x + …))), from the innermost on.
    let fraction = (1..=60).rev().fold(x, |f, n| x + 0.5 * f64::from(n) / f);
    gauss / fraction
}

/// [`Activation`] of a number.
#[must_use]
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * erfc(-x / std::f64::consts::SQRT_2),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// [`Unary`] of a number.
#[must_use]
pub fn unary(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Activation(activation) => activate(activation, x),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Exp => x.exp(),
        Unary::Erf => erf(x),
        Unary::Sqrt => x.sqrt(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Grid { scale, zero_point } => {
            let zero = f64::from(zero_point);
            // The quotient is rounded to f32, which decides where it is halfway.
            let code = f64::from((x as f32 / scale).round_ties_even()) + zero;
            (code.clamp(0.0, 255.0) - zero) * f64::from(scale)
        }
    }
}

/// [`crate::Kernels::geglu`].
pub fn geglu(rows: usize, input: &[f32], out: &mut [f32]) {
    let width = out.len() / rows;
    for (row, out) in input
        .chunks_exact(2 * width)
        .zip(out.chunks_exact_mut(width))
    {
        for (i, out) in out.iter_mut().enumerate() {
            let gate = activate(Activation::Gelu, f64::from(row[width + i]));
            *out = (f64::from(row[i]) * gate) as f32;
        }
    }
}

/// [`crate::Kernels::matmul`].
pub fn matmul(shape: Matmul, a: &[f32], b: &[f32], out: &mut [f32]) {
    let (depth, columns) = (shape.depth, shape.columns);
    for (at, out) in out.iter_mut().enumerate() {
        let (row, column) = (at / columns, at % columns);
        let matrix = if shape.shared { 0 } else { row / shape.rows };
        let products = (0..depth).map(|k| {
            let own = if shape.transposed {
                column * depth + k
            } else {
                k * columns + column
            };
            f64::from(a[row * depth + k]) * f64::from(b[matrix * depth * columns + own])
        });
        *out = products.sum::<f64>() as f32;
    }
}

/// [`crate::Kernels::gemm`] with weights `[columns][depth]`; `out` is `[rows][columns]`.
pub fn gemm(
    [rows, columns, depth]: [usize; 3],
    a: &[f32],
    weights: &[f32],
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    for row in 0..rows {
        for column in 0..columns {
            let products = (0..depth)
                .map(|i| f64::from(a[row * depth + i]) * f64::from(weights[column * depth + i]));
            let at = row * columns + column;
            out[at] = finish(products.sum(), column, at, epilogue);
        }
    }
}

fn finish(sum: f64, column: usize, at: usize, epilogue: Epilogue<'_>) -> f32 {
    let bias = epilogue.bias.map_or(0.0, |b| f64::from(b[column]));
    let residual = epilogue.residual.map_or(0.0, |r| f64::from(r[at]));
    (activate(epilogue.activation, sum + bias) + residual) as f32
}

/// [`crate::Kernels::conv2d`] with weights `[out_channels][kh][kw][channels]`.
///
/// # Panics
/// Also when the kernel does not fit the padded image.
pub fn conv2d(
    shape: Conv2d,
    out_channels: usize,
    input: &[f32],
    weights: &[f32],
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let [rows, columns] = shape.output_size().expect("the shape has an output");
    let [kh, kw] = shape.kernel;
    let mut at = 0;
    for image in 0..shape.batch {
        for pixel in 0..rows * columns {
            let (y, x) = (pixel / columns, pixel % columns);
            for o in 0..out_channels {
                let mut sum = 0.0;
                for tap in 0..kh * kw {
                    let iy = (y * shape.stride[0] + tap / kw).wrapping_sub(shape.pads[0]);
                    let ix = (x * shape.stride[1] + tap % kw).wrapping_sub(shape.pads[1]);
                    if iy >= shape.height || ix >= shape.width {
                        continue;
                    }
                    let pixel = ((image * shape.height + iy) * shape.width + ix) * shape.channels;
                    let tap = (o * kh * kw + tap) * shape.channels;
                    for c in 0..shape.channels {
                        sum += f64::from(input[pixel + c]) * f64::from(weights[tap + c]);
                    }
                }
                out[at] = finish(sum, o, at, epilogue);
                at += 1;
            }
        }
    }
}

/// [`crate::Kernels::group_norm`], in place.
pub fn group_norm(shape: GroupNorm, gamma: &[f32], beta: &[f32], x: &mut [f32]) {
    let width = shape.channels / shape.groups;
    for image in x.chunks_exact_mut(shape.positions * shape.channels) {
        for group in 0..shape.groups {
            let channels = group * width..(group + 1) * width;
            let elements: Vec<usize> = (0..shape.positions)
                .flat_map(|p| channels.clone().map(move |c| p * shape.channels + c))
                .collect();
            let (mean, factor) = moments(elements.iter().map(|&i| image[i]), shape.eps);
            for i in elements {
                let c = i % shape.channels;
                let y = (f64::from(image[i]) - mean) * factor * f64::from(gamma[c]);
                image[i] = activate(shape.activation, y + f64::from(beta[c])) as f32;
            }
        }
    }
}

/// [`crate::Kernels::layer_norm`], in place.
pub fn layer_norm(gamma: &[f32], beta: &[f32], eps: f32, x: &mut [f32]) {
    for row in x.chunks_exact_mut(gamma.len()) {
        let (mean, factor) = moments(row.iter().copied(), eps);
        for ((x, &gamma), &beta) in row.iter_mut().zip(gamma).zip(beta) {
            let normal = (f64::from(*x) - mean) * factor;
            *x = (normal * f64::from(gamma) + f64::from(beta)) as f32;
        }
    }
}

/// Mean, and one over the standard deviation.
fn moments(x: impl Iterator<Item = f32> + Clone, eps: f32) -> (f64, f64) {
    let count = x.clone().count() as f64;
    let mean = x.clone().map(f64::from).sum::<f64>() / count;
    let variance = x.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    (mean, 1.0 / (variance + f64::from(eps)).sqrt())
}

/// Softmax of one row; zeros when every element is negative infinity.
#[must_use]
pub fn softmax(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f64::MIN, f64::max);
    let exp: Vec<f64> = row.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter()
        .map(|e| if sum > 0.0 { e / sum } else { 0.0 })
        .collect()
}

/// [`crate::Kernels::attention`].
pub fn attention(
    shape: Attention,
    q: Heads<'_>,
    k: Heads<'_>,
    v: Heads<'_>,
    mask: Option<&[f32]>,
    out: &mut [f32],
) {
    let dim = shape.head_dim;
    let at = |x: &Heads<'_>, token: usize, head: usize, i: usize| {
        f64::from(x.data[token * x.stride + head * dim + i])
    };
    for query in 0..shape.batch * shape.queries {
        let first = query / shape.queries * shape.keys;
        for head in 0..shape.heads {
            let scores: Vec<f64> = (0..shape.keys)
                .map(|key| {
                    let product = |i| at(&q, query, head, i) * at(&k, first + key, head, i);
                    let mask = mask.map_or(0.0, |m| {
                        f64::from(m[query % shape.queries * shape.keys + key])
                    });
                    (0..dim).map(product).sum::<f64>() * f64::from(shape.scale) + mask
                })
                .collect();
            let weights = softmax(&scores);
            for i in 0..dim {
                let products = weights.iter().enumerate();
                let sum: f64 = products
                    .map(|(key, w)| w * at(&v, first + key, head, i))
                    .sum();
                out[(query * shape.heads + head) * dim + i] = sum as f32;
            }
        }
    }
}
