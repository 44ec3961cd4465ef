//! What an app needs to run the packages, beside them in the artifact: the Swift package `SnapRuntime` without its tests.

use std::path::Path;

use include_dir::{Dir, File, include_dir};
use snapc_target::{ArtifactFile, TargetError, write_file};

/// The folder in the artifact.
const FOLDER: &str = "runtime";

/// Files that do not lie among the sources.
const FILES: [(&str, &str); 2] = [
    ("Package.swift", include_str!("runtime/Package.swift")),
    ("README.md", include_str!("../runtime/README.md")),
];

static SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/runtime/Sources");

/// Bytes of all files.
pub(crate) fn bytes() -> u64 {
    files().iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

/// Writes the files into an artifact.
pub(crate) fn write(dir: &Path) -> Result<Vec<ArtifactFile>, TargetError> {
    let files = files();
    let written = files
        .iter()
        .map(|(path, bytes)| write_file(dir, path, bytes));
    written.collect()
}

/// Files by path in the artifact.
fn files() -> Vec<(String, &'static [u8])> {
    let mut files: Vec<_> = FILES
        .iter()
        .map(|(path, text)| (format!("{FOLDER}/{path}"), text.as_bytes()))
        .collect();
    let mut folders = vec![&SOURCES];
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs());
        files.extend(folder.files().map(source));
    }
    files.sort();
    files
}

fn source(file: &'static File<'static>) -> (String, &'static [u8]) {
    let parts = file.path().iter().map(|part| part.to_string_lossy());
    let path = parts.collect::<Vec<_>>().join("/");
    (format!("{FOLDER}/Sources/{path}"), file.contents())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_complete() {
        let files = files();
        let manifest = FILES[0].1;
        for folder in SOURCES.dirs() {
            let name = folder.path().to_str().unwrap();
            let target = format!("arget(name: \"{name}\"");
            assert!(manifest.contains(&target), "{name} is no target");
            let sources = format!("runtime/Sources/{name}/");
            let swift = |path: &str| path.starts_with(&sources) && path.ends_with(".swift");
            assert!(files.iter().any(|(path, _)| swift(path)), "{name} is empty");
        }
        assert_eq!(
            manifest.matches("arget(name:").count(),
            SOURCES.dirs().count()
        );
    }

    /// It is the repository's, but nothing that only the repository has may be linked.
    #[test]
    fn the_readme_is_for_apps() {
        let readme = FILES[1].1;
        let files = files();
        for rest in readme.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            let path = format!("{FOLDER}/{link}");
            let is_there = files.iter().any(|(file, _)| *file == path);
            assert!(link.starts_with("https://") || is_there, "{link}");
        }
        assert!(!readme.contains("cargo "), "artifacts have no workspace");
    }

    #[test]
    fn no_source_is_of_the_tests() {
        for (path, bytes) in files() {
            let text = std::str::from_utf8(bytes).unwrap();
            assert!(
                !text.contains("import XCTest") && !text.contains("SimulatedCoreML"),
                "{path}"
            );
        }
    }
}
