//! Opening a checkpoint and building its program.

use std::path::{Path, PathBuf};

use snapc_ir::{BuildError, LatentSpec, PipelineSpec, PredictionType, Program};

use crate::config::{TextEncoderConfig, UnetConfig, VaeConfig};
use crate::error::ImportError;
use crate::layout::{StoredPipeline, open_folder, open_single_file};
use crate::networks::{Network, text_encoder, unet, vae_decoder};
use crate::report::WeightReport;

/// The largest image side, in pixels.
const MAX_SIDE: usize = 8192;

/// Latent sides when the UNet's config does not say on which it was trained.
const DEFAULT_SAMPLE_SIZE: (usize, usize) = (64, 64);

/// What a user may say about a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Height and width of the image in pixels; by default the size that the UNet was trained on.
    pub size: Option<(usize, usize)>,
    /// A JSON file with the sections `unet`, `vae`, `text_encoder` and `scheduler`, any of them, in place of the
    /// configuration of the release that a single-file checkpoint looks like.
    pub config: Option<PathBuf>,
    /// What the UNet predicts, in place of what the scheduler's configuration says.
    pub prediction_type: Option<PredictionType>,
}

/// An opened checkpoint: configurations are read, weights are found but not looked at.
pub struct Checkpoint {
    stored: StoredPipeline,
    latent: (usize, usize),
}

/// Opens a diffusers folder or an original single-file checkpoint.
///
/// The weight files are mapped: they must not be truncated or written as long as the checkpoint or a program imported
/// from it lives. Renaming another file over one of them is harmless.
///
/// # Errors
/// When a file is missing, unreadable or malformed, when a configuration asks for something that is not supported, or
/// when the image size does not fit the network.
pub fn open(path: &Path, options: &ImportOptions) -> Result<Checkpoint, ImportError> {
    let not = |reason: &str| ImportError::NotACheckpoint {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let metadata = path.metadata().map_err(|source| ImportError::Io {
        path: path.to_owned(),
        source,
    })?;
    let stored = if metadata.is_dir() {
        if !path.join("model_index.json").exists() {
            return Err(not("the folder has no model_index.json"));
        }
        if let Some(config) = &options.config {
            return Err(ImportError::UnexpectedConfig {
                config: config.clone(),
            });
        }
        open_folder(path, options)?
    } else if path.extension().is_some_and(|e| e == "safetensors") {
        open_single_file(path, options)?
    } else {
        return Err(not("not a folder and not a .safetensors file"));
    };
    check_interfaces(&stored)?;
    let latent = latent_size(&stored.unet, &stored.vae, options.size)?;
    Ok(Checkpoint { stored, latent })
}

impl Checkpoint {
    /// What the user should know about how the checkpoint was read, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.stored.notes
    }

    /// Every file that was read to open it, weights and configurations: those that an artifact depends on.
    pub fn files(&self) -> &[PathBuf] {
        &self.stored.sources
    }

    /// The text encoder's configuration.
    pub fn text_encoder_config(&self) -> &TextEncoderConfig {
        &self.stored.text_encoder
    }

    /// The UNet's configuration.
    pub fn unet_config(&self) -> &UnetConfig {
        &self.stored.unet
    }

    /// The VAE's configuration.
    pub fn vae_config(&self) -> &VaeConfig {
        &self.stored.vae
    }

    /// Builds the graphs `text_encoder`, `unet` and `vae_decoder` in f32 and looks over every weight they use, at the
    /// speed of memory.
    ///
    /// # Errors
    /// [`ImportError::Weights`] with everything that is wrong with the weights of all graphs;
    /// [`ImportError::Build`] when the configuration's stages do not fit together.
    pub fn import(&self) -> Result<Program, ImportError> {
        self.import_latents(self.latent)
    }

    /// The same for pictures of another height and width, in pixels; the programs share the mapped weights.
    ///
    /// # Errors
    /// As [`Checkpoint::import`], and when the size does not fit the networks.
    pub fn import_at(&self, size: (usize, usize)) -> Result<Program, ImportError> {
        self.import_latents(latent_size(
            &self.stored.unet,
            &self.stored.vae,
            Some(size),
        )?)
    }

    fn import_latents(&self, latent: (usize, usize)) -> Result<Program, ImportError> {
        let StoredPipeline {
            text_encoder: text,
            unet: unet_config,
            vae,
            ..
        } = &self.stored;
        let tokens = text.max_position_embeddings;
        let (text_graph, (unet_graph, vae_graph)) = rayon::join(
            || text_encoder(text, &*self.stored.text_encoder_weights),
            || {
                rayon::join(
                    || unet(unet_config, latent, tokens, &*self.stored.unet_weights),
                    || vae_decoder(vae, latent, &*self.stored.vae_weights),
                )
            },
        );
        let networks = [text_graph, unet_graph, vae_graph];
        let networks = networks
            .into_iter()
            .collect::<Result<Vec<Network>, BuildError>>()?;
        let mut issues = self.stored.strays.clone();
        let mut graphs = Vec::new();
        for network in networks {
            issues.extend(network.issues);
            graphs.push(network.graph);
        }
        if !issues.is_empty() {
            return Err(ImportError::Weights(WeightReport::new(issues)));
        }
        Ok(Program {
            graphs,
            pipeline: self.pipeline(latent),
        })
    }

    fn pipeline(&self, latent: (usize, usize)) -> PipelineSpec {
        let StoredPipeline {
            text_encoder,
            unet,
            vae,
            scheduler,
            files,
            about,
            ..
        } = &self.stored;
        PipelineSpec {
            scheduler: scheduler.clone(),
            latent: LatentSpec {
                channels: unet.in_channels,
                height: latent.0,
                width: latent.1,
                pixels_per_cell: vae.pixels_per_cell(),
                scaling_factor: vae.scaling_factor,
            },
            tokens: text_encoder.max_position_embeddings,
            files: files.clone(),
            about: about.clone(),
        }
    }
}

