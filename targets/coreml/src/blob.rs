//! The weight file, `weight.bin`: MIL blob storage, version 2.
//!
//! A 64-byte header (number of blobs, version), then for each blob 64 bytes of metadata and its data; every blob begins
//! at a multiple of 64. All offsets are known before anything is written, so that weights are streamed in parallel.

use std::collections::BTreeMap;
use std::path::Path;

use snapc_ir::{DType, LazyTensor};
use snapc_target::stream::{Blob, BlobFile};
use snapc_target::{Progress, TargetError};

/// Alignment of everything in the file, and size of the header and of a blob's metadata.
pub(crate) const ALIGNMENT: u64 = 64;
/// First four bytes of a blob's metadata.
pub(crate) const SENTINEL: u32 = 0xDEAD_BEEF;
/// Version of the storage format.
pub(crate) const VERSION: u32 = 2;
/// How a model names the file; `@model_path` is the folder of the model file.
pub(crate) const FILE_NAME: &str = "@model_path/weights/weight.bin";

/// The code of an element type in a blob's metadata, which is not that of MIL.
pub(crate) fn dtype_code(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F16 => Some(1),
        DType::F32 => Some(2),
        DType::BF16 => Some(5),
        DType::I32 => Some(14),
        DType::U8 => Some(3),
        DType::I8 => Some(4),
        DType::I64 | DType::Bool => None,
    }
}

/// Where a weight stands in the file.
#[derive(Debug)]
struct Entry {
    name: String,
    tensor: LazyTensor,
    offset: u64,
}

/// The plan of a weight file: weights in the order they were added, equal ones stored once.
#[derive(Debug, Default)]
pub(crate) struct WeightFile {
    entries: Vec<Entry>,
    /// Candidates for being equal: positions of the entries of each element type and shape.
    by_type: BTreeMap<(DType, Vec<usize>), Vec<usize>>,
}

impl WeightFile {
    /// Adds a weight unless an equal one stands already, and gives the offset of its metadata.
    ///
    /// # Panics
    /// For an element type without a code in the format.
    pub(crate) fn add(&mut self, name: &str, tensor: &LazyTensor) -> u64 {
        assert!(dtype_code(tensor.dtype()).is_some());
        let key = (tensor.dtype(), tensor.shape().to_vec());
        let candidates = self.by_type.entry(key).or_default();
        let equal = candidates
            .iter()
            .find(|&&i| self.entries[i].tensor.same_data(tensor));
        if let Some(&i) = equal {
            return self.entries[i].offset;
        }
        let offset = match self.entries.last() {
            None => ALIGNMENT,
            Some(last) => end(last).next_multiple_of(ALIGNMENT),
        };
        candidates.push(self.entries.len());
        self.entries.push(Entry {
            name: name.to_owned(),
            tensor: tensor.clone(),
            offset,
        });
        offset
    }

    /// Size of the file in bytes. The last blob is not padded.
    pub(crate) fn len(&self) -> u64 {
        self.entries.last().map_or(ALIGNMENT, end)
    }

    /// Writes the file and gives its SHA-256.
    ///
    /// # Errors
    /// When the file cannot be written, a weight cannot be made, or the run is cancelled.
    pub(crate) fn write(
        &self,
        graph: &str,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<String, TargetError> {
        let mut prefix = Vec::with_capacity(ALIGNMENT as usize);
        let count = u32::try_from(self.entries.len()).expect("a graph has fewer than 2^32 weights");
        prefix.extend(count.to_le_bytes());
        prefix.extend(VERSION.to_le_bytes());
        prefix.resize(ALIGNMENT as usize, 0);
        let blobs: Vec<Blob<'_>> = self
            .entries
            .iter()
            .map(|e| Blob {
                name: &e.name,
                offset: e.offset,
                header: metadata(e),
                tensor: &e.tensor,
            })
            .collect();
        let file = BlobFile {
            graph,
            prefix: &prefix,
            blobs: &blobs,
            len: self.len(),
        };
        file.write(path, progress)
    }
}

/// Byte behind the data of an entry.
fn end(entry: &Entry) -> u64 {
    entry.offset + ALIGNMENT + entry.tensor.byte_len() as u64
}

/// The 64 bytes in front of the data.
fn metadata(entry: &Entry) -> Vec<u8> {
    let code = dtype_code(entry.tensor.dtype()).expect("checked when the weight was added");
    let mut bytes = Vec::with_capacity(ALIGNMENT as usize);
    bytes.extend(SENTINEL.to_le_bytes());
    bytes.extend(code.to_le_bytes());
    bytes.extend((entry.tensor.byte_len() as u64).to_le_bytes());
    bytes.extend((entry.offset + ALIGNMENT).to_le_bytes());
    bytes.resize(ALIGNMENT as usize, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_target::Silent;

    #[test]
    fn the_file_has_the_layout_of_the_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weight.bin");
        let mut file = WeightFile::default();
        let a = LazyTensor::from_f32(&[2], &[1.0, -2.0]).cast(DType::F16);
        let b = LazyTensor::from_f32(&[1], &[0.5]);
        let offsets = [
            file.add("a", &a),
            file.add("b", &b),
            file.add("c", &a.clone()),
        ];
        assert_eq!(offsets, [64, 192, 64]);
        file.write("unet", &path, &Silent).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, file.len());
        // Header: two blobs, version 2.
        assert_eq!(&bytes[..12], [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        // Metadata of `a`: sentinel, Float16 = 1, four bytes, data at 128.
        assert_eq!(&bytes[64..72], [0xEF, 0xBE, 0xAD, 0xDE, 1, 0, 0, 0]);
        assert_eq!(
            &bytes[72..88],
            [4, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0]
        );
        // 1.0 is 0x3C00 and -2.0 is 0xC000 in binary16; zeros up to the next blob.
        assert_eq!(&bytes[128..134], [0x00, 0x3C, 0x00, 0xC0, 0, 0]);
        assert_eq!(&bytes[192..200], [0xEF, 0xBE, 0xAD, 0xDE, 2, 0, 0, 0]);
        assert_eq!(&bytes[256..], 0.5f32.to_le_bytes());
    }

    #[test]
    fn a_file_without_weights_is_its_header() {
        assert_eq!(WeightFile::default().len(), 64);
    }
}
