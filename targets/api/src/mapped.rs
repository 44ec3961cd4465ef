//! Read-only mapping of files that are read back: the crate's only `unsafe` code.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A file in memory, whose pages are read when they are touched.
#[derive(Debug)]
pub struct MappedFile(Option<Mmap>);

impl MappedFile {
    /// Maps a whole regular file.
    ///
    /// The file must not be truncated or written while the map lives: a page that is gone faults the process. Replacing the
    /// file by renaming another over it is harmless.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped, or is not a regular one.
    #[expect(unsafe_code, reason = "mapping a file has no safe form")]
    pub fn open(path: &Path) -> io::Result<Self> {
        // Looked at before it is opened, since opening a pipe would wait for its writer.
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        if metadata.len() == 0 {
            return Ok(MappedFile(None));
        }
        let file = File::open(path)?;
        // SAFETY: the map is private and never written through. That nobody else changes the file is the contract above.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(MappedFile(Some(map)))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_seen_whole_and_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for contents in [&b""[..], b"abc"] {
            let path = dir.path().join(format!("{} bytes", contents.len()));
            std::fs::write(&path, contents).unwrap();
            assert_eq!(MappedFile::open(&path).unwrap().as_ref(), contents);
        }
        let error = MappedFile::open(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
        let missing = MappedFile::open(&dir.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
