//! The names that original (LDM) checkpoints give the weights of diffusers keys.
//!
//! The correspondence is that of diffusers' `convert_ldm_unet_checkpoint`, `convert_ldm_vae_checkpoint` and
//! `convert_open_clip_checkpoint`.

use std::collections::BTreeMap;

use crate::config::{BlockEntry, UnetConfig, VaeConfig};

/// LDM key of the UNet's part: everything below it is the UNet.
pub(super) const UNET: &str = "model.diffusion_model.";
/// The same for the VAE.
pub(super) const VAE: &str = "first_stage_model.";
/// The same for the text encoder of SD 1.x, whose keys are those of transformers.
pub(super) const CLIP: &str = "cond_stage_model.transformer.";
/// The same for the text encoder of SD 2.x.
pub(super) const OPEN_CLIP: &str = "cond_stage_model.model.";

/// Where a weight lies in an LDM checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LdmKey {
    /// The key.
    pub(super) key: String,
    /// Which third of its rows, when queries, keys and values are stored as one.
    pub(super) third: Option<usize>,
}

impl From<String> for LdmKey {
    fn from(key: String) -> Self {
        LdmKey { key, third: None }
    }
}

/// Names inside a ResNet, diffusers first.
type Leaves = &'static [(&'static str, &'static str)];

