//! Sums of four products of codes each: AVX-VNNI and AVX-512 VNNI.

use std::arch::x86_64::*;

use crate::tile::Arithmetic;

/// Proof that the processor has AVX2 and AVX-VNNI; eight words.
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni(());

/// Proof that the processor has AVX-512F and AVX-512 VNNI; sixteen words.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni(());

impl AvxVnni {
    /// # Safety
    /// The processor must have AVX2 and AVX-VNNI.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Avx512Vnni {
    /// # Safety
    /// The processor must have AVX-512F and AVX-512 VNNI.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Implements the arithmetic, which differs in the names of the instructions only. Left codes are unsigned, right ones signed.
///
/// SAFETY of every block within: `self` exists, so the processor has the instructions (`assume`); loads and stores go to
/// addresses the caller answers for.
macro_rules! dot {
    ($token:ty, $vector:ty, $lanes:literal, $zero:ident, $set:ident, $load:ident, $store:ident, $add:ident, $dot:ident) => {
        impl Arithmetic for $token {
            type V = $vector;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn zero(self) -> $vector {
                unsafe { $zero() }
            }

            #[inline(always)]
            unsafe fn broadcast(self, x: *const f32) -> $vector {
                unsafe { $set(x.cast::<i32>().read()) }
            }

            #[inline(always)]
            unsafe fn read(self, x: *const f32) -> $vector {
                unsafe { $load(x.cast()) }
            }

            #[inline(always)]
            unsafe fn write(self, x: *mut f32, v: $vector) {
                unsafe { $store(x.cast(), v) }
            }

            #[inline(always)]
            fn ahead(self, x: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
            }

            #[inline(always)]
            fn sum(self, a: $vector, b: $vector) -> $vector {
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            fn accumulate(self, a: $vector, b: $vector, sum: $vector) -> $vector {
                unsafe { $dot(sum, a, b) }
            }
        }
    };
}

dot!(
    AvxVnni,
    __m256i,
    8,
    _mm256_setzero_si256,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_add_epi32,
    _mm256_dpbusd_avx_epi32
);
dot!(
    Avx512Vnni,
    __m512i,
    16,
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_add_epi32,
    _mm512_dpbusd_epi32
);
