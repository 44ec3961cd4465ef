//! Attention without the matrix of scores: keys pass by in blocks, and the softmax is kept up to date (Milakov and
//! Gimelshein, 2018; Dao et al., 2022).

use std::ops::Range;

use crate::error::{KernelError, check_length, product};
use crate::pool::{Output, Scratch};
use crate::rows::SoftmaxState;
use crate::table::Table;
use crate::tile::{DEPTH, MAX_ROWS, ROW_STRIDE, Tile};
use crate::{Kernels, PANEL_WIDTH, Pool};

/// Row panels of queries that share one packing of the keys and values.
const PANELS_PER_BLOCK: usize = 16;

/// Keys that are scored in one go: the depth of the product of their scores and values, in whole panels.
const KEYS: usize = DEPTH / PANEL_WIDTH * PANEL_WIDTH;

/// Shape of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens that ask, per sequence.
    pub queries: usize,
    /// Tokens that are asked, per sequence.
    pub keys: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Tokens with their heads: token `t` of sequence `b` starts at `(b · tokens + t) · stride`, and its head `h` another
/// `h · head_dim` further. A stride above `heads · head_dim` lets the queries, keys and values of one product lie side by
/// side.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The elements, from the first head of the first token on.
    pub data: &'a [f32],
    /// Elements from one token to the next.
    pub stride: usize,
}

const NAME: &str = "attention";

impl Heads<'_> {
    fn check(
        &self,
        operand: &'static str,
        shape: &Attention,
        tokens: usize,
    ) -> Result<(), KernelError> {
        let width = product(&[shape.heads, shape.head_dim]);
        let all = product(&[shape.batch, tokens]);
        if all == Some(0) {
            return Ok(());
        }
        let needed = all
            .and_then(|all| product(&[all - 1, self.stride]))
            .zip(width)
            .and_then(|(start, width)| start.checked_add(width));
        match needed.zip(width) {
            Some((needed, width)) if self.stride >= width && self.data.len() >= needed => Ok(()),
            Some((needed, width)) if self.stride >= width => Err(KernelError::Length {
                kernel: NAME,
                operand,
                expected: needed,
                found: self.data.len(),
            }),
            _ => Err(KernelError::Shape {
                kernel: NAME,
                reason: "the stride of the tokens is below heads times head_dim",
            }),
        }
    }

    fn head(&self, token: usize, head: usize, head_dim: usize) -> &[f32] {
        &self.data[token * self.stride + head * head_dim..][..head_dim]
    }
}

impl Kernels {
    /// `out = softmax(scale · q kᵀ + mask) v` for each head, as `torch.nn.functional.scaled_dot_product_attention`.
    ///
    /// `mask` is `[queries][keys]`, added for every sequence and head; negative infinity hides a key. A query that no key
    /// is shown to gives zeros. `out` is `[batch][queries][heads][head_dim]`.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit the shape or a stride is too small.
    #[allow(clippy::too_many_arguments, reason = "the operands of the operator")]
    pub fn attention(
        &self,
        pool: &Pool,
        shape: Attention,
        q: Heads<'_>,
        k: Heads<'_>,
        v: Heads<'_>,
        mask: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        q.check("q", &shape, shape.queries)?;
        k.check("k", &shape, shape.keys)?;
        v.check("v", &shape, shape.keys)?;
        if let Some(mask) = mask {
            let elements = product(&[shape.queries, shape.keys]);
            check_length(NAME, "mask", elements, mask.len())?;
        }
        let elements = product(&[shape.batch, shape.queries, shape.heads, shape.head_dim]);
        check_length(NAME, "out", elements, out.len())?;
        let call = Call {
            table: self.table,
            shape,
            q,
            k,
            v,
            mask,
            out: Output::new(out),
        };
        let block = PANELS_PER_BLOCK * self.table.tile_rows;
        let blocks = shape.queries.div_ceil(block);
        pool.split(shape.batch * shape.heads * blocks, |own, scratch| {
            for task in own {
                let first = task % blocks * block;
                let queries = first..shape.queries.min(first + block);
                let head = task / blocks;
                call.block(head / shape.heads, head % shape.heads, queries, scratch);
            }
        });
        Ok(())
    }
}

