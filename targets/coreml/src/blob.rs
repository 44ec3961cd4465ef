//! The weight file, `weight.bin`: MIL blob storage, version 2.
//!
//! A 64-byte header (number of blobs, version), then for each blob 64 bytes of metadata and its data; every blob begins
//! at a multiple of 64. All offsets are known before anything is written, so that weights are streamed in parallel.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use snapc_ir::LazyTensor;
use snapc_target::stream::{Blob, BlobFile};
use snapc_target::{Progress, TargetError};

use crate::compressed::Stored;
use crate::proto::DataType;

/// Alignment of everything in the file, and size of the header and of a blob's metadata.
pub(crate) const ALIGNMENT: u64 = 64;
/// First four bytes of a blob's metadata.
pub(crate) const SENTINEL: u32 = 0xDEAD_BEEF;
/// Version of the storage format.
pub(crate) const VERSION: u32 = 2;
/// Floats of more bytes are taken to be weights of the checkpoint, which are equal when they lie at the same place.
const MAX_MADE_FLOATS: usize = 1 << 20;
/// How a model names the file; `@model_path` is the folder of the model file.
pub(crate) const FILE_NAME: &str = "@model_path/weights/weight.bin";

/// The code of an element type in a blob's metadata, which is not that of MIL, and the bits of an element.
pub(crate) fn code_and_bits(dtype: DataType) -> Option<(u32, usize)> {
    match dtype {
        DataType::Float16 => Some((1, 16)),
        DataType::Float32 => Some((2, 32)),
        DataType::UInt8 => Some((3, 8)),
        DataType::Int8 => Some((4, 8)),
        DataType::BFloat16 => Some((5, 16)),
        DataType::Int16 => Some((6, 16)),
        DataType::UInt16 => Some((7, 16)),
        DataType::Int4 => Some((8, 4)),
        DataType::UInt1 => Some((9, 1)),
        DataType::UInt2 => Some((10, 2)),
        DataType::UInt4 => Some((11, 4)),
        DataType::UInt3 => Some((12, 3)),
        DataType::UInt6 => Some((13, 6)),
        DataType::Int32 => Some((14, 32)),
        DataType::UInt32 => Some((15, 32)),
        _ => None,
    }
}

/// Where a weight stands in the file.
#[derive(Debug)]
struct Entry {
    name: String,
    tensor: LazyTensor,
    /// Code of the element type in the metadata.
    code: u32,
    /// Bits of the last byte that no element has.
    padding: u64,
    offset: u64,
}

/// The plan of a weight file: weights in the order they were added, equal ones stored once.
#[derive(Debug, Default)]
pub(crate) struct WeightFile {
    /// Whether weights are compared by their contents, because some are made anew for every function.
    compares_contents: bool,
    /// Hashes of contents, by position.
    contents: BTreeMap<usize, [u8; 32]>,
    entries: Vec<Entry>,
    /// Candidates for being equal: positions of the entries of each element type and shape.
    by_type: BTreeMap<(u32, Vec<usize>), Vec<usize>>,
}

impl WeightFile {
    /// A plan for the weights of several functions.
    pub(crate) fn of_functions() -> Self {
        WeightFile {
            compares_contents: true,
            ..WeightFile::default()
        }
    }

    /// Hash of a weight that is compared by its contents: codes, and floats that the importer or a pass may have made.
    /// Data that cannot be made has its error when it is written.
    fn contents(&self, stored: &Stored) -> Option<[u8; 32]> {
        let is_float = matches!(stored.dtype, DataType::Float16 | DataType::Float32);
        let is_mapped = is_float && stored.bytes.byte_len() > MAX_MADE_FLOATS;
        if !self.compares_contents || is_mapped {
            return None;
        }
        Some(Sha256::digest(&stored.bytes.bytes().ok()?).into())
    }

    /// Adds a weight unless an equal one stands already, and gives the offset of its metadata.
    ///
    /// # Panics
    /// For an element type without a code in the format.
    pub(crate) fn add(&mut self, name: &str, stored: &Stored) -> u64 {
        let (code, bits) = code_and_bits(stored.dtype).expect("an element type of weight files");
        let tensor = &stored.bytes;
        let contents = self.contents(stored);
        let key = (code, stored.shape.clone());
        let candidates = self.by_type.entry(key).or_default();
        let equal = candidates.iter().find(|&i| {
            let known = self.contents.get(i);
            self.entries[*i].tensor.same_data(tensor)
                || (known.is_some() && known == contents.as_ref())
        });
        if let Some(&i) = equal {
            return self.entries[i].offset;
        }
        let offset = match self.entries.last() {
            None => ALIGNMENT,
            Some(last) => end(last).next_multiple_of(ALIGNMENT),
        };
        candidates.push(self.entries.len());
        self.contents
            .extend(contents.map(|hash| (self.entries.len(), hash)));
        self.entries.push(Entry {
            name: name.to_owned(),
            tensor: tensor.clone(),
            code,
            padding: padding_bits(stored.elements(), bits),
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

/// Bits that are left over in the last byte of so many elements.
pub(crate) fn padding_bits(elements: usize, bits: usize) -> u64 {
    // Eight elements fill whole bytes.
    let used = elements % 8 * bits % 8;
    ((8 - used) % 8) as u64
}

/// Byte behind the data of an entry.
fn end(entry: &Entry) -> u64 {
    entry.offset + ALIGNMENT + entry.tensor.byte_len() as u64
}

/// The 64 bytes in front of the data.
fn metadata(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ALIGNMENT as usize);
    bytes.extend(SENTINEL.to_le_bytes());
    bytes.extend(entry.code.to_le_bytes());
    bytes.extend((entry.tensor.byte_len() as u64).to_le_bytes());
    bytes.extend((entry.offset + ALIGNMENT).to_le_bytes());
    bytes.extend(entry.padding.to_le_bytes());
    bytes.resize(ALIGNMENT as usize, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::DType;
    use snapc_target::Silent;

    fn stored(dtype: DataType, shape: &[usize], bytes: LazyTensor) -> Stored {
        let shape = shape.to_vec();
        Stored {
            dtype,
            shape,
            bytes,
        }
    }

    #[test]
    fn the_file_has_the_layout_of_the_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weight.bin");
        let mut file = WeightFile::default();
        let a = LazyTensor::from_f32(&[2], &[1.0, -2.0]).cast(DType::F16);
        let a = stored(DataType::Float16, &[2], a);
        let b = stored(DataType::Float32, &[1], LazyTensor::from_f32(&[1], &[0.5]));
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

    /// Three codes of six bits are 18 bits in three bytes, of which six bits are left over; UInt6 has code 13.
    #[test]
    fn elements_below_a_byte_say_how_many_bits_are_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weight.bin");
        let mut file = WeightFile::default();
        let codes = LazyTensor::from_u8(&[3], &[1, 2, 63]).pack(6);
        file.add("codes", &stored(DataType::UInt6, &[3], codes));
        file.write("unet", &path, &Silent).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[68..80], [13, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[88..96], [6, 0, 0, 0, 0, 0, 0, 0]);
        // 1 | 2 << 6 | 63 << 12 = 0x3F081
        assert_eq!(&bytes[128..], [0x81, 0xF0, 0x03]);
    }

    #[test]
    fn a_file_without_weights_is_its_header() {
        assert_eq!(WeightFile::default().len(), 64);
    }
}
