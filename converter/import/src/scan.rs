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
        DType::F16 => judge(&bytes, 2, half_bits, 0x7c00, widen_f16),
        DType::BF16 => judge(&bytes, 2, half_bits, 0x7f80, |b| f32::from_bits(b << 16)),
        _ => judge(&bytes, 4, single_bits, 0x7f80_0000, f32::from_bits),
    })
}

fn half_bits(b: &[u8]) -> u32 {
    u32::from(u16::from_le_bytes([b[0], b[1]]) & 0x7fff)
}

fn single_bits(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7fff_ffff
}

/// The value of the magnitude bits of a finite f16.
fn widen_f16(bits: u32) -> f32 {
    let (exponent, mantissa) = (bits >> 10, bits & 0x3ff);
    if exponent == 0 {
        return mantissa as f32 / (1 << 24) as f32;
    }
    f32::from_bits(((exponent + 112) << 23) | (mantissa << 13))
}

fn judge(
    bytes: &[u8],
    size: usize,
    magnitude: fn(&[u8]) -> u32,
    infinity: u32,
    widen: fn(u32) -> f32,
) -> Scan {
    let largest = |piece: &[u8]| match size {
        2 => u32::from(largest_half(piece)),
        _ => largest_single(piece),
    };
    let max = bytes.par_chunks(PIECE).map(largest).max().unwrap_or(0);
    if max < infinity {
        return Scan::Finite(widen(max));
    }
    let bad = |e: &[u8]| magnitude(e) >= infinity;
    let elements = bytes.chunks_exact(size);
    Scan::NonFinite {
        count: elements.clone().filter(|e| bad(e)).count(),
        first: elements.clone().position(bad).unwrap_or(0),
    }
}

fn largest_half(piece: &[u8]) -> u16 {
    let halves = piece
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7fff);
    halves.fold(0, u16::max)
}

fn largest_single(piece: &[u8]) -> u32 {
    piece.chunks_exact(4).map(single_bits).fold(0, u32::max)
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
            assert_eq!(widen_f16(u32::from(bits)), f16::from_bits(bits).to_f32());
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
