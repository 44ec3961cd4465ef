//! Lazy constant tensors: where the bytes are and what is still to be done to them.

mod beside;
mod cast;
mod encoding;
mod movement;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use self::cast::{cast_bytes, pods, scale_bytes, widen};
pub use self::encoding::{Codebook, Encoding, EncodingError};
use self::encoding::{Part, pack, unpack};
use self::movement::{panel_bytes, permute_bytes, select_bytes, slice_bytes};
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
    /// Floats to codes, one per byte.
    Quantize(Arc<Encoding>),
    /// Codes, one per byte, to floats of this type.
    Dequantize(Arc<Encoding>, DType),
    /// Codes, one per byte, to `bits` bits each without gaps, least significant bits first.
    Pack(u32),
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

    /// The same values as `dtype`, rounded to nearest even.
    pub fn cast(mut self, dtype: DType) -> Self {
        if dtype == self.dtype {
            return self;
        }
        let before = self.dtype_before_last();
        let widened = matches!(before, Some(DType::F16 | DType::BF16)) && self.dtype == DType::F32;
        if widened && before == Some(dtype) {
            self.transforms.pop();
        } else {
            self.transforms.push(Transform::Cast(dtype));
        }
        self.dtype = dtype;
        self
    }

    /// Element type before the last transform, when that is a cast.
    fn dtype_before_last(&self) -> Option<DType> {
        let (Transform::Cast(_), rest) = self.transforms.split_last()? else {
            return None;
        };
        let earlier = rest.iter().rev().find_map(|t| match t {
            Transform::Cast(d) => Some(*d),
            _ => None,
        });
        Some(earlier.unwrap_or(self.source_dtype))
    }

    /// The dimensions reordered: dimension `i` of the result is dimension `perm[i]` of this.
    ///
    /// # Panics
    /// When `perm` is not a permutation of the dimensions.
    pub fn permute(mut self, perm: &[usize]) -> Self {
        let mut seen = perm.to_vec();
        seen.sort_unstable();
        assert!(
            seen.iter().copied().eq(0..self.shape.len()),
            "not a permutation"
        );
        if perm.iter().copied().eq(0..perm.len()) {
            return self;
        }
        self.shape = perm.iter().map(|&p| self.shape[p]).collect();
        self.transforms.push(Transform::Permute(perm.to_vec()));
        self
    }

    /// New dimensions over the same elements.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshape(mut self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.elements());
        if shape == self.shape {
            return self;
        }
        self.shape = shape.to_vec();
        if let Some(Transform::Reshape(last)) = self.transforms.last_mut() {
            *last = shape.to_vec();
        } else {
            self.transforms.push(Transform::Reshape(shape.to_vec()));
        }
        self
    }

    /// Elements `start..end` along `axis`.
    ///
    /// # Panics
    /// When the range is not inside the dimension.
    pub fn slice(mut self, axis: usize, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= self.shape[axis]);
        self.shape[axis] = end - start;
        let contiguous =
            self.transforms.is_empty() && self.source_shape[..axis].iter().all(|&d| d == 1);
        match &mut self.source {
            Source::Bytes { range, .. } if contiguous => {
                let inner: usize = self.source_shape[axis + 1..].iter().product();
                let step = inner * self.source_dtype.size();
                *range = range.start + start * step..range.start + end * step;
                self.source_shape.clone_from(&self.shape);
            }
            _ => self.transforms.push(Transform::Slice { axis, start, end }),
        }
        self
    }

    /// The matrix `[columns][depth]` that the first dimension and the others make, in panels of `width` columns, as kernels
    /// of products read it: `[⌈columns / width⌉][depth][width]`, the last panel filled up with zeros.
    ///
    /// # Panics
    /// When there are less than two dimensions, or `width` is 0.
    pub fn panels(mut self, width: usize) -> Self {
        assert!(self.shape.len() >= 2 && width > 0, "not a matrix");
        let depth = self.shape[1..].iter().product();
        self.shape = vec![self.shape[0].div_ceil(width), depth, width];
        self.transforms.push(Transform::Panels(width));
        self
    }

    /// The elements at these indices along `axis`, in this order.
    ///
    /// # Panics
    /// When an index is not inside the dimension.
    pub fn select(mut self, axis: usize, indices: &[usize]) -> Self {
        assert!(indices.iter().all(|&i| i < self.shape[axis]));
        if indices.iter().copied().eq(0..self.shape[axis]) {
            return self;
        }
        self.shape[axis] = indices.len();
        let indices = indices.into();
        self.transforms.push(Transform::Select { axis, indices });
        self
    }

    /// Every element times the factor at its index along `axis`; the product is made in f32 and rounded to the element type.
    ///
    /// # Panics
    /// When there is not one factor per index, or the elements are not floats.
    pub fn scale(mut self, axis: usize, factors: &[f32]) -> Self {
        assert!(factors.len() == self.shape[axis] && self.dtype.is_float());
        self.max_abs = None;
        let factors = factors.into();
        self.transforms.push(Transform::Scale { axis, factors });
        self
    }

    /// The same tensor with its elements rounded to what `encoding` can hold. Its type stays; what a target stores are the
    /// [`LazyTensor::codes`].
    ///
    /// # Panics
    /// When the elements are not floats, or the encoding does not fit the dimensions.
    pub fn encode(mut self, encoding: Arc<Encoding>) -> Self {
        assert!(self.dtype.is_float() && encoding.fits(&self.shape));
        self.max_abs = None;
        self.transforms.push(Transform::Quantize(encoding.clone()));
        self.transforms
            .push(Transform::Dequantize(encoding, self.dtype));
        self
    }

    /// The floats of type `dtype` that codes, one per byte, stand for.
    ///
    /// # Panics
    /// When the codes are not of the encoding's type and dimensions, or `dtype` is not a float type.
    pub fn from_codes(mut codes: LazyTensor, encoding: Arc<Encoding>, dtype: DType) -> Self {
        assert!(codes.dtype == encoding.code_dtype() && dtype.is_float());
        assert!(encoding.fits(&codes.shape));
        codes
            .transforms
            .push(Transform::Dequantize(encoding, dtype));
        codes.dtype = dtype;
        codes.max_abs = None;
        codes
    }

    /// How the elements are encoded, when this is their last step.
    pub fn encoding(&self) -> Option<&Arc<Encoding>> {
        match self.transforms.last() {
            Some(Transform::Dequantize(encoding, _)) => Some(encoding),
            _ => None,
        }
    }

    /// The codes of an encoded tensor, one per byte, in its dimensions.
    pub fn codes(&self) -> Option<LazyTensor> {
        let dtype = self.encoding()?.code_dtype();
        let mut codes = self.clone();
        codes.transforms.pop();
        codes.dtype = dtype;
        codes.max_abs = None;
        Some(codes)
    }

    /// Codes, one per byte, with `bits` bits each and no gaps, least significant bits first: a vector of bytes.
    ///
    /// # Panics
    /// When the elements are not single bytes.
    pub fn pack(mut self, bits: u32) -> Self {
        assert!(self.dtype.size() == 1 && (1..=8).contains(&bits));
        self.shape = vec![(self.elements() * bits as usize).div_ceil(8)];
        self.dtype = DType::U8;
        self.transforms.push(Transform::Pack(bits));
        self
    }

    /// The reverse of [`LazyTensor::pack`]: codes of `bits` bits, signed when `dtype` is `I8`, one per byte.
    ///
    /// # Panics
    /// When this is not a vector of as many bytes as the codes need.
    pub fn unpack(mut self, bits: u32, dtype: DType, shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        assert!(matches!(dtype, DType::I8 | DType::U8) && (1..=8).contains(&bits));
        assert_eq!(self.byte_len(), (count * bits as usize).div_ceil(8));
        self.shape = shape.to_vec();
        self.dtype = dtype;
        let shape = shape.to_vec();
        self.transforms
            .push(Transform::Unpack { bits, shape, dtype });
        self
    }

    /// The stored bytes; none when they are not in one place.
    fn stored_bytes(&self) -> &[u8] {
        match &self.source {
            Source::Bytes { buffer, range } => &(**buffer).as_ref()[range.clone()],
            _ => &[],
        }
    }

    /// The elements that the steps begin with.
    fn source_bytes(&self) -> Result<Cow<'_, [u8]>, WeightError> {
        match &self.source {
            Source::Bytes { .. } => Ok(Cow::Borrowed(self.stored_bytes())),
            Source::Parts(parts) => {
                let mut all = Vec::new();
                for part in parts.iter() {
                    all.extend_from_slice(&part.bytes()?);
                }
                Ok(Cow::Owned(all))
            }
            Source::Absent => Err(WeightError::Absent),
        }
    }

    /// All bytes of the result, little-endian and row-major; borrowed when nothing has to be done.
    ///
    /// # Errors
    /// When there is no data or a cast overflows.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>, WeightError> {
        self.rows(0..self.source_rows())
    }

    /// Size of the leading dimension of the stored tensor; 1 for a scalar.
    fn source_rows(&self) -> usize {
        self.source_shape.first().copied().unwrap_or(1)
    }

    /// How many rows along the leading dimension of the stored tensor go together: rows that begin at a multiple of it
    /// become a part of the result without the others. `None` when the steps mix rows.
    fn row_block(&self) -> Option<usize> {
        if matches!(self.source, Source::Parts(_)) {
            return None;
        }
        let mut lead = self.source_rows();
        let mut block = 1;
        for (i, t) in self.transforms.iter().enumerate() {
            match t {
                Transform::Cast(_) => {}
                Transform::Quantize(_) | Transform::Dequantize(..) if block == 1 => {}
                Transform::Scale { axis, .. } if block == 1 || *axis > 0 => {}
                Transform::Select { axis, .. } if *axis > 0 => {}
                Transform::Permute(perm) if perm.first() == Some(&0) => {}
                Transform::Reshape(shape) if shape.first() == Some(&lead) => {}
                Transform::Slice { axis, .. } if *axis > 0 => {}
                Transform::Panels(width) if block == 1 => {
                    block = *width;
                    lead = lead.div_ceil(*width);
                }
                // Codes of eight rows fill whole bytes. Nothing but the end may follow.
                Transform::Pack(_) if i + 1 == self.transforms.len() => block *= 8,
                _ => return None,
            }
        }
        Some(block)
    }

    /// The bytes of the result that some rows of the stored tensor make: all rows, or such as [`LazyTensor::row_block`]
    /// allows.
    fn rows(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
        let mut bytes = self.source_bytes()?;
        let row = bytes.len() / self.source_rows().max(1);
        if rows.len() < self.source_rows() {
            bytes = match bytes {
                Cow::Borrowed(all) => Cow::Borrowed(&all[rows.start * row..rows.end * row]),
                Cow::Owned(all) => Cow::Owned(all[rows.start * row..rows.end * row].to_vec()),
            };
        }
        let mut dtype = self.source_dtype;
        let mut shape = self.source_shape.clone();
        let part = rows.len() < self.source_rows();
        if let Some(lead) = shape.first_mut() {
            *lead = rows.len();
        }
        for t in &self.transforms {
            match t {
                Transform::Reshape(to) => {
                    let lead = shape.first().copied();
                    shape.clone_from(to);
                    if let (true, Some(lead)) = (part, lead) {
                        shape[0] = lead;
                    }
                }
                Transform::Cast(to) => {
                    let per_row = bytes.len() / dtype.size() / rows.len().max(1);
                    bytes = Cow::Owned(cast_bytes(&bytes, dtype, *to, rows.start * per_row)?);
                    dtype = *to;
                }
                Transform::Panels(width) => {
                    let (columns, depth) = (shape[0], shape[1..].iter().product());
                    bytes = Cow::Owned(panel_bytes(&bytes, dtype.size(), columns, depth, *width));
                    shape = vec![columns.div_ceil(*width), depth, *width];
                }
                Transform::Permute(perm) => {
                    bytes = Cow::Owned(permute_bytes(&bytes, dtype.size(), &shape, perm));
                    shape = perm.iter().map(|&p| shape[p]).collect();
                }
                Transform::Slice { axis, start, end } => {
                    bytes = Cow::Owned(slice_bytes(
                        &bytes,
                        dtype.size(),
                        &shape,
                        *axis,
                        *start..*end,
                    ));
                    shape[*axis] = end - start;
                }
                Transform::Select { axis, indices } => {
                    bytes = Cow::Owned(select_bytes(&bytes, dtype.size(), &shape, *axis, indices));
                    shape[*axis] = indices.len();
                }
                Transform::Scale { axis, factors } => {
                    let first = if *axis == 0 { rows.start } else { 0 };
                    let factors = &factors[first..first + shape[*axis]];
                    bytes = Cow::Owned(scale_bytes(&bytes, dtype, &shape, *axis, factors)?);
                }
                Transform::Quantize(encoding) => {
                    let part = self.part(&shape, &rows);
                    bytes = Cow::Owned(encoding.quantize(&bytes, dtype, &part)?);
                    dtype = encoding.code_dtype();
                }
                Transform::Dequantize(encoding, to) => {
                    let part = self.part(&shape, &rows);
                    bytes = Cow::Owned(encoding.dequantize(&bytes, *to, &part)?);
                    dtype = *to;
                }
                Transform::Pack(bits) => {
                    bytes = Cow::Owned(pack(&bytes, *bits));
                    dtype = DType::U8;
                    shape = vec![bytes.len()];
                }
                Transform::Unpack {
                    bits,
                    shape: to,
                    dtype: code,
                } => {
                    let count = to.iter().product();
                    bytes = Cow::Owned(unpack(&bytes, *bits, *code == DType::I8, count));
                    dtype = *code;
                    shape.clone_from(to);
                }
            }
        }
        Ok(bytes)
    }

    /// The part of an encoded tensor that some rows of the stored one make.
    fn part<'s>(&self, shape: &'s [usize], rows: &Range<usize>) -> Part<'s> {
        // Steps before an encoding that are carried out in parts keep the first dimension.
        let whole = rows.len() == self.source_rows();
        let lead = if whole {
            shape.first().copied().unwrap_or(1)
        } else {
            self.source_rows()
        };
        Part {
            shape,
            lead,
            first_row: rows.start,
        }
    }

    /// Hands the bytes of the result to `sink` piece by piece, in order. Steps that leave the leading dimension where it is
    /// need memory for one piece only, others for the whole tensor.
    ///
    /// # Errors
    /// The sink's, or a [`WeightError`] as in [`LazyTensor::bytes`].
    pub fn stream<E: From<WeightError>>(
        &self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.stream_into(&mut sink)
    }

    fn stream_into<E: From<WeightError>>(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let elementwise = |t: &Transform| matches!(t, Transform::Cast(_) | Transform::Reshape(_));
        if let (Source::Parts(parts), []) = (&self.source, &self.transforms[..]) {
            return parts.iter().try_for_each(|part| part.stream_into(sink));
        }
        if self.transforms.iter().all(elementwise) {
            let source = self.source_bytes()?;
            let piece = CHUNK * self.source_dtype.size();
            for (i, chunk) in source.chunks(piece).enumerate() {
                let mut bytes = Cow::Borrowed(chunk);
                let mut dtype = self.source_dtype;
                for t in &self.transforms {
                    if let Transform::Cast(to) = t {
                        bytes = Cow::Owned(cast_bytes(&bytes, dtype, *to, i * CHUNK)?);
                        dtype = *to;
                    }
                }
                sink(&bytes)?;
            }
            return Ok(());
        }
        let rows = self.source_rows();
        let step = match self.row_block() {
            Some(block) => {
                let per_row = self.source_shape.iter().skip(1).product::<usize>().max(1);
                (CHUNK / per_row).max(1).next_multiple_of(block)
            }
            None => rows.max(1),
        };
        for start in (0..rows).step_by(step) {
            let made = self.rows(start..rows.min(start + step))?;
            for chunk in made.chunks(CHUNK * self.dtype.size()) {
                sink(chunk)?;
            }
        }
        Ok(())
    }

    /// As [`LazyTensor::stream`], with the elements as f32.
    ///
    /// # Errors
    /// As [`LazyTensor::stream`], and for element types that are not numbers.
    pub fn stream_f32<E: From<WeightError>>(
        &self,
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.stream(|bytes| sink(&widen(bytes, self.dtype)?))
    }

    /// All elements as f32.
    ///
    /// # Errors
    /// As [`LazyTensor::bytes`], and for element types that are not numbers.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightError> {
        let bytes = self.bytes()?;
        Ok(pods(&cast_bytes(&bytes, self.dtype, DType::F32, 0)?).into_owned())
    }

    /// All elements as i64.
    ///
    /// # Errors
    /// As [`LazyTensor::to_f32`].
    pub fn to_i64(&self) -> Result<Vec<i64>, WeightError> {
        let bytes = self.bytes()?;
        Ok(pods(&cast_bytes(&bytes, self.dtype, DType::I64, 0)?).into_owned())
    }
}

