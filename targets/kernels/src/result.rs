//! The result of a product, tile by tile.

use crate::codes::{Codebook, Codes, line};
use crate::pool::Output;
use crate::table::{Dot, Table};
use crate::tile::{DEPTH, MAX_ROWS, ROW_STRIDE, Tile, TileFn};
use crate::{Activation, Epilogue, PANEL_WIDTH};

/// What turns sums of products of codes to numbers.
#[derive(Clone, Copy)]
pub(crate) struct Integers<'a> {
    /// The tiles, of this processor.
    pub dot: &'static Dot,
    /// The weights, of one scale per column.
    pub codes: Codes<'a>,
    /// Sums of the codes of each column.
    pub sums: &'a [i32],
    /// Scale of the left operand.
    pub scale: f32,
    /// What its zero is in the sums.
    pub zero: i32,
}

/// The result of a product `[rows][columns]` and what is done to it.
#[derive(Clone, Copy)]
pub(crate) struct ResultMatrix<'a> {
    pub table: &'static Table,
    pub columns: usize,
    pub epilogue: Epilogue<'a>,
    /// For a product of integers.
    pub integers: Option<Integers<'a>>,
    pub out: Output<'a>,
}

/// Which tile, and which of the terms are added to it.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub row: usize,
    pub column: usize,
    /// Rows, at most those of the largest tile.
    pub rows: usize,
    /// Terms, at most [`DEPTH`].
    pub terms: usize,
    /// Whether nothing has been added to the tile before.
    pub first: bool,
    /// Whether nothing will be added to it hereafter.
    pub last: bool,
}

impl ResultMatrix<'_> {
    /// Adds up the terms of `block`: `left` is `[rows][ROW_STRIDE]`, `right` `[terms][PANEL_WIDTH]` from the column on.
    ///
    /// # Safety
    /// The tile must belong to the calling thread alone, and no reference to its elements may be alive.
    pub(crate) unsafe fn add(&self, block: Block, left: &[f32], right: &[f32]) {
        let Block {
            rows,
            terms,
            column,
            ..
        } = block;
        let width = self.table.tile_width;
        assert!(terms <= DEPTH);
        assert!(left.len() >= (rows - 1) * ROW_STRIDE + terms);
        assert!(right.len() + PANEL_WIDTH >= terms * PANEL_WIDTH + width);
        let mut tile = Tile {
            a: left.as_ptr(),
            b: right.as_ptr(),
            depth: terms,
            c: std::ptr::null_mut(),
            c_stride: self.columns,
            accumulate: !block.first,
            bias: std::ptr::null(),
            residual: std::ptr::null(),
        };
        if self.columns - column < width {
            // SAFETY: the caller's promise; the operands are as long as the assertions say.
            return unsafe { self.add_at_edge(block, tile) };
        }
        let start = block.row * self.columns + column;
        let span = start..start + (rows - 1) * self.columns + width;
        let mut rest = self.epilogue;
        // Sums of integers are numbers only when they are complete.
        let is_number = self.integers.is_none();
        if let Some(bias) = rest.bias.take_if(|_| is_number).filter(|_| block.first) {
            tile.bias = bias[column..column + width].as_ptr();
        }
        let plain = is_number && rest.activation == Activation::None;
        if let Some(residual) = rest.residual.take_if(|_| plain).filter(|_| block.last) {
            tile.residual = residual[span.clone()].as_ptr();
        }
        // SAFETY: the table is of this processor; the operands are as long as the assertions and the slices say. Of the span
        // only `width` columns of each row are written, which are the caller's.
        unsafe {
            tile.c = self.out.pointer(span);
            (self.tile(rows, width).0)(tile);
        }
        if block.last && !plain {
            for row in block.row..block.row + rows {
                // SAFETY: as above; the reference ends with the call.
                unsafe { self.finish(row, column, width, rest) };
            }
        }
    }

    fn tile(&self, rows: usize, columns: usize) -> (TileFn, usize) {
        let dot = self.integers.map(|integers| integers.dot);
        self.table.tile(dot, rows, columns)
    }

    /// The tile of the last columns, fewer than the tile is wide: it goes through a buffer.
    ///
    /// # Safety
    /// As [`ResultMatrix::add`]; `tile` has its operands.
    unsafe fn add_at_edge(&self, block: Block, mut tile: Tile) {
        let used = self.columns - block.column;
        let (run, width) = self.tile(block.rows, used);
        let mut edge = [0.0; MAX_ROWS * PANEL_WIDTH];
        let out = |r: usize| {
            let at = (block.row + r) * self.columns + block.column;
            // SAFETY: the caller's promise; each reference ends before the next one is made.
            unsafe { self.out.slice(at..at + used) }
        };
        if !block.first {
            for r in 0..block.rows {
                edge[r * width..][..used].copy_from_slice(out(r));
            }
        }
        (tile.c, tile.c_stride) = (edge.as_mut_ptr(), width);
        // SAFETY: the table is of this processor; the buffer holds the largest tile.
        unsafe { run(tile) };
        for r in 0..block.rows {
            out(r).copy_from_slice(&edge[r * width..][..used]);
            if block.last {
                // SAFETY: the caller's promise.
                unsafe { self.finish(block.row + r, block.column, used, self.epilogue) };
            }
        }
    }

    /// Makes numbers of the sums of integers, and applies what is in `epilogue` to `width` elements of a row.
    ///
    /// # Safety
    /// No other reference to them may be alive.
    unsafe fn finish(&self, row: usize, column: usize, width: usize, epilogue: Epilogue<'_>) {
        let at = row * self.columns + column;
        let epilogue = Epilogue {
            bias: epilogue.bias.map(|b| &b[column..column + width]),
            activation: epilogue.activation,
            residual: epilogue.residual.map(|x| &x[at..at + width]),
        };
        // SAFETY: the caller's promise; the table is of this processor.
        unsafe {
            let own = self.out.slice(at..at + width);
            if let Some(integers) = &self.integers {
                let scales = integers.scales(column / PANEL_WIDTH);
                let scales = &scales[column % PANEL_WIDTH..][..width];
                let sums = &integers.sums[column..column + width];
                (self.table.dequantize)(own, sums, scales, integers.zero, integers.scale);
            }
            (self.table.epilogue)(own, epilogue);
        }
    }
}

impl Integers<'_> {
    /// The scales of the columns of a panel.
    fn scales(&self, panel: usize) -> [f32; PANEL_WIDTH] {
        match &self.codes.book {
            Codebook::Scales { scale, .. } => line(scale, panel),
            Codebook::Palette { .. } => unreachable!("products of integers have scales"),
        }
    }
}