struct Call<'a> {
    table: &'static Table,
    shape: Attention,
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
    mask: Option<&'a [f32]>,
    out: Output<'a>,
}

impl Call<'_> {
    /// One block of queries of one head.
    fn block(&self, sequence: usize, head: usize, queries: Range<usize>, scratch: &mut Scratch) {
        let shape = &self.shape;
        let (dim, panel_rows) = (shape.head_dim, self.table.tile_rows);
        let padded = self.padded(dim);
        let query_len = dim.div_ceil(DEPTH) * panel_rows * ROW_STRIDE;
        let lengths = [
            PANELS_PER_BLOCK * query_len,
            PANELS_PER_BLOCK * panel_rows * padded,
            KEYS * dim,
            KEYS * dim.next_multiple_of(PANEL_WIDTH),
            panel_rows * ROW_STRIDE,
        ];
        let memory = scratch.take(lengths.iter().sum());
        let (packed_q, memory) = memory.split_at_mut(lengths[0]);
        let (sums, memory) = memory.split_at_mut(lengths[1]);
        let (packed_k, memory) = memory.split_at_mut(lengths[2]);
        let (packed_v, scores) = memory.split_at_mut(lengths[3]);
        let mut states = [SoftmaxState::START; PANELS_PER_BLOCK * MAX_ROWS];
        sums.fill(0.0);

        for (i, query) in queries.clone().enumerate() {
            let row = self.q.head(sequence * shape.queries + query, head, dim);
            let panel = &mut packed_q[i / panel_rows * query_len..][..query_len];
            for (part, row) in row.chunks(DEPTH).enumerate() {
                let at = (part * panel_rows + i % panel_rows) * ROW_STRIDE;
                for (slot, x) in panel[at..].iter_mut().zip(row) {
                    *slot = x * shape.scale;
                }
            }
        }
        for start in (0..shape.keys).step_by(KEYS) {
            let keys = start..shape.keys.min(start + KEYS);
            self.pack_keys(sequence, head, keys.clone(), packed_k, packed_v);
            for (i, first) in queries.clone().step_by(panel_rows).enumerate() {
                let rows = first..queries.end.min(first + panel_rows);
                let packed_q = &packed_q[i * query_len..][..query_len];
                self.scores(rows.len(), keys.len(), packed_q, packed_k, scores);
                let sums = &mut sums[i * panel_rows * padded..][..panel_rows * padded];
                let states = &mut states[i * panel_rows..][..rows.len()];
                self.weights(rows.clone(), keys.clone(), scores, states, sums);
                self.weigh(rows.len(), keys.len(), scores, packed_v, sums);
            }
        }
        for (i, query) in queries.enumerate() {
            let sum = states[i].sum;
            let sums = &mut sums[i * padded..][..dim];
            let at = ((sequence * shape.queries + query) * shape.heads + head) * dim;
            // SAFETY: the table is of this processor; the head of this query belongs to this task alone.
            unsafe {
                (self.table.scale)(sums, if sum > 0.0 { 1.0 / sum } else { 0.0 });
                self.out.slice(at..at + dim).copy_from_slice(sums);
            }
        }
    }

    /// Up to whole vectors.
    fn padded(&self, len: usize) -> usize {
        len.next_multiple_of(self.table.tile_width / 2)
    }

    /// Makes weights of the scores of one row panel, and scales what was summed with those before.
    fn weights(
        &self,
        queries: Range<usize>,
        keys: Range<usize>,
        scores: &mut [f32],
        states: &mut [SoftmaxState],
        sums: &mut [f32],
    ) {
        let padded = self.padded(self.shape.head_dim);
        let sums = sums.chunks_exact_mut(padded);
        let scores = scores.chunks_exact_mut(ROW_STRIDE);
        for (((query, state), scores), sums) in queries.zip(states).zip(scores).zip(sums) {
            let scores = &mut scores[..self.padded(keys.len())];
            scores[keys.len()..].fill(f32::NEG_INFINITY);
            // SAFETY: the table is of this processor.
            unsafe {
                if let Some(mask) = self.mask {
                    let mask = &mask[query * self.shape.keys..][keys.clone()];
                    (self.table.add)(&mut scores[..keys.len()], mask);
                }
                let factor = (self.table.softmax_step)(scores, state);
                if factor != 1.0 {
                    (self.table.scale)(sums, factor);
                }
            }
        }
    }

    /// Packs keys as panels `[head_dim][32]` of 32 keys, and values as panels `[keys][32]` of 32 elements.
    /// What is left of the last panels keeps old numbers: they reach only columns that are not read.
    fn pack_keys(
        &self,
        sequence: usize,
        head: usize,
        keys: Range<usize>,
        packed_k: &mut [f32],
        packed_v: &mut [f32],
    ) {
        let (dim, width) = (self.shape.head_dim, PANEL_WIDTH);
        let count = keys.len();
        for (i, key) in keys.enumerate() {
            let token = sequence * self.shape.keys + key;
            let panel = &mut packed_k[i / width * dim * width..][..dim * width];
            let column = panel[i % width..].iter_mut().step_by(width);
            for (slot, &x) in column.zip(self.k.head(token, head, dim)) {
                *slot = x;
            }
            let row = self.v.head(token, head, dim);
            for (panel, row) in row.chunks(width).enumerate() {
                packed_v[(panel * count + i) * width..][..row.len()].copy_from_slice(row);
            }
        }
    }

    /// `scores = q kᵀ` of one row panel.
    fn scores(
        &self,
        rows: usize,
        keys: usize,
        packed_q: &[f32],
        packed_k: &[f32],
        scores: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        let part_len = self.table.tile_rows * ROW_STRIDE;
        for column in (0..keys).step_by(self.table.tile_width) {
            let panel = &packed_k[column / PANEL_WIDTH * dim * PANEL_WIDTH..][..dim * PANEL_WIDTH];
            for (part, start) in (0..dim).step_by(DEPTH).enumerate() {
                let depth = DEPTH.min(dim - start);
                let left = &packed_q[part * part_len..][..part_len];
                let right = &panel[start * PANEL_WIDTH + column % PANEL_WIDTH..];
                let out = (&mut scores[column..], ROW_STRIDE);
                self.tile([rows, keys - column], left, right, depth, out, part > 0);
            }
        }
    }

    /// `sums += scores · v` of one row panel.
    fn weigh(&self, rows: usize, keys: usize, scores: &[f32], packed_v: &[f32], sums: &mut [f32]) {
        let dim = self.shape.head_dim;
        let padded = self.padded(dim);
        for column in (0..dim).step_by(self.table.tile_width) {
            let panel = &packed_v[column / PANEL_WIDTH * keys * PANEL_WIDTH..];
            let right = &panel[column % PANEL_WIDTH..];
            let out = (&mut sums[column..], padded);
            self.tile([rows, dim - column], scores, right, keys, out, true);
        }
    }

    /// One tile of `rows` rows and up to `columns` columns.
    fn tile(
        &self,
        [rows, columns]: [usize; 2],
        left: &[f32],
        right: &[f32],
        depth: usize,
        (out, stride): (&mut [f32], usize),
        accumulate: bool,
    ) {
        let (run, width) = self
            .table
            .tile(None, rows, columns.min(self.table.tile_width));
        assert!(depth <= DEPTH && left.len() >= (rows - 1) * ROW_STRIDE + depth);
        assert!(right.len() + PANEL_WIDTH >= depth * PANEL_WIDTH + width);
        assert!(out.len() >= (rows - 1) * stride + width);
        let tile = Tile {
            a: left.as_ptr(),
            b: right.as_ptr(),
            depth,
            c: out.as_mut_ptr(),
            c_stride: stride,
            accumulate,
            bias: std::ptr::null(),
            residual: std::ptr::null(),
        };
        // SAFETY: the table is of this processor, and the operands are as long as the assertions say.
        unsafe { run(tile) };
    }
}