/// Checks that what one network gives is what the next takes.
fn check_interfaces(stored: &StoredPipeline) -> Result<(), ImportError> {
    let StoredPipeline {
        text_encoder: text,
        unet,
        vae,
        ..
    } = stored;
    let rules = [
        (
            "cross_attention_dim",
            unet.cross_attention_dim,
            text.hidden_size,
            "the text encoder's hidden_size",
        ),
        (
            "in_channels",
            unet.in_channels,
            vae.latent_channels,
            "the VAE's latent_channels",
        ),
        (
            "out_channels",
            unet.out_channels,
            vae.latent_channels,
            "the VAE's latent_channels",
        ),
    ];
    for (key, value, expected, what) in rules {
        if value != expected {
            return Err(ImportError::Config {
                file: stored.unet_config_name.clone(),
                key: key.to_owned(),
                value: value.to_string(),
                supported: format!("{expected} ({what})"),
            });
        }
    }
    Ok(())
}

/// Rows and columns of the latent: both must be halved once per UNet stage but the last.
fn latent_size(
    unet: &UnetConfig,
    vae: &VaeConfig,
    size: Option<(usize, usize)>,
) -> Result<(usize, usize), ImportError> {
    let cell = vae.pixels_per_cell();
    let multiple = cell << (unet.block_out_channels.len() - 1);
    let (rows, columns) = unet.sample_size.unwrap_or(DEFAULT_SAMPLE_SIZE);
    let trained = (rows.saturating_mul(cell), columns.saturating_mul(cell));
    let (height, width) = size.unwrap_or(trained);
    let fits = |side: usize| side > 0 && side.is_multiple_of(multiple) && side <= MAX_SIDE;
    if fits(height) && fits(width) {
        return Ok((height / cell, width / cell));
    }
    Err(ImportError::Size {
        height,
        width,
        multiple,
        max: MAX_SIDE,
    })
}
