//! Damaging checkpoints. The safetensors form is read and written here by itself, so that a damaged file does not
//! depend on what a library is willing to write.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A tensor as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Element type as safetensors names it, `F32` say.
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major.
    pub bytes: Vec<u8>,
}

/// A safetensors file taken apart.
#[derive(Clone, Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    /// The tensors by name.
    pub tensors: BTreeMap<String, StoredTensor>,
}

impl SafetensorsFile {
    /// Reads a well-formed file.
    ///
    /// # Panics
    /// When the file is not one.
    pub fn read(path: &Path) -> Self {
        let file = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (length, rest) = file.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        let (header, data) = rest.split_at(usize::try_from(length).expect("a header fits"));
        let header: Map<String, Value> = serde_json::from_slice(header).expect("an object");
        let tensors = header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, entry)| {
                let numbers = |key: &str| -> Vec<usize> {
                    let list = entry[key].as_array().expect("a list");
                    list.iter()
                        .map(|n| n.as_u64().expect("a number") as usize)
                        .collect()
                };
                let offsets = numbers("data_offsets");
                let tensor = StoredTensor {
                    dtype: entry["dtype"].as_str().expect("a name").to_owned(),
                    shape: numbers("shape"),
                    bytes: data[offsets[0]..offsets[1]].to_vec(),
                };
                (name, tensor)
            });
        SafetensorsFile {
            path: path.to_owned(),
            tensors: tensors.collect(),
        }
    }

    /// Reads a file, changes it and writes it back.
    ///
    /// # Panics
    /// When it is not a well-formed file or cannot be written.
    pub fn edit(path: &Path, edit: impl FnOnce(&mut BTreeMap<String, StoredTensor>)) {
        let mut file = SafetensorsFile::read(path);
        edit(&mut file.tensors);
        file.write();
    }

    /// Writes the file back.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) {
        let mut header = Map::new();
        let mut data: Vec<u8> = Vec::new();
        for (name, tensor) in &self.tensors {
            let start = data.len();
            data.extend(&tensor.bytes);
            let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()] });
            header.insert(name.clone(), entry);
        }
        let header = Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        fs::write(&self.path, file).expect("a test file can be written");
    }
}

/// Changes a JSON file.
///
/// # Panics
/// When it cannot be read or written.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut value = serde_json::from_slice(&text).expect("the fixture is JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("a test file can be written");
}
