//! What is done to the result of a product before it is left alone.

/// A function that may follow a product or a normalization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `x / (1 + exp(-x))`, `torch.nn.SiLU`.
    Silu,
    /// `x · Φ(x)` with the exact error function, `torch.nn.GELU`.
    Gelu,
    /// `x / (1 + exp(-1.702 x))`, `transformers.activations.QuickGELUActivation`.
    QuickGelu,
}

/// An elementwise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// One that also follows products.
    Activation(Activation),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `exp(x)`; 0 where that is below the smallest normal number.
    Exp,
    /// The error function.
    Erf,
    /// `√x`.
    Sqrt,
    /// `sin(x)`.
    Sin,
    /// `cos(x)`.
    Cos,
    /// `scale · (q - zero_point)` with `q = round(x / scale) + zero_point` from 0 to 255, halves to even
    /// (`torch.fake_quantize_per_tensor_affine`).
    Grid {
        /// Distance of two values; positive and finite.
        scale: f32,
        /// What stands for zero.
        zero_point: u8,
    },
}

impl From<Activation> for Unary {
    fn from(activation: Activation) -> Self {
        Self::Activation(activation)
    }
}

/// `activation(product + bias) + residual`, computed while the product is in the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
    /// Added last; as many elements as the output.
    pub residual: Option<&'a [f32]>,
}
