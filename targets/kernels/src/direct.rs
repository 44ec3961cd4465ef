//! Convolution of stride one: an input pixel is gathered once and then serves every tap of the kernel.

use std::ops::Range;

use crate::conv2d::Conv2d;
use crate::integers::{PER_WORD, Quantizer};
use crate::panels::{Ahead, PanelSource};
use crate::pool::{Scratch, share};
use crate::result::{Block, ResultMatrix};
use crate::tile::{DEPTH, ROW_STRIDE};
use crate::{PANEL_WIDTH, Pool};

/// Output pixels of a block: their inputs stay in the second-level cache while every panel of weights passes by.
const BLOCK_PIXELS: usize = 256;

/// Output columns of a block, at most.
const BLOCK_COLUMNS: usize = 64;

/// Kernel rows or columns above which the border of a block would outweigh its pixels.
const MAX_KERNEL: usize = 7;

/// Channels below which the sums of a tap are too short to be worth a pass over the output.
const MIN_CHANNELS: usize = 64;

/// A convolution whose operands were checked.
pub(crate) struct Direct<'a, W> {
    pub shape: Conv2d,
    /// Rows and columns of an output image.
    pub output: [usize; 2],
    pub input: &'a [f32],
    pub weights: &'a W,
    /// How the input becomes codes, for a product of integers: four channels are a word.
    pub quantizer: Option<Quantizer>,
    pub result: ResultMatrix<'a>,
}

/// Output pixels that share their gathered inputs.
struct Tiling {
    /// Blocks down and across an image.
    blocks: [usize; 2],
    /// Rows and columns of the largest block.
    extent: [usize; 2],
}

/// Whether this is the better way for such a convolution, with so many channels in a word.
pub(crate) fn suits(shape: &Conv2d, per_word: usize) -> bool {
    let [kh, kw] = shape.kernel;
    shape.stride == [1, 1]
        && kh * kw > 1
        && kh.max(kw) <= MAX_KERNEL
        && shape.channels >= MIN_CHANNELS
        && shape.channels.is_multiple_of(per_word)
}

