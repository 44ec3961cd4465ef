//! Vectors as arrays: for processors without instructions of our own choice; the compiler vectorizes what it can.

use super::{MAX_LANES, Simd};
use crate::tile::Arithmetic;

/// Eight lanes in an array.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type Lanes = [f32; 8];

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = Lanes;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        [x; 8]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Lanes {
        std::array::from_fn(|i| x[..8][i])
    }

    #[inline(always)]
    fn store(self, x: &mut [f32], v: Lanes) {
        x[..8].copy_from_slice(&v);
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> Lanes {
        // SAFETY: the caller grants eight readable elements; an array of f32 has the alignment of f32.
        unsafe { x.cast::<Lanes>().read() }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: Lanes) {
        // SAFETY: the caller grants eight writable elements; an array of f32 has the alignment of f32.
        unsafe { x.cast::<Lanes>().write(v) }
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    // `f32::mul_add` is a library call where the processor has no such instruction.
    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn round(self, a: Lanes) -> Lanes {
        a.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn exp2_int(self, n: Lanes) -> Lanes {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn select_lt(self, a: Lanes, b: Lanes, yes: Lanes, no: Lanes) -> Lanes {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn to_lanes(self, v: Lanes) -> [f32; MAX_LANES] {
        std::array::from_fn(|i| if i < 8 { v[i] } else { 0.0 })
    }
}

/// Words of four codes in an array, the left ones unsigned and the right ones signed.
#[derive(Clone, Copy)]
pub(crate) struct PortableDot;

impl Arithmetic for PortableDot {
    type V = [i32; 8];
    const LANES: usize = 8;

    #[inline(always)]
    fn zero(self) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn broadcast(self, x: *const f32) -> [i32; 8] {
        // SAFETY: the caller grants a readable word.
        [unsafe { x.cast::<i32>().read() }; 8]
    }

    #[inline(always)]
    unsafe fn read(self, x: *const f32) -> [i32; 8] {
        // SAFETY: the caller grants eight readable words, of the alignment of i32.
        unsafe { x.cast::<[i32; 8]>().read() }
    }

    #[inline(always)]
    unsafe fn write(self, x: *mut f32, v: [i32; 8]) {
        // SAFETY: the caller grants eight writable words, of the alignment of i32.
        unsafe { x.cast::<[i32; 8]>().write(v) }
    }

    #[inline(always)]
    fn ahead(self, _x: *const f32) {}

    #[inline(always)]
    fn sum(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn accumulate(self, a: [i32; 8], b: [i32; 8], sum: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| {
            let codes = a[i].to_ne_bytes().into_iter().zip(b[i].to_ne_bytes());
            let products = codes.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed()));
            products.fold(sum[i], i32::wrapping_add)
        })
    }
}
