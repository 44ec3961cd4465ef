//! Read-only mapping of a file: the crate's only `unsafe` code.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// Maps a whole file; its pages are read when they are touched.
///
/// The file must not be truncated or written while the map lives: a page that is gone faults the process, and changed
/// bytes show through. Replacing the file by renaming another over it is harmless.
///
/// # Errors
/// When the path is not a regular file, or cannot be opened or mapped.
#[expect(unsafe_code, reason = "mapping a file has no safe form")]
pub(crate) fn map_file(path: &Path) -> io::Result<Mmap> {
    // Looked at before it is opened, since opening a pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let file = File::open(path)?;
    // SAFETY: the map is private and never written through. That nobody else changes the file is the contract above,
    // which `Container::open` states for its callers.
    unsafe { Mmap::map(&file) }
}
