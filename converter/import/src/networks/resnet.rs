//! diffusers' `ResnetBlock2D` and `Upsample2D`, which the UNet and the VAE share.

use snapc_ir::ops::{Reshape, UpsampleNearest};
use snapc_ir::{BuildError, Dim, ValueId};

use super::builder::NetworkBuilder;

/// The settings that all ResNets of a network have in common.
#[derive(Clone, Copy)]
pub(super) struct ResnetNorm {
    /// Groups of both GroupNorms.
    pub(super) groups: usize,
    /// Added to their variances.
    pub(super) epsilon: f32,
}

/// `ResnetBlock2D` on `x` `[N,Cin,H,W]` → `[N,out_channels,H,W]`: norm, SiLU, convolution, twice, plus the input,
/// which passes a 1x1 convolution when the channels differ. `time` `[1,D]` is added after the first convolution.
pub(super) fn resnet(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    x: ValueId,
    out_channels: usize,
    norm: ResnetNorm,
    time: Option<ValueId>,
) -> Result<ValueId, BuildError> {
    let mut h = b.group_norm(&format!("{name}.norm1"), x, norm.groups, norm.epsilon)?;
    h = b.silu(&format!("{name}.nonlinearity"), h)?;
    h = b.conv2d(&format!("{name}.conv1"), h, out_channels, 3, 1)?;
    if let Some(time) = time {
        let shift = project_time(b, name, time, out_channels)?;
        h = b.add(&format!("{name}.time_emb_proj"), h, shift)?;
    }
    h = b.group_norm(&format!("{name}.norm2"), h, norm.groups, norm.epsilon)?;
    h = b.silu(&format!("{name}.nonlinearity"), h)?;
    h = b.conv2d(&format!("{name}.conv2"), h, out_channels, 3, 1)?;
    let shortcut = if b.size(x, 1) == out_channels {
        x
    } else {
        b.conv2d(&format!("{name}.conv_shortcut"), x, out_channels, 1, 1)?
    };
    b.add(name, shortcut, h)
}

/// The time embedding `[1,D]` as a shift per channel `[1,C,1,1]`.
fn project_time(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    time: ValueId,
    channels: usize,
) -> Result<ValueId, BuildError> {
    let name = format!("{name}.time_emb_proj");
    let active = b.silu(&name, time)?;
    let shift = b.linear(&name, active, channels)?;
    let shape = [1, channels, 1, 1].map(Dim::Fixed).to_vec();
    b.op(Reshape { shape }, &[shift], &name)
}

/// `Upsample2D`: every cell becomes 2x2, then a 3x3 convolution.
pub(super) fn upsample(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    x: ValueId,
) -> Result<ValueId, BuildError> {
    let channels = b.size(x, 1);
    let large = b.op(UpsampleNearest { scale: 2 }, &[x], name)?;
    b.conv2d(&format!("{name}.conv"), large, channels, 3, 1)
}
