//! The GEMM tile: `R` rows times one or two vectors of columns, accumulated in registers. Words are numbers, or four codes
//! of eight bits each, whose products are added up in 32 bits.

use crate::PANEL_WIDTH;
use crate::simd::Simd;

/// Terms of the dot products that one tile call adds up: weights of a column panel over this depth stay in the first-level
/// cache while row panels pass by. The widths of the SD v1.5 UNet are multiples of it.
pub(crate) const DEPTH: usize = 320;

/// Elements between two rows of a panel of activations. A constant, so that a row is a displacement and not a register;
/// longer than [`DEPTH`] by a cache line, so that the rows do not share cache sets.
pub(crate) const ROW_STRIDE: usize = DEPTH + 16;

/// Rows of the largest tile of any instruction set.
pub(crate) const MAX_ROWS: usize = 14;

/// Operands of one tile: `c = a · b`, plus what is given of `bias`, `c` itself and `residual`. What a word of 32 bits is
/// depends on the [`Arithmetic`]; sums of integers have neither bias nor residual.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Activations `[rows][ROW_STRIDE]`, of which `depth` columns are used.
    pub a: *const f32,
    /// Weights: the vectors of each row of a panel `[depth][PANEL_WIDTH]`, from the column of the tile on.
    pub b: *const f32,
    /// Terms, at most [`DEPTH`].
    pub depth: usize,
    /// Results `[rows][c_stride]`, of which the vectors are written.
    pub c: *mut f32,
    /// Elements between rows of `c`.
    pub c_stride: usize,
    /// Whether the results are added to what `c` holds.
    pub accumulate: bool,
    /// Vectors that are added to each row, or null.
    pub bias: *const f32,
    /// Rows like those of `c` that are added, or null.
    pub residual: *const f32,
}

/// A tile of a fixed number of rows.
pub(crate) type TileFn = unsafe fn(Tile);

/// What the words of a tile's operands are, and how they are multiplied.
pub(crate) trait Arithmetic: Copy {
    /// A vector of sums, or of as many words of weights.
    type V: Copy;
    /// Words of a vector.
    const LANES: usize;

    /// Sums of nothing.
    fn zero(self) -> Self::V;
    /// The word at an address in every lane.
    ///
    /// # Safety
    /// It must be readable.
    unsafe fn broadcast(self, x: *const f32) -> Self::V;
    /// `LANES` words from an address.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn read(self, x: *const f32) -> Self::V;
    /// `LANES` sums to an address.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn write(self, x: *mut f32, v: Self::V);
    /// Asks for the cache line of an address, of which nothing is required.
    fn ahead(self, x: *const f32);
    /// `a + b` of sums.
    fn sum(self, a: Self::V, b: Self::V) -> Self::V;
    /// `sum + a · b`.
    fn accumulate(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V;
}

/// Words are numbers.
impl<S: Simd> Arithmetic for S {
    type V = S::V;
    const LANES: usize = S::LANES;

    #[inline(always)]
    fn zero(self) -> S::V {
        self.splat(0.0)
    }

    #[inline(always)]
    unsafe fn broadcast(self, x: *const f32) -> S::V {
        // SAFETY: by the caller's promise.
        self.splat(unsafe { *x })
    }

    #[inline(always)]
    unsafe fn read(self, x: *const f32) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe { self.load_ptr(x) }
    }

    #[inline(always)]
    unsafe fn write(self, x: *mut f32, v: S::V) {
        // SAFETY: by the caller's promise.
        unsafe { self.store_ptr(x, v) }
    }

    #[inline(always)]
    fn ahead(self, x: *const f32) {
        self.prefetch(x);
    }

    #[inline(always)]
    fn sum(self, a: S::V, b: S::V) -> S::V {
        self.add(a, b)
    }

    #[inline(always)]
    fn accumulate(self, a: S::V, b: S::V, sum: S::V) -> S::V {
        self.mul_add(a, b, sum)
    }
}

/// Runs one tile of `R` rows, two vectors of columns when `WIDE`, else one.
///
/// The second vector is a condition and not a loop: the compiler must unroll all of it to keep the sums in registers.
///
/// # Safety
/// All of the operands that [`Tile`] describes for the rows and columns must be in bounds, `c` exclusively.
#[inline(always)]
pub(crate) unsafe fn run<S: Arithmetic, const R: usize, const WIDE: bool>(s: S, tile: Tile) {
    let zero = s.zero();
    let mut sums = [[zero; 2]; R];
    // SAFETY: every address is within the operands that the caller vouches for: `r < R`, `k < depth`.
    unsafe {
        // On its way to the cache while the products are summed.
        for r in 0..R {
            let c = tile.c.add(r * tile.c_stride);
            s.ahead(c);
            if WIDE {
                s.ahead(c.add(2 * S::LANES - 1));
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.depth {
            let left = s.read(b);
            let right = if WIDE { s.read(b.add(S::LANES)) } else { zero };
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = s.broadcast(a.add(r * ROW_STRIDE));
                sum[0] = s.accumulate(x, left, sum[0]);
                if WIDE {
                    sum[1] = s.accumulate(x, right, sum[1]);
                }
            }
            a = a.add(1);
            b = b.add(PANEL_WIDTH);
        }
        if !tile.bias.is_null() {
            add_rows::<S, R, WIDE>(s, &mut sums, tile.bias, 0);
        }
        if tile.accumulate {
            add_rows::<S, R, WIDE>(s, &mut sums, tile.c, tile.c_stride);
        }
        if !tile.residual.is_null() {
            add_rows::<S, R, WIDE>(s, &mut sums, tile.residual, tile.c_stride);
        }
        for (r, sum) in sums.iter().enumerate() {
            let c = tile.c.add(r * tile.c_stride);
            s.write(c, sum[0]);
            if WIDE {
                s.write(c.add(S::LANES), sum[1]);
            }
        }
    }
}

/// Adds rows that are `stride` elements apart.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn add_rows<S: Arithmetic, const R: usize, const WIDE: bool>(
    s: S,
    sums: &mut [[S::V; 2]; R],
    rows: *const f32,
    stride: usize,
) {
    for (r, sum) in sums.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe {
            let row = rows.add(r * stride);
            sum[0] = s.sum(sum[0], s.read(row));
            if WIDE {
                sum[1] = s.sum(sum[1], s.read(row.add(S::LANES)));
            }
        }
    }
}
