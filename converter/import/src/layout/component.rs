//! A component of the diffusers layout: the files its weights lie in and the keys they have there.

use std::collections::{BTreeMap, BTreeSet};

use super::folder::Folder;
use super::{convolution_as_linear, is_vae_encoder_key};
use crate::config::{ConfigReader, parse_object};
use crate::error::ImportError;
use crate::lookup::{StoredWeight, WeightContent, WeightLookup};
use crate::weight_file::WeightFile;

/// A network of the pipeline, as the diffusers layout stores it.
#[derive(Clone, Copy)]
pub(crate) enum Component {
    TextEncoder,
    Unet,
    Vae,
}

impl Component {
    /// The component's folder.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Component::TextEncoder => "text_encoder",
            Component::Unet => "unet",
            Component::Vae => "vae",
        }
    }

    /// File name of the weights without its endings.
    pub(crate) fn stem(self) -> &'static str {
        match self {
            Component::TextEncoder => "model",
            Component::Unet | Component::Vae => "diffusion_pytorch_model",
        }
    }

    /// The key under which other versions of the libraries store the same weight.
    fn other_key(self, key: &str) -> Option<String> {
        match self {
            // Without the module around the text tower.
            Component::TextEncoder => key.strip_prefix("text_model.").map(str::to_owned),
            Component::Unet => None,
            // Before diffusers 0.18 the VAE had its own attention class.
            Component::Vae => {
                let (prefix, layer) = key.split_once(".attentions.0.")?;
                let renamed = [
                    ("to_q.", "query."),
                    ("to_k.", "key."),
                    ("to_v.", "value."),
                    ("to_out.0.", "proj_attn."),
                ];
                let (new, old) = renamed
                    .into_iter()
                    .find(|(new, _)| layer.starts_with(new))?;
                Some(format!(
                    "{prefix}.attentions.0.{old}{}",
                    &layer[new.len()..]
                ))
            }
        }
    }

    fn is_harmless(self, key: &str) -> bool {
        match self {
            Component::TextEncoder => {
                key.ends_with("embeddings.position_ids")
                    || key == "text_projection.weight"
                    || key == "logit_scale"
            }
            Component::Unet => false,
            Component::Vae => is_vae_encoder_key(key),
        }
    }
}

/// The weights of a component: one file or shards, in full or as the fp16 variant.
///
/// # Errors
/// When they are missing or malformed.
pub(super) fn component_weights(
    folder: &Folder<'_>,
    component: Component,
    notes: &mut Vec<String>,
) -> Result<FolderWeights, ImportError> {
    let (place, stem) = (component.folder(), component.stem());
    let candidates = [
        (format!("{place}/{stem}.safetensors"), false, false),
        (
            format!("{place}/{stem}.safetensors.index.json"),
            true,
            false,
        ),
        (format!("{place}/{stem}.fp16.safetensors"), false, true),
        (
            format!("{place}/{stem}.safetensors.index.fp16.json"),
            true,
            true,
        ),
    ];
    let Some((name, sharded, variant)) = candidates.iter().find(|c| folder.at(&c.0).exists())
    else {
        let file = candidates[0].0.clone();
        let hint = if folder.at(&format!("{place}/{stem}.bin")).exists()
            || folder.at(&format!("{place}/pytorch_model.bin")).exists()
        {
            "snapc reads safetensors only, not .bin; save the pipeline again with safe_serialization=True"
        } else {
            "download the component's .safetensors file, or its shards with their index"
        };
        return Err(ImportError::MissingFile {
            file,
            hint: hint.to_owned(),
        });
    };
    if *variant {
        notes.push(format!("read the fp16 variant {name}"));
    }
    if *sharded {
        return shards(folder, component, name);
    }
    let file = folder.weights(name)?;
    let keys = file.keys().map(|key| (key.to_owned(), 0)).collect();
    Ok(FolderWeights {
        component,
        files: vec![file],
        keys,
        missing: BTreeMap::new(),
    })
}

