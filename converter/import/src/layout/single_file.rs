//! The original (LDM) layout: all networks in one safetensors file, without configuration or tokenizer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use snapc_ir::{LazyTensor, PredictionType};

use super::naming::{
    CLIP, LdmKey, ModuleNames, OPEN_CLIP, UNET, VAE, clip_key, clip_tower_key, open_clip_key,
    unet_modules, vae_modules,
};
use super::single_file_config::{PipelineConfig, SD1, SD2, model_index, to_json};
use super::{StoredPipeline, convolution_as_linear, is_vae_encoder_key};
use crate::ImportOptions;
use crate::about;
use crate::config::{TextEncoderConfig, UnetConfig, VaeConfig, read_scheduler};
use crate::error::ImportError;
use crate::lookup::{StoredWeight, WeightContent, WeightLookup};
use crate::report::{WeightIssue, WeightProblem};
use crate::tokenizer::tokenizer_files;
use crate::weight_file::WeightFile;

/// A key whose shape tells the width of the text embedding.
const CONTEXT_KEY: &str =
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";

/// Latent sides of the 2.x releases that predict noise; those that predict v are trained at 96.
const SD2_EPSILON_SAMPLE_SIZE: usize = 64;

/// Keys outside of the networks that training leaves behind.
const TRAINING_STATE: [&str; 3] = ["model_ema.", "embedding_manager.", "loss."];
/// Parts of CLIP that its text tower does not use, where re-saved files have them.
const CLIP_HEAD: [&str; 2] = [
    "cond_stage_model.text_projection",
    "cond_stage_model.logit_scale",
];
/// Last part of a key that numbers the positions, a constant that older versions of transformers saved.
const POSITION_IDS: &str = ".position_ids";
const TRAINING_TABLES: [&str; 6] = ["alphas", "betas", "log_one", "posterior_", "sqrt_", "lvlb_"];
const TRAINING_COUNTERS: [&str; 4] = ["global_step", "epoch", "scale_factor", "logvar"];

/// A release line, told apart by its text encoder.
#[derive(Clone, Copy, PartialEq)]
enum Release {
    Sd1,
    Sd2,
}

