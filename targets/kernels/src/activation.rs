//! What is done to the result of a product before it is left alone.

/// An elementwise function.
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
