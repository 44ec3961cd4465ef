//! What an app needs to run the model, beside it in the artifact: the header of the engine's library and how to link it.

use std::path::Path;

use snapc_target::{ArtifactFile, TargetError, write_file};

/// Files by path in the artifact.
const FILES: [(&str, &str); 3] = [
    ("runtime/README.md", include_str!("runtime/README.md")),
    (
        "runtime/module.modulemap",
        include_str!("../capi/include/module.modulemap"),
    ),
    ("runtime/snap.h", include_str!("../capi/include/snap.h")),
];

/// Bytes of all files.
pub(crate) fn bytes() -> u64 {
    FILES.iter().map(|(_, text)| text.len() as u64).sum()
}

/// Writes the files into an artifact.
pub(crate) fn write(dir: &Path) -> Result<Vec<ArtifactFile>, TargetError> {
    let files = FILES.iter();
    files
        .map(|(path, text)| write_file(dir, path, text.as_bytes()))
        .collect()
}
