//! diffusers' `UNet2DConditionModel`.

use snapc_ir::ops::{Concat, Mul, Sub, TimestepEmbedding};
use snapc_ir::{BuildError, DType, LazyTensor, Shape, TensorType, ValueId};

use super::Network;
use super::builder::NetworkBuilder;
use super::resnet::{ResnetNorm, resnet, upsample};
use super::transformer::{TransformerSettings, spatial_transformer};
use crate::config::{BlockEntry, UnetConfig};
use crate::lookup::WeightLookup;

/// Longest wavelength of the timestep embedding, in units of 2π steps; fixed in diffusers' `Timesteps`.
const MAX_PERIOD: f32 = 10000.0;

/// The graph `unet`: `sample` f32 `[N,in_channels,H,W]`, `timestep` f32 `[]` and `encoder_hidden_states` f32
/// `[N,tokens,cross_attention_dim]` → `out_sample` f32 `[N,out_channels,H,W]`, where `latent` is H and W in cells.
///
/// # Errors
/// When the stages do not fit together: a skip of another size than the tensor it joins, a latent that cannot be
/// halved once per stage.
///
/// # Panics
/// When a configuration made by hand takes more skips than it makes; [`UnetConfig::from_json`] refuses such a one.
pub fn unet(
    config: &UnetConfig,
    latent: (usize, usize),
    tokens: usize,
    weights: &dyn WeightLookup,
) -> Result<Network, BuildError> {
    let mut b = NetworkBuilder::new("unet", weights);
    let f32 = |shape| TensorType::new(DType::F32, shape);
    let image = Shape::batched(&[config.in_channels, latent.0, latent.1]);
    let sample = b.input("sample", f32(image));
    let timestep = b.input("timestep", f32(Shape::fixed(&[])));
    let text = Shape::batched(&[tokens, config.cross_attention_dim]);
    let context = b.input("encoder_hidden_states", f32(text));
    let time = embed_time(&mut b, config, timestep)?;
    let mut stages = Stages {
        b: &mut b,
        config,
        time,
        context,
        skips: Vec::new(),
    };
    let h = stages.enter(sample)?;
    let h = stages.down(h)?;
    let h = stages.mid(h)?;
    let h = stages.up(h)?;
    let out = stages.leave(h)?;
    b.output("out_sample", out);
    Ok(b.finish())
}

/// `Timesteps` and `TimestepEmbedding`: sinusoids, linear, SiLU, linear → `[1,time_embedding_dim]`.
fn embed_time(
    b: &mut NetworkBuilder<'_>,
    config: &UnetConfig,
    timestep: ValueId,
) -> Result<ValueId, BuildError> {
    let sinusoids = TimestepEmbedding {
        dim: config.block_out_channels[0],
        flip_sin_to_cos: config.flip_sin_to_cos,
        freq_shift: config.freq_shift,
        max_period: MAX_PERIOD,
    };
    let h = b.op(sinusoids, &[timestep], "time_proj")?;
    let h = b.linear("time_embedding.linear_1", h, config.time_embedding_dim)?;
    let h = b.silu("time_embedding.act", h)?;
    b.linear("time_embedding.linear_2", h, config.time_embedding_dim)
}

/// The stages of the network under construction.
struct Stages<'b, 'a> {
    b: &'b mut NetworkBuilder<'a>,
    config: &'b UnetConfig,
    time: ValueId,
    context: ValueId,
    skips: Vec<ValueId>,
}

impl Stages<'_, '_> {
    fn enter(&mut self, sample: ValueId) -> Result<ValueId, BuildError> {
        let mut h = sample;
        if self.config.center_input_sample {
            let two = self
                .b
                .constant("center_input_sample", LazyTensor::from_f32(&[], &[2.0]));
            let one = self
                .b
                .constant("center_input_sample", LazyTensor::from_f32(&[], &[1.0]));
            h = self.b.op(Mul {}, &[h, two], "center_input_sample")?;
            h = self.b.op(Sub {}, &[h, one], "center_input_sample")?;
        }
        h = self
            .b
            .conv2d("conv_in", h, self.config.block_out_channels[0], 3, 1)?;
        self.skips.push(h);
        Ok(h)
    }

    fn down(&mut self, mut h: ValueId) -> Result<ValueId, BuildError> {
        let config = self.config;
        let last = config.blocks.down.len() - 1;
        for (i, entries) in config.blocks.down.iter().enumerate() {
            let stage = format!("down_blocks.{i}");
            for entry in entries {
                h = self.entry(&stage, i, *entry, h)?;
            }
            if i < last {
                let channels = config.block_out_channels[i];
                h = self
                    .b
                    .conv2d(&format!("{stage}.downsamplers.0.conv"), h, channels, 3, 2)?;
                self.skips.push(h);
            }
        }
        Ok(h)
    }

    fn mid(&mut self, mut h: ValueId) -> Result<ValueId, BuildError> {
        let config = self.config;
        for entry in &config.blocks.mid {
            h = self.entry("mid_block", config.block_out_channels.len() - 1, *entry, h)?;
        }
        Ok(h)
    }

    fn up(&mut self, mut h: ValueId) -> Result<ValueId, BuildError> {
        let config = self.config;
        let last = config.blocks.up.len() - 1;
        for (i, entries) in config.blocks.up.iter().enumerate() {
            let stage = format!("up_blocks.{i}");
            for entry in entries {
                if let BlockEntry::Resnet(n) = entry {
                    h = self.join_skip(&format!("{stage}.resnets.{n}"), h)?;
                }
                h = self.entry(&stage, last - i, *entry, h)?;
            }
            if i < last {
                h = upsample(self.b, &format!("{stage}.upsamplers.0"), h)?;
            }
        }
        Ok(h)
    }

    fn join_skip(&mut self, name: &str, h: ValueId) -> Result<ValueId, BuildError> {
        // The config was checked to make as many skips as it takes.
        let skip = self.skips.pop().expect("skips are balanced");
        self.b.op(Concat { axis: 1 }, &[h, skip], name)
    }

    /// One step of a stage; `level` counts from the outside inwards.
    fn entry(
        &mut self,
        stage: &str,
        level: usize,
        entry: BlockEntry,
        h: ValueId,
    ) -> Result<ValueId, BuildError> {
        let config = self.config;
        match entry {
            BlockEntry::Resnet(n) => {
                let norm = ResnetNorm {
                    groups: config.norm_num_groups,
                    epsilon: config.norm_eps,
                };
                let channels = config.block_out_channels[level];
                resnet(
                    self.b,
                    &format!("{stage}.resnets.{n}"),
                    h,
                    channels,
                    norm,
                    Some(self.time),
                )
            }
            BlockEntry::Attention(n) => {
                let settings = TransformerSettings {
                    heads: config.heads[level],
                    layers: config.transformer_layers_per_block[level],
                    groups: config.norm_num_groups,
                    linear_projection: config.use_linear_projection,
                };
                spatial_transformer(
                    self.b,
                    &format!("{stage}.attentions.{n}"),
                    h,
                    self.context,
                    settings,
                )
            }
            BlockEntry::Skip => {
                self.skips.push(h);
                Ok(h)
            }
        }
    }

    fn leave(&mut self, h: ValueId) -> Result<ValueId, BuildError> {
        let config = self.config;
        let h = self
            .b
            .group_norm("conv_norm_out", h, config.norm_num_groups, config.norm_eps)?;
        let h = self.b.silu("conv_act", h)?;
        self.b.conv2d("conv_out", h, config.out_channels, 3, 1)
    }
}
