//! The steps that can be put on a weight.

use std::sync::Arc;

use super::encoding::ROW;
use super::{Encoding, LazyTensor, Source, Transform};
use crate::types::DType;

impl LazyTensor {
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
    pub(super) fn dtype_before_last(&self) -> Option<DType> {
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

    /// Weighted sums along `axis`, made in f32 and rounded to the element type: index `i` of the result is the sum of all
    /// indices `k`, each times element `[i][k]` of the row-major `matrix`.
    ///
    /// # Panics
    /// When the rows of the matrix do not have the size of the dimension, or the elements are not floats.
    pub fn combine(mut self, axis: usize, matrix: &[f32]) -> Self {
        let size = self.shape[axis];
        assert!(size > 0 && matrix.len().is_multiple_of(size) && self.dtype.is_float());
        self.shape[axis] = matrix.len() / size;
        self.max_abs = None;
        let matrix = matrix.into();
        self.transforms.push(Transform::Combine { axis, matrix });
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

    /// Rows of 32 codes of `bits` bits, one per byte, to `4 · bits` bytes each: a plane after the other for 8, 4, 2 and 1 of
    /// the bits, as far as they add up to `bits`, the lowest bits first. A plane of `p` bits has `4p` bytes; byte `i` holds
    /// codes `i`, `i + 4p`, `i + 8p` and so on from its lowest bits on. Unlike in [`LazyTensor::pack`], every row begins at a
    /// byte of its own, and steps of a kernel that take whole vectors undo it.
    ///
    /// # Panics
    /// When the elements are not single bytes, the last of two or more dimensions is not 32, or `bits` is not 1 to 8.
    pub fn pack_rows(mut self, bits: u32) -> Self {
        assert!(self.dtype.size() == 1 && (1..=8).contains(&bits));
        let (row, lead) = self.shape.split_last_mut().expect("rows have a dimension");
        assert!(*row == ROW && !lead.is_empty(), "rows of {row} codes");
        *row = 4 * bits as usize;
        self.dtype = DType::U8;
        self.transforms.push(Transform::PackRows(bits));
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
}