impl Release {
    /// The line that a checkpoint belongs to.
    fn of(file: &WeightFile, path: &Path) -> Result<Self, ImportError> {
        let has = |prefix: &str| file.keys().any(|k| k.starts_with(prefix));
        let foreign = |reason: &str| ImportError::NotACheckpoint {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        if has("conditioner.embedders.") {
            return Err(foreign(
                "it looks like Stable Diffusion XL, which is not supported",
            ));
        }
        if !has(UNET) {
            return Err(foreign("it has no 'model.diffusion_model.' weights"));
        }
        match (has(OPEN_CLIP), has(CLIP)) {
            (true, _) => Ok(Release::Sd2),
            (false, true) => Ok(Release::Sd1),
            // No text encoder: whichever line it is, the report will name its weights as missing.
            (false, false) => match file.shape(CONTEXT_KEY) {
                Some([_, 1024]) => Ok(Release::Sd2),
                _ => Ok(Release::Sd1),
            },
        }
    }
}

/// Opens a single-file checkpoint.
///
/// # Errors
/// When it is not a checkpoint of Stable Diffusion 1.x or 2.x, or the configuration given is wrong.
pub(crate) fn open_single_file(
    path: &Path,
    options: &ImportOptions,
) -> Result<StoredPipeline, ImportError> {
    let name = path
        .file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let file = Arc::new(WeightFile::open(path, &name)?);
    let release = Release::of(&file, path)?;
    let stock = if release == Release::Sd2 { SD2 } else { SD1 };
    let sections = PipelineConfig::new(stock, options.config.as_deref())?;
    let sources = std::iter::once(path.to_owned());
    let sources = sources.chain(options.config.clone()).collect();
    let mut notes = Vec::new();
    let mut scheduler_map = sections.section("scheduler")?;
    let mut unet_map = sections.section("unet")?;
    if release == Release::Sd2 && options.config.is_none() {
        guess_sd2(options.prediction_type, &mut unet_map.1, &mut notes);
    }
    if let Some(kind) = options.prediction_type {
        scheduler_map
            .1
            .insert("prediction_type".to_owned(), kind.name().into());
    }
    let text_map = sections.section("text_encoder")?;
    let vae_map = sections.section("vae")?;
    let text_encoder = TextEncoderConfig::read(&text_map.0, &text_map.1)?;
    let unet = UnetConfig::read(&unet_map.0, &unet_map.1)?;
    let vae = VaeConfig::read(&vae_map.0, &vae_map.1)?;
    let scheduler = read_scheduler(&scheduler_map.0, &scheduler_map.1, None, &mut notes)?;

    let scheduler_class = scheduler_map.1.get("_class_name").and_then(Value::as_str);
    let pad = if release == Release::Sd2 {
        "!"
    } else {
        "<|endoftext|>"
    };
    let mut files = tokenizer_files(pad);
    files.insert(
        "model_index.json".to_owned(),
        model_index(scheduler_class.unwrap_or("DDIMScheduler")),
    );
    for (name, map) in [
        ("scheduler/scheduler_config.json", &scheduler_map.1),
        ("text_encoder/config.json", &text_map.1),
        ("unet/config.json", &unet_map.1),
        ("vae/config.json", &vae_map.1),
    ] {
        files.insert(name.to_owned(), to_json(map));
    }

    let statements = about::of_header(file.metadata());
    notes.extend(statements.notes);

    let layers = text_encoder.num_hidden_layers;
    let text_names = match release {
        Release::Sd1 => Names::Clip,
        Release::Sd2 => Names::OpenClip { layers },
    };
    let weights = |names| {
        Box::new(SingleFileWeights {
            file: Arc::clone(&file),
            names,
        })
    };
    Ok(StoredPipeline {
        text_encoder_weights: weights(text_names),
        unet_weights: weights(Names::Unet(unet_modules(&unet))),
        vae_weights: weights(Names::Vae(vae_modules(&vae))),
        strays: strays(&file),
        text_encoder,
        unet,
        unet_config_name: unet_map.0,
        vae,
        scheduler,
        files,
        sources,
        about: statements.about,
        notes,
    })
}

/// What the UNet of a 2.x release predicts cannot be seen from its weights.
fn guess_sd2(
    asked: Option<PredictionType>,
    unet: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) {
    let (kind, size) = match asked {
        Some(PredictionType::Epsilon) => ("epsilon as asked", SD2_EPSILON_SAMPLE_SIZE * 8),
        Some(PredictionType::VPrediction) => ("v_prediction as asked", 768),
        None => ("v_prediction", 768),
    };
    if asked == Some(PredictionType::Epsilon) {
        unet.insert("sample_size".to_owned(), SD2_EPSILON_SAMPLE_SIZE.into());
    }
    notes.push(format!(
        "Stable Diffusion 2.x: the file does not say what the UNet predicts; taking {kind} at {size} px \
         (the 768 px releases predict v_prediction, the 512 px base releases epsilon)"
    ));
}

/// Keys that belong to no network and are not known to be left over from training.
fn strays(file: &WeightFile) -> Vec<WeightIssue> {
    let known = |key: &str| {
        [UNET, VAE, CLIP, OPEN_CLIP]
            .iter()
            .any(|p| key.starts_with(p))
            || TRAINING_STATE.iter().any(|p| key.starts_with(p))
            || TRAINING_COUNTERS.contains(&key)
            || CLIP_HEAD.contains(&key)
            || key.ends_with(POSITION_IDS)
            || !key.contains('.') && TRAINING_TABLES.iter().any(|p| key.starts_with(p))
    };
    let strays = file.keys().filter(|k| !known(k));
    let issue = |key: &str| WeightIssue {
        graph: "-".to_owned(),
        file: file.name().to_owned(),
        weight: key.to_owned(),
        problem: WeightProblem::Extra,
    };
    strays.map(issue).collect()
}

/// The names of one network in the file.
enum Names {
    Clip,
    OpenClip {
        /// Layers that are used; the file has one more.
        layers: usize,
    },
    Unet(ModuleNames),
    Vae(ModuleNames),
}

impl Names {
    fn prefix(&self) -> &'static str {
        match self {
            Names::Clip => CLIP,
            Names::OpenClip { .. } => OPEN_CLIP,
            Names::Unet(_) => UNET,
            Names::Vae(_) => VAE,
        }
    }