impl fmt::Debug for LazyTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} {:?}", self.dtype, self.shape, self.transforms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> LazyTensor {
        let n: usize = shape.iter().product();
        LazyTensor::from_f32(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
    }

    fn streamed(t: &LazyTensor) -> Vec<u8> {
        let mut out = Vec::new();
        t.stream::<WeightError>(|b| {
            out.extend_from_slice(b);
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn moves_compose() {
        let t = counting(&[2, 3]).permute(&[1, 0]);
        assert_eq!(t.to_f32().unwrap(), [0., 3., 1., 4., 2., 5.]);
        let t = counting(&[2, 3, 2]).permute(&[2, 0, 1]).slice(2, 1, 2);
        assert_eq!(t.shape(), [2, 2, 1]);
        assert_eq!(t.to_f32().unwrap(), [2., 8., 3., 9.]);
        let t = counting(&[4, 2]).slice(0, 1, 3).reshape(&[4]);
        assert!(t.transforms().len() == 1 && t.to_f32().unwrap() == [2., 3., 4., 5.]);
    }

    #[test]
    fn large_transpose_agrees_with_index_arithmetic() {
        let t = counting(&[67, 45]).permute(&[1, 0]).to_f32().unwrap();
        for r in 0..67 {
            for c in 0..45 {
                assert_eq!(t[c * 67 + r], (r * 45 + c) as f32);
            }
        }
    }

    #[test]
    fn streaming_gives_the_same_bytes() {
        let n = CHUNK + 17;
        let data: Vec<f32> = (0..n).map(|i| (i % 1000) as f32 * 0.25).collect();
        let t = LazyTensor::from_f32(&[n], &data).cast(DType::F16);
        assert_eq!(streamed(&t), t.bytes().unwrap().as_ref());
        assert_eq!(t.byte_len(), 2 * n);
    }

    #[test]
    fn rows_made_piece_by_piece_are_those_of_the_whole() {
        // A convolution's weight as its kernel reads it: channels last, in panels; more rows than a piece holds.
        let weight = counting(&[75, 700, 3, 3]).cast(DType::BF16);
        let panels = weight.clone().permute(&[0, 2, 3, 1]).panels(32);
        assert_eq!(panels.shape(), [3, 6300, 32]);
        assert_eq!(panels.row_block(), Some(32));
        assert!(streamed(&panels) == *panels.bytes().unwrap());
        let flat = panels.reshape(&[3, 6300 * 32]).slice(1, 5, 900);
        assert_eq!(flat.row_block(), Some(32));
        assert!(streamed(&flat) == *flat.bytes().unwrap());
        for mixed in [
            weight.clone().permute(&[1, 0, 2, 3]),
            weight.clone().reshape(&[150, 350 * 9]).panels(32),
            weight.panels(5).panels(2),
        ] {
            assert_eq!(mixed.row_block(), None);
            assert!(streamed(&mixed) == *mixed.bytes().unwrap());
        }
    }

    #[test]
    fn packed_codes_made_piece_by_piece_are_those_of_the_whole() {
        let table: Vec<f32> = (0..64).map(|i| i as f32 * 7000.0).collect();
        let palette = Arc::new(Encoding::palette(6, &[1, 1], table).unwrap());
        // Rows of an odd number of codes, and more of them than a piece holds.
        let packed = counting(&[1001, 453])
            .encode(palette)
            .codes()
            .unwrap()
            .pack(6);
        assert_eq!(packed.row_block(), Some(8));
        assert_eq!(packed.byte_len(), (1001 * 453 * 6usize).div_ceil(8));
        assert!(streamed(&packed) == *packed.bytes().unwrap());
        assert_eq!(packed.reshape(&[1, 340_090]).row_block(), None);
    }

    #[test]
    fn panels_hold_a_column_after_the_other() {
        let t = counting(&[3, 2]).panels(2);
        assert_eq!(t.shape(), [2, 2, 2]);
        assert_eq!(t.to_f32().unwrap(), [0., 2., 1., 3., 4., 0., 5., 0.]);
    }

    #[test]
    fn an_overflow_in_a_later_piece_has_its_own_position() {
        let rows = CHUNK / 64 + 3;
        let mut data = vec![0.0; rows * 64];
        data[64 * (rows - 1) + 7] = 1e6;
        let t = LazyTensor::from_f32(&[rows, 64], &data)
            .cast(DType::F16)
            .panels(2);
        let error = t.stream::<WeightError>(|_| Ok(())).unwrap_err();
        let expected = 64 * (rows - 1) + 7;
        assert!(matches!(error, WeightError::Overflow { index, .. } if index == expected));
    }

    #[test]
    fn widening_and_narrowing_again_is_nothing() {
        let half = counting(&[8]).cast(DType::F16);
        let again = half.clone().cast(DType::F32).cast(DType::F16);
        assert_eq!(again.transforms(), half.transforms());
        let rounded = counting(&[8]).cast(DType::F16).cast(DType::F32);
        assert_eq!(rounded.transforms().len(), 2);
    }

    #[test]
    fn overflow_is_an_error_and_rounding_is_to_even() {
        let t = LazyTensor::from_f32(&[2], &[1.0, 65520.0]).cast(DType::F16);
        assert_eq!(
            t.bytes().unwrap_err(),
            WeightError::Overflow {
                value: 65520.0,
                index: 1,
                dtype: DType::F16
            }
        );
        // 2049 lies between 2048 and 2050; the even mantissa is 2048.
        let t = LazyTensor::from_f32(&[2], &[2049.0, 65519.0]).cast(DType::F16);
        assert_eq!(t.to_f32().unwrap(), [2048.0, 65504.0]);
    }

    #[test]
    fn absent_data_is_an_error() {
        let t = LazyTensor::absent(DType::F32, &[2]);
        assert_eq!(t.bytes().unwrap_err(), WeightError::Absent);
    }
}
