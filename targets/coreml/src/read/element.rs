//! Elements of MIL's types in bytes: little-endian, those below a byte packed with the least significant bits first.

use half::{bf16, f16};

use crate::proto::DataType;

/// Bits of one element in the weight file and in raw bytes; `None` for strings and unknown types.
pub(super) fn bits(dtype: DataType) -> Option<usize> {
    match dtype {
        DataType::UInt1 => Some(1),
        DataType::UInt2 => Some(2),
        DataType::UInt3 => Some(3),
        DataType::Int4 | DataType::UInt4 => Some(4),
        DataType::UInt6 => Some(6),
        DataType::Bool | DataType::Int8 | DataType::UInt8 => Some(8),
        DataType::Float16 | DataType::BFloat16 | DataType::Int16 | DataType::UInt16 => Some(16),
        DataType::Float32 | DataType::Int32 | DataType::UInt32 => Some(32),
        DataType::Float64 | DataType::Int64 | DataType::UInt64 => Some(64),
        DataType::Unused | DataType::String => None,
    }
}

/// Code of an element type in a blob's metadata.
pub(crate) fn code(dtype: DataType) -> Option<u32> {
    match dtype {
        DataType::Float16 => Some(1),
        DataType::Float32 => Some(2),
        DataType::UInt8 => Some(3),
        DataType::Int8 => Some(4),
        DataType::BFloat16 => Some(5),
        DataType::Int16 => Some(6),
        DataType::UInt16 => Some(7),
        DataType::Int4 => Some(8),
        DataType::UInt1 => Some(9),
        DataType::UInt2 => Some(10),
        DataType::UInt4 => Some(11),
        DataType::UInt3 => Some(12),
        DataType::UInt6 => Some(13),
        DataType::Int32 => Some(14),
        DataType::UInt32 => Some(15),
        _ => None,
    }
}

/// Bytes of so many elements; `None` when that cannot be counted.
pub(super) fn packed_bytes(dtype: DataType, elements: usize) -> Option<usize> {
    Some(elements.checked_mul(bits(dtype)?)?.div_ceil(8))
}

/// Whether the type holds floats.
pub(super) fn is_float(dtype: DataType) -> bool {
    matches!(
        dtype,
        DataType::Float16 | DataType::Float32 | DataType::BFloat16 | DataType::Float64
    )
}

/// Gives element `i` of bytes that hold it.
pub(super) type ToInteger = fn(&[u8], usize) -> i64;
/// Gives element `i` of bytes that hold it.
pub(super) type ToFloat = fn(&[u8], usize) -> f32;

/// How to read integers and truth values of a type.
pub(super) fn integer(dtype: DataType) -> Option<ToInteger> {
    match dtype {
        DataType::UInt1 => Some(packed::<1>),
        DataType::UInt2 => Some(packed::<2>),
        DataType::UInt3 => Some(packed::<3>),
        DataType::UInt4 => Some(packed::<4>),
        DataType::UInt6 => Some(packed::<6>),
        DataType::Int4 => Some(|b, i| (packed::<4>(b, i) ^ 8) - 8),
        DataType::Bool => Some(|b, i| i64::from(b[i] != 0)),
        DataType::UInt8 => Some(|b, i| i64::from(b[i])),
        DataType::Int8 => Some(|b, i| i64::from(b[i].cast_signed())),
        DataType::Int16 => Some(|b, i| i64::from(i16::from_le_bytes(word(b, i)))),
        DataType::UInt16 => Some(|b, i| i64::from(u16::from_le_bytes(word(b, i)))),
        DataType::Int32 => Some(|b, i| i64::from(i32::from_le_bytes(word(b, i)))),
        DataType::UInt32 => Some(|b, i| i64::from(u32::from_le_bytes(word(b, i)))),
        DataType::Int64 | DataType::UInt64 => Some(|b, i| i64::from_le_bytes(word(b, i))),
        _ => None,
    }
}

/// How to read elements of any numeric type as floats.
pub(super) fn float(dtype: DataType) -> Option<ToFloat> {
    match dtype {
        DataType::Float16 => Some(|b, i| f16::from_le_bytes(word(b, i)).to_f32()),
        DataType::BFloat16 => Some(|b, i| bf16::from_le_bytes(word(b, i)).to_f32()),
        DataType::Float32 => Some(|b, i| f32::from_le_bytes(word(b, i))),
        DataType::Float64 => Some(|b, i| f64::from_le_bytes(word(b, i)) as f32),
        DataType::UInt1 => Some(|b, i| packed::<1>(b, i) as f32),
        DataType::UInt2 => Some(|b, i| packed::<2>(b, i) as f32),
        DataType::UInt3 => Some(|b, i| packed::<3>(b, i) as f32),
        DataType::UInt4 => Some(|b, i| packed::<4>(b, i) as f32),
        DataType::UInt6 => Some(|b, i| packed::<6>(b, i) as f32),
        DataType::Int4 => Some(|b, i| ((packed::<4>(b, i) ^ 8) - 8) as f32),
        DataType::UInt8 => Some(|b, i| f32::from(b[i])),
        DataType::Int8 => Some(|b, i| f32::from(b[i].cast_signed())),
        DataType::Int16 => Some(|b, i| f32::from(i16::from_le_bytes(word(b, i)))),
        DataType::UInt16 => Some(|b, i| f32::from(u16::from_le_bytes(word(b, i)))),
        DataType::Int32 => Some(|b, i| i32::from_le_bytes(word(b, i)) as f32),
        DataType::UInt32 => Some(|b, i| u32::from_le_bytes(word(b, i)) as f32),
        _ => None,
    }
}

fn word<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
    std::array::from_fn(|k| bytes[i * N + k])
}

/// Element `i` of `B` bits, which may reach into the next byte.
fn packed<const B: usize>(bytes: &[u8], i: usize) -> i64 {
    let (byte, shift) = (i * B / 8, i * B % 8);
    let low = u16::from(bytes[byte]);
    let high = u16::from(bytes.get(byte + 1).copied().unwrap_or(0));
    i64::from((low | high << 8) >> shift & ((1 << B) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits put together by hand, the least significant first.
    #[test]
    fn elements_below_a_byte_are_packed_from_the_low_end() {
        // 3 bits: 1, 7, 2, 5 = 001 | 111<<3 | 010<<6 | 101<<9 = 0b1010_1011_1001
        let bytes = [0b1011_1001, 0b1010];
        let three = integer(DataType::UInt3).unwrap();
        assert_eq!(
            (0..4).map(|i| three(&bytes, i)).collect::<Vec<_>>(),
            [1, 7, 2, 5]
        );
        // 4 bits, two's complement: -8, 7, -1
        let bytes = [0x78, 0x0F];
        let four = integer(DataType::Int4).unwrap();
        assert_eq!(
            (0..3).map(|i| four(&bytes, i)).collect::<Vec<_>>(),
            [-8, 7, -1]
        );
        assert_eq!(packed_bytes(DataType::UInt3, 4), Some(2));
        assert_eq!(packed_bytes(DataType::Float64, usize::MAX), None);
    }
}
