//! Operators over single elements and single rows.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::{KernelError, check_length, product};
use crate::{Activation, Kernels, Pool, Unary};

/// A 16-bit type that results are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

/// Elements that a thread takes at a time.
const GRAIN: usize = 4096;

impl Kernels {
    /// Calls `work` for pieces of `x`: offset and elements.
    fn pieces(&self, pool: &Pool, x: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
        let whole = x.len() - x.len() % GRAIN;
        let (even, rest) = x.split_at_mut(whole);
        pool.split_rows(even, whole / GRAIN, |range, own, _| {
            work(range.start * GRAIN, own);
        });
        work(whole, rest);
    }

    /// `x = activation(x)`.
    pub fn activate(&self, pool: &Pool, activation: Activation, x: &mut [f32]) {
        self.unary(pool, activation.into(), x);
    }

    /// `x = function(x)`.
    pub fn unary(&self, pool: &Pool, function: Unary, x: &mut [f32]) {
        self.pieces(pool, x, |_, x| {
            // SAFETY: the table is of this processor.
            unsafe { (self.table.unary)(x, function) }
        });
    }

    /// Rounds each element to the nearest value of `storage`, halves to even; too large ones become infinite.
    pub fn round_to(&self, pool: &Pool, storage: Storage, x: &mut [f32]) {
        self.pieces(pool, x, |_, x| match storage {
            Storage::F16 => {
                let mut narrow = [f16::ZERO; 256];
                for x in x.chunks_mut(narrow.len()) {
                    let narrow = &mut narrow[..x.len()];
                    narrow.convert_from_f32_slice(x);
                    narrow.convert_to_f32_slice(x);
                }
            }
            Storage::Bf16 => {
                let mut narrow = [bf16::ZERO; 256];
                for x in x.chunks_mut(narrow.len()) {
                    let narrow = &mut narrow[..x.len()];
                    narrow.convert_from_f32_slice(x);
                    narrow.convert_to_f32_slice(x);
                }
            }
        });
    }

    /// `out = left · gelu(right)` for the two halves of each row of `input`, `[rows][2 · width]` to `[rows][width]`, as
    /// `diffusers.models.activations.GEGLU` after its projection.
    ///
    /// # Errors
    /// [`KernelError`] when `input` is not `rows` rows of even length or `out` is not half as long.
    pub fn geglu(
        &self,
        pool: &Pool,
        rows: usize,
        input: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        const NAME: &str = "geglu";
        check_length(NAME, "input", product(&[out.len(), 2]), input.len())?;
        if out.is_empty() {
            return Ok(());
        }
        if rows == 0 || !out.len().is_multiple_of(rows) {
            return Err(KernelError::Shape {
                kernel: NAME,
                reason: "the elements are not whole rows",
            });
        }
        let width = out.len() / rows;
        pool.split_rows(out, rows, |rows, own, _| {
            let input = input[rows.start * 2 * width..].chunks_exact(2 * width);
            for (row, out) in input.zip(own.chunks_exact_mut(width)) {
                let (left, right) = row.split_at(width);
                out.copy_from_slice(left);
                // SAFETY: the table is of this processor.
                unsafe { (self.table.multiply_gelu)(out, right) };
            }
        });
        Ok(())
    }

    /// `sum = sum + x`.
    ///
    /// # Errors
    /// [`KernelError::Length`] when the two differ in length.
    pub fn add(&self, pool: &Pool, sum: &mut [f32], x: &[f32]) -> Result<(), KernelError> {
        check_length("add", "x", Some(sum.len()), x.len())?;
        self.pieces(pool, sum, |at, sum| {
            // SAFETY: the table is of this processor.
            unsafe { (self.table.add)(sum, &x[at..at + sum.len()]) }
        });
        Ok(())
    }

    /// Softmax of each of `rows` rows of `x`. A row of negative infinities, which has none, becomes zeros.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when `x` is not `rows` rows of equal length.
    pub fn softmax(&self, pool: &Pool, rows: usize, x: &mut [f32]) -> Result<(), KernelError> {
        if x.is_empty() {
            return Ok(());
        }
        if rows == 0 || !x.len().is_multiple_of(rows) {
            return Err(KernelError::Shape {
                kernel: "softmax",
                reason: "the elements are not whole rows",
            });
        }
        let width = x.len() / rows;
        pool.split_rows(x, rows, |_, own, _| {
            for row in own.chunks_exact_mut(width) {
                // SAFETY: the table is of this processor.
                unsafe { (self.table.softmax)(row) };
            }
        });
        Ok(())
    }
}
