//! Operators over single elements and single rows.

use crate::error::{KernelError, check_length};
use crate::{Activation, Epilogue, Kernels, Pool};

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
        let epilogue = Epilogue {
            activation,
            ..Epilogue::default()
        };
        self.pieces(pool, x, |_, x| {
            // SAFETY: the table is of this processor.
            unsafe { (self.table.epilogue)(x, epilogue) }
        });
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