const UNET_RESNET: Leaves = &[
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

const VAE_RESNET: Leaves = &[("conv_shortcut", "nin_shortcut")];

const VAE_ATTENTION: Leaves = &[
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
];

const OPEN_CLIP_LAYER: Leaves = &[
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

/// Modules of a network by diffusers path: the LDM path, and other names for the layers inside.
pub(super) struct ModuleNames {
    prefix: &'static str,
    modules: BTreeMap<String, (String, Leaves)>,
}

impl ModuleNames {
    fn new(prefix: &'static str) -> Self {
        ModuleNames {
            prefix,
            modules: BTreeMap::new(),
        }
    }

    fn insert(&mut self, diffusers: impl Into<String>, ldm: impl Into<String>, leaves: Leaves) {
        self.modules.insert(diffusers.into(), (ldm.into(), leaves));
    }

    /// The LDM key of a diffusers key; a key of no known module keeps its name.
    pub(super) fn ldm_key(&self, key: &str) -> LdmKey {
        let dots = key.match_indices('.').rev();
        for (dot, _) in dots {
            let (module, rest) = (&key[..dot], &key[dot + 1..]);
            let Some((ldm, leaves)) = self.modules.get(module) else {
                continue;
            };
            let renamed = leaves.iter().find_map(|(new, old)| {
                let tail = rest.strip_prefix(new)?.strip_prefix('.')?;
                Some(format!("{old}.{tail}"))
            });
            let rest = renamed.as_deref().unwrap_or(rest);
            return format!("{}{ldm}.{rest}", self.prefix).into();
        }
        format!("{}{key}", self.prefix).into()
    }
}

/// The UNet's modules. LDM numbers the down and up layers through: `conv_in`, then per stage its layers and its
/// downsampler; each layer is a list of ResNet, attention, upsampler.
pub(super) fn unet_modules(config: &UnetConfig) -> ModuleNames {
    let mut names = ModuleNames::new(UNET);
    for (diffusers, ldm) in [
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_in", "input_blocks.0.0"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
        ("mid_block.attentions.0", "middle_block.1"),
    ] {
        names.insert(diffusers, ldm, &[]);
    }
    names.insert("mid_block.resnets.0", "middle_block.0", UNET_RESNET);
    names.insert("mid_block.resnets.1", "middle_block.2", UNET_RESNET);
    let layer = |names: &mut ModuleNames, stage: &str, n: usize, block: &str| {
        names.insert(
            format!("{stage}.resnets.{n}"),
            format!("{block}.0"),
            UNET_RESNET,
        );
        names.insert(format!("{stage}.attentions.{n}"), format!("{block}.1"), &[]);
    };
    let mut block = 1;
    for (i, &layers) in config.layers_per_block.iter().enumerate() {
        let stage = format!("down_blocks.{i}");
        for n in 0..layers {
            layer(
                &mut names,
                &stage,
                n,
                &format!("input_blocks.{}", block + n),
            );
        }
        block += layers;
        let downsampler = format!("{stage}.downsamplers.0.conv");
        names.insert(downsampler, format!("input_blocks.{block}.0.op"), &[]);
        block += 1;
    }
    block = 0;
    for (i, &layers) in config.layers_per_block.iter().rev().enumerate() {
        let stage = format!("up_blocks.{i}");
        for n in 0..=layers {
            layer(
                &mut names,
                &stage,
                n,
                &format!("output_blocks.{}", block + n),
            );
        }
        block += layers + 1;
        let attends = config.blocks.up[i]
            .iter()
            .any(|e| matches!(e, BlockEntry::Attention(_)));
        let place = if attends { 2 } else { 1 };
        let upsampler = format!("output_blocks.{}.{place}.conv", block - 1);
        names.insert(format!("{stage}.upsamplers.0.conv"), upsampler, &[]);
    }
    names
}

/// The VAE decoder's modules. LDM counts the up stages from the image inwards.
pub(super) fn vae_modules(config: &VaeConfig) -> ModuleNames {
    let mut names = ModuleNames::new(VAE);
    names.insert("decoder.conv_norm_out", "decoder.norm_out", &[]);
    names.insert(
        "decoder.mid_block.resnets.0",
        "decoder.mid.block_1",
        VAE_RESNET,
    );
    names.insert(
        "decoder.mid_block.attentions.0",
        "decoder.mid.attn_1",
        VAE_ATTENTION,
    );
    names.insert(
        "decoder.mid_block.resnets.1",
        "decoder.mid.block_2",
        VAE_RESNET,
    );
    let stages = config.block_out_channels.len();
    for i in 0..stages {
        let (new, old) = (
            format!("decoder.up_blocks.{i}"),
            format!("decoder.up.{}", stages - 1 - i),
        );
        for n in 0..=config.layers_per_block {
            names.insert(
                format!("{new}.resnets.{n}"),
                format!("{old}.block.{n}"),
                VAE_RESNET,
            );
        }
        names.insert(
            format!("{new}.upsamplers.0.conv"),
            format!("{old}.upsample.conv"),
            &[],
        );
    }
    names
}

/// The LDM key of a text encoder key in SD 1.x.
pub(super) fn clip_key(key: &str) -> LdmKey {
    format!("{CLIP}{key}").into()
}

/// The LDM key of a text encoder key in SD 1.x files that lack the module around the text tower.
pub(super) fn clip_tower_key(key: &str) -> Option<LdmKey> {
    Some(clip_key(key.strip_prefix("text_model.")?))
}

/// The LDM key of a text encoder key in SD 2.x.
pub(super) fn open_clip_key(key: &str) -> LdmKey {
    let path = key.strip_prefix("text_model.").unwrap_or(key);
    let whole = match path {
        "embeddings.token_embedding.weight" => Some("token_embedding.weight"),
        "embeddings.position_embedding.weight" => Some("positional_embedding"),
        "final_layer_norm.weight" => Some("ln_final.weight"),
        "final_layer_norm.bias" => Some("ln_final.bias"),
        _ => None,
    };
    if let Some(whole) = whole {
        return format!("{OPEN_CLIP}{whole}").into();
    }
    let layer = path
        .strip_prefix("encoder.layers.")
        .and_then(|p| p.split_once('.'));
    let Some((layer, rest)) = layer else {
        return format!("{OPEN_CLIP}{path}").into();
    };
    let block = format!("{OPEN_CLIP}transformer.resblocks.{layer}");
    for (third, projection) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        let tail = rest
            .strip_prefix("self_attn.")
            .and_then(|r| r.strip_prefix(projection));
        if let Some(kind) = tail.and_then(|t| t.strip_prefix('.')) {
            return LdmKey {
                key: format!("{block}.attn.in_proj_{kind}"),
                third: Some(third),
            };
        }
    }
    let renamed = OPEN_CLIP_LAYER.iter().find_map(|(new, old)| {
        let tail = rest.strip_prefix(new)?.strip_prefix('.')?;
        Some(format!("{old}.{tail}"))
    });
    format!("{block}.{}", renamed.as_deref().unwrap_or(rest)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::single_file_config::{SD1, stock_section};

    #[test]
    fn unet_layers_are_numbered_through() {
        let map = stock_section(SD1, "unet").unwrap();
        let names = unet_modules(&UnetConfig::read("unet", &map).unwrap());
        // The same weights in the two published layouts of SD v1.5.
        for (diffusers, ldm) in [
            ("conv_in.weight", "input_blocks.0.0.weight"),
            ("time_embedding.linear_2.bias", "time_embed.2.bias"),
            (
                "down_blocks.0.downsamplers.0.conv.weight",
                "input_blocks.3.0.op.weight",
            ),
            (
                "down_blocks.1.resnets.0.conv_shortcut.weight",
                "input_blocks.4.0.skip_connection.weight",
            ),
            (
                "down_blocks.3.resnets.1.time_emb_proj.bias",
                "input_blocks.11.0.emb_layers.1.bias",
            ),
            (
                "mid_block.resnets.1.conv2.weight",
                "middle_block.2.out_layers.3.weight",
            ),
            (
                "up_blocks.0.upsamplers.0.conv.weight",
                "output_blocks.2.1.conv.weight",
            ),
            (
                "up_blocks.1.upsamplers.0.conv.weight",
                "output_blocks.5.2.conv.weight",
            ),
            (
                "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k.weight",
                "output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
            ),
            ("conv_norm_out.bias", "out.0.bias"),
        ] {
            assert_eq!(names.ldm_key(diffusers).key, format!("{UNET}{ldm}"));
        }
    }

    #[test]
    fn vae_stages_are_counted_from_the_image() {
        let map = stock_section(SD1, "vae").unwrap();
        let names = vae_modules(&VaeConfig::read("vae", &map).unwrap());
        for (diffusers, ldm) in [
            ("post_quant_conv.weight", "post_quant_conv.weight"),
            ("decoder.conv_in.bias", "decoder.conv_in.bias"),
            (
                "decoder.up_blocks.0.resnets.2.conv1.weight",
                "decoder.up.3.block.2.conv1.weight",
            ),
            (
                "decoder.up_blocks.2.resnets.0.conv_shortcut.bias",
                "decoder.up.1.block.0.nin_shortcut.bias",
            ),
            (
                "decoder.up_blocks.2.upsamplers.0.conv.bias",
                "decoder.up.1.upsample.conv.bias",
            ),
            (
                "decoder.mid_block.attentions.0.to_out.0.weight",
                "decoder.mid.attn_1.proj_out.weight",
            ),
        ] {
            assert_eq!(names.ldm_key(diffusers).key, format!("{VAE}{ldm}"));
        }
    }

    #[test]
    fn open_clip_stores_queries_keys_and_values_as_one() {
        let found = open_clip_key("text_model.encoder.layers.22.self_attn.v_proj.weight");
        let key = format!("{OPEN_CLIP}transformer.resblocks.22.attn.in_proj_weight");
        assert_eq!(
            found,
            LdmKey {
                key,
                third: Some(2)
            }
        );
        let found = open_clip_key("text_model.encoder.layers.0.mlp.fc1.bias");
        assert_eq!(
            found.key,
            format!("{OPEN_CLIP}transformer.resblocks.0.mlp.c_fc.bias")
        );
        let found = open_clip_key("text_model.embeddings.position_embedding.weight");
        assert_eq!(found.key, format!("{OPEN_CLIP}positional_embedding"));
    }
}
