//! Alignments, and the bounds on every count that a file declares.

/// Alignment of segments in bytes: the page of iOS, and a multiple of the 4 KiB page of other systems.
pub const SEGMENT_ALIGN: u64 = 16 * 1024;

/// Largest alignment in bytes that a section may ask for: a huge page.
pub(crate) const MAX_SEGMENT_ALIGN: u64 = 2 * 1024 * 1024;

/// Alignment of tensors in bytes within their segment: a cache line, and the widest vector register.
pub const TENSOR_ALIGN: u64 = 64;

/// Bytes of weights after which the writer starts another segment: what the weakest GPUs bind as one buffer. A tensor
/// that is larger has a segment for itself.
pub const SEGMENT_LIMIT: u64 = 256 * 1024 * 1024;

/// Sections in a file.
pub(crate) const MAX_SECTIONS: u64 = 4096;

/// Tensors of a stage.
pub(crate) const MAX_TENSORS: u64 = 65_536;

/// Variants of a tensor, the canonical one included.
pub(crate) const MAX_VARIANTS: usize = 16;

/// Dimensions of a tensor.
pub(crate) const MAX_RANK: usize = 8;

/// Bytes of a tensor's name.
pub(crate) const MAX_NAME: usize = 512;

/// Entries of the metadata.
pub(crate) const MAX_METADATA: u64 = 4096;

/// Bytes of a metadata key.
pub(crate) const MAX_KEY: usize = 256;

/// Bytes of a metadata value: enough for the text of a license.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// `value` rounded up to a multiple of `align`, a power of two; `None` when that exceeds 64 bits.
pub(crate) fn align_up(value: u64, align: u64) -> Option<u64> {
    value.checked_next_multiple_of(align)
}
