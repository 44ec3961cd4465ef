//! `text_encoder/config.json`: transformers' `CLIPTextConfig`.

use serde_json::{Map, Value};

use super::reader::{Allowed, ConfigReader, parse_object};
use crate::error::ImportError;

/// The activation between the two linear layers of a CLIP MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`: OpenAI's CLIP, SD 1.x.
    QuickGelu,
    /// Exact (erf): OpenCLIP, SD 2.x.
    Gelu,
}

/// The network that transformers' `CLIPTextModel` makes of its config.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEncoderConfig {
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Tokens per prompt.
    pub max_position_embeddings: usize,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f32,
    /// The token whose hidden state is pooled. 2, which no CLIP vocabulary uses for it, stands for the rule of older
    /// configs: the position of the largest id.
    pub eos_token_id: i32,
}

impl TextEncoderConfig {
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
        r.require(&[
            ("model_type", Allowed::Word(&["clip_text_model"])),
            ("hidden_act", Allowed::Word(&["quick_gelu", "gelu"])),
        ])?;
        let hidden_size = r.count("hidden_size", 512, 1 << 16)?;
        let num_attention_heads = r.count("num_attention_heads", 8, 1 << 10)?;
        if hidden_size % num_attention_heads != 0 {
            return Err(r.unsupported("num_attention_heads", format!("a divisor of {hidden_size}")));
        }
        let act: String = r.get("hidden_act", "quick_gelu".to_owned(), "quick_gelu, gelu")?;
        Ok(TextEncoderConfig {
            vocab_size: r.count("vocab_size", 49408, 1 << 24)?,
            hidden_size,
            intermediate_size: r.count("intermediate_size", 2048, 1 << 18)?,
            num_hidden_layers: r.count("num_hidden_layers", 12, 1 << 10)?,
            num_attention_heads,
            max_position_embeddings: r.count("max_position_embeddings", 77, 1 << 12)?,
            hidden_act: match act.as_str() {
                "gelu" => Activation::Gelu,
                _ => Activation::QuickGelu,
            },
            layer_norm_eps: r.positive("layer_norm_eps", 1e-5)? as f32,
            eos_token_id: r.get("eos_token_id", 49407, "one token id")?,
        })
    }
}