    fn ldm_key(&self, key: &str) -> LdmKey {
        match self {
            Names::Clip => clip_key(key),
            Names::OpenClip { .. } => open_clip_key(key),
            Names::Unet(modules) | Names::Vae(modules) => modules.ldm_key(key),
        }
    }

    /// The key under which other files store the same weight.
    fn other_ldm_key(&self, key: &str) -> Option<LdmKey> {
        match self {
            Names::Clip => clip_tower_key(key),
            Names::OpenClip { .. } | Names::Unet(_) | Names::Vae(_) => None,
        }
    }

    /// Whether a key below the prefix is known not to be needed.
    fn is_harmless(&self, key: &str) -> bool {
        match self {
            Names::Clip => {
                key.ends_with(POSITION_IDS)
                    || ["text_projection.weight", "logit_scale"].contains(&key)
            }
            Names::OpenClip { layers } => {
                ["text_projection", "logit_scale", "attn_mask"].contains(&key)
                    || key.starts_with(&format!("transformer.resblocks.{layers}."))
            }
            Names::Unet(_) => false,
            Names::Vae(_) => is_vae_encoder_key(key) || key.starts_with("loss."),
        }
    }
}

/// One network's weights in a single-file checkpoint.
struct SingleFileWeights {
    file: Arc<WeightFile>,
    names: Names,
}

impl WeightLookup for SingleFileWeights {
    fn find(&self, key: &str, shape: &[usize]) -> StoredWeight {
        let has = |found: &LdmKey| self.file.shape(&found.key).is_some();
        let usual = self.names.ldm_key(key);
        let other = self.names.other_ldm_key(key).filter(has);
        let LdmKey { key, third } = match other {
            Some(other) if !has(&usual) => other,
            _ => usual,
        };
        let content = match self.file.tensor(&key) {
            None => WeightContent::Missing,
            Some(Err(dtype)) => WeightContent::Unsupported(dtype),
            Some(Ok(tensor)) => WeightContent::Present(match (&self.names, third) {
                (_, Some(third)) => third_of_rows(tensor, third),
                (Names::Vae(_), None) => convolution_as_linear(tensor, shape),
                _ => tensor,
            }),
        };
        StoredWeight {
            file: self.file.name().to_owned(),
            key,
            content,
        }
    }

    fn unused(&self, used: &BTreeSet<String>) -> Vec<(String, String)> {
        let prefix = self.names.prefix();
        let extra = |key: &&str| {
            let inner = key.strip_prefix(prefix);
            inner.is_some_and(|k| !used.contains(*key) && !self.names.is_harmless(k))
        };
        let name = self.file.name();
        self.file
            .keys()
            .filter(|k| extra(k))
            .map(|k| (name.to_owned(), k.to_owned()))
            .collect()
    }
}

/// Queries, keys or values out of a weight that stacks all three; as it is when its rows do not divide, so that the
/// report shows its shape.
fn third_of_rows(tensor: LazyTensor, third: usize) -> LazyTensor {
    match tensor.shape().first() {
        // Without rows the other sides may be of any size, even beyond memory.
        Some(&rows) if rows > 0 && rows % 3 == 0 => {
            let step = rows / 3;
            tensor.slice(0, third * step, (third + 1) * step)
        }
        _ => tensor,
    }
}

#[cfg(test)]
mod tests {
    use snapc_ir::DType;

    use super::*;

    #[test]
    fn a_stack_without_rows_is_left_as_it_is() {
        // A header may say so: the product of the sides is 0, whatever the others are.
        let shape = [0, usize::MAX, 2];
        let tensor = LazyTensor::from_buffer(Arc::new(Vec::new()), 0..0, DType::F16, &shape);
        assert_eq!(third_of_rows(tensor, 1).shape(), shape);
    }
}
