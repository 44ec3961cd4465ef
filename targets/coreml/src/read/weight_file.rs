//! Weight files: MIL blob storage, version 2, mapped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use snapc_ir::ByteBuffer;
use snapc_target::MappedFile;

use super::element::{code, packed_bytes};
use super::error::Fault;
use super::package::Package;
use crate::blob::{ALIGNMENT, SENTINEL, VERSION};
use crate::proto::{BlobFileValue, DataType};

/// The weight files of a package that have been asked for.
pub(super) struct WeightFiles {
    package: Package,
    files: BTreeMap<String, ByteBuffer>,
}

impl WeightFiles {
    pub(super) fn new(package: Package) -> Self {
        let files = BTreeMap::new();
        WeightFiles { package, files }
    }

    /// The bytes of a blob that holds `elements` elements of type `dtype`.
    ///
    /// # Errors
    /// When there is no such blob inside the file, or it is of another type or size.
    pub(super) fn blob(
        &mut self,
        blob: &BlobFileValue,
        dtype: DataType,
        elements: usize,
    ) -> Result<(ByteBuffer, Range<usize>), Fault> {
        let file = self.file(&blob.file_name)?;
        let bytes = (*file).as_ref();
        let range = blob_range(bytes, blob.offset, dtype, elements).map_err(|problem| {
            let BlobFileValue { file_name, offset } = blob;
            Fault::malformed(format!("blob at {offset} of '{file_name}': {problem}"))
        })?;
        Ok((file, range))
    }

    fn file(&mut self, name: &str) -> Result<ByteBuffer, Fault> {
        if let Some(file) = self.files.get(name) {
            return Ok(file.clone());
        }
        let path = self.package.blob_file(name).map_err(Fault::Malformed)?;
        let file = MappedFile::open(&path)
            .map_err(|e| Fault::malformed(format!("'{}': {e}", path.display())))?;
        let file: ByteBuffer = Arc::new(file);
        let version = (*file).as_ref().get(4..8).map(u32_at);
        if version != Some(VERSION) {
            return Err(Fault::malformed(format!(
                "'{name}' is no weight file of version {VERSION}"
            )));
        }
        self.files.insert(name.to_owned(), file.clone());
        Ok(file)
    }
}

/// Where the data of the blob is whose metadata stands at `offset`.
fn blob_range(
    file: &[u8],
    offset: u64,
    dtype: DataType,
    elements: usize,
) -> Result<Range<usize>, String> {
    let code = code(dtype).ok_or_else(|| format!("{dtype:?} is no type of blobs"))?;
    let start = usize::try_from(offset).ok();
    let start = start.filter(|s| *s > 0 && offset.is_multiple_of(ALIGNMENT));
    let metadata = start.and_then(|s| file.get(s..s.checked_add(ALIGNMENT as usize)?));
    let metadata = metadata.filter(|m| u32_at(&m[..4]) == SENTINEL);
    let metadata = metadata.ok_or("no metadata stands there")?;
    let found = u32_at(&metadata[4..8]);
    if found != code {
        return Err(format!(
            "element type code {found} is not {code}, {dtype:?}"
        ));
    }
    let (size, data) = (usize_at(&metadata[8..16]), usize_at(&metadata[16..24]));
    if size.is_none() || size != packed_bytes(dtype, elements) {
        return Err(format!("it has not the size of {elements} elements"));
    }
    let range = data.zip(size).and_then(|(d, s)| Some(d..d.checked_add(s)?));
    let range = range.filter(|r| r.end <= file.len());
    range.ok_or_else(|| format!("its data is outside of the {} bytes", file.len()))
}

/// Four bytes as a number.
fn u32_at(bytes: &[u8]) -> u32 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Eight bytes as a size.
fn usize_at(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.iter().rev();
    let value = bytes.fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    usize::try_from(value).ok()
}
