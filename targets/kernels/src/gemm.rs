//! Matrix product with packed weights, and the loop nest that convolution shares with it.

use std::ops::Range;

use crate::error::{KernelError, check_length, product};
use crate::pool::{Output, Scratch};
use crate::tile::{DEPTH, MAX_ROWS, MAX_WIDTH, ROW_STRIDE, Tile};
use crate::{Epilogue, Kernels, PanelMatrix, Pool};

/// Row panels that are gathered at a time: together they stay in the second-level cache while every panel of weights
/// passes by.
const PANELS_PER_BLOCK: usize = 16;

/// Where the rows of the left operand come from.
pub(crate) trait RowSource: Sync {
    /// Writes elements `start..start + out.len()` of row `row`.
    fn gather(&self, row: usize, start: usize, out: &mut [f32]);
}

/// Rows that lie in memory one after the other.
struct DenseRows<'a> {
    data: &'a [f32],
    depth: usize,
}

impl RowSource for DenseRows<'_> {
    fn gather(&self, row: usize, start: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.depth + start..][..out.len()]);
    }
}

impl Kernels {
    /// `out = epilogue(a · weightsᵀ)`: `a` is `[rows][depth]`, `out` `[rows][columns]`, both row by row.
    ///
    /// Sums are f32, in blocks of 256 terms.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit the shape, or the weights are packed for other kernels.
    pub fn gemm(
        &self,
        pool: &Pool,
        rows: usize,
        a: &[f32],
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let depth = weights.depth();
        check_length("gemm", "a", product(&[rows, depth]), a.len())?;
        self.check_product("gemm", rows, weights, epilogue, out)?;
        let source = DenseRows { data: a, depth };
        self.multiply(pool, rows, &source, weights, epilogue, out);
        Ok(())
    }

    /// Checks what [`Kernels::multiply`] takes for granted.
    pub(crate) fn check_product(
        &self,
        kernel: &'static str,
        rows: usize,
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &[f32],
    ) -> Result<(), KernelError> {
        if weights.width() != self.panel_width() {
            return Err(KernelError::PanelWidth {
                expected: self.panel_width(),
                found: weights.width(),
            });
        }
        let elements = product(&[rows, weights.columns()]);
        check_length(kernel, "out", elements, out.len())?;
        if let Some(bias) = epilogue.bias {
            check_length(kernel, "bias", Some(weights.columns()), bias.len())?;
        }
        if let Some(residual) = epilogue.residual {
            check_length(kernel, "residual", elements, residual.len())?;
        }
        Ok(())
    }

    /// The product of checked operands. Threads share the rows, or the columns when there are few rows.
    pub(crate) fn multiply(
        &self,
        pool: &Pool,
        rows: usize,
        source: &impl RowSource,
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        let row_panels = rows.div_ceil(self.table.tile_rows);
        let column_panels = weights.columns().div_ceil(weights.width());
        let product = Product {
            kernels: *self,
            rows,
            source,
            weights,
            epilogue,
            out: Output::new(out),
        };
        // Parts write disjoint elements: whole rows, or whole columns.
        if row_panels >= 4 * pool.threads() {
            pool.split(row_panels, |own, scratch| {
                product.part(own, 0..column_panels, scratch);
            });
        } else {
            pool.split(column_panels, |own, scratch| {
                product.part(0..row_panels, own, scratch);
            });
        }
    }
}

struct Product<'a, S> {
    kernels: Kernels,
    rows: usize,
    source: &'a S,
    weights: &'a PanelMatrix<'a>,
    epilogue: Epilogue<'a>,
    out: Output<'a>,
}

