//! Writing weights into one file: in parallel, each at its planned offset, hashed on the way.
//!
//! Threads take the weights in the order of their offsets. One more thread hashes the finished beginning of the file
//! while the rest is still being written; it reads from the page cache, so that memory stays at a few buffers whatever
//! the size of the file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use snapc_ir::{LazyTensor, WeightError};

use crate::artifact::{HASH_CHUNK, hex};
use crate::error::TargetError;
use crate::progress::Progress;

/// A weight at its place in a file.
#[derive(Clone, Debug)]
pub struct Blob<'a> {
    /// Name of the weight, for errors.
    pub name: &'a str,
    /// Where `header` begins.
    pub offset: u64,
    /// Bytes in front of the data; may be empty.
    pub header: Vec<u8>,
    /// The data, right behind `header`.
    pub tensor: &'a LazyTensor,
}

impl Blob<'_> {
    fn data_start(&self) -> u64 {
        self.offset + self.header.len() as u64
    }

    fn end(&self) -> u64 {
        self.data_start() + self.tensor.byte_len() as u64
    }
}

/// The plan of a file of weights. Bytes that no part covers are zero.
#[derive(Clone, Copy, Debug)]
pub struct BlobFile<'a> {
    /// The graph whose weights these are, for errors.
    pub graph: &'a str,
    /// Bytes at offset 0.
    pub prefix: &'a [u8],
    /// The weights, by ascending offset.
    pub blobs: &'a [Blob<'a>],
    /// Size of the file.
    pub len: u64,
}

impl BlobFile<'_> {
    /// Creates the file and gives its SHA-256 in lower-case hexadecimal. The progress advances by the bytes of the
    /// weights and of their headers, within the stage that the caller has started.
    ///
    /// # Errors
    /// When parts overlap, the file exists or cannot be written, the data of a weight cannot be made, or the run is
    /// cancelled. A part of the file may be left behind.
    pub fn write(&self, path: &Path, progress: &dyn Progress) -> Result<String, TargetError> {
        self.check_layout()?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.map_err(TargetError::io(path))?;
        file.set_len(self.len).map_err(TargetError::io(path))?;
        file.write_all_at(self.prefix, 0)
            .map_err(TargetError::io(path))?;

        let frontier = Frontier::new(self);
        std::thread::scope(|scope| {
            let hasher = scope.spawn(|| hash_behind(&file, path, &frontier));
            let _guard = FailOnDrop(&frontier);
            let written = self.write_blobs(&file, path, &frontier, progress);
            let hash = hasher.join().expect("the hashing thread does not panic");
            written?;
            hash.map(|h| h.expect("hashing stops early only when writing has failed"))
        })
    }

    /// Writes prefix and weights into a file that is open for writing, for a format that hashes its contents itself. `path`
    /// stands for it in errors. Progress is as in [`BlobFile::write`].
    ///
    /// # Errors
    /// As [`BlobFile::write`].
    pub fn write_into(
        &self,
        file: &File,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<(), TargetError> {
        self.check_layout()?;
        file.write_all_at(self.prefix, 0)
            .map_err(TargetError::io(path))?;
        self.write_blobs(file, path, &Frontier::new(self), progress)
    }

    /// Writes the weights on all threads; the error is that of the first weight that failed.
    fn write_blobs(
        &self,
        file: &File,
        path: &Path,
        frontier: &Frontier,
        progress: &dyn Progress,
    ) -> Result<(), TargetError> {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let blob = self.blobs.get(index)?;
                if frontier.lock().failed {
                    return None;
                }
                if let Err(error) = self.write_blob(file, path, blob, progress) {
                    frontier.fail();
                    return Some((index, error));
                }
                frontier.report(self, index);
            }
        };
        let failures = rayon::broadcast(|_| work());
        let failed = failures.into_iter().flatten();
        match failed.min_by_key(|(index, _)| *index) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn check_layout(&self) -> Result<(), TargetError> {
        let mut free_from = self.prefix.len() as u64;
        for blob in self.blobs {
            let (start, end) = (blob.offset, blob.end());
            let reason = if start < free_from {
                format!("the bytes before {free_from} are taken")
            } else if end > self.len {
                format!("the file ends at {}", self.len)
            } else {
                free_from = end;
                continue;
            };
            return Err(TargetError::Layout {
                graph: self.graph.to_owned(),
                weight: blob.name.to_owned(),
                start,
                end,
                reason,
            });
        }
        Ok(())
    }

    fn write_blob(
        &self,
        file: &File,
        path: &Path,
        blob: &Blob<'_>,
        progress: &dyn Progress,
    ) -> Result<(), TargetError> {
        file.write_all_at(&blob.header, blob.offset)
            .map_err(TargetError::io(path))?;
        progress.advance(blob.header.len() as u64);
        let mut position = blob.data_start();
        let streamed = blob.tensor.stream(|bytes| {
            if progress.cancelled() {
                return Err(PieceError::Target(TargetError::Cancelled));
            }
            let written = file
                .write_all_at(bytes, position)
                .map_err(TargetError::io(path));
            written.map_err(PieceError::Target)?;
            position += bytes.len() as u64;
            progress.advance(bytes.len() as u64);
            Ok(())
        });
        streamed.map_err(|error| match error {
            PieceError::Target(error) => error,
            PieceError::Weight(source) => TargetError::Weight {
                graph: self.graph.to_owned(),
                weight: blob.name.to_owned(),
                source,
            },
        })
    }
}

