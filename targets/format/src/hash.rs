//! The hash of a section: SHA-256 over the SHA-256 of each of its chunks, so that threads can share the work.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;

use sha2::{Digest, Sha256};

/// A SHA-256 value.
pub(crate) type Hash = [u8; 32];

/// Bytes of a chunk; the last one of a section may be shorter.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// Threads of one computation; more wait for memory rather than hash.
const MAX_THREADS: usize = 8;

/// SHA-256 of `parts`, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Hash of a section in memory.
pub(crate) fn of_bytes(bytes: &[u8]) -> Hash {
    let result = of_chunks(bytes.len() as u64, |index, n, _| {
        let start = index * CHUNK;
        Ok::<_, Infallible>(sha256(&[&bytes[start..start + n]]))
    });
    match result {
        Ok(hash) => hash,
        Err(never) => match never {},
    }
}

/// Hash of a section in a file, read in pieces of a chunk.
///
/// # Errors
/// When the file cannot be read, or ends before the section.
pub(crate) fn of_file(file: &File, offset: u64, length: u64) -> io::Result<Hash> {
    of_chunks(length, |index, n, buffer| {
        buffer.resize(n, 0);
        file.read_exact_at(buffer, offset + (index * CHUNK) as u64)?;
        Ok(sha256(&[buffer]))
    })
}

/// Hash of a section whose bytes arrive one after the other.
#[derive(Default)]
pub(crate) struct Stream {
    chunks: Sha256,
    chunk: Sha256,
    filled: usize,
}

impl Stream {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = bytes.len().min(CHUNK - self.filled);
            let (now, later) = bytes.split_at(n);
            self.chunk.update(now);
            self.filled += n;
            bytes = later;
            if self.filled == CHUNK {
                self.end_chunk();
            }
        }
    }

    fn end_chunk(&mut self) {
        self.chunks.update(self.chunk.finalize_reset());
        self.filled = 0;
    }

    /// The hash of what has arrived; the stream begins anew.
    pub(crate) fn finish(&mut self) -> Hash {
        if self.filled > 0 {
            self.end_chunk();
        }
        self.chunks.finalize_reset().into()
    }
}

/// Hashes `length` bytes with `hash_chunk`, which takes the chunk's index, its bytes and a buffer that it may use.
fn of_chunks<E: Send>(
    length: u64,
    hash_chunk: impl Fn(usize, usize, &mut Vec<u8>) -> Result<Hash, E> + Sync,
) -> Result<Hash, E> {
    let n_chunks = length.div_ceil(CHUNK as u64) as usize;
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    let n_threads = n_threads.min(MAX_THREADS).min(n_chunks).max(1);
    let every_nth = |first: usize| -> Result<Vec<Hash>, E> {
        let mut buffer = Vec::new();
        let mine = (first..n_chunks).step_by(n_threads);
        mine.map(|index| {
            let left = length - (index * CHUNK) as u64;
            hash_chunk(index, left.min(CHUNK as u64) as usize, &mut buffer)
        })
        .collect()
    };
    let parts: Vec<Result<Vec<Hash>, E>> = if n_threads == 1 {
        vec![every_nth(0)]
    } else {
        thread::scope(|scope| {
            let every_nth = &every_nth;
            let threads: Vec<_> = (0..n_threads)
                .map(|first| scope.spawn(move || every_nth(first)))
                .collect();
            let joined = threads.into_iter().map(|t| t.join());
            joined.map(|r| r.expect("hashing does not panic")).collect()
        })
    };
    let parts = parts.into_iter().collect::<Result<Vec<_>, E>>()?;
    let mut hasher = Sha256::new();
    for index in 0..n_chunks {
        hasher.update(parts[index % n_threads][index / n_threads]);
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn hex(hash: Hash) -> String {
        hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Lengths and their hashes as Python's hashlib gives them; byte i of the data is i·i·7 mod 251.
    const EXPECTED: [(usize, &str); 3] = [
        (
            0,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            CHUNK,
            "ae165671d97f7311eccb669923299357344e8055f99648b98444faa85fd98567",
        ),
        (
            3 * CHUNK + 5,
            "28c8af2a096a9e0e9bad151fb41c92851b8fb7acc9b729b62665c11b51b13552",
        ),
    ];

    fn data(n: usize) -> Vec<u8> {
        (0..n as u64).map(|i| (i * i * 7 % 251) as u8).collect()
    }

    #[test]
    fn bytes_hash_as_in_python() {
        for (n, expected) in EXPECTED {
            assert_eq!(hex(of_bytes(&data(n))), expected, "{n} bytes");
        }
    }

    #[test]
    fn a_stream_in_uneven_pieces_hashes_as_in_python() {
        let mut stream = Stream::default();
        for (n, expected) in EXPECTED {
            for piece in data(n).chunks(700_001) {
                stream.update(piece);
            }
            assert_eq!(hex(stream.finish()), expected, "{n} bytes");
        }
    }

    #[test]
    fn a_part_of_a_file_hashes_as_in_python() {
        let mut file = tempfile::tempfile().unwrap();
        for (n, expected) in EXPECTED {
            file.set_len(0).unwrap();
            file.write_all_at(b"before", 0).unwrap();
            file.write_all_at(&data(n), 6).unwrap();
            assert_eq!(hex(of_file(&file, 6, n as u64).unwrap()), expected);
        }
        file.flush().unwrap();
        let error = of_file(&file, 7, EXPECTED[2].0 as u64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
