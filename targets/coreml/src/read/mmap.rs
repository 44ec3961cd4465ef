//! Read-only mapping of weight files: the crate's only `unsafe` code.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use snapc_ir::ByteBuffer;

use super::error::ReadError;

/// Maps a whole regular file; its pages are read when they are touched.
///
/// The map lives as long as a [`ByteBuffer`] points to it. The file must not be truncated or written in that time: a
/// page that is gone faults the process. Replacing the file by renaming another over it is harmless.
///
/// # Errors
/// When the file cannot be opened or mapped, or is not a regular one.
#[expect(unsafe_code, reason = "mapping a file has no safe form")]
pub(super) fn map(path: &Path) -> Result<ByteBuffer, ReadError> {
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened, since opening a pipe would wait for its writer.
    let metadata = path.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(ReadError::File {
            path: path.to_owned(),
            reason: "not a regular file".to_owned(),
        });
    }
    if metadata.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is private and never written through. That nobody else changes the file is the contract above.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(map))
}
