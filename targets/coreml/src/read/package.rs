//! The package folder: from the manifest to the model, without leaving the folder.

use std::fs;
use std::path::{Component, Path, PathBuf};

use prost::Message;
use serde_json::Value;

use super::error::ReadError;
use crate::package::{DATA, MANIFEST};
use crate::proto::Model;

/// Larger manifests are refused unread.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Larger models are refused unread; weights are not in them. Decoded, a model takes many times its size.
const MAX_MODEL_BYTES: u64 = 1 << 26;

/// The parts of a package.
#[derive(Debug)]
pub(super) struct Package {
    /// The folder, without links on the way.
    root: PathBuf,
    /// The folder of the model file, which blob files are named from.
    pub(super) model_folder: PathBuf,
    /// The model.
    pub(super) model: Model,
    /// The model file.
    pub(super) model_file: PathBuf,
}

impl Package {
    /// Opens a package and decodes its model.
    ///
    /// # Errors
    /// When the manifest or the model is missing, malformed or outside of the folder.
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let root = path.canonicalize().map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
        let manifest = root.join(MANIFEST);
        let bytes = read(&root, &manifest, MAX_MANIFEST_BYTES)?;
        let item = root_item(&bytes).map_err(|reason| fault(&manifest, reason))?;
        let relative = contained(&item)
            .ok_or_else(|| fault(&manifest, format!("the path '{item}' leaves the package")))?;
        let model_file = root.join(DATA).join(relative);
        let bytes = read(&root, &model_file, MAX_MODEL_BYTES)?;
        let model = Model::decode(bytes.as_slice())
            .map_err(|e| fault(&model_file, format!("is no Core ML model: {e}")))?;
        let model_folder = model_file.parent().unwrap_or(&root).to_owned();
        Ok(Package {
            root,
            model_folder,
            model,
            model_file,
        })
    }

    /// The file that a name from inside the model means, `@model_path/…`.
    ///
    /// # Errors
    /// When the name has another form, the file does not exist, or it is outside of the package.
    pub(super) fn blob_file(&self, name: &str) -> Result<PathBuf, String> {
        let relative = name.strip_prefix("@model_path/").and_then(contained);
        let relative = relative.ok_or_else(|| {
            format!("the weight file '{name}' is not named '@model_path/' and a path below it")
        })?;
        inside(&self.root, &self.model_folder.join(relative))
            .map_err(|reason| format!("the weight file '{name}': {reason}"))
    }
}

fn fault(path: &Path, reason: impl Into<String>) -> ReadError {
    ReadError::File {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// The path of the manifest's root item.
fn root_item(manifest: &[u8]) -> Result<String, String> {
    let manifest: Value =
        serde_json::from_slice(manifest).map_err(|e| format!("is no JSON: {e}"))?;
    let id = manifest["rootModelIdentifier"].as_str();
    let id = id.ok_or("rootModelIdentifier is missing")?;
    let path = manifest["itemInfoEntries"][id]["path"].as_str();
    let path = path.ok_or_else(|| format!("the item '{id}' has no path"))?;
    Ok(path.to_owned())
}

/// A path that names something below the folder it starts from.
fn contained(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let mut parts = path.components().peekable();
    parts.peek()?;
    parts
        .all(|part| matches!(part, Component::Normal(_)))
        .then_some(path)
}

/// The regular file behind a path, when following links does not leave `root`.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, String> {
    let real = path
        .canonicalize()
        .map_err(|e| format!("cannot be read: {e}"))?;
    if !real.starts_with(root) {
        return Err("a link leads out of the package".to_owned());
    }
    match real.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(real),
        Ok(_) => Err("not a regular file".to_owned()),
        Err(e) => Err(format!("cannot be read: {e}")),
    }
}

fn read(root: &Path, path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    let real = inside(root, path).map_err(|reason| fault(path, reason))?;
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let len = real.metadata().map_err(io)?.len();
    if len > max {
        return Err(fault(
            path,
            format!("{len} bytes are too many; {max} at most"),
        ));
    }
    fs::read(&real).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_are_contained() {
        for path in ["weights/weight.bin", "a"] {
            assert!(contained(path).is_some(), "{path}");
        }
        for path in ["", "/etc/passwd", "../a", "a/../../b", "./../a"] {
            assert!(contained(path).is_none(), "{path}");
        }
    }
}
