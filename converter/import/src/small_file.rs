//! Reading of configuration and tokenizer files, which are small.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::ImportError;

/// Bytes that a configuration or tokenizer file may have; the largest that Stable Diffusion needs is under 2 MiB.
const MAX_BYTES: u64 = 64 << 20;

/// The bytes of a regular file.
///
/// # Errors
/// When it cannot be read, is something else than a regular file, or is too large to be what it is taken for.
pub(crate) fn read_small_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    read_up_to(path, MAX_BYTES)
}

fn read_up_to(path: &Path, max: u64) -> Result<Vec<u8>, ImportError> {
    let io = |source| ImportError::Io {
        path: path.to_owned(),
        source,
    };
    let unsuitable = |reason: String| ImportError::UnsuitableFile {
        path: path.to_owned(),
        reason,
    };
    // Looked at before it is opened, since opening a pipe would wait for its writer.
    if !path.metadata().map_err(io)?.is_file() {
        return Err(unsuitable("not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    // Counted while reading, since the size that is stated need not hold for a file that grows or is made up.
    file.take(max + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max {
        return Err(unsuitable(format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_up_to_the_limit_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_up_to(&path, 10).unwrap(), [7; 10]);
        let error = read_up_to(&path, 9).unwrap_err().to_string();
        assert!(
            error.contains("config.json: larger than 9 bytes"),
            "{error}"
        );
    }
}
