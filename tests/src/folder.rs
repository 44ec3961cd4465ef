//! Folders: the workspace, copies, listings.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
///
/// # Panics
/// When this crate has moved out of it.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Copies a folder with all that is below it.
///
/// # Panics
/// When a file cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let to = to.join(path);
        let parent = to.parent().expect("joined");
        fs::create_dir_all(parent).expect("a test folder can be made");
        fs::write(to, bytes).expect("a test file can be written");
    }
}

/// Every file below a folder with its bytes, by path relative to the folder, `/` between parts. An empty folder is
/// listed as an empty file with a `/` at the end of its name.
///
/// # Panics
/// When a file cannot be read.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(prefix) = open.pop() {
        let entries = fs::read_dir(folder.join(&prefix))
            .unwrap_or_else(|e| panic!("{}: {e}", folder.join(&prefix).display()));
        let mut is_empty = true;
        for entry in entries {
            let entry = entry.expect("a folder entry can be read");
            is_empty = false;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("an entry has a type").is_dir() {
                open.push(format!("{path}/"));
            } else {
                files.insert(path, fs::read(entry.path()).expect("a file can be read"));
            }
        }
        if is_empty && !prefix.is_empty() {
            files.insert(prefix, Vec::new());
        }
    }
    files
}

/// The names of [`contents`].
///
/// # Panics
/// When a file cannot be read.
pub fn names(folder: &Path) -> Vec<String> {
    contents(folder).into_keys().collect()
}
