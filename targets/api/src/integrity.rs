//! Whether an artifact on disk still holds the files that its manifest lists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::artifact::{ArtifactFile, hash_file};
use crate::error::TargetError;
use crate::manifest::{FILE_NAME, Manifest};
use crate::target::Finding;

/// Compares the files of an artifact with its manifest: every difference, sorted. The rules are `file-path` (an entry
/// leads out of the artifact), `file-missing`, `file-size`, `file-hash` and `file-unlisted`.
///
/// # Errors
/// When a file or folder cannot be read.
pub fn check_files(dir: &Path, manifest: &Manifest) -> Result<Vec<Finding>, TargetError> {
    let mut findings = Vec::new();
    let mut listed = BTreeSet::from([FILE_NAME.to_owned()]);
    for file in &manifest.files {
        listed.insert(file.path.clone());
        if let Some((rule, message)) = check_file(dir, file)? {
            findings.push(finding(rule, &file.path, message));
        }
    }
    for path in files_below(dir)? {
        if !listed.contains(&path) {
            findings.push(finding(
                "file-unlisted",
                &path,
                "the manifest does not list it".to_owned(),
            ));
        }
    }
    findings.sort();
    Ok(findings)
}

fn finding(rule: &'static str, file: &str, message: String) -> Finding {
    Finding {
        rule,
        file: file.to_owned(),
        place: String::new(),
        message,
    }
}

fn check_file(
    dir: &Path,
    file: &ArtifactFile,
) -> Result<Option<(&'static str, String)>, TargetError> {
    let relative = Path::new(&file.path);
    if !relative
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        return Ok(Some((
            "file-path",
            "the path leads out of the artifact".to_owned(),
        )));
    }
    let full = dir.join(relative);
    let Ok(metadata) = fs::symlink_metadata(&full) else {
        return Ok(Some((
            "file-missing",
            "the manifest lists it, but it does not exist".to_owned(),
        )));
    };
    if !metadata.is_file() {
        return Ok(Some((
            "file-missing",
            "it is not a regular file".to_owned(),
        )));
    }
    if metadata.len() != file.bytes {
        let (found, expected) = (metadata.len(), file.bytes);
        return Ok(Some((
            "file-size",
            format!("{found} bytes, the manifest says {expected}"),
        )));
    }
    if hash_file(&full)? != file.sha256 {
        let message = "the contents differ from the manifest's SHA-256";
        return Ok(Some(("file-hash", message.to_owned())));
    }
    Ok(None)
}

/// Paths of everything below a folder that is not a folder, relative to it, with `/` between parts.
fn files_below(dir: &Path) -> Result<BTreeSet<String>, TargetError> {
    let mut files = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let full = dir.join(&folder);
        for entry in fs::read_dir(&full).map_err(TargetError::io(&full))? {
            let entry = entry.map_err(TargetError::io(&full))?;
            let path = folder.join(entry.file_name());
            if entry.file_type().map_err(TargetError::io(&full))?.is_dir() {
                open.push(path);
            } else {
                let parts = path.iter().map(|p| p.to_string_lossy());
                files.insert(parts.collect::<Vec<_>>().join("/"));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::write_file;
    use crate::manifest::tests::example;

    #[test]
    fn every_difference_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |p: &str| dir.path().join(p);
        let names = ["g/cut", "g/kept", "g/lost", "g/touched"];
        let mut files: Vec<_> = names
            .iter()
            .map(|n| write_file(dir.path(), n, b"data").unwrap())
            .collect();
        files.push(ArtifactFile {
            path: "../outside".to_owned(),
            ..files[0].clone()
        });
        let manifest = example(files.clone());
        manifest.write(dir.path()).unwrap();
        assert_eq!(
            check_files(dir.path(), &example(files[..4].to_vec())).unwrap(),
            []
        );

        fs::write(path("g/cut"), b"dat").unwrap();
        fs::remove_file(path("g/lost")).unwrap();
        fs::write(path("g/touched"), b"dada").unwrap();
        fs::write(path("extra"), b"").unwrap();
        let found = check_files(dir.path(), &manifest).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|f| (f.rule, f.file.as_str())).collect();
        let expected = [
            ("file-hash", "g/touched"),
            ("file-missing", "g/lost"),
            ("file-path", "../outside"),
            ("file-size", "g/cut"),
            ("file-unlisted", "extra"),
        ];
        assert_eq!(found, expected);
    }
}
