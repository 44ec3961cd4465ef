//! AVX2 with FMA, and AVX-512F.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd};

/// Proof that the processor has AVX2 and FMA; eight lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof that the processor has AVX-512F; sixteen lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx2 {
    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Avx512 {
    /// # Safety
    /// The processor must have AVX-512F.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Implements the methods that differ between the two only in the names of their instructions.
///
/// SAFETY of every block within: `self` exists, so the processor has the instructions (`assume`); loads and stores go to
/// slices that were checked to hold `LANES` elements, or to addresses the caller answers for.
macro_rules! arithmetic {
    ($lanes:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $max:ident,
     $min:ident, $fma:ident) => {
        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            unsafe { $splat(x) }
        }

        #[inline(always)]
        fn load(self, x: &[f32]) -> Self::V {
            unsafe { $load(x[..$lanes].as_ptr()) }
        }

        #[inline(always)]
        fn store(self, x: &mut [f32], v: Self::V) {
            unsafe { $store(x[..$lanes].as_mut_ptr(), v) }
        }

        #[inline(always)]
        unsafe fn load_ptr(self, x: *const f32) -> Self::V {
            unsafe { $load(x) }
        }

        #[inline(always)]
        unsafe fn store_ptr(self, x: *mut f32, v: Self::V) {
            unsafe { $store(x, v) }
        }

        #[inline(always)]
        fn prefetch(self, x: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
        }

        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { $add(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { $sub(a, b) }
        }

        #[inline(always)]
        fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { $mul(a, b) }
        }

        #[inline(always)]
        fn div(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { $div(a, b) }
        }

        #[inline(always)]
        fn max(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { $max(a, b) }
        }

        #[inline(always)]
        fn min(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { $min(a, b) }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { $fma(a, b, c) }
        }

        #[inline(always)]
        fn to_lanes(self, v: Self::V) -> [f32; MAX_LANES] {
            let mut lanes = [0.0; MAX_LANES];
            self.store(&mut lanes, v);
            lanes
        }
    };
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    // 6 × 2 accumulators, 2 vectors of weights and a broadcast make 15 of 16 registers.
    const TILE_ROWS: usize = 6;

    arithmetic!(
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_div_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_fmadd_ps
    );

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2_int(self, n: __m256) -> __m256 {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn reduce_sum(self, v: __m256) -> f32 {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, v: __m256) -> f32 {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn select_lt(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }

    #[inline(always)]
    fn widen(self, codes: &[u8]) -> __m256 {
        let codes = codes[..8].as_ptr();
        // SAFETY: `self` proves the instructions; there are eight codes.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast()))) }
    }

    #[inline(always)]
    fn look_up<const BITS: usize>(self, palette: &[f32; 256], codes: &[u8]) -> __m256 {
        let codes = codes[..8].as_ptr();
        // SAFETY: `self` proves the instructions; there are eight codes, and every code has its entry.
        unsafe {
            let indices = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast()));
            match BITS {
                1..=3 => _mm256_permutevar8x32_ps(_mm256_loadu_ps(palette.as_ptr()), indices),
                4 => {
                    let low = _mm256_loadu_ps(palette.as_ptr());
                    let high = _mm256_loadu_ps(palette.as_ptr().add(8));
                    let low = _mm256_permutevar8x32_ps(low, indices);
                    let high = _mm256_permutevar8x32_ps(high, indices);
                    // The fourth bit, moved to where the sign is.
                    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(indices));
                    _mm256_blendv_ps(low, high, upper)
                }
                _ => _mm256_i32gather_ps::<4>(palette.as_ptr(), indices),
            }
        }
    }
}

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    // 14 × 2 accumulators and 2 vectors of weights make 30 of 32 registers; broadcasts are memory operands.
    const TILE_ROWS: usize = 14;

    arithmetic!(
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_div_ps,
        _mm512_max_ps,
        _mm512_min_ps,
        _mm512_fmadd_ps
    );

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn reduce_sum(self, v: __m512) -> f32 {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn reduce_max(self, v: __m512) -> f32 {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_reduce_max_ps(v) }
    }

    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }

    #[inline(always)]
    fn widen(self, codes: &[u8]) -> __m512 {
        let codes = codes[..16].as_ptr();
        // SAFETY: `self` proves the instructions; there are sixteen codes.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()))) }
    }

    #[inline(always)]
    fn look_up<const BITS: usize>(self, palette: &[f32; 256], codes: &[u8]) -> __m512 {
        let codes = codes[..16].as_ptr();
        // SAFETY: `self` proves the instructions; there are sixteen codes, and every code has its entry.
        unsafe {
            let indices = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()));
            let part = |i: usize| _mm512_loadu_ps(palette.as_ptr().add(16 * i));
            match BITS {
                1..=4 => _mm512_permutexvar_ps(indices, part(0)),
                6 => {
                    let low = _mm512_permutex2var_ps(part(0), indices, part(1));
                    let high = _mm512_permutex2var_ps(part(2), indices, part(3));
                    let upper = _mm512_test_epi32_mask(indices, _mm512_set1_epi32(32));
                    _mm512_mask_blend_ps(upper, low, high)
                }
                _ => _mm512_i32gather_ps::<4>(indices, palette.as_ptr()),
            }
        }
    }
}
