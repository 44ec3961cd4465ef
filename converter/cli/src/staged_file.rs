//! Single files, written beside their place and renamed at the end.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::staging::{parent_of, sibling};

/// A file beside the output that becomes the output on [`StagedFile::commit`]; dropped before that, it goes.
#[derive(Debug)]
pub struct StagedFile {
    output: PathBuf,
    partial: PathBuf,
    writer: Option<BufWriter<File>>,
    committed: bool,
}

impl StagedFile {
    /// An empty file beside `output`. Folders are not made.
    ///
    /// # Errors
    /// When `output` exists and is not to be replaced (see [`check_file`]), or the file cannot be made.
    pub fn new(output: &Path, force: bool) -> Result<Self, Failure> {
        check_file(output, force)?;
        let partial = sibling(output, "partial")?;
        let file = File::create_new(&partial).map_err(|e| Failure::write(output, e))?;
        Ok(StagedFile {
            output: output.to_owned(),
            partial,
            writer: Some(BufWriter::new(file)),
            committed: false,
        })
    }

    /// Where to write.
    ///
    /// # Panics
    /// When the file is finished.
    pub fn writer(&mut self) -> &mut BufWriter<File> {
        self.writer.as_mut().expect("writing ends with `finish`")
    }

    /// Writes all of the file and finishes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.writer().write_all(bytes);
        written.map_err(|e| Failure::write(&self.output, e))?;
        self.finish()
    }

    /// Ends the writing, so that what is left in buffers cannot fail later.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        writer.flush().map_err(|e| Failure::write(&self.output, e))
    }

    /// Puts the file in the output's place.
    ///
    /// # Errors
    /// When the rest cannot be written or the file cannot be renamed.
    pub fn commit(mut self) -> Result<(), Failure> {
        self.finish()?;
        fs::rename(&self.partial, &self.output).map_err(|e| Failure::write(&self.output, e))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // The failure that led here is the one to report.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Refuses an output that exists, unless `force` is given and it is a file, and one in a folder that does not exist.
///
/// # Errors
/// A usage failure.
pub fn check_file(output: &Path, force: bool) -> Result<(), Failure> {
    let shown = output.display();
    if output.file_name().is_none() || output.is_dir() {
        return Err(
            Failure::usage(format!("'{shown}' is a folder")).help("give -o the name of a file")
        );
    }
    let parent = parent_of(output);
    if !parent.is_dir() {
        return Err(
            Failure::usage(format!("there is no folder '{}'", parent.display()))
                .help("make it first"),
        );
    }
    if !force && fs::symlink_metadata(output).is_ok() {
        return Err(Failure::usage(format!("'{shown}' exists"))
            .help("choose another name, or give --force to replace it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out.bin");
        let mut dropped = StagedFile::new(&output, false).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut file = StagedFile::new(&output, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!output.exists());
        file.commit().unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_exists_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out.bin");
        fs::write(&output, "old").unwrap();
        let refused = StagedFile::new(&output, false).unwrap_err();
        assert!(refused.messages()[0].contains("exists"));
        let mut file = StagedFile::new(&output, true).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"new");
    }

    #[test]
    fn folders_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_file(dir.path(), true).is_err());
        assert!(check_file(&dir.path().join("a/b.png"), false).is_err());
    }
}
