//! The diffusers layout: `model_index.json` and one folder per component.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use snapc_ir::About;

use super::StoredPipeline;
use super::component::{Component, component_weights};
use super::single_file_config::to_json;
use crate::ImportOptions;
use crate::about;
use crate::config::{
    ConfigReader, TextEncoderConfig, UnetConfig, VaeConfig, parse_object, read_scheduler,
};
use crate::error::ImportError;
use crate::small_file::read_small_file;
use crate::weight_file::WeightFile;

/// Tokenizer files that a CLIP tokenizer cannot do without.
const TOKENIZER: [&str; 2] = ["vocab.json", "merges.txt"];
/// Tokenizer files that go along when they are there.
const TOKENIZER_EXTRAS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// The page that a pipeline has on the hub.
const MODEL_CARD: &str = "README.md";

/// Opens a diffusers folder.
///
/// # Errors
/// When a file is missing or wrong, or a configuration is not supported.
pub(crate) fn open_folder(
    path: &Path,
    options: &ImportOptions,
) -> Result<StoredPipeline, ImportError> {
    let folder = Folder {
        path,
        sources: RefCell::default(),
    };
    let mut files = BTreeMap::new();
    let index = folder.json(
        "model_index.json",
        "a diffusers pipeline has one",
        &mut files,
    )?;
    check_classes(&index)?;
    let mut config = |component: Component| {
        let name = format!("{}/config.json", component.folder());
        let map = folder.json(&name, "download the whole pipeline folder", &mut files)?;
        Ok::<_, ImportError>((name, map))
    };
    let (name, map) = config(Component::TextEncoder)?;
    let text_encoder = TextEncoderConfig::read(&name, &map)?;
    let (unet_config_name, mut unet_map) = config(Component::Unet)?;
    let (name, map) = config(Component::Vae)?;
    let vae = VaeConfig::read(&name, &map)?;
    let mut notes = Vec::new();
    if let Some(note) = UnetConfig::correct_sample_size(&unet_config_name, &mut unet_map) {
        notes.push(note);
        files.insert(unet_config_name.clone(), to_json(&unet_map));
    }
    let unet = UnetConfig::read(&unet_config_name, &unet_map)?;
    let name = "scheduler/scheduler_config.json";
    let mut map = folder.json(name, "download the whole pipeline folder", &mut files)?;
    let scheduler = read_scheduler(name, &map, options.prediction_type, &mut notes)?;
    if let Some(kind) = options.prediction_type {
        map.insert("prediction_type".to_owned(), kind.name().into());
        files.insert(name.to_owned(), to_json(&map));
    }
    folder.tokenizer(&index, &mut files, &mut notes)?;
    let about = folder.about(&mut notes);
    let mut weights = |component| component_weights(&folder, component, &mut notes);
    let text_encoder_weights = Box::new(weights(Component::TextEncoder)?);
    let unet_weights = Box::new(weights(Component::Unet)?);
    let vae_weights = Box::new(weights(Component::Vae)?);
    Ok(StoredPipeline {
        text_encoder_weights,
        unet_weights,
        vae_weights,
        text_encoder,
        unet,
        unet_config_name,
        vae,
        scheduler,
        strays: Vec::new(),
        files,
        sources: folder.sources.into_inner(),
        about,
        notes,
    })
}

/// Refuses pipelines of other architectures by the classes that `model_index.json` names.
fn check_classes(index: &Map<String, Value>) -> Result<(), ImportError> {
    let file = "model_index.json";
    let r = ConfigReader::new(file, index);
    let class = |key: &str| {
        index
            .get(key)
            .and_then(|v| v.get(1))
            .and_then(Value::as_str)
    };
    for (key, supported) in [
        ("text_encoder", "CLIPTextModel"),
        ("unet", "UNet2DConditionModel"),
        ("vae", "AutoencoderKL"),
    ] {
        if class(key) != Some(supported) {
            return Err(r.unsupported(key, format!("{supported} (Stable Diffusion 1.x and 2.x)")));
        }
    }
    if class("text_encoder_2").is_some() {
        return Err(r.unsupported(
            "text_encoder_2",
            "one text encoder (Stable Diffusion 1.x and 2.x)",
        ));
    }
    Ok(())
}

/// A pipeline folder.
pub(super) struct Folder<'a> {
    path: &'a Path,
    /// Every file that was read.
    sources: RefCell<Vec<PathBuf>>,
}

impl Folder<'_> {
    /// The path of a file named relative to the folder.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        name.split('/')
            .fold(self.path.to_owned(), |path, part| path.join(part))
    }

    /// The bytes of a file, when there is one.
    ///
    /// # Errors
    /// When there is one that cannot be read, is not a regular file or is too large.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let path = self.at(name);
        match read_small_file(&path) {
            Ok(bytes) => {
                self.sources.borrow_mut().push(path);
                Ok(Some(bytes))
            }
            Err(ImportError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a file of weights.
    ///
    /// # Errors
    /// When it cannot be mapped or is not a safetensors file.
    pub(super) fn weights(&self, name: &str) -> Result<WeightFile, ImportError> {
        let path = self.at(name);
        let file = WeightFile::open(&path, name)?;
        self.sources.borrow_mut().push(path);
        Ok(file)
    }

    /// A JSON object, whose bytes are kept among the pipeline's files.
    fn json(
        &self,
        name: &str,
        hint: &str,
        files: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<Map<String, Value>, ImportError> {
        let bytes = self.read(name)?.ok_or_else(|| ImportError::MissingFile {
            file: name.to_owned(),
            hint: hint.to_owned(),
        })?;
        let map = parse_object(name, &bytes)?;
        files.insert(name.to_owned(), bytes);
        Ok(map)
    }

    /// What the model card says. No artifact needs it, so that a card that cannot be read is no error.
    fn about(&self, notes: &mut Vec<String>) -> About {
        let card = match self.read(MODEL_CARD) {
            Ok(card) => card.unwrap_or_default(),
            Err(error) => {
                notes.push(format!("what {MODEL_CARD} states is not taken: {error}"));
                return About::default();
            }
        };
        let statements = about::of_model_card(&String::from_utf8_lossy(&card));
        notes.extend(statements.notes);
        statements.about
    }

    fn tokenizer(
        &self,
        index: &Map<String, Value>,
        files: &mut BTreeMap<String, Vec<u8>>,
        notes: &mut Vec<String>,
    ) -> Result<(), ImportError> {
        let named = index
            .get("tokenizer")
            .and_then(|v| v.get(1))
            .is_some_and(Value::is_string);
        if !named {
            notes.push(
                "model_index.json names no tokenizer: the artifact will have none".to_owned(),
            );
            return Ok(());
        }
        for name in TOKENIZER.iter().chain(&TOKENIZER_EXTRAS) {
            let name = format!("tokenizer/{name}");
            if let Some(bytes) = self.read(&name)? {
                files.insert(name, bytes);
            }
        }
        let needed = TOKENIZER.map(|name| format!("tokenizer/{name}"));
        match needed.into_iter().find(|name| !files.contains_key(name)) {
            None => Ok(()),
            Some(file) => Err(ImportError::MissingFile {
                file,
                hint: "model_index.json names a tokenizer; download its vocab.json and merges.txt"
                    .to_owned(),
            }),
        }
    }
}
