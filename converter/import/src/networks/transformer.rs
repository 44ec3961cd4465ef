//! diffusers' `Transformer2DModel` with `BasicTransformerBlock`s: the spatial transformer of the UNet.

use snapc_ir::ops::{Attention, Gelu, Mul, Slice};
use snapc_ir::{BuildError, ValueId};

use super::builder::NetworkBuilder;

/// Added to the variance of the GroupNorm at the entry; fixed in `Transformer2DModel`.
const ENTRY_EPSILON: f32 = 1e-6;
/// Added to the variance of the LayerNorms; torch's default, which `BasicTransformerBlock` keeps.
const BLOCK_EPSILON: f32 = 1e-5;

/// The settings of one spatial transformer.
#[derive(Clone, Copy)]
pub(super) struct TransformerSettings {
    /// Attention heads.
    pub(super) heads: usize,
    /// Transformer blocks.
    pub(super) layers: usize,
    /// Groups of the GroupNorm at the entry.
    pub(super) groups: usize,
    /// Linear layers rather than 1x1 convolutions at entry and exit.
    pub(super) linear_projection: bool,
}

/// `Transformer2DModel` on `x` `[N,C,H,W]` with the text embedding `context` `[N,T,D]` → `[N,C,H,W]`.
pub(super) fn spatial_transformer(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    x: ValueId,
    context: ValueId,
    settings: TransformerSettings,
) -> Result<ValueId, BuildError> {
    let (channels, height, width) = (b.size(x, 1), b.size(x, 2), b.size(x, 3));
    let (proj_in, proj_out) = (format!("{name}.proj_in"), format!("{name}.proj_out"));
    let mut h = b.group_norm(&format!("{name}.norm"), x, settings.groups, ENTRY_EPSILON)?;
    if settings.linear_projection {
        h = b.image_to_tokens(&proj_in, h)?;
        h = b.linear(&proj_in, h, channels)?;
    } else {
        h = b.conv2d(&proj_in, h, channels, 1, 1)?;
        h = b.image_to_tokens(&proj_in, h)?;
    }
    for layer in 0..settings.layers {
        let block = format!("{name}.transformer_blocks.{layer}");
        h = transformer_block(b, &block, h, context, settings.heads)?;
    }
    if settings.linear_projection {
        h = b.linear(&proj_out, h, channels)?;
        h = b.tokens_to_image(&proj_out, h, height, width)?;
    } else {
        h = b.tokens_to_image(&proj_out, h, height, width)?;
        h = b.conv2d(&proj_out, h, channels, 1, 1)?;
    }
    b.add(name, h, x)
}

/// `BasicTransformerBlock`: self-attention, attention to the text, feed-forward, each on a LayerNorm and added.
fn transformer_block(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    x: ValueId,
    context: ValueId,
    heads: usize,
) -> Result<ValueId, BuildError> {
    let normed = b.layer_norm(&format!("{name}.norm1"), x, BLOCK_EPSILON)?;
    let attended = attention(b, &format!("{name}.attn1"), normed, normed, heads)?;
    let x = b.add(&format!("{name}.attn1"), attended, x)?;
    let normed = b.layer_norm(&format!("{name}.norm2"), x, BLOCK_EPSILON)?;
    let attended = attention(b, &format!("{name}.attn2"), normed, context, heads)?;
    let x = b.add(&format!("{name}.attn2"), attended, x)?;
    let normed = b.layer_norm(&format!("{name}.norm3"), x, BLOCK_EPSILON)?;
    let fed = feed_forward(b, &format!("{name}.ff"), normed)?;
    b.add(&format!("{name}.ff"), fed, x)
}

/// diffusers' `Attention`: queries of `x` `[N,S,C]`, keys and values of `context` `[N,T,D]`, no biases but the last.
fn attention(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    x: ValueId,
    context: ValueId,
    heads: usize,
) -> Result<ValueId, BuildError> {
    let channels = b.features(x);
    let q = b.projection(&format!("{name}.to_q"), x, channels)?;
    let k = b.projection(&format!("{name}.to_k"), context, channels)?;
    let v = b.projection(&format!("{name}.to_v"), context, channels)?;
    let op = Attention {
        heads,
        scale: attention_scale(channels, heads),
    };
    let attended = b.op(op, &[q, k, v], name)?;
    b.linear(&format!("{name}.to_out.0"), attended, channels)
}

/// One over the square root of a head's channels.
pub(super) fn attention_scale(channels: usize, heads: usize) -> f32 {
    (1.0 / ((channels / heads) as f64).sqrt()) as f32
}

/// `FeedForward` with `GEGLU`: a linear layer to twice four times the channels, whose first half is scaled by the GELU
/// of the second, and a linear layer back.
fn feed_forward(b: &mut NetworkBuilder<'_>, name: &str, x: ValueId) -> Result<ValueId, BuildError> {
    let channels = b.features(x);
    let inner = 4 * channels;
    let geglu = format!("{name}.net.0");
    let both = b.linear(&format!("{geglu}.proj"), x, 2 * inner)?;
    let part = |start, end| Slice {
        axis: 2,
        start,
        end,
    };
    let hidden = b.op(part(0, inner), &[both], &geglu)?;
    let gate = b.op(part(inner, 2 * inner), &[both], &geglu)?;
    let gate = b.op(Gelu {}, &[gate], &geglu)?;
    let gated = b.op(Mul {}, &[hidden, gate], &geglu)?;
    b.linear(&format!("{name}.net.2"), gated, channels)
}
