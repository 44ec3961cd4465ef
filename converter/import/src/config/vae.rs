//! `vae/config.json`: diffusers' `AutoencoderKL`, of which the decoder is built.

use serde_json::{Map, Value};

use super::reader::{Allowed, ConfigReader, parse_object};
use crate::error::ImportError;

const RULES: &[(&str, Allowed)] = &[
    ("act_fn", Allowed::Word(&["silu", "swish"])),
    ("shift_factor", Allowed::Null),
    ("latents_mean", Allowed::Null),
    ("latents_std", Allowed::Null),
];

/// The decoder that diffusers' `AutoencoderKL` makes of its config.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Channels of the image.
    pub out_channels: usize,
    /// Channels per stage, from the image inwards.
    pub block_out_channels: Vec<usize>,
    /// ResNets per encoder stage; a decoder stage has one more.
    pub layers_per_block: usize,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// Whether the middle has a self-attention.
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution stands in front of the decoder.
    pub use_post_quant_conv: bool,
    /// Latents are divided by this before decoding.
    pub scaling_factor: f64,
}

impl VaeConfig {
    /// Reads the text of a config file; `file` names it in errors.
    ///
    /// # Errors
    /// When it is not JSON or asks for something that is not supported.
    pub fn from_json(file: &str, text: &str) -> Result<Self, ImportError> {
        Self::read(file, &parse_object(file, text.as_bytes())?)
    }

    /// Reads the config; `file` names it in errors.
    ///
    /// # Errors
    /// When it asks for something that is not supported.
    pub(crate) fn read(file: &str, map: &Map<String, Value>) -> Result<Self, ImportError> {
        let r = ConfigReader::new(file, map);
        r.require(RULES)?;
        let block_out_channels = r.counts("block_out_channels", &[64], 1 << 16, 8)?;
        let norm_num_groups = r.count("norm_num_groups", 32, 1 << 16)?;
        if block_out_channels.iter().any(|c| c % norm_num_groups != 0) {
            return Err(r.unsupported("norm_num_groups", "a divisor of every stage's channels"));
        }
        let types: Vec<String> = r.get(
            "up_block_types",
            vec!["UpDecoderBlock2D".to_owned()],
            "a list of UpDecoderBlock2D",
        )?;
        let stages = block_out_channels.len();
        if types.len() != stages || types.iter().any(|t| t != "UpDecoderBlock2D") {
            let supported = format!("UpDecoderBlock2D for each of the {stages} stages");
            return Err(r.unsupported("up_block_types", supported));
        }
        Ok(VaeConfig {
            latent_channels: r.count("latent_channels", 4, 1 << 10)?,
            out_channels: r.count("out_channels", 3, 1 << 10)?,
            block_out_channels,
            layers_per_block: r.count("layers_per_block", 1, 64)?,
            norm_num_groups,
            mid_block_add_attention: r.flag("mid_block_add_attention", true)?,
            use_post_quant_conv: r.flag("use_post_quant_conv", true)?,
            scaling_factor: r.positive("scaling_factor", 0.18215)?,
        })
    }

    /// Image pixels per latent cell along each side: every stage but the last doubles the sides.
    pub fn pixels_per_cell(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
