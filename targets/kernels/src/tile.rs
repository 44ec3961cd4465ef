//! The GEMM tile: `R` rows times two vectors of columns, accumulated in registers.

use crate::simd::Simd;

/// Terms of the dot products that one tile call adds up: activations of a row panel and weights of a column panel over
/// this depth fit the first-level cache together.
pub(crate) const DEPTH: usize = 256;

/// Elements between two rows of a panel of activations. A constant, so that a row is a displacement and not a register;
/// longer than [`DEPTH`] by a cache line, so that the rows do not share cache sets.
pub(crate) const ROW_STRIDE: usize = DEPTH + 16;

/// Rows of the largest tile of any instruction set.
pub(crate) const MAX_ROWS: usize = 14;

/// Columns of the widest tile of any instruction set.
pub(crate) const MAX_WIDTH: usize = 32;

/// Operands of one tile: `c += a · b`, or `c = a · b` when not `accumulate`.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Activations `[rows][ROW_STRIDE]`, of which `depth` columns are used.
    pub a: *const f32,
    /// Weights `[depth][width]`.
    pub b: *const f32,
    /// Terms, at most [`DEPTH`].
    pub depth: usize,
    /// Results `[rows][c_stride]`, of which `width` columns are written.
    pub c: *mut f32,
    /// Elements between rows of `c`.
    pub c_stride: usize,
    /// Whether the results are added to what `c` holds.
    pub accumulate: bool,
}

/// A tile of a fixed number of rows.
pub(crate) type TileFn = unsafe fn(Tile);

/// Runs one tile of `R` rows.
///
/// # Safety
/// All of `a`, `b` and `c` that [`Tile`] describes for `R` rows and `2 · LANES` columns must be in bounds, `c` exclusively.
#[inline(always)]
pub(crate) unsafe fn run<S: Simd, const R: usize>(s: S, tile: Tile) {
    let zero = s.splat(0.0);
    let mut sums = [[zero; 2]; R];
    // SAFETY: every address is within the operands that the caller vouches for: `r < R`, `k < depth`.
    unsafe {
        if tile.accumulate {
            for (r, sum) in sums.iter_mut().enumerate() {
                let c = tile.c.add(r * tile.c_stride);
                *sum = [s.load_ptr(c), s.load_ptr(c.add(S::LANES))];
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.depth {
            let (left, right) = (s.load_ptr(b), s.load_ptr(b.add(S::LANES)));
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(r * ROW_STRIDE));
                *sum = [s.mul_add(x, left, sum[0]), s.mul_add(x, right, sum[1])];
            }
            a = a.add(1);
            b = b.add(2 * S::LANES);
        }
        for (r, sum) in sums.iter().enumerate() {
            let c = tile.c.add(r * tile.c_stride);
            s.store_ptr(c, sum[0]);
            s.store_ptr(c.add(S::LANES), sum[1]);
        }
    }
}
