//! NEON, which every 64-bit ARM processor has.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{MAX_LANES, Simd};
use crate::tile::Arithmetic;

/// Proof that the processor has NEON; four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The processor must have NEON.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Implements methods that are one instruction over vectors.
///
/// SAFETY of every block within: `self` exists, so the processor has the instructions.
macro_rules! instructions {
    ($($method:ident($($x:ident),*) = $instruction:ident($($operand:ident),*);)*) => {$(
        #[inline(always)]
        fn $method(self, $($x: float32x4_t),*) -> float32x4_t {
            unsafe { $instruction($($operand),*) }
        }
    )*};
}

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    // 8 × 2 accumulators; with more than 18 the compiler leaves them in memory.
    const TILE_ROWS: usize = 12;

    instructions! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        mul_add(a, b, c) = vfmaq_f32(c, a, b);
        round(a) = vrndnq_f32(a);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> float32x4_t {
        // SAFETY: `self` proves the instructions; the slice holds four elements.
        unsafe { vld1q_f32(x[..4].as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: &mut [f32], v: float32x4_t) {
        // SAFETY: `self` proves the instructions; the slice holds four elements.
        unsafe { vst1q_f32(x[..4].as_mut_ptr(), v) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> float32x4_t {
        // SAFETY: `self` proves the instructions; the caller grants four elements.
        unsafe { vld1q_f32(x) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: float32x4_t) {
        // SAFETY: `self` proves the instructions; the caller grants four elements.
        unsafe { vst1q_f32(x, v) }
    }

    // The instructions for the larger and the smaller give "not a number" where one is none.
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.select_lt(b, a, a, b)
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.select_lt(a, b, a, b)
    }

    #[inline(always)]
    fn exp2_int(self, n: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn select_lt(
        self,
        a: float32x4_t,
        b: float32x4_t,
        yes: float32x4_t,
        no: float32x4_t,
    ) -> float32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe { vbslq_f32(vcltq_f32(a, b), yes, no) }
    }

    #[inline(always)]
    fn reduce_sum(self, v: float32x4_t) -> f32 {
        // SAFETY: `self` proves the instructions.
        unsafe { vaddvq_f32(v) }
    }

    #[inline(always)]
    fn to_lanes(self, v: float32x4_t) -> [f32; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        self.store(&mut lanes, v);
        lanes
    }
}

/// Proof that the processor has NEON and its dot products; four words of four codes, all signed.
#[derive(Clone, Copy)]
pub(crate) struct NeonDot(());

impl NeonDot {
    /// # Safety
    /// The processor must have NEON and `dotprod`.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Arithmetic for NeonDot {
    type V = int32x4_t;
    const LANES: usize = 4;

    #[inline(always)]
    fn zero(self) -> int32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn broadcast(self, x: *const f32) -> int32x4_t {
        // SAFETY: `self` proves the instructions; the caller grants a word.
        unsafe { vld1q_dup_s32(x.cast()) }
    }

    #[inline(always)]
    unsafe fn read(self, x: *const f32) -> int32x4_t {
        // SAFETY: `self` proves the instructions; the caller grants four words.
        unsafe { vld1q_s32(x.cast()) }
    }

    #[inline(always)]
    unsafe fn write(self, x: *mut f32, v: int32x4_t) {
        // SAFETY: `self` proves the instructions; the caller grants four words.
        unsafe { vst1q_s32(x.cast(), v) }
    }

    #[inline(always)]
    fn ahead(self, _x: *const f32) {}

    #[inline(always)]
    fn sum(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    fn accumulate(self, a: int32x4_t, b: int32x4_t, sum: int32x4_t) -> int32x4_t {
        let mut sum = sum;
        // SAFETY: `self` proves the instruction, which works on registers alone; its intrinsic is not stable.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}