impl<W: PanelSource> Direct<'_, W> {
    /// Computes the convolution. Threads share the blocks, or the output channels where there are few blocks.
    pub(crate) fn run(&self, pool: &Pool) {
        let tiling = self.tiling();
        let blocks = self.shape.batch * tiling.blocks[0] * tiling.blocks[1];
        let panels = self.result.columns.div_ceil(PANEL_WIDTH);
        let threads = pool.threads();
        if blocks >= 4 * threads || blocks.is_multiple_of(threads) {
            pool.split(blocks, |own, scratch| {
                own.for_each(|block| self.block(&tiling, block, 0..panels, scratch));
            });
        } else {
            pool.split(panels, |own, scratch| {
                (0..blocks).for_each(|block| self.block(&tiling, block, own.clone(), scratch));
            });
        }
    }

    /// Words of a pixel.
    fn words(&self) -> usize {
        match self.quantizer {
            Some(_) => self.shape.channels / PER_WORD,
            None => self.shape.channels,
        }
    }

    fn tiling(&self) -> Tiling {
        let [rows, columns] = self.output;
        let across = columns.div_ceil(BLOCK_COLUMNS).max(1);
        let width = columns.div_ceil(across).max(1);
        let down = rows.div_ceil((BLOCK_PIXELS / width).max(1)).max(1);
        Tiling {
            blocks: [down, across],
            extent: [rows.div_ceil(down), width],
        }
    }

    /// Computes block `block` for the given panels of output channels.
    fn block(&self, tiling: &Tiling, block: usize, panels: Range<usize>, scratch: &mut Scratch) {
        let ([down, across], [kh, kw]) = (tiling.blocks, self.shape.kernel);
        let image = block / (down * across);
        let y = share(self.output[0], block / across % down, down);
        let x = share(self.output[1], block % across, across);
        let patch_width = x.len() + kw - 1;
        let largest = (tiling.extent[0] + kh - 1) * (tiling.extent[1] + kw - 1);
        let memory = scratch.take(largest * ROW_STRIDE + DEPTH * PANEL_WIDTH);
        let (patch, widened) = memory.split_at_mut(largest * ROW_STRIDE);

        let channels = self.words();
        let slices = channels.div_ceil(DEPTH);
        let steps = slices * kh * kw;
        for slice in 0..slices {
            let own = share(channels, slice, slices);
            self.gather(image, [y.clone(), x.clone()], own.clone(), patch);
            for panel in panels.clone() {
                for tap in 0..kh * kw {
                    let start = tap * channels + own.start;
                    let right =
                        self.weights
                            .rows(self.result.table, panel, start, own.len(), widened);
                    let step = slice * kh * kw + tap;
                    let at = (tap / kw * patch_width + tap % kw) * ROW_STRIDE;
                    let pass = Pass {
                        image,
                        area: [y.clone(), x.clone()],
                        patch_width,
                        panel,
                        terms: own.len(),
                        first: step == 0,
                        last: step + 1 == steps,
                        ahead: Ahead {
                            panel: if tap + 1 < kh * kw {
                                panel
                            } else {
                                (panel + 1).min(panels.end - 1)
                            },
                            start: (tap + 1) % (kh * kw) * channels + own.start,
                            rows: own.len(),
                        },
                    };
                    self.pass(&pass, &patch[at..], right);
                }
            }
        }
    }

    /// Copies some words of the input pixels under a block, zeros outside the image: `[rows][columns][ROW_STRIDE]`.
    fn gather(
        &self,
        image: usize,
        [y, x]: [Range<usize>; 2],
        words: Range<usize>,
        patch: &mut [f32],
    ) {
        let s = &self.shape;
        let [kh, kw] = s.kernel;
        let mut pixels = patch.chunks_exact_mut(ROW_STRIDE);
        for row in y.start..y.end + kh - 1 {
            let row = row.checked_sub(s.pads[0]).filter(|row| *row < s.height);
            let pixels = pixels.by_ref().take(x.len() + kw - 1);
            for (column, pixel) in (x.start..).zip(pixels) {
                let pixel = &mut pixel[..words.len()];
                let column = column.checked_sub(s.pads[1]).filter(|c| *c < s.width);
                let source = row.zip(column).map(|(row, column)| {
                    let at = ((image * s.height + row) * s.width + column) * s.channels;
                    &self.input[at..at + s.channels]
                });
                match (source, &self.quantizer) {
                    (Some(x), None) => pixel.copy_from_slice(&x[words.clone()]),
                    (None, None) => pixel.fill(0.0),
                    (Some(x), Some(quantizer)) => {
                        let own = &x[words.start * PER_WORD..words.end * PER_WORD];
                        // SAFETY: the table is of this processor.
                        unsafe { (self.result.table.quantize)(own, quantizer, pixel) };
                    }
                    (None, Some(quantizer)) => pixel.fill(quantizer.zeros()),
                }
            }
        }
    }

    /// Adds the terms of one tap: `patch` starts at the input pixel under it for the first output pixel.
    fn pass(&self, pass: &Pass, patch: &[f32], right: &[f32]) {
        let table = self.result.table;
        let [y, x] = &pass.area;
        let strips = x.len().div_ceil(table.tile_rows);
        let end = self.result.columns.min((pass.panel + 1) * PANEL_WIDTH);
        for column in (pass.panel * PANEL_WIDTH..end).step_by(table.tile_width) {
            let right = &right[column % PANEL_WIDTH..];
            for (i, row) in y.clone().enumerate() {
                for strip in 0..strips {
                    let pixels = share(x.len(), strip, strips);
                    let left = &patch[(i * pass.patch_width + pixels.start) * ROW_STRIDE..];
                    let pixel = (pass.image * self.output[0] + row) * self.output[1] + x.start;
                    let block = Block {
                        row: pixel + pixels.start,
                        column,
                        rows: pixels.len(),
                        terms: pass.terms,
                        first: pass.first,
                        last: pass.last,
                    };
                    if column.is_multiple_of(PANEL_WIDTH) {
                        self.weights
                            .fetch(pass.ahead, i * strips + strip, y.len() * strips);
                    }
                    // SAFETY: this part owns the block and the panel, and makes no references to the output.
                    unsafe { self.result.add(block, left, right) };
                }
            }
        }
    }
}

/// One tap over some channels, for one block and one panel.
struct Pass {
    image: usize,
    /// Output rows and columns.
    area: [Range<usize>; 2],
    /// Gathered pixels of a row.
    patch_width: usize,
    panel: usize,
    /// Channels.
    terms: usize,
    first: bool,
    last: bool,
    /// The weights of the next pass.
    ahead: Ahead,
}
