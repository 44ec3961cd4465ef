//! Read-only mapping of weight files: the crate's only `unsafe` code.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use snapc_ir::ByteBuffer;

use crate::error::ImportError;

/// Maps a whole file; its pages are read when they are touched.
///
/// The map lives as long as a [`ByteBuffer`] points to it. The file must not be truncated or written in that time: a
/// page that is gone faults the process, and changed bytes show through. A checkpoint that is being converted is
/// therefore to be left alone; replacing the file by renaming another over it is harmless.
///
/// # Errors
/// When the file cannot be opened or mapped.
#[expect(unsafe_code, reason = "mapping a file has no safe form")]
pub(crate) fn map_file(path: &Path) -> Result<ByteBuffer, ImportError> {
    let io = |source| ImportError::Io {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened, since opening a pipe would wait for its writer.
    if !path.metadata().map_err(io)?.is_file() {
        return Err(ImportError::Safetensors {
            file: path.display().to_string(),
            reason: "not a regular file".to_owned(),
        });
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is private and never written through. That nobody else changes the file is the contract above,
    // which `open` states for its callers.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(map))
}
