//! External data: files beside the model that hold the bytes of its constants.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use prost::bytes::Bytes;
use snapc_target::MappedFile;

use super::error::ReadError;
use crate::proto::TensorProto;

/// The folder of a model, and the files in it that are mapped so far.
pub(super) struct DataFiles {
    folder: PathBuf,
    mapped: BTreeMap<String, Bytes>,
}

impl DataFiles {
    /// The data files beside `model`.
    ///
    /// # Errors
    /// When the folder cannot be found.
    pub(super) fn beside(model: &Path) -> Result<Self, ReadError> {
        let parent = match model.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let folder = fs::canonicalize(parent).map_err(|source| ReadError::Io {
            path: parent.to_owned(),
            source,
        })?;
        Ok(DataFiles {
            folder,
            mapped: BTreeMap::new(),
        })
    }

    /// The bytes that a tensor says are elsewhere, `expected` of them.
    ///
    /// # Errors
    /// When they would lie outside the folder or the file, or are not as many; in words.
    pub(super) fn bytes(&mut self, tensor: &TensorProto, expected: usize) -> Result<Bytes, String> {
        let location = value(tensor, "location").ok_or("external data without a location")?;
        let number = |key: &str| match value(tensor, key) {
            None => Ok(None),
            Some(text) => match text.parse::<usize>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!("{key} '{text}' of its external data is no number")),
            },
        };
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(expected);
        if length != expected {
            return Err(format!(
                "{length} bytes of external data, but its shape has {expected}"
            ));
        }
        let file = self.file(location)?;
        let end = offset.checked_add(length).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| {
            let size = file.len();
            format!("{length} bytes at {offset} of '{location}', which has {size}")
        })?;
        Ok(file.slice(offset..end))
    }

    fn file(&mut self, location: &str) -> Result<Bytes, String> {
        if let Some(mapped) = self.mapped.get(location) {
            return Ok(mapped.clone());
        }
        let fault = |problem: &str| format!("external data '{location}' {problem}");
        let relative = Path::new(location);
        let mut parts = relative.components();
        let plain = parts.all(|c| matches!(c, Component::Normal(_)));
        if location.is_empty() || location.contains(['\0', '\\']) || !plain {
            return Err(fault("is not a path inside the folder of the model"));
        }
        let path = fs::canonicalize(self.folder.join(relative))
            .map_err(|e| fault(&format!("cannot be found beside the model: {e}")))?;
        if !path.starts_with(&self.folder) {
            return Err(fault(
                "is a link that leaves the folder of the model; copy the file there",
            ));
        }
        let mapped = MappedFile::open(&path);
        let mapped =
            mapped.map_err(|e| fault(&format!("cannot be read: '{}': {e}", path.display())))?;
        let mapped = Bytes::from_owner(mapped);
        self.mapped.insert(location.to_owned(), mapped.clone());
        Ok(mapped)
    }
}

fn value<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let mut entries = tensor.external_data.iter();
    let entry = entries.find(|e| e.key.as_deref() == Some(key))?;
    entry.value.as_deref()
}
