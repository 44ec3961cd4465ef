//! A copy of a fixture that a test may damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::Value;
use snapc_import::{ImportError, ImportOptions, open};
use snapc_ir::Program;
use tempfile::TempDir;

/// A stored tensor: element type, shape, bytes.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// The copy, deleted when it goes out of scope.
pub struct CheckpointCopy {
    _dir: TempDir,
    pub path: PathBuf,
}

impl CheckpointCopy {
    /// Copies a file or folder of `fixtures/`.
    pub fn of(fixture: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures")
            .join(fixture);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(source.file_name().unwrap());
        copy(&source, &path);
        CheckpointCopy { _dir: dir, path }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.path.clone()
        } else {
            self.path.join(name)
        }
    }

    pub fn import(&self) -> Result<Program, ImportError> {
        open(&self.path, &ImportOptions::default())?.import()
    }

    pub fn set(&self, file: &str, key: &str, value: Value) {
        let path = self.file(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json[key] = value;
        fs::write(path, json.to_string()).unwrap();
    }

    pub fn edit_bytes(&self, file: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let path = self.file(file);
        let mut bytes = fs::read(&path).unwrap();
        edit(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    pub fn edit_weights(&self, file: &str, edit: impl FnOnce(&mut BTreeMap<String, Stored>)) {
        self.edit_bytes(file, |bytes| {
            let file = SafeTensors::deserialize(bytes).unwrap();
            let stored = |v: TensorView<'_>| (v.dtype(), v.shape().to_vec(), v.data().to_vec());
            let mut tensors = file
                .tensors()
                .into_iter()
                .map(|(k, v)| (k, stored(v)))
                .collect();
            edit(&mut tensors);
            let views = tensors.iter().map(|(k, (dtype, shape, data))| {
                (k, TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
            *bytes = serialize(views, None).unwrap();
        });
    }
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