/// The weights that an index spreads over several files of its folder.
fn shards(
    folder: &Folder<'_>,
    component: Component,
    index: &str,
) -> Result<FolderWeights, ImportError> {
    let bytes = folder.read(index)?.unwrap_or_default();
    let map = parse_object(index, &bytes)?;
    let reader = ConfigReader::new(index, &map);
    let expected = "an object from keys to shard files, not empty";
    let weight_map: BTreeMap<String, String> =
        reader.get("weight_map", BTreeMap::new(), expected)?;
    if weight_map.is_empty() {
        return Err(reader.unsupported("weight_map", expected));
    }
    let shards: BTreeSet<&String> = weight_map.values().collect();
    let shards: Vec<&String> = shards.into_iter().collect();
    let mut files = Vec::new();
    for shard in &shards {
        let wrong = |problem| ImportError::Shard {
            file: index.to_owned(),
            shard: (*shard).clone(),
            problem,
        };
        if !is_plain_file_name(shard) {
            return Err(wrong("is not a plain .safetensors file name"));
        }
        let name = format!("{}/{shard}", component.folder());
        if !folder.at(&name).exists() {
            return Err(wrong("is missing; download all shards"));
        }
        files.push(folder.weights(&name)?);
    }
    let mut keys = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        for key in file.keys() {
            // The shard that the index names wins over one that holds the key as well.
            let named = weight_map.get(key).is_some_and(|name| name == shards[i]);
            if named || !keys.contains_key(key) {
                keys.insert(key.to_owned(), i);
            }
        }
    }
    let mut missing = BTreeMap::new();
    for (key, name) in &weight_map {
        if let (false, Ok(i)) = (keys.contains_key(key), shards.binary_search(&name)) {
            missing.insert(key.clone(), i);
        }
    }
    Ok(FolderWeights {
        component,
        files,
        keys,
        missing,
    })
}

/// Whether a name from an index stays inside the index's folder.
fn is_plain_file_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0'])
}

/// The weights in a component's folder.
pub(super) struct FolderWeights {
    component: Component,
    /// In order of their names; never empty.
    files: Vec<WeightFile>,
    /// Key → index of its file.
    keys: BTreeMap<String, usize>,
    /// Keys that the index of the shards names but no shard has → index of the file that should.
    missing: BTreeMap<String, usize>,
}

impl WeightLookup for FolderWeights {
    fn find(&self, key: &str, shape: &[usize]) -> StoredWeight {
        let other = self
            .component
            .other_key(key)
            .filter(|k| self.keys.contains_key(k));
        let key = match other {
            Some(other) if !self.keys.contains_key(key) => other,
            _ => key.to_owned(),
        };
        let index = self.keys.get(&key).or_else(|| self.missing.get(&key));
        let file = index.map(|&i| &self.files[i]);
        let content = match file.and_then(|f| f.tensor(&key)) {
            None => WeightContent::Missing,
            Some(Err(dtype)) => WeightContent::Unsupported(dtype),
            Some(Ok(tensor)) => WeightContent::Present(match self.component {
                Component::Vae if key.contains(".attentions.") => {
                    convolution_as_linear(tensor, shape)
                }
                _ => tensor,
            }),
        };
        let file = file.or(self.files.first());
        let file = file.map_or_else(
            || self.component.folder().to_owned(),
            |f| f.name().to_owned(),
        );
        StoredWeight { file, key, content }
    }

    fn unused(&self, used: &BTreeSet<String>) -> Vec<(String, String)> {
        let keys = self.keys.iter();
        let unused = keys.filter(|(k, _)| !used.contains(*k) && !self.component.is_harmless(k));
        unused
            .map(|(key, &i)| (self.files[i].name().to_owned(), key.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_keys() {
        let vae =
            |key: &str| Component::Vae.other_key(&format!("decoder.mid_block.attentions.0.{key}"));
        let old = |key: &str| Some(format!("decoder.mid_block.attentions.0.{key}"));
        assert_eq!(vae("to_q.weight"), old("query.weight"));
        assert_eq!(vae("to_out.0.bias"), old("proj_attn.bias"));
        assert_eq!(vae("group_norm.bias"), None);
        assert_eq!(
            Component::TextEncoder
                .other_key("text_model.final_layer_norm.bias")
                .as_deref(),
            Some("final_layer_norm.bias")
        );
    }

    #[test]
    fn shard_names_stay_in_their_folder() {
        assert!(is_plain_file_name("model-00001-of-00002.safetensors"));
        for name in [
            "../model.safetensors",
            "/m.safetensors",
            "a\\m.safetensors",
            "model.bin",
            "",
        ] {
            assert!(!is_plain_file_name(name), "{name}");
        }
    }
}
