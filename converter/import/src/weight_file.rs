//! One safetensors file: its header, and its tensors as slices of the mapped file.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use snapc_ir::{ByteBuffer, DType, LazyTensor};

use crate::error::ImportError;
use crate::mmap::map_file;

/// Bytes of the length field in front of the header.
const LENGTH_FIELD: usize = 8;

/// Where a tensor lies in its file.
#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A mapped safetensors file.
pub(crate) struct WeightFile {
    name: String,
    buffer: ByteBuffer,
    entries: BTreeMap<String, Entry>,
    metadata: HashMap<String, String>,
}

impl WeightFile {
    /// Maps a file and reads its header. `name` stands for it in messages.
    ///
    /// # Errors
    /// When it cannot be read, or its header is not that of a whole safetensors file.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self, ImportError> {
        WeightFile::from_buffer(map_file(path)?, name)
    }

    fn from_buffer(buffer: ByteBuffer, name: &str) -> Result<Self, ImportError> {
        let invalid = |reason: String| ImportError::Safetensors {
            file: name.to_owned(),
            reason,
        };
        let bytes = (*buffer).as_ref();
        let (header, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| invalid(e.to_string()))?;
        let data = LENGTH_FIELD + header;
        let mut entries = BTreeMap::new();
        for key in metadata.offset_keys() {
            let Some(info) = metadata.info(&key) else {
                continue;
            };
            let (start, end) = info.data_offsets;
            let range = data.checked_add(start).zip(data.checked_add(end));
            let range = range.filter(|r| r.0 <= r.1 && r.1 <= bytes.len());
            let (start, end) =
                range.ok_or_else(|| invalid(format!("tensor '{key}' lies outside the file")))?;
            entries.insert(
                key,
                Entry {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: start..end,
                },
            );
        }
        Ok(WeightFile {
            name: name.to_owned(),
            buffer,
            entries,
            metadata: metadata.metadata().clone().unwrap_or_default(),
        })
    }

    /// What the file is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the header says beside the tensors.
    pub(crate) fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// All keys, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape stored under a key.
    pub(crate) fn shape(&self, key: &str) -> Option<&[usize]> {
        self.entries.get(key).map(|e| e.shape.as_slice())
    }

    /// The tensor of a key, without reading its data; the name of its element type when that is not a float of 16 or
    /// 32 bits.
    pub(crate) fn tensor(&self, key: &str) -> Option<Result<LazyTensor, String>> {
        let entry = self.entries.get(key)?;
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Some(Err(format!("{other:?}"))),
        };
        let buffer = ByteBuffer::clone(&self.buffer);
        Some(Ok(LazyTensor::from_buffer(
            buffer,
            entry.range.clone(),
            dtype,
            &entry.shape,
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A file with this header and `data` bytes of zero behind it.
    fn file(header: &str, data: usize) -> Result<WeightFile, ImportError> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        WeightFile::from_buffer(Arc::new(bytes), "w.safetensors")
    }

    #[test]
    fn tensors_are_slices_of_the_file() {
        let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
            "ids":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}"#;
        let file = file(header, 12).unwrap();
        assert_eq!(file.keys().collect::<Vec<_>>(), ["a", "ids"]);
        let a = file.tensor("a").unwrap().unwrap();
        assert_eq!((a.dtype(), a.shape()), (DType::F16, &[2][..]));
        assert_eq!(file.tensor("ids").unwrap().unwrap_err(), "I64");
        assert!(file.tensor("b").is_none());
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#;
        assert!(file(header, 3).is_err(), "truncated data");
        assert!(file(header, 5).is_err(), "trailing data");
        assert!(
            file(
                r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,4]}}"#,
                4
            )
            .is_err()
        );
        let wrap = r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
        assert!(file(wrap, 4).is_err());
        for bytes in [
            vec![],
            vec![1, 2, 3],
            vec![0xff; 64],
            9u64.to_le_bytes().to_vec(),
        ] {
            assert!(WeightFile::from_buffer(Arc::new(bytes), "w").is_err());
        }
    }
}
