//! The layouts in which a pipeline is stored: where each network's weights lie, and under which names.

mod component;
mod folder;
mod naming;
mod single_file;
mod single_file_config;

use snapc_ir::LazyTensor;

pub(crate) use component::Component;
pub(crate) use folder::open_folder;
pub(crate) use single_file::open_single_file;
pub(crate) use single_file_config::to_json;

use crate::config::{TextEncoderConfig, UnetConfig, VaeConfig};
use crate::lookup::WeightLookup;
use crate::report::WeightIssue;

/// A pipeline as stored: its networks' configs and weights, its other files.
pub(crate) struct StoredPipeline {
    pub(crate) text_encoder: TextEncoderConfig,
    pub(crate) unet: UnetConfig,
    /// What the UNet's config is called in messages.
    pub(crate) unet_config_name: String,
    pub(crate) vae: VaeConfig,
    pub(crate) scheduler: snapc_ir::SchedulerSpec,
    pub(crate) text_encoder_weights: Box<dyn WeightLookup>,
    pub(crate) unet_weights: Box<dyn WeightLookup>,
    pub(crate) vae_weights: Box<dyn WeightLookup>,
    /// Weights that belong to no network.
    pub(crate) strays: Vec<WeightIssue>,
    /// Files that go with an artifact, by path in the pipeline folder.
    pub(crate) files: std::collections::BTreeMap<String, Vec<u8>>,
    /// Every file that was read to know all of this.
    pub(crate) sources: Vec<std::path::PathBuf>,
    /// What the checkpoint says about itself.
    pub(crate) about: snapc_ir::About,
    /// What the user should know about how the checkpoint was read.
    pub(crate) notes: Vec<String>,
}

/// Whether a VAE key is not the decoder's; a pipeline for text to image does not need it.
fn is_vae_encoder_key(key: &str) -> bool {
    key.starts_with("encoder.") || key.starts_with("quant_conv.")
}

/// A 1x1 convolution weight `[out,in,1,1]` as the linear weight `[out,in]` that is asked for. Attentions of older
/// VAEs are stored as convolutions.
fn convolution_as_linear(tensor: LazyTensor, asked: &[usize]) -> LazyTensor {
    match *tensor.shape() {
        [rows, columns, 1, 1] if asked.len() == 2 => tensor.reshape(&[rows, columns]),
        _ => tensor,
    }
}
