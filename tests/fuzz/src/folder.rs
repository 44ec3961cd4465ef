//! The files of an input, for readers that take a path.

use std::fs;
use std::path::{Path, PathBuf};

/// The manifest of a package.
const MANIFEST: &[u8] = br#"{
  "fileFormatVersion": "1.0.0",
  "itemInfoEntries": {
    "0": {"author": "", "description": "", "name": "", "path": "com.apple.CoreML/model.mlmodel"},
    "1": {"author": "", "description": "", "name": "", "path": "com.apple.CoreML/weights"}
  },
  "rootModelIdentifier": "0"
}"#;

/// A folder of this process below the system's folder for temporary files (`TMPDIR`), best in memory. It stays behind
/// when the process ends, because a fuzzer ends without destructors.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder of a target.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(target: &str) -> Self {
        let name = format!("snapc-fuzz-{target}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Folder { path }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, in place of one of that name, with the folders above it; gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path.join(name);
        if fs::write(&path, bytes).is_err() {
            let parent = path.parent().expect("joined");
            fs::create_dir_all(parent).expect("a folder can be made");
            fs::write(&path, bytes).expect("a file can be written");
        }
        path
    }

    /// Writes a Core ML package; gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn package(&self, name: &str, model: &[u8], weights: &[u8]) -> PathBuf {
        let data = format!("{name}/Data/com.apple.CoreML");
        self.write(&format!("{name}/Manifest.json"), MANIFEST);
        self.write(&format!("{data}/model.mlmodel"), model);
        self.write(&format!("{data}/weights/weight.bin"), weights);
        self.path.join(name)
    }
}