/// An error while a piece of a weight is made or written.
enum PieceError {
    Target(TargetError),
    Weight(WeightError),
}

impl From<WeightError> for PieceError {
    fn from(error: WeightError) -> Self {
        PieceError::Weight(error)
    }
}

/// Up to where the file is finished.
struct Frontier {
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    done: Vec<bool>,
    /// Position in `done` of the first blob that is not finished.
    first_open: usize,
    /// Every byte before this one is final.
    finished: u64,
    failed: bool,
    len: u64,
}

impl Frontier {
    fn new(file: &BlobFile<'_>) -> Self {
        let finished = file.blobs.first().map_or(file.len, |b| b.offset);
        let state = State {
            done: vec![false; file.blobs.len()],
            first_open: 0,
            finished,
            failed: false,
            len: file.len,
        };
        Frontier {
            state: Mutex::new(state),
            moved: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self) {
        self.lock().failed = true;
        self.moved.notify_one();
    }

    /// Says that the blob at `index` is written.
    fn report(&self, file: &BlobFile<'_>, index: usize) {
        let mut state = self.lock();
        state.done[index] = true;
        while state.done.get(state.first_open) == Some(&true) {
            state.first_open += 1;
        }
        let open = file.blobs.get(state.first_open);
        state.finished = open.map_or(file.len, |b| b.offset);
        self.moved.notify_one();
    }

    /// Waits until bytes from `position` on are final and gives their end; `None` when writing has failed.
    fn wait(&self, position: u64) -> Option<u64> {
        let mut state = self.lock();
        while !state.failed && state.finished <= position && position < state.len {
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        (!state.failed).then_some(state.finished)
    }
}

/// Lets the hashing thread end when a writing thread panics; without it the panic would wait for that thread forever.
struct FailOnDrop<'a>(&'a Frontier);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// Hashes the file as far as it is finished, until the end; `None` when writing has failed.
fn hash_behind(
    file: &File,
    path: &Path,
    frontier: &Frontier,
) -> Result<Option<String>, TargetError> {
    let len = frontier.lock().len;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_CHUNK];
    let mut position = 0;
    while position < len {
        let Some(end) = frontier.wait(position) else {
            return Ok(None);
        };
        while position < end {
            let n = usize::try_from(end - position).map_or(HASH_CHUNK, |n| n.min(HASH_CHUNK));
            let piece = &mut buffer[..n];
            file.read_exact_at(piece, position)
                .map_err(TargetError::io(path))?;
            hasher.update(piece);
            position += n as u64;
        }
    }
    Ok(Some(hex(&hasher.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::hash_file;
    use crate::progress::Silent;
    use snapc_ir::DType;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    fn tensor(n: usize, first: f32) -> LazyTensor {
        let data: Vec<f32> = (0..n).map(|i| first + i as f32).collect();
        LazyTensor::from_f32(&[n], &data)
    }

    fn blob<'a>(offset: u64, header: &[u8], tensor: &'a LazyTensor) -> Blob<'a> {
        Blob {
            name: "w",
            offset,
            header: header.to_vec(),
            tensor,
        }
    }

    fn plan<'a>(prefix: &'a [u8], blobs: &'a [Blob<'a>], len: u64) -> BlobFile<'a> {
        BlobFile {
            graph: "unet",
            prefix,
            blobs,
            len,
        }
    }

    #[test]
    fn parts_stand_at_their_offsets_and_gaps_are_zero() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        let (a, b) = (tensor(1, 1.0), tensor(2, 2.0));
        let blobs = [blob(4, b"hd", &a), blob(12, b"", &b)];
        let hash = plan(b"pre", &blobs, 22).write(&path, &Silent).unwrap();
        let mut expected = b"pre\0hd".to_vec();
        expected.extend(1.0f32.to_le_bytes());
        expected.extend([0, 0]);
        expected.extend(2.0f32.to_le_bytes());
        expected.extend(3.0f32.to_le_bytes());
        expected.extend([0, 0]);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        assert_eq!(hash, hash_file(&path).unwrap());
    }

    #[test]
    fn weights_of_two_graphs_go_into_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        let file = File::create_new(&path).unwrap();
        file.set_len(16).unwrap();
        let (a, b) = (tensor(1, 1.0), tensor(2, 2.0));
        let second = [blob(8, b"", &b)];
        plan(b"", &second, 16)
            .write_into(&file, &path, &Silent)
            .unwrap();
        let first = [blob(4, b"", &a)];
        plan(b"ab", &first, 16)
            .write_into(&file, &path, &Silent)
            .unwrap();
        let mut expected = b"ab\0\0".to_vec();
        for value in [1f32, 2.0, 3.0] {
            expected.extend(value.to_le_bytes());
        }
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn a_file_without_weights_is_its_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        let hash = plan(b"abc", &[], 3).write(&path, &Silent).unwrap();
        // FIPS 180-4, example of one block.
        assert!(hash.starts_with("ba7816bf8f01cfea"));
    }

    #[test]
    fn many_weights_hash_as_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        let tensors: Vec<LazyTensor> = (0..200).map(|i| tensor(1 + i * 37 % 5000, 0.5)).collect();
        let mut offset = 64;
        let mut blobs = Vec::new();
        for t in &tensors {
            blobs.push(blob(offset, b"", t));
            offset += (t.byte_len() as u64).next_multiple_of(64);
        }
        let hash = plan(b"x", &blobs, offset).write(&path, &Silent).unwrap();
        assert_eq!(hash, hash_file(&path).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let last = blobs[199].offset as usize;
        assert_eq!(bytes[last..last + 4], 0.5f32.to_le_bytes());
    }

    #[test]
    fn overlapping_and_overlong_plans_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.bin");
        let a = tensor(2, 0.0);
        let blobs = [blob(0, b"", &a), blob(4, b"", &a)];
        let error = plan(b"", &blobs, 100).write(&path, &Silent).unwrap_err();
        assert!(matches!(
            error,
            TargetError::Layout {
                start: 4,
                end: 12,
                ..
            }
        ));
        let error = plan(b"", &blobs[..1], 7).write(&path, &Silent).unwrap_err();
        assert!(error.to_string().contains("the file ends at 7"));
        assert!(!path.exists());
    }

    #[test]
    fn a_weight_that_overflows_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = tensor(4, 0.0);
        let bad = LazyTensor::from_f32(&[1], &[1e30]).cast(DType::F16);
        let mut blobs = vec![blob(0, b"", &good), blob(16, b"", &bad)];
        blobs[1].name = "conv_in.weight";
        let error = plan(b"", &blobs, 18)
            .write(&dir.path().join("w.bin"), &Silent)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("graph 'unet', weight 'conv_in.weight': value"),
            "{text}"
        );
    }

    #[test]
    fn progress_counts_every_byte_and_cancelling_stops() {
        #[derive(Default)]
        struct Counter {
            bytes: AtomicU64,
            stop: AtomicBool,
        }
        impl Progress for Counter {
            fn start(&self, _: &str, _: u64) {}
            fn advance(&self, bytes: u64) {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            fn cancelled(&self) -> bool {
                self.stop.load(Ordering::Relaxed)
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let a = tensor(1000, 0.0);
        let blobs = [blob(0, b"head", &a)];
        let counter = Counter::default();
        plan(b"", &blobs, 4004)
            .write(&dir.path().join("a"), &counter)
            .unwrap();
        assert_eq!(counter.bytes.load(Ordering::Relaxed), 4004);
        counter.stop.store(true, Ordering::Relaxed);
        let error = plan(b"", &blobs, 4004)
            .write(&dir.path().join("b"), &counter)
            .unwrap_err();
        assert!(matches!(error, TargetError::Cancelled));
    }
}
