//! Products of two operands that are both known only at run time.

use crate::error::{KernelError, check_length, product};
use crate::gemm::DenseRows;
use crate::panels::{PanelSource, fill_panel};
use crate::pool::Output;
use crate::table::Table;
use crate::{Epilogue, Kernels, PANEL_WIDTH, Pool};

/// Shape of a batch of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matmul {
    /// Products.
    pub batch: usize,
    /// Rows of the left operand and of the result.
    pub rows: usize,
    /// Terms of each dot product.
    pub depth: usize,
    /// Columns of the result.
    pub columns: usize,
    /// Whether the right operand is `[columns][depth]` and not `[depth][columns]`.
    pub transposed: bool,
    /// Whether one right operand serves the whole batch.
    pub shared: bool,
}

const NAME: &str = "matmul";

impl Kernels {
    /// `out = a · b` for each matrix of a batch: `a` is `[batch][rows][depth]`, `out` `[batch][rows][columns]`, and `b`
    /// `[batch][depth][columns]`, or what `shape` says of it. As `torch.matmul`.
    ///
    /// Sums are f32, in blocks of up to 320 terms.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit the shape.
    pub fn matmul(
        &self,
        pool: &Pool,
        shape: Matmul,
        a: &[f32],
        b: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let Matmul {
            batch,
            rows,
            depth,
            columns,
            ..
        } = shape;
        check_length(NAME, "a", product(&[batch, rows, depth]), a.len())?;
        let matrices = if shape.shared { 1 } else { batch };
        check_length(NAME, "b", product(&[matrices, depth, columns]), b.len())?;
        check_length(NAME, "out", product(&[batch, rows, columns]), out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        if shape.shared {
            let source = DenseRows { data: a, depth };
            let right = RunTimePanels { shape, data: b };
            let result = self.result(columns, Epilogue::default(), None, out);
            self.multiply(pool, batch * rows, &source, &right, result);
            return Ok(());
        }
        let operands = |i: usize| {
            let left = DenseRows {
                data: &a[i * rows * depth..][..rows * depth],
                depth,
            };
            let data = &b[i * depth * columns..][..depth * columns];
            (left, RunTimePanels { shape, data })
        };
        if batch < pool.threads() {
            for (i, out) in out.chunks_exact_mut(rows * columns).enumerate() {
                let (left, right) = operands(i);
                let result = self.result(columns, Epilogue::default(), None, out);
                self.multiply(pool, rows, &left, &right, result);
            }
            return Ok(());
        }
        let out = Output::new(out);
        pool.split(batch, |own, scratch| {
            for i in own {
                let (left, right) = operands(i);
                // SAFETY: each product of the batch belongs to one part.
                let out = unsafe { out.slice(i * rows * columns..(i + 1) * rows * columns) };
                self.product(rows, &left, &right, Epilogue::default(), out)
                    .whole(scratch);
            }
        });
        Ok(())
    }
}

/// A matrix that is cut in panels block by block, when the blocks are used.
struct RunTimePanels<'a> {
    shape: Matmul,
    data: &'a [f32],
}

impl PanelSource for RunTimePanels<'_> {
    fn columns(&self) -> usize {
        self.shape.columns
    }

    fn depth(&self) -> usize {
        self.shape.depth
    }

    fn rows<'b>(
        &'b self,
        _table: &Table,
        panel: usize,
        start: usize,
        rows: usize,
        buffer: &'b mut [f32],
    ) -> &'b [f32] {
        let Matmul { depth, columns, .. } = self.shape;
        let buffer = &mut buffer[..rows * PANEL_WIDTH];
        let first = panel * PANEL_WIDTH;
        let own = first..columns.min(first + PANEL_WIDTH);
        if self.shape.transposed {
            let lines = own.map(|column| &self.data[column * depth + start..][..rows]);
            fill_panel(lines, buffer);
        } else {
            for (term, line) in buffer.chunks_exact_mut(PANEL_WIDTH).enumerate() {
                let source = &self.data[(start + term) * columns..][own.clone()];
                line[..source.len()].copy_from_slice(source);
                line[source.len()..].fill(0.0);
            }
        }
        buffer
    }
}
