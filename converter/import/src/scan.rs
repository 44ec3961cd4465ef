//! Looks over the elements of a weight for infinities and NaNs, and for the largest magnitude.

use rayon::prelude::*;
use snapc_ir::{DType, LazyTensor, WeightError};

/// Bytes looked at by one task: large enough to hide its cost, small enough to stay in cache.
const PIECE: usize = 1 << 18;

/// What a scan has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scan {
    /// All elements are finite, and this is the largest magnitude.
    Finite(f32),
    /// Some are not.
    NonFinite {
        /// How many.
        count: usize,
        /// Row-major position of the first.
        first: usize,
    },
}

/// Scans a float tensor.
///
/// Magnitudes are compared as integers: without the sign bit, the bit patterns of IEEE floats stand in the order of
/// their magnitudes, with infinity and then the NaNs at the top. The loop has no branch, so it runs as fast as memory.
///
/// # Errors
/// When the tensor has no data.
pub(crate) fn scan(tensor: &LazyTensor) -> Result<Scan, WeightError> {
    let bytes = tensor.bytes()?;
    Ok(match tensor.dtype() {
        DType::F16 => judge::<F16>(&bytes),
        DType::BF16 => judge::<BF16>(&bytes),
        _ => judge::<F32>(&bytes),
    })
}

/// An IEEE float as it is stored, little-endian.
trait Element {
    /// The element's bytes.
    type Stored;
    /// The unsigned integer of the element's size.
    type Bits: Copy + Default + Ord + Send;

    /// The bits of infinity: all of the exponent.
    const INFINITY: Self::Bits;

    /// The elements in a tensor's bytes: arrays of fixed size, without which the search for the largest is not
    /// compiled to vector instructions.
    fn elements(bytes: &[u8]) -> &[Self::Stored];

    /// The bits of an element but its sign.
    fn magnitude(element: &Self::Stored) -> Self::Bits;

    /// The value of the magnitude bits of a finite element.
    fn widen(bits: Self::Bits) -> f32;
}

struct F16;

impl Element for F16 {
    type Stored = [u8; 2];
    type Bits = u16;
    const INFINITY: u16 = 0x7c00;

    fn elements(bytes: &[u8]) -> &[Self::Stored] {
        bytes.as_chunks().0
    }

    fn magnitude(element: &[u8; 2]) -> u16 {
        u16::from_le_bytes(*element) & 0x7fff
    }

    fn widen(bits: u16) -> f32 {
        let (exponent, mantissa) = (u32::from(bits >> 10), u32::from(bits & 0x3ff));
        if exponent == 0 {
            return mantissa as f32 / (1 << 24) as f32;
        }
        f32::from_bits(((exponent + 112) << 23) | (mantissa << 13))
    }
}

struct BF16;

impl Element for BF16 {
    type Stored = [u8; 2];
    type Bits = u16;
    const INFINITY: u16 = 0x7f80;

    fn elements(bytes: &[u8]) -> &[Self::Stored] {
        bytes.as_chunks().0
    }

    fn magnitude(element: &[u8; 2]) -> u16 {
        F16::magnitude(element)
    }

    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }
}

struct F32;

impl Element for F32 {
    type Stored = [u8; 4];
    type Bits = u32;
    const INFINITY: u32 = 0x7f80_0000;

    fn elements(bytes: &[u8]) -> &[Self::Stored] {
        bytes.as_chunks().0
    }

    fn magnitude(element: &[u8; 4]) -> u32 {
        u32::from_le_bytes(*element) & 0x7fff_ffff
    }

    fn widen(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

fn judge<E: Element>(bytes: &[u8]) -> Scan {
    let largest = bytes.par_chunks(PIECE).map(|piece| {
        let magnitudes = E::elements(piece).iter().map(E::magnitude);
        magnitudes.fold(E::Bits::default(), Ord::max)
    });
    let max = largest.max().unwrap_or_default();
    if max < E::INFINITY {
        return Scan::Finite(E::widen(max));
    }
    let bad = |e: &E::Stored| E::magnitude(e) >= E::INFINITY;
    let mut elements = E::elements(bytes).iter();
    Scan::NonFinite {
        count: elements.clone().filter(|e| bad(e)).count(),
        first: elements.position(bad).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn magnitudes_are_exact_in_every_element_type() {
        let values = [0.5f32, -3.0, 1.25, 0.0];
        let tensor = LazyTensor::from_f32(&[4], &values);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(
                scan(&tensor.clone().cast(dtype)).unwrap(),
                Scan::Finite(3.0)
            );
        }
        for bits in [0u16, 1, 0x3ff, 0x400, 0x3c00, 0x7bff] {
            assert_eq!(F16::widen(bits), f16::from_bits(bits).to_f32());
        }
    }

    #[test]
    fn infinities_and_nans_are_counted() {
        let n = 3 * PIECE;
        let mut values = vec![1.0f32; n];
        values[PIECE + 5] = f32::NAN;
        values[2 * PIECE] = f32::NEG_INFINITY;
        let found = Scan::NonFinite {
            count: 2,
            first: PIECE + 5,
        };
        let tensor = LazyTensor::from_f32(&[n], &values);
        assert_eq!(scan(&tensor).unwrap(), found);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect();
        let len = bytes.len();
        let half = LazyTensor::from_buffer(std::sync::Arc::new(bytes), 0..len, DType::BF16, &[n]);
        assert_eq!(scan(&half).unwrap(), found);
    }

    #[test]
    fn no_elements_and_no_data() {
        assert_eq!(
            scan(&LazyTensor::from_f32(&[0], &[])).unwrap(),
            Scan::Finite(0.0)
        );
        assert!(scan(&LazyTensor::absent(DType::F32, &[1])).is_err());
    }
}
