//! The instructions. All tensors are dense and row-major in the dimensions given here: images are channels last.

use crate::types::{Dim, Element};

/// An elementwise function of one f32 operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unary {
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// `x · Φ(x)` with the exact error function.
    Gelu,
    /// `x / (1 + e^(-1.702 x))`.
    QuickGelu,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `eˣ`.
    Exp,
    /// `√x`.
    Sqrt,
    /// `sin x`, in radians.
    Sin,
    /// `cos x`, in radians.
    Cos,
    /// The error function.
    Erf,
}

impl Unary {
    /// Its name in listings and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Silu => "silu",
            Unary::Gelu => "gelu",
            Unary::QuickGelu => "quick_gelu",
            Unary::Sigmoid => "sigmoid",
            Unary::Exp => "exp",
            Unary::Sqrt => "sqrt",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Erf => "erf",
        }
    }
}

/// An elementwise function of two f32 operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
}

impl Binary {
    /// Its name in listings and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
        }
    }
}

/// What is applied to the result of a product or norm before it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// As [`Unary::Silu`].
    Silu,
    /// As [`Unary::Gelu`].
    Gelu,
    /// As [`Unary::QuickGelu`].
    QuickGelu,
}

/// What an instruction computes. "Value" operands are results, inputs or weights in [`crate::Storage::F32`] or
/// [`crate::Storage::I32`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `(x)` → the same elements with other dimensions. No data moves.
    View {
        /// Dimensions of the result, with the elements of `x`.
        dims: Vec<Dim>,
    },
    /// `(x)` → dimensions reordered: `result.dims[i] = x.dims[order[i]]`.
    Permute {
        /// For each dimension of the result, the dimension of `x` that it is.
        order: Vec<u8>,
    },
    /// `(x)` → the indices `start..end` along `axis`.
    Slice {
        /// The dimension that is cut; not the batch.
        axis: u8,
        /// First index kept.
        start: u32,
        /// First index dropped.
        end: u32,
    },
    /// `(x, y, …)` → the operands one after the other along `axis`.
    Concat {
        /// The dimension that grows; not the batch.
        axis: u8,
    },
    /// `(x, indices)` → `x` at `indices` along `axis`: dimensions `x[..axis] + indices[batch_dims..] + x[axis + 1..]`. `x` is a
    /// value or a weight in rows. Negative indices count from the end; what is outside gives NaN, or 0 for integers.
    Gather {
        /// The dimension that is indexed; not the batch. 0 for a weight in rows.
        axis: u8,
        /// Leading dimensions that `x` and `indices` share: 0 or 1.
        batch_dims: u8,
    },
    /// `(x[N,H,W,C])` → `[N, H·scale, W·scale, C]`, every pixel repeated.
    UpsampleNearest {
        /// Rows and columns made of each one.
        scale: u32,
    },
    /// `(x)` → the function of each element.
    Unary(Unary),
    /// `(a, b)` → the function of each pair, dimensions broadcast as in numpy.
    Binary(Binary),
    /// `(a, b)` → 1 where equal and 0 elsewhere, as i32; two operands of one element type, dimensions broadcast.
    Equal,
    /// `(x)` → `x` as another element. Floats do not become integers.
    Cast {
        /// Element of the result.
        to: Element,
    },
    /// `(x)` → positive values that sum to 1 along the last dimension.
    Softmax,
    /// `(x)` → the mean over `axes`, which stay with size 1.
    ReduceMean {
        /// Ascending, at least one, not the batch.
        axes: Vec<u8>,
    },
    /// `(x)` → i32, the first index of the largest element along `axis`, which the result lacks.
    ArgMax {
        /// Not the batch.
        axis: u8,
    },
    /// `(x[…,Cin], weight, bias?, residual?)` → `activation(x · weightᵀ + bias) + residual`, `[…,Cout]`; `weight` in panels
    /// `[Cout,Cin]`, `bias[Cout]`, `residual` like the result; `x` of rank 1 or more.
    Linear {
        /// Whether there is a bias.
        bias: bool,
        /// Applied before the residual.
        activation: Activation,
        /// Whether there is a residual.
        residual: bool,
    },
    /// `(x[N,H,W,Cin], weight, bias?, residual?)` → `[N,OH,OW,Cout]`; `weight` in panels `[Cout,KH,KW,Cin]`, the others as
    /// for [`Op::Linear`]. `OH = (H + top + bottom - KH) / strides[0] + 1` rounded down, and `OW` likewise.
    Conv2d {
        /// Steps between result rows and columns; at least 1.
        strides: [u32; 2],
        /// Zeros around `x`: top, left, bottom, right.
        pads: [u32; 4],
        /// Whether there is a bias.
        bias: bool,
        /// Applied before the residual.
        activation: Activation,
        /// Whether there is a residual.
        residual: bool,
    },
    /// `(x[…,2K])` → `x[..K] · gelu(x[K..])`, `[…,K]` (diffusers `GEGLU`).
    Geglu,
    /// `(a[…,M,K], b)` → `[…,M,P]`; `b` is `[…,K,P]`, or `[…,P,K]` when `transposed`. Leading dimensions broadcast.
    MatMul {
        /// Whether `b` has its last two dimensions swapped.
        transposed: bool,
    },
    /// `(q[N,S,C], k[N,T,C], v[N,T,C], mask?)` → `[N,S,C]`: per head `softmax(scale · q · kᵀ + mask) · v`, head `h` having the channels
    /// from `h·C/heads` on. `mask` broadcasts to `[N,heads,S,T]`.
    Attention {
        /// Divides `C`.
        heads: u32,
        /// Factor on the scores.
        scale: f32,
        /// Whether there is a mask.
        mask: bool,
    },
    /// `(x[N,…,C], gamma[C], beta[C])` → `activation(group_norm(x) · gamma + beta)`: mean and biased variance over a group of
    /// `C/groups` channels and all positions between the first and the last dimension.
    GroupNorm {
        /// Divides `C`.
        groups: u32,
        /// Added to the variance.
        epsilon: f32,
        /// Applied last.
        activation: Activation,
    },
    /// `(x[…,C], gamma[C], beta[C])` → `(x - mean) / √(var + epsilon) · gamma + beta` over the last dimension.
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// `(t[])` → `[1,dim]`, or `(t[N])` → `[N,dim]`: sinusoids as diffusers' `get_timestep_embedding`, with
    /// the angles rounded to f32 as there.
    TimestepEmbedding {
        /// Width; even.
        dim: u32,
        /// Whether the cosines stand first.
        flip_sin_to_cos: bool,
        /// Taken off `dim/2` in the exponent.
        freq_shift: f32,
        /// Period of the slowest sinusoid in turns of 2π.
        max_period: f32,
    },
    /// `(x)` → `scale · (q - zero_point)` with `q = round(x / scale) + zero_point` from 0 to 255, halves to even. An engine
    /// may compute products that read such a value with integers.
    FakeQuantize {
        /// Distance of two values; positive and finite.
        scale: f32,
        /// What stands for zero.
        zero_point: u8,
    },
}

impl Op {
    /// Its name in listings and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Op::View { .. } => "view",
            Op::Permute { .. } => "permute",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Gather { .. } => "gather",
            Op::UpsampleNearest { .. } => "upsample_nearest",
            Op::Unary(f) => f.name(),
            Op::Binary(f) => f.name(),
            Op::Equal => "equal",
            Op::Cast { .. } => "cast",
            Op::Softmax => "softmax",
            Op::ReduceMean { .. } => "reduce_mean",
            Op::ArgMax { .. } => "argmax",
            Op::Linear { .. } => "linear",
            Op::Conv2d { .. } => "conv2d",
            Op::Geglu => "geglu",
            Op::MatMul { .. } => "matmul",
            Op::Attention { .. } => "attention",
            Op::GroupNorm { .. } => "group_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::TimestepEmbedding { .. } => "timestep_embedding",
            Op::FakeQuantize { .. } => "fake_quantize",
        }
    }
}

/// What the stored result of an instruction is rounded to, to nearest even. It lets a program compute what another format
/// that keeps half precision between operators would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rounding {
    /// f32 as computed.
    #[default]
    None,
    /// IEEE binary16; what is too large becomes infinite.
    F16,
    /// bfloat16.
    Bf16,
}
