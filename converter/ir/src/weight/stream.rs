//! Making the bytes of a weight, whole or piece by piece.

use std::borrow::Cow;
use std::ops::Range;

use super::cast::{cast_bytes, combine_bytes, pods, scale_bytes, widen};
use super::encoding::{Part, pack, pack_rows, unpack};
use super::movement::{panel_bytes, permute_bytes, select_bytes, slice_bytes};
use super::{CHUNK, LazyTensor, Source, Transform, WeightError};
use crate::types::DType;

impl LazyTensor {
    /// The stored bytes; none when they are not in one place.
    pub(super) fn stored_bytes(&self) -> &[u8] {
        match &self.source {
            Source::Bytes { buffer, range } => &(**buffer).as_ref()[range.clone()],
            _ => &[],
        }
    }

    /// The elements that the steps begin with.
    pub(super) fn source_bytes(&self) -> Result<Cow<'_, [u8]>, WeightError> {
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
    pub(super) fn source_rows(&self) -> usize {
        self.source_shape.first().copied().unwrap_or(1)
    }

    /// How many rows along the leading dimension of the stored tensor go together: rows that begin at a multiple of it
    /// become a part of the result without the others. `None` when the steps mix rows.
    pub(super) fn row_block(&self) -> Option<usize> {
        if matches!(self.source, Source::Parts(_)) {
            return None;
        }
        let mut lead = self.source_rows();
        let mut block = 1;
        for (i, t) in self.transforms.iter().enumerate() {
            match t {
                Transform::Cast(_) | Transform::PackRows(_) => {}
                Transform::Quantize(_) | Transform::Dequantize(..) if block == 1 => {}
                Transform::Scale { axis, .. } if block == 1 || *axis > 0 => {}
                Transform::Select { axis, .. } | Transform::Combine { axis, .. } if *axis > 0 => {}
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

    /// How many rows along the leading dimension make a piece.
    pub(super) fn rows_at_once(&self) -> usize {
        match self.row_block() {
            Some(block) => {
                let per_row = self.source_shape.iter().skip(1).product::<usize>().max(1);
                (CHUNK / per_row).max(1).next_multiple_of(block)
            }
            None => self.source_rows().max(1),
        }
    }

    /// The bytes of the result that some rows of the stored tensor make: all rows, or such as [`LazyTensor::row_block`]
    /// allows.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, WeightError> {
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
                Transform::Combine { axis, matrix } => {
                    bytes = Cow::Owned(combine_bytes(&bytes, dtype, &shape, *axis, matrix)?);
                    shape[*axis] = matrix.len() / shape[*axis];
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
                Transform::PackRows(bits) => {
                    bytes = Cow::Owned(pack_rows(&bytes, *bits));
                    dtype = DType::U8;
                    if let Some(row) = shape.last_mut() {
                        *row = 4 * *bits as usize;
                    }
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
    pub(super) fn part<'s>(&self, shape: &'s [usize], rows: &Range<usize>) -> Part<'s> {
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

    pub(super) fn stream_into<E: From<WeightError>>(
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
        let step = self.rows_at_once();
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
