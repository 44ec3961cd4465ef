//! The configuration of a single-file checkpoint: the file has none, so it is that of the release it looks like, or one
//! that the user gives.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::parse_object;
use crate::error::ImportError;
use crate::small_file::read_small_file;

/// Configs of Stable Diffusion 1.5.
pub(super) const SD1: &str = include_str!("../../data/sd1.json");
/// Configs of Stable Diffusion 2.1.
pub(super) const SD2: &str = include_str!("../../data/sd2.json");

/// The sections of a pipeline's configuration and where they come from.
pub(super) struct PipelineConfig {
    stock: &'static str,
    given: Option<(String, Map<String, Value>)>,
}

/// A section of a built-in configuration.
pub(super) fn stock_section(stock: &str, section: &str) -> Result<Map<String, Value>, ImportError> {
    let name = "the built-in configuration";
    let mut map = parse_object(name, stock.as_bytes())?;
    object(name, section, map.remove(section).unwrap_or_default())
}

fn object(file: &str, section: &str, value: Value) -> Result<Map<String, Value>, ImportError> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(ImportError::Config {
            file: file.to_owned(),
            key: section.to_owned(),
            value: other.to_string(),
            supported: "an object".to_owned(),
        }),
    }
}

impl PipelineConfig {
    /// The configuration of a built-in release, with sections of the user's file in place of its own.
    ///
    /// # Errors
    /// When the file cannot be read, or is not an object of known sections.
    pub(super) fn new(stock: &'static str, path: Option<&Path>) -> Result<Self, ImportError> {
        let Some(path) = path else {
            return Ok(PipelineConfig { stock, given: None });
        };
        let name = path.display().to_string();
        let map = parse_object(&name, &read_small_file(path)?)?;
        let known = ["unet", "vae", "text_encoder", "scheduler"];
        if let Some(key) = map.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(ImportError::Config {
                value: map[key].to_string(),
                key: key.clone(),
                file: name,
                supported: known.join(", "),
            });
        }
        Ok(PipelineConfig {
            stock,
            given: Some((name, map)),
        })
    }

    /// A section, and a name for it in messages.
    ///
    /// # Errors
    /// When it is not an object.
    pub(super) fn section(
        &self,
        section: &str,
    ) -> Result<(String, Map<String, Value>), ImportError> {
        if let Some((file, map)) = &self.given
            && let Some(value) = map.get(section)
        {
            let name = format!("{file} ({section})");
            return Ok((name, object(file, section, value.clone())?));
        }
        let map = stock_section(self.stock, section)?;
        Ok((format!("the built-in {section} configuration"), map))
    }
}

/// `model_index.json` of a pipeline with this scheduler class.
pub(super) fn model_index(scheduler_class: &str) -> Vec<u8> {
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", scheduler_class],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    format!("{index:#}\n").into_bytes()
}

/// A configuration file's text.
pub(crate) fn to_json(map: &Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(map.clone())).into_bytes()
}
