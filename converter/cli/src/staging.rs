//! Writing beside the output and renaming at the end, so that an artifact is there as a whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use snapc_target::manifest;

use crate::failure::Failure;

/// A folder beside the output that becomes the output on [`Staging::commit`]; dropped before that, it goes, with the
/// parent folders that it had to make.
pub struct Staging {
    output: PathBuf,
    folder: PathBuf,
    made_parents: Vec<PathBuf>,
    committed: bool,
}

impl Staging {
    /// An empty folder beside `output`.
    ///
    /// # Errors
    /// When `output` exists and is not to be replaced (see [`check_output`]), or the folder cannot be made.
    pub fn new(output: &Path, force: bool) -> Result<Self, Failure> {
        check_output(output, force)?;
        let parent = parent_of(output);
        let missing = parent
            .ancestors()
            .take_while(|p| !p.as_os_str().is_empty() && !p.exists());
        let mut staging = Staging {
            output: output.to_owned(),
            folder: sibling(output, "partial")?,
            made_parents: missing.map(Path::to_owned).collect(),
            committed: false,
        };
        if let Err(source) = fs::create_dir_all(parent) {
            return Err(Failure::write(parent, source));
        }
        if let Err(source) = fs::create_dir(&staging.folder) {
            // What stands there is not ours to remove.
            let folder = std::mem::take(&mut staging.folder);
            return Err(Failure::write(&folder, source));
        }
        Ok(staging)
    }

    /// Where to write.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts the folder in the output's place. What it replaces is removed last.
    ///
    /// # Errors
    /// When a folder cannot be renamed; the output is then what it was before.
    pub fn commit(mut self) -> Result<(), Failure> {
        let failed = |source| Failure::write(&self.output, source);
        let old = sibling(&self.output, "old")?;
        let replaced = match fs::rename(&self.output, &old) {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) => return Err(failed(e)),
        };
        if let Err(source) = fs::rename(&self.folder, &self.output) {
            if replaced {
                fs::rename(&old, &self.output).map_err(failed)?;
            }
            return Err(failed(source));
        }
        self.committed = true;
        if replaced {
            fs::remove_dir_all(&old).map_err(|source| Failure::write(&old, source))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        // The failure that led here is the one to report.
        if !self.folder.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
        }
        for parent in &self.made_parents {
            // Fails, rightly, when someone else has put something there.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Refuses an output that exists, unless `force` is given and it is an artifact: a folder with a manifest. So a mistaken
/// path never costs anything else.
///
/// # Errors
/// A usage failure.
pub fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let shown = output.display();
    if output.file_name().is_none() {
        return Err(Failure::usage(format!(
            "'{shown}' does not name a folder that can be written"
        ))
        .help("give -o the name of a new folder"));
    }
    if fs::symlink_metadata(output).is_err() {
        return Ok(());
    }
    if !force {
        return Err(Failure::usage(format!("'{shown}' exists"))
            .help("choose another -o, or give --force to replace it"));
    }
    let is_empty = fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty || output.join(manifest::FILE_NAME).is_file() {
        return Ok(());
    }
    Err(
        Failure::usage(format!("'{shown}' exists and is not an artifact of snapc")).help(format!(
            "--force replaces only folders with a {}; remove it yourself or choose another -o",
            manifest::FILE_NAME
        )),
    )
}

/// The folder that an output lies in.
pub(crate) fn parent_of(output: &Path) -> &Path {
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A hidden name beside the output, of this process.
pub(crate) fn sibling(output: &Path, role: &str) -> Result<PathBuf, Failure> {
    let Some(name) = output.file_name() else {
        return Err(Failure::usage(format!(
            "'{}' has no name",
            output.display()
        )));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".snapc-{role}-{}", std::process::id()));
    Ok(parent_of(output).join(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn commit_moves_the_folder_into_place() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a/b/out");
        let staging = Staging::new(&output, false).unwrap();
        fs::write(staging.folder().join("snap.json"), "{}").unwrap();
        assert!(!output.exists());
        staging.commit().unwrap();
        assert_eq!(names(&output), ["snap.json"]);
        assert_eq!(names(&dir.path().join("a/b")), ["out"]);
    }

    #[test]
    fn dropping_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Staging::new(&dir.path().join("a/b/out"), false).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn force_replaces_an_artifact_only() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        fs::create_dir(&output).unwrap();
        fs::write(output.join("thesis.txt"), "precious").unwrap();
        assert!(Staging::new(&output, false).is_err());
        assert!(Staging::new(&output, true).is_err());
        fs::write(output.join("snap.json"), "{}").unwrap();
        assert!(Staging::new(&output, false).is_err());
        let staging = Staging::new(&output, true).unwrap();
        fs::write(staging.folder().join("new"), "").unwrap();
        staging.commit().unwrap();
        assert_eq!(names(&output), ["new"]);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_failed_run_keeps_the_old_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        fs::create_dir(&output).unwrap();
        fs::write(output.join("snap.json"), "{}").unwrap();
        drop(Staging::new(&output, true).unwrap());
        assert_eq!(names(&output), ["snap.json"]);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn paths_without_a_name_are_refused() {
        for path in ["/", "..", "a/.."] {
            assert!(Staging::new(Path::new(path), true).is_err(), "{path}");
        }
    }
}
