//! Lazy constant tensors: where the bytes are and what is still to be done to them.

mod beside;
mod cast;
mod encoding;
mod movement;
mod regroup;
mod steps;
mod stream;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

pub use self::encoding::{Codebook, Encoding, EncodingError};
use crate::types::DType;

/// Shared bytes that a weight points into: a mapped file or an owned buffer.
pub type ByteBuffer = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Elements converted at a time while streaming, so that a weight of any size needs little memory.
const CHUNK: usize = 1 << 18;

/// Why the data of a weight cannot be made.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum WeightError {
    /// The weight was read from a text dump, which holds no data.
    #[error("the weight has a type but no data")]
    Absent,
    /// A finite value does not fit the element type it is cast to.
    #[error(
        "value {value} at element {index} overflows {dtype}; keep this weight in f32 (--precision f32)"
    )]
    Overflow {
        /// The value before the cast.
        value: f32,
        /// Its row-major position.
        index: usize,
        /// The type it was cast to.
        dtype: DType,
    },
    /// A conversion between these element types does not exist.
    #[error("no conversion of weights from {from} to {to}")]
    Conversion {
        /// Element type of the data.
        from: DType,
        /// Element type asked for.
        to: DType,
    },
}

/// One step from the stored bytes to the bytes that are written.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Transform {
    /// Convert every element, rounding to nearest even.
    Cast(DType),
    /// Reorder the dimensions: dimension `i` of the result is dimension `perm[i]` of the input.
    Permute(Vec<usize>),
    /// New dimensions over the same row-major elements.
    Reshape(Vec<usize>),
    /// Elements `start..end` along `axis`.
    Slice {
        /// The dimension that is cut.
        axis: usize,
        /// First index kept.
        start: usize,
        /// First index dropped.
        end: usize,
    },
    /// Cut the matrix `[columns][depth]` that the first dimension and the others make into panels of that many columns,
    /// `[⌈columns / width⌉][depth][width]`, and fill the last one up with zeros.
    Panels(usize),
    /// The elements at these indices along `axis`, in this order.
    Select {
        /// The dimension that is thinned out.
        axis: usize,
        /// What is kept.
        indices: Arc<[usize]>,
    },
    /// Every element times the factor at its index along `axis`, in f32.
    Scale {
        /// The dimension that the factors go along.
        axis: usize,
        /// One per index.
        factors: Arc<[f32]>,
    },
    /// Weighted sums along `axis`, in f32.
    Combine {
        /// The dimension that is summed along.
        axis: usize,
        /// One row of weights, of the dimension's size, per index of the result.
        matrix: Arc<[f32]>,
    },
    /// Floats to codes, one per byte.
    Quantize(Arc<Encoding>),
    /// Codes, one per byte, to floats of this type.
    Dequantize(Arc<Encoding>, DType),
    /// Codes, one per byte, to `bits` bits each without gaps, least significant bits first.
    Pack(u32),
    /// Rows of 32 codes, one per byte, to `4 · bits` bytes each, as kernels widen them: see [`LazyTensor::pack_rows`].
    PackRows(u32),
    /// The reverse of `Pack`, to codes of a tensor of these dimensions.
    Unpack {
        /// Bits of a code.
        bits: u32,
        /// Dimensions.
        shape: Vec<usize>,
        /// `I8` or `U8`.
        dtype: DType,
    },
}

#[derive(Clone)]
enum Source {
    Bytes {
        buffer: ByteBuffer,
        range: Range<usize>,
    },
    /// One tensor after the other along the first dimension.
    Parts(Arc<[LazyTensor]>),
    Absent,
}

/// A constant tensor whose bytes are made on demand. Cloning shares the bytes.
#[derive(Clone)]
pub struct LazyTensor {
    source: Source,
    source_dtype: DType,
    source_shape: Vec<usize>,
    transforms: Vec<Transform>,
    dtype: DType,
    shape: Vec<usize>,
    max_abs: Option<f32>,
}

