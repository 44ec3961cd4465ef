//! One interface over the vector instructions, so that each kernel is written once.
//!
//! A value of a type that implements [`Simd`] proves that the processor has the instructions: all but the portable
//! one can only be made by an `unsafe` constructor, everything after it is safe. Methods and the kernels over them are `inline(always)`,
//! so that they take the target features of the function in `table.rs` they are instantiated in.

pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Arithmetic over a vector of f32 lanes.
pub(crate) trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Lanes of a vector.
    const LANES: usize;
    /// Rows of the GEMM tile whose accumulators fill the register file without spilling.
    const TILE_ROWS: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` elements. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// Writes the first `LANES` elements. Panics when there are fewer.
    fn store(self, x: &mut [f32], v: Self::V);
    /// `LANES` elements from an address.
    ///
    /// # Safety
    /// `LANES` elements from `x` on must be readable.
    unsafe fn load_ptr(self, x: *const f32) -> Self::V;
    /// `LANES` elements to an address.
    ///
    /// # Safety
    /// `LANES` elements from `x` on must be writable.
    unsafe fn store_ptr(self, x: *mut f32, v: Self::V);
    /// Asks for the cache line of an address, of which nothing is required.
    #[inline(always)]
    fn prefetch(self, _x: *const f32) {}
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of each pair; `b` where one is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each pair; `b` where one is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, with one rounding where the instructions have it.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Nearest integer, halves to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` of lanes that hold integers from -126 to 127.
    fn exp2_int(self, n: Self::V) -> Self::V;
    /// Per lane `yes` where `a < b`, else `no` (also where one is not a number).
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The lanes, for reductions.
    fn to_lanes(self, v: Self::V) -> [f32; MAX_LANES];

    /// `LANES` codes as numbers. Panics when there are fewer.
    #[inline(always)]
    fn widen(self, codes: &[u8]) -> Self::V {
        let mut lanes = [0.0; MAX_LANES];
        for (x, code) in lanes.iter_mut().zip(&codes[..Self::LANES]) {
            *x = f32::from(*code);
        }
        self.load(&lanes)
    }

    /// `palette[code]` of `LANES` codes, which are below `2^BITS`. Panics when there are fewer.
    #[inline(always)]
    fn look_up<const BITS: usize>(self, palette: &[f32; 256], codes: &[u8]) -> Self::V {
        let mut lanes = [0.0; MAX_LANES];
        for (x, code) in lanes.iter_mut().zip(&codes[..Self::LANES]) {
            *x = palette[usize::from(*code)];
        }
        self.load(&lanes)
    }

    /// Up to `LANES` elements, the missing lanes filled with `fill`.
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> Self::V {
        let mut lanes = [fill; MAX_LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// The leading lanes into up to `LANES` elements.
    #[inline(always)]
    fn store_partial(self, x: &mut [f32], v: Self::V) {
        let lanes = self.to_lanes(v);
        x.copy_from_slice(&lanes[..x.len()]);
    }

    /// Sum of the lanes.
    #[inline(always)]
    fn reduce_sum(self, v: Self::V) -> f32 {
        self.to_lanes(v)[..Self::LANES].iter().sum()
    }

    /// Largest lane.
    #[inline(always)]
    fn reduce_max(self, v: Self::V) -> f32 {
        let lanes = self.to_lanes(v);
        let mut largest = lanes[0];
        for &x in &lanes[1..Self::LANES] {
            largest = largest.max(x);
        }
        largest
    }
}

/// Asks for elements that will be used soon to be brought to the second-level cache.
pub(crate) fn fetch<T>(elements: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in elements.chunks((64 / size_of::<T>().max(1)).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it requires nothing of the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = elements;
}

/// Lanes of the widest vector.
pub(crate) const MAX_LANES: usize = 16;
