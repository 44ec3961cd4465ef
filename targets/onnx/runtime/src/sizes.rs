//! Sizes of axes that a model leaves open, from the configurations beside it: Optimum leaves rows and columns open.

use std::path::Path;

use serde_json::Value;
use snapc_pipeline::NetworkKind;

use crate::Error;

/// Sizes of a pipeline as far as its configurations give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    tokens: Option<usize>,
    text_width: Option<usize>,
    states_width: Option<usize>,
    /// Channels of the UNet's input and output, and of the decoder's input.
    channels: [Option<usize>; 3],
    /// Rows and columns of the latents.
    latents: [Option<usize>; 2],
    pixels_per_latent: Option<usize>,
}

impl Sizes {
    /// Reads the `config.json` of all networks.
    pub(crate) fn read(artifact: &Path) -> Result<Self, Error> {
        let text_encoder = configuration(artifact, NetworkKind::TextEncoder)?;
        let unet = configuration(artifact, NetworkKind::Unet)?;
        let vae_decoder = configuration(artifact, NetworkKind::VaeDecoder)?;
        let sample = &unet["sample_size"];
        let latents = match size(sample) {
            Some(side) => [Some(side); 2],
            None => [size(&sample[0]), size(&sample[1])],
        };
        // Every block of the decoder but the last doubles rows and columns.
        let blocks = vae_decoder["block_out_channels"].as_array().map(Vec::len);
        let doublings = blocks.and_then(|blocks| u32::try_from(blocks.checked_sub(1)?).ok());
        Ok(Self {
            tokens: size(&text_encoder["max_position_embeddings"]),
            text_width: size(&text_encoder["hidden_size"]),
            states_width: size(&unet["cross_attention_dim"]),
            channels: [
                size(&unet["in_channels"]),
                size(&unet["out_channels"]),
                size(&vae_decoder["latent_channels"]),
            ],
            latents,
            pixels_per_latent: doublings.and_then(|n| 2usize.checked_pow(n)),
        })
    }

    /// Sizes of the axes of a port behind the first, or nothing when the port is none of a pipeline.
    pub(crate) fn behind_batch(&self, kind: NetworkKind, port: &str) -> Vec<Option<usize>> {
        let [rows, columns] = self.latents;
        let [sample, prediction, latents] = self.channels;
        let pixels = |side: Option<usize>| side?.checked_mul(self.pixels_per_latent?);
        match (kind, port) {
            (NetworkKind::TextEncoder, "input_ids") => vec![self.tokens],
            (NetworkKind::TextEncoder, "last_hidden_state") => vec![self.tokens, self.text_width],
            (NetworkKind::TextEncoder, "pooler_output") => vec![self.text_width],
            (NetworkKind::Unet, "sample") => vec![sample, rows, columns],
            (NetworkKind::Unet, "encoder_hidden_states") => vec![self.tokens, self.states_width],
            (NetworkKind::Unet, "out_sample") => vec![prediction, rows, columns],
            (NetworkKind::VaeDecoder, "latent_sample") => vec![latents, rows, columns],
            (NetworkKind::VaeDecoder, "sample") => vec![Some(3), pixels(rows), pixels(columns)],
            _ => Vec::new(),
        }
    }
}

/// The configuration of a network; null when there is none.
fn configuration(artifact: &Path, kind: NetworkKind) -> Result<Value, Error> {
    let path = artifact.join(kind.name()).join("config.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(source) => return Err(Error::ReadConfiguration { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|source| Error::ParseConfiguration { path, source })
}

fn size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}