impl LazyTensor {
    /// The little-endian row-major elements at `range` of `buffer`.
    ///
    /// # Panics
    /// When `range` is not inside the buffer or does not hold exactly the elements of `shape`.
    pub fn from_buffer(
        buffer: ByteBuffer,
        range: Range<usize>,
        dtype: DType,
        shape: &[usize],
    ) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        assert!(range.end <= (*buffer).as_ref().len() && range.len() == bytes);
        LazyTensor {
            source: Source::Bytes { buffer, range },
            source_dtype: dtype,
            source_shape: shape.to_vec(),
            transforms: Vec::new(),
            dtype,
            shape: shape.to_vec(),
            max_abs: None,
        }
    }

    fn from_pod<T: Pod>(dtype: DType, shape: &[usize], data: &[T]) -> Self {
        let bytes: Vec<u8> = bytemuck::cast_slice(data).to_vec();
        let n = bytes.len();
        LazyTensor::from_buffer(Arc::new(bytes), 0..n, dtype, shape)
    }

    /// An owned f32 tensor.
    ///
    /// # Panics
    /// When `data` does not hold the elements of `shape`; likewise in the other `from_*` constructors.
    pub fn from_f32(shape: &[usize], data: &[f32]) -> Self {
        LazyTensor::from_pod(DType::F32, shape, data)
    }

    /// An owned i32 tensor.
    pub fn from_i32(shape: &[usize], data: &[i32]) -> Self {
        LazyTensor::from_pod(DType::I32, shape, data)
    }

    /// An owned i64 tensor.
    pub fn from_i64(shape: &[usize], data: &[i64]) -> Self {
        LazyTensor::from_pod(DType::I64, shape, data)
    }

    /// An owned tensor of bytes, such as packed codes.
    pub fn from_u8(shape: &[usize], data: &[u8]) -> Self {
        LazyTensor::from_pod(DType::U8, shape, data)
    }

    /// An owned tensor of signed bytes, such as zero points.
    pub fn from_i8(shape: &[usize], data: &[i8]) -> Self {
        LazyTensor::from_pod(DType::I8, shape, data)
    }

    /// Tensors of one type, one after the other along the first dimension, in which only they may differ.
    ///
    /// # Panics
    /// When there is none, or they do not fit together.
    pub fn concat(parts: Vec<LazyTensor>) -> Self {
        let (dtype, inner) = (parts[0].dtype, parts[0].shape[1..].to_vec());
        let fits = |t: &LazyTensor| t.dtype == dtype && t.shape[1..] == inner;
        assert!(parts.iter().all(fits), "parts of different types");
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|t| t.shape[0]).sum();
        let known = parts.iter().map(|t| t.max_abs);
        let max_abs = known.reduce(|a, b| Some(a?.max(b?))).flatten();
        LazyTensor {
            source: Source::Parts(parts.into()),
            source_dtype: dtype,
            source_shape: shape.clone(),
            transforms: Vec::new(),
            dtype,
            shape,
            max_abs,
        }
    }

    /// A tensor with a type and no data, as a text dump gives it.
    pub fn absent(dtype: DType, shape: &[usize]) -> Self {
        LazyTensor {
            source: Source::Absent,
            source_dtype: dtype,
            source_shape: shape.to_vec(),
            transforms: Vec::new(),
            dtype,
            shape: shape.to_vec(),
            max_abs: None,
        }
    }

    /// Records the largest finite magnitude of the elements, when a scan has found it.
    pub fn with_max_abs(mut self, max_abs: f32) -> Self {
        self.max_abs = Some(max_abs);
        self
    }

    /// The largest magnitude of the elements, when it is known without reading them.
    pub fn max_abs(&self) -> Option<f32> {
        self.max_abs
    }

    /// Element type of the result.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions of the result.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements of the result.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the result.
    pub fn byte_len(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    /// Bytes that a target stores: those of the result, or of packed codes and of what they stand for.
    pub fn stored_bytes_len(&self) -> usize {
        match self.encoding() {
            Some(encoding) => encoding.stored_bytes(self.elements(), self.dtype.size()),
            None => self.byte_len(),
        }
    }

    /// Whether there is data behind the type.
    pub fn is_present(&self) -> bool {
        match &self.source {
            Source::Bytes { .. } => true,
            Source::Parts(parts) => parts.iter().all(LazyTensor::is_present),
            Source::Absent => false,
        }
    }

    /// The steps between the stored bytes and the result.
    pub fn transforms(&self) -> &[Transform] {
        &self.transforms
    }

    /// The narrowest element type that holds the values exactly, as far as the steps tell: that of the stored bytes when
    /// these are only widened and moved.
    pub fn exact_dtype(&self) -> DType {
        let exact = |t: &Transform| match t {
            Transform::Cast(to) => *to == DType::F32 || *to == self.source_dtype,
            Transform::Permute(_)
            | Transform::Reshape(_)
            | Transform::Slice { .. }
            | Transform::Select { .. } => true,
            _ => false,
        };
        if self.transforms.iter().all(exact) {
            self.source_dtype
        } else {
            self.dtype
        }
    }

    /// Whether both are the same stored bytes under the same steps, or small tensors with equal bytes.
    pub fn same_data(&self, other: &LazyTensor) -> bool {
        if self.dtype != other.dtype
            || self.shape != other.shape
            || self.source_dtype != other.source_dtype
            || self.transforms != other.transforms
        {
            return false;
        }
        match (&self.source, &other.source) {
            (Source::Parts(a), Source::Parts(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.same_data(b))
            }
            (Source::Bytes { .. }, Source::Bytes { .. }) => {
                let (a, b) = (self.stored_bytes(), other.stored_bytes());
                a.len() == b.len()
                    && (std::ptr::eq(a.as_ptr(), b.as_ptr()) || (a.len() <= 4096 && a == b))
            }
            _ => false,
        }
    }
}

impl fmt::Debug for LazyTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} {:?}", self.dtype, self.shape, self.transforms)
    }
}

#[cfg(test)]
mod tests;
