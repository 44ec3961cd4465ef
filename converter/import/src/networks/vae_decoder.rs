//! The decoder of diffusers' `AutoencoderKL`.

use snapc_ir::ops::Attention;
use snapc_ir::{BuildError, DType, Shape, TensorType, ValueId};

use super::Network;
use super::builder::NetworkBuilder;
use super::resnet::{ResnetNorm, resnet, upsample};
use super::transformer::attention_scale;
use crate::config::VaeConfig;
use crate::lookup::WeightLookup;

/// Added to the variance of every GroupNorm; fixed in `Decoder`.
const EPSILON: f32 = 1e-6;

/// The graph `vae_decoder`: `latent_sample` f32 `[N,latent_channels,H,W]`, already divided by the scaling factor →
/// `sample` f32 `[N,out_channels,f*H,f*W]` in about [-1, 1], where `latent` is H and W in cells and f is
/// [`VaeConfig::pixels_per_cell`]. It is diffusers' `AutoencoderKL.decode`, with its `post_quant_conv`.
///
/// # Errors
/// Never for a config that was read; the operators' own refusals are passed on.
pub fn vae_decoder(
    config: &VaeConfig,
    latent: (usize, usize),
    weights: &dyn WeightLookup,
) -> Result<Network, BuildError> {
    let mut b = NetworkBuilder::new("vae_decoder", weights);
    let shape = Shape::batched(&[config.latent_channels, latent.0, latent.1]);
    let mut h = b.input("latent_sample", TensorType::new(DType::F32, shape));
    if config.use_post_quant_conv {
        h = b.conv2d("post_quant_conv", h, config.latent_channels, 1, 1)?;
    }
    let norm = ResnetNorm {
        groups: config.norm_num_groups,
        epsilon: EPSILON,
    };
    let innermost = config.block_out_channels.iter().rev();
    let inner = config.block_out_channels[config.block_out_channels.len() - 1];
    h = b.conv2d("decoder.conv_in", h, inner, 3, 1)?;
    h = mid_block(&mut b, h, config, norm)?;
    for (i, &channels) in innermost.enumerate() {
        let stage = format!("decoder.up_blocks.{i}");
        for n in 0..=config.layers_per_block {
            h = resnet(
                &mut b,
                &format!("{stage}.resnets.{n}"),
                h,
                channels,
                norm,
                None,
            )?;
        }
        if i + 1 < config.block_out_channels.len() {
            h = upsample(&mut b, &format!("{stage}.upsamplers.0"), h)?;
        }
    }
    h = b.group_norm("decoder.conv_norm_out", h, norm.groups, norm.epsilon)?;
    h = b.silu("decoder.conv_act", h)?;
    h = b.conv2d("decoder.conv_out", h, config.out_channels, 3, 1)?;
    b.output("sample", h);
    Ok(b.finish())
}

/// `UNetMidBlock2D`: ResNet, self-attention when there is one, ResNet.
fn mid_block(
    b: &mut NetworkBuilder<'_>,
    x: ValueId,
    config: &VaeConfig,
    norm: ResnetNorm,
) -> Result<ValueId, BuildError> {
    let channels = b.size(x, 1);
    let mut h = resnet(b, "decoder.mid_block.resnets.0", x, channels, norm, None)?;
    if config.mid_block_add_attention {
        h = image_attention(b, "decoder.mid_block.attentions.0", h, norm)?;
    }
    resnet(b, "decoder.mid_block.resnets.1", h, channels, norm, None)
}

/// diffusers' `Attention` over the cells of an image `[N,C,H,W]`: GroupNorm, one head over all channels, biases
/// everywhere, the input added.
fn image_attention(
    b: &mut NetworkBuilder<'_>,
    name: &str,
    x: ValueId,
    norm: ResnetNorm,
) -> Result<ValueId, BuildError> {
    let (channels, height, width) = (b.size(x, 1), b.size(x, 2), b.size(x, 3));
    let normed = b.group_norm(&format!("{name}.group_norm"), x, norm.groups, norm.epsilon)?;
    let tokens = b.image_to_tokens(name, normed)?;
    let q = b.linear(&format!("{name}.to_q"), tokens, channels)?;
    let k = b.linear(&format!("{name}.to_k"), tokens, channels)?;
    let v = b.linear(&format!("{name}.to_v"), tokens, channels)?;
    let op = Attention {
        heads: 1,
        scale: attention_scale(channels, 1),
    };
    let attended = b.op(op, &[q, k, v], name)?;
    let out = b.linear(&format!("{name}.to_out.0"), attended, channels)?;
    let out = b.tokens_to_image(name, out, height, width)?;
    b.add(name, out, x)
}
