//! The package folder: `Manifest.json`, the model file, the weight file.

use std::path::Path;

use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};
use snapc_target::{ArtifactFile, Progress, TargetError, write_file};

use crate::blob::WeightFile;
use crate::proto::Model;

/// Path of the manifest inside a package.
pub(crate) const MANIFEST: &str = "Manifest.json";
/// The folder that the manifest's paths start from.
pub(crate) const DATA: &str = "Data";
/// Path of the model file from [`DATA`].
pub(crate) const MODEL: &str = "com.apple.CoreML/model.mlmodel";
/// Path of the weights' folder from [`DATA`].
pub(crate) const WEIGHTS: &str = "com.apple.CoreML/weights";
/// Name of the weight file in [`WEIGHTS`].
pub(crate) const WEIGHT_FILE: &str = "weight.bin";
/// Author under which Core ML's tools look their items up.
pub(crate) const AUTHOR: &str = "com.apple.CoreML";

/// Writes a package into the existing folder `dir` under `name`, and gives its files.
///
/// # Errors
/// When a file cannot be written, a weight of `graph` cannot be made, or the run is cancelled.
pub(crate) fn write(
    dir: &Path,
    name: &str,
    graph: &str,
    model: &Model,
    weights: &WeightFile,
    progress: &dyn Progress,
) -> Result<Vec<ArtifactFile>, TargetError> {
    let encoded = model.encode_to_vec();
    let model_file = write_file(dir, &format!("{name}/{DATA}/{MODEL}"), &encoded)?;
    progress.advance(model_file.bytes);

    let weight_path = format!("{name}/{DATA}/{WEIGHTS}/{WEIGHT_FILE}");
    let full = dir.join(&weight_path);
    if let Some(parent) = full.parent() {
        std::fs::create_dir_all(parent).map_err(TargetError::io(parent))?;
    }
    let sha256 = weights.write(graph, &full, progress)?;
    let weight_file = ArtifactFile {
        path: weight_path,
        bytes: weights.len(),
        sha256,
    };

    let manifest = manifest(&model_file.sha256, &weight_file.sha256);
    let manifest_file = write_file(dir, &format!("{name}/{MANIFEST}"), manifest.as_bytes())?;
    progress.advance(manifest_file.bytes);
    Ok(vec![manifest_file, model_file, weight_file])
}

/// The manifest of a package whose files have these hashes. The identifiers are made from the hashes, so that equal
/// packages have equal manifests.
fn manifest(model_sha256: &str, weights_sha256: &str) -> String {
    let model = identifier("model", model_sha256);
    let weights = identifier("weights", weights_sha256);
    let mut entries = [
        (
            model.clone(),
            "model.mlmodel",
            MODEL,
            "CoreML Model Specification",
        ),
        (weights, "weights", WEIGHTS, "CoreML Model Weights"),
    ];
    entries.sort();
    let entries: serde_json::Map<_, _> = entries
        .into_iter()
        .map(|(id, name, path, description)| {
            let entry = json!({
                "author": AUTHOR,
                "description": description,
                "name": name,
                "path": path,
            });
            (id, entry)
        })
        .collect();
    let manifest = json!({
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": model,
    });
    format!("{manifest:#}\n")
}

/// A UUID of version 8 (RFC 9562, free-form) from the role of an item and its contents.
fn identifier(role: &str, sha256: &str) -> String {
    let digest = Sha256::digest(format!("{role}:{sha256}"));
    let mut bytes: Vec<u8> = digest[..16].to_vec();
    bytes[6] = bytes[6] & 0x0F | 0x80;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
    let part = |range: std::ops::Range<usize>| &hex[range];
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_uuids_made_from_the_contents() {
        let id = identifier("model", "00");
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "8", "version");
        assert!("89AB".contains(&id[19..20]), "variant");
        assert_eq!(id, identifier("model", "00"));
        assert_ne!(id, identifier("weights", "00"));
        assert_ne!(id, identifier("model", "01"));
    }

    #[test]
    fn the_manifest_names_both_items_and_the_root() {
        let manifest: serde_json::Value = serde_json::from_str(&manifest("a", "b")).unwrap();
        let root = manifest["rootModelIdentifier"].as_str().unwrap();
        assert_eq!(manifest["itemInfoEntries"][root]["path"], MODEL);
        assert_eq!(manifest["itemInfoEntries"].as_object().unwrap().len(), 2);
    }
}
