//! Copies in another order of dimensions.

use crate::error::KernelError;
use crate::pool::Output;
use crate::strided::{Strided, Walk};
use crate::{Kernels, Pool};

/// Elements that a thread takes at a time, where a dimension is long enough.
const GRAIN: usize = 4096;

/// Rows and columns of the squares in which two dimensions change places: both sides stay in the first-level cache.
const SQUARE: usize = 16;

impl Kernels {
    /// `out[i, j, …] = input[i, j, …]`, from memory in any order to one that is row by row with these `extents`: a
    /// permutation, a slice, or a broadcast.
    ///
    /// # Errors
    /// [`KernelError`] when the input does not reach as far as the extents ask for, or `out` has another length.
    pub fn permute(
        &self,
        pool: &Pool,
        extents: &[usize],
        input: Strided<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let mut walk = Walk::new("permute", extents, [("input", input)], out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let data = input.data;
        let (extent, [step]) = (walk.inner.extent, walk.inner.strides);
        // The next dimension outwards is contiguous in the input: squares of the two are transposed.
        let across = (step > 1)
            .then(|| walk.outer.pop_if(|d| d.strides == [1]))
            .flatten();
        let rows = across.map_or(1, |d| d.extent);
        let strip = if across.is_some() { SQUARE } else { GRAIN };
        let pieces = extent.div_ceil(strip);
        let out = Output::new(out);
        pool.split(walk.runs() * pieces, |own, _| {
            for piece in own {
                let (run, first) = (piece / pieces, piece % pieces * strip);
                let columns = first..extent.min(first + strip);
                let [start] = walk.start(run);
                for top in (0..rows).step_by(SQUARE) {
                    for row in top..rows.min(top + SQUARE) {
                        let at = (run * rows + row) * extent;
                        // SAFETY: the pieces are disjoint.
                        let out = unsafe { out.slice(at + columns.start..at + columns.end) };
                        let data = &data[start + row + columns.start * step..];
                        match step {
                            0 => out.fill(data[0]),
                            1 => out.copy_from_slice(&data[..out.len()]),
                            _ => {
                                for (out, x) in out.iter_mut().zip(data.iter().step_by(step)) {
                                    *out = *x;
                                }
                            }
                        }
                    }
                }
            }
        });
        Ok(())
    }
}
