//! Matrix product with packed weights, and the loop nest that convolution shares with it.

use std::ops::Range;

use crate::error::{KernelError, check_length, product};
use crate::panels::{Ahead, PanelSource};
use crate::pool::{Output, Scratch, share};
use crate::result::{Block, Integers, ResultMatrix};
use crate::tile::{DEPTH, ROW_STRIDE};
use crate::{Epilogue, Kernels, PANEL_WIDTH, PanelMatrix, Pool};

/// Row panels that are gathered at a time: together they stay in the second-level cache while every panel of weights
/// passes by.
const PANELS_PER_BLOCK: usize = 20;

/// Where the rows of the left operand come from.
pub(crate) trait RowSource: Sync {
    /// Writes elements `start..start + out.len()` of row `row`.
    fn gather(&self, row: usize, start: usize, out: &mut [f32]);
}

/// Rows that lie in memory one after the other.
pub(crate) struct DenseRows<'a> {
    pub data: &'a [f32],
    pub depth: usize,
}

impl RowSource for DenseRows<'_> {
    fn gather(&self, row: usize, start: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.depth + start..][..out.len()]);
    }
}

impl Kernels {
    /// `out = epilogue(a · weightsᵀ)`: `a` is `[rows][depth]`, `out` `[rows][columns]`, both row by row.
    ///
    /// Sums are f32, in blocks of up to 320 terms.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit the shape.
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
        check_product("gemm", rows, weights, epilogue, out)?;
        let source = DenseRows { data: a, depth };
        let result = self.result(weights.columns(), epilogue, None, out);
        self.multiply(pool, rows, &source, weights, result);
        Ok(())
    }

    /// The product of checked operands. Threads share the rows, or the columns when there are few rows.
    pub(crate) fn multiply(
        &self,
        pool: &Pool,
        rows: usize,
        source: &impl RowSource,
        weights: &impl PanelSource,
        result: ResultMatrix<'_>,
    ) {
        let row_panels = rows.div_ceil(self.table.tile_rows);
        let column_panels = weights.columns().div_ceil(PANEL_WIDTH);
        let product = Product {
            rows,
            source,
            weights,
            result,
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

    /// A product of checked operands.
    pub(crate) fn product<'a, S, W: PanelSource>(
        &self,
        rows: usize,
        source: &'a S,
        weights: &'a W,
        epilogue: Epilogue<'a>,
        out: &'a mut [f32],
    ) -> Product<'a, S, W> {
        Product {
            rows,
            source,
            weights,
            result: self.result(weights.columns(), epilogue, None, out),
        }
    }

    /// The result of a product with these kernels.
    pub(crate) fn result<'a>(
        &self,
        columns: usize,
        epilogue: Epilogue<'a>,
        integers: Option<Integers<'a>>,
        out: &'a mut [f32],
    ) -> ResultMatrix<'a> {
        ResultMatrix {
            table: self.table,
            columns,
            epilogue,
            integers,
            out: Output::new(out),
        }
    }
}

/// Checks what [`Kernels::multiply`] takes for granted.
pub(crate) fn check_product(
    kernel: &'static str,
    rows: usize,
    weights: &PanelMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &[f32],
) -> Result<(), KernelError> {
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

/// A product of checked operands.
pub(crate) struct Product<'a, S, W> {
    rows: usize,
    source: &'a S,
    weights: &'a W,
    result: ResultMatrix<'a>,
}

impl<S: RowSource, W: PanelSource> Product<'_, S, W> {
    /// Computes all of it in the calling thread.
    pub(crate) fn whole(&self, scratch: &mut Scratch) {
        let row_panels = self.rows.div_ceil(self.result.table.tile_rows);
        let column_panels = self.result.columns.div_ceil(PANEL_WIDTH);
        self.part(0..row_panels, 0..column_panels, scratch);
    }

    /// Computes the given row panels times the given column panels, which no other part may touch.
    fn part(&self, row_panels: Range<usize>, column_panels: Range<usize>, scratch: &mut Scratch) {
        let panel_rows = self.result.table.tile_rows;
        let panel_len = panel_rows * ROW_STRIDE;
        let memory = scratch.take(PANELS_PER_BLOCK * panel_len + DEPTH * PANEL_WIDTH);
        let (left, widened) = memory.split_at_mut(PANELS_PER_BLOCK * panel_len);
        let depth = self.weights.depth();
        // Blocks of equal size: a short one would read and write the output for little.
        let step = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
        let blocks = row_panels.len().div_ceil(PANELS_PER_BLOCK);
        for block in 0..blocks {
            let own = share(row_panels.len(), block, blocks);
            let block = row_panels.start + own.start..row_panels.start + own.end;
            let rows = block.start * panel_rows..(block.end * panel_rows).min(self.rows);
            // A product of no terms still has an epilogue.
            for start in (0..depth.max(1)).step_by(step) {
                let terms = step.min(depth - start);
                for (row, left) in rows.clone().zip(left.chunks_exact_mut(ROW_STRIDE)) {
                    self.source.gather(row, start, &mut left[..terms]);
                }
                for panel in column_panels.clone() {
                    let right = self
                        .weights
                        .rows(self.result.table, panel, start, terms, widened);
                    let own = start..start + terms;
                    let ahead = if panel + 1 < column_panels.end {
                        Ahead {
                            panel: panel + 1,
                            start,
                            rows: terms,
                        }
                    } else {
                        Ahead {
                            panel: column_panels.start,
                            start: own.end,
                            rows: step.min(depth - own.end),
                        }
                    };
                    self.panel(rows.clone(), panel, own, left, right, ahead);
                }
            }
        }
    }

    /// Adds the terms of a block of rows times one panel of weights.
    fn panel(
        &self,
        rows: Range<usize>,
        panel: usize,
        terms: Range<usize>,
        left: &[f32],
        right: &[f32],
        ahead: Ahead,
    ) {
        let parts = rows.len().div_ceil(self.result.table.tile_rows);
        let (panel_rows, width) = (self.result.table.tile_rows, self.result.table.tile_width);
        let end = self.result.columns.min((panel + 1) * PANEL_WIDTH);
        for column in (panel * PANEL_WIDTH..end).step_by(width) {
            let right = right.get(column % PANEL_WIDTH..).unwrap_or_default();
            let panels = left.chunks_exact(panel_rows * ROW_STRIDE);
            for (row, left) in rows.clone().step_by(panel_rows).zip(panels) {
                let block = Block {
                    row,
                    column,
                    rows: panel_rows.min(rows.end - row),
                    terms: terms.len(),
                    first: terms.start == 0,
                    last: terms.end == self.weights.depth(),
                };
                if column.is_multiple_of(PANEL_WIDTH) {
                    self.weights
                        .fetch(ahead, (row - rows.start) / panel_rows, parts);
                }
                // SAFETY: this part owns the tile, and makes no references to the output.
                unsafe { self.result.add(block, left, right) };
            }
        }
    }
}