impl<S: RowSource> Product<'_, S> {
    /// Computes the given row panels times the given column panels, which no other part may touch.
    fn part(&self, row_panels: Range<usize>, column_panels: Range<usize>, scratch: &mut Scratch) {
        let panel_rows = self.kernels.table.tile_rows;
        let panel_len = panel_rows * ROW_STRIDE;
        let width = self.weights.width();
        let memory = scratch.take(PANELS_PER_BLOCK * panel_len + DEPTH * width);
        let (left, widened) = memory.split_at_mut(PANELS_PER_BLOCK * panel_len);
        let mut first = row_panels.start;
        while first < row_panels.end {
            let block = first..row_panels.end.min(first + PANELS_PER_BLOCK);
            let rows = block.start * panel_rows..(block.end * panel_rows).min(self.rows);
            // A product of no terms still has an epilogue.
            let depth = self.weights.depth();
            let starts = (0..depth.max(1)).step_by(DEPTH);
            for start in starts {
                let terms = DEPTH.min(depth - start);
                for (row, left) in rows.clone().zip(left.chunks_exact_mut(ROW_STRIDE)) {
                    self.source.gather(row, start, &mut left[..terms]);
                }
                for panel in column_panels.clone() {
                    let right = self.weights.rows(panel, start, terms, widened);
                    for (i, left) in left.chunks_exact(panel_len).take(block.len()).enumerate() {
                        let first_row = rows.start + i * panel_rows;
                        let corner = (first_row, panel * width);
                        let tile_rows = panel_rows.min(self.rows - first_row);
                        self.tile(corner, tile_rows, left, right, start, terms);
                    }
                }
            }
            first = block.end;
        }
    }

    /// Adds `terms` terms from `start` on to one tile of the output, and finishes it when they are the last.
    fn tile(
        &self,
        (row, column): (usize, usize),
        rows: usize,
        left: &[f32],
        right: &[f32],
        start: usize,
        terms: usize,
    ) {
        let (width, columns) = (self.weights.width(), self.weights.columns());
        let used = width.min(columns - column);
        let range = |r: usize| {
            let at = (row + r) * columns + column;
            at..at + used
        };
        // The last panel is wider than the output: its tile goes through here.
        let mut edge = [0.0; MAX_ROWS * MAX_WIDTH];
        let direct = used == width;
        let (c, c_stride) = if direct {
            let at = range(0).start..range(rows - 1).end;
            // SAFETY: no reference to these elements is alive; the pointer is used up before the next one is made. Elements
            // of the span that belong to other columns are not touched: the tile writes `width` columns of each row.
            (unsafe { self.out.pointer(at) }, columns)
        } else {
            if start > 0 {
                for r in 0..rows {
                    // SAFETY: this part owns the tile; the reference ends with the copy.
                    let out = unsafe { self.out.slice(range(r)) };
                    edge[r * width..][..used].copy_from_slice(out);
                }
            }
            (edge.as_mut_ptr(), width)
        };
        assert!(left.len() >= rows * ROW_STRIDE && right.len() >= terms * width);
        let tile = Tile {
            a: left.as_ptr(),
            b: right.as_ptr(),
            depth: terms,
            c,
            c_stride,
            accumulate: start > 0,
        };
        let table = self.kernels.table;
        assert!(rows <= table.tile_rows && terms <= DEPTH);
        // SAFETY: the table is of this processor; `a` and `b` by the assertion; `c` is in bounds and ours, see above.
        unsafe { table.tiles[rows - 1](tile) };
        let last = start + terms == self.weights.depth();
        if direct && !last {
            return;
        }
        for r in 0..rows {
            // SAFETY: this part owns the tile; the reference ends with the iteration.
            let out = unsafe { self.out.slice(range(r)) };
            if !direct {
                out.copy_from_slice(&edge[r * width..][..used]);
            }
            if last {
                let epilogue = Epilogue {
                    bias: self.epilogue.bias.map(|b| &b[column..column + used]),
                    activation: self.epilogue.activation,
                    residual: self.epilogue.residual.map(|x| &x[range(r)]),
                };
                // SAFETY: the table is of this processor.
                unsafe { (table.epilogue)(out, epilogue) };
            }
        }
    }
}
