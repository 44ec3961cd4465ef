//! The syntax of Swift sources that the build leaves out on this system: branches for other systems, and packages that need them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Folders of the package with such sources.
const FOLDERS: &[&str] = &["Sources", "Examples/SnapExample"];

/// All Swift sources in these folders of a package, in order, without what builds have left there.
///
/// # Errors
/// When a folder cannot be read or has none.
pub fn sources(package: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        let before = sources.len();
        collect(&package.join(folder), &mut sources)?;
        ensure!(sources.len() > before, "{folder} has no Swift source");
    }
    sources.sort();
    Ok(sources)
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("{}", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path = entry.path();
        // Builds write to folders whose names begin with a dot.
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if entry.file_type().with_context(unreadable)?.is_dir() {
            if !is_hidden {
                collect(&path, sources)?;
            }
        } else if path.extension() == Some(OsStr::new("swift")) {
            sources.push(path);
        }
    }
    Ok(())
}
