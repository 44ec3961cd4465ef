//! What an emission has written.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapc_ir::{Graph, TensorType};

use crate::error::TargetError;
use crate::known_prompt::KnownPrompt;
use crate::options::{EmitOptions, Interface};
use crate::verified::VerifiedProgram;

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// Path relative to the artifact, with `/` between parts.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the contents, in lower-case hexadecimal.
    pub sha256: String,
}

/// An input or output of an emitted graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Name.
    pub name: String,
    /// Element type, as in the IR (`f16`, `i32`); `u8` for an image.
    pub dtype: String,
    /// Dimensions; `N` is the open batch.
    pub shape: Vec<String>,
    /// What it is for, where the interface has features that diffusers has not: `token-ids`, `text-embeddings`,
    /// `pooled-text-embedding`, `text-projection` (an output of the text encoder that the UNet takes as it is), `latents`,
    /// `step-index` (the position of the timestep among the manifest's), `timestep`, `prediction`, `picture`; `picture-rgb` for an
    /// image in place of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

impl Feature {
    /// The feature of that name and type.
    pub fn new(name: impl Into<String>, ty: &TensorType) -> Self {
        Feature {
            name: name.into(),
            dtype: ty.dtype.name().to_owned(),
            shape: ty.shape.dims().iter().map(ToString::to_string).collect(),
            role: None,
        }
    }
}

/// A function of a graph that is written for several picture sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmittedFunction {
    /// Its name in the file.
    pub name: String,
    /// Inputs in order.
    pub inputs: Vec<Feature>,
    /// Outputs in order.
    pub outputs: Vec<Feature>,
}

/// A graph as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmittedGraph {
    /// Graph name, as in the IR.
    pub name: String,
    /// File or package that holds it, relative to the artifact.
    pub file: String,
    /// Inputs in order.
    pub inputs: Vec<Feature>,
    /// Outputs in order.
    pub outputs: Vec<Feature>,
    /// A function per picture size, the one with the features above first; empty when one serves all sizes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<EmittedFunction>,
}

/// What an emission has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Every file.
    pub files: Vec<ArtifactFile>,
    /// Every graph.
    pub graphs: Vec<EmittedGraph>,
}

impl Emitted {
    /// Writes the encoding of the empty prompt as a file of its own, for the interface `snap`; for targets whose own files
    /// have no place for it.
    ///
    /// # Errors
    /// When the data of a weight cannot be made, or the file cannot be written.
    pub fn add_known_prompt(
        &mut self,
        program: &VerifiedProgram<'_>,
        options: &EmitOptions,
        dir: &Path,
    ) -> Result<(), TargetError> {
        if options.interface != Interface::Snap {
            return Ok(());
        }
        let graphs: Vec<&Graph> = program.graphs().iter().map(|g| &**g).collect();
        if let Some(prompt) = KnownPrompt::empty(&graphs, program.pipeline())? {
            self.files.push(prompt.write(dir)?);
        }
        Ok(())
    }
}

/// Writes a file of an artifact, with the folders it needs.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_file(dir: &Path, path: &str, bytes: &[u8]) -> Result<ArtifactFile, TargetError> {
    let full = dir.join(path);
    if let Some(parent) = full.parent() {
        fs::create_dir_all(parent).map_err(TargetError::io(parent))?;
    }
    let mut file = File::create_new(&full).map_err(TargetError::io(&full))?;
    std::io::Write::write_all(&mut file, bytes).map_err(TargetError::io(&full))?;
    Ok(ArtifactFile {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    })
}

/// Bytes read at a time while hashing.
pub(crate) const HASH_CHUNK: usize = 1 << 20;

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String, TargetError> {
    let mut file = File::open(path).map_err(TargetError::io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_CHUNK];
    loop {
        let n = file.read(&mut buffer).map_err(TargetError::io(path))?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let file = write_file(dir.path(), "a/b.txt", b"abc").unwrap();
        // FIPS 180-4, example of one block.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((file.sha256.as_str(), file.bytes), (expected, 3));
        assert_eq!(hash_file(&dir.path().join("a/b.txt")).unwrap(), expected);
        assert!(write_file(dir.path(), "a/b.txt", b"again").is_err());
    }
}
