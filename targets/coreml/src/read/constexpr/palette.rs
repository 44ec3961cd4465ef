//! Palettized weights: indices into tables, in parallel over the elements.

use rayon::prelude::*;

use super::super::constant::{Constant, elements};
use super::super::element::integer;
use super::super::error::Fault;
use super::blocks::Blocks;
use super::sparse::element_size;
use crate::proto::DataType;

/// Elements that one task makes at least.
const TASK: usize = 1 << 14;
/// Bytes made per byte stored at most: a bit that chooses a vector of 16 f32 makes 512. It bounds what a small file can
/// ask for.
const MAX_EXPANSION: usize = 1024;

/// A table per group of elements: entries of one element, or of a vector along an axis.
pub(super) struct Palette<'a> {
    table: &'a Constant,
    blocks: Blocks,
    /// Entries per group.
    entries: usize,
    /// Elements per entry.
    vector: usize,
    /// The axis along which the elements of an entry stand.
    axis: usize,
}

impl<'a> Palette<'a> {
    /// A table for indices of `shape`: its dimensions are a number of groups per dimension, then entries, then elements
    /// per entry.
    ///
    /// # Errors
    /// When the table's shape does not go with that of the indices, or its elements have no whole bytes.
    pub(super) fn new(
        table: &'a Constant,
        shape: &[usize],
        axis: Option<i64>,
    ) -> Result<Self, Fault> {
        let fault = || {
            let found = &table.shape;
            Fault::malformed(format!(
                "a table of shape {found:?} does not go with indices of shape {shape:?}"
            ))
        };
        let [groups @ .., entries, vector] = table.shape.as_slice() else {
            return Err(fault());
        };
        let axis = match axis {
            Some(axis) if axis < 0 => usize::try_from(axis + shape.len() as i64).ok(),
            Some(axis) => usize::try_from(axis).ok(),
            None if *vector == 1 => Some(0),
            None => None,
        };
        let axis = axis.filter(|a| *a < shape.len()).ok_or_else(fault)?;
        let whole = matches!(
            table.dtype,
            DataType::Int8 | DataType::UInt8 | DataType::Float16 | DataType::Float32
        );
        if !whole || *entries == 0 || *vector == 0 {
            return Err(fault());
        }
        Ok(Palette {
            table,
            blocks: Blocks::new(shape, groups)?,
            entries: *entries,
            vector: *vector,
            axis,
        })
    }

    /// The entries that the indices choose, as a dense tensor.
    ///
    /// # Errors
    /// When an index is beyond the table, or the result is out of proportion.
    pub(super) fn look_up(&self, indices: &Constant) -> Result<Constant, Fault> {
        let at = integer(indices.dtype)
            .ok_or_else(|| Fault::malformed("the indices are no integers"))?;
        let stored = indices.bytes();
        let chosen = |i: usize| usize::try_from(at(stored, i)).unwrap_or(usize::MAX);
        if !(0..indices.len())
            .into_par_iter()
            .all(|i| chosen(i) < self.entries)
        {
            return Err(Fault::malformed(format!(
                "an index is beyond the table's {} entries",
                self.entries
            )));
        }
        let size = element_size(self.table);
        let mut shape = indices.shape.clone();
        shape[self.axis] = shape[self.axis].saturating_mul(self.vector);
        let total = elements(&shape).and_then(|n| n.checked_mul(size));
        let room = (stored.len() + self.table.bytes().len()).saturating_mul(MAX_EXPANSION);
        let total = total.filter(|n| *n <= room).ok_or_else(|| {
            Fault::unsupported(format!("{} bytes would become {shape:?}", stored.len()))
        })?;
        let inner: usize = indices.shape[self.axis + 1..].iter().product();
        let (table, vector) = (self.table.bytes(), self.vector);
        let mut bytes = vec![0; total];
        // One chunk per position up to the axis: the elements of `inner` entries, interleaved.
        let chunk = vector * inner * size;
        let write = |outer: usize, chunk: &mut [u8]| {
            for k in 0..inner {
                let position = outer * inner + k;
                let entry = self.blocks.of(position) * self.entries + chosen(position);
                for t in 0..vector {
                    let (from, to) = ((entry * vector + t) * size, (t * inner + k) * size);
                    chunk[to..to + size].copy_from_slice(&table[from..from + size]);
                }
            }
        };
        bytes
            .par_chunks_mut(chunk)
            .with_min_len(TASK / (vector * inner).clamp(1, TASK))
            .enumerate()
            .for_each(|(outer, chunk)| write(outer, chunk));
        Constant::owned(self.table.dtype, shape, bytes, true)
    }

    /// The mask of the dense result, for the mask of the indices: every truth value once per element of an entry.
    pub(super) fn widened(&self, mask: &[bool], shape: &[usize]) -> (Vec<bool>, Vec<usize>) {
        let inner: usize = shape[self.axis + 1..].iter().product();
        let rows = mask.chunks(inner.max(1));
        let wide = rows.flat_map(|row| std::iter::repeat_n(row, self.vector).flatten().copied());
        let mut wide_shape = shape.to_vec();
        wide_shape[self.axis] *= self.vector;
        (wide.collect(), wide_shape)
    }
}
