//! Constants of a model as lazy tensors.

use std::sync::Arc;

use prost::bytes::Bytes;
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, LazyTensor, Tensor};

use super::external::DataFiles;
use crate::proto::{DOUBLE, EXTERNAL, INT4, TensorProto, UINT4, element_type};

/// Largest size of a dimension.
const MAX_DIM: usize = 1 << 40;
/// Dimensions that a value may have; Stable Diffusion's networks need six.
const MAX_RANK: usize = 16;

/// The constant of a message. Its bytes stay in the mapped model or data file; only lists of numbers and `DOUBLE` are
/// copied.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn constant(tensor: &TensorProto, files: &mut DataFiles) -> Result<LazyTensor, String> {
    let data_type = tensor.data_type.unwrap_or_default();
    let shape = tensor.dims.iter().map(|&d| usize::try_from(d).ok());
    let shape: Vec<usize> = shape
        .collect::<Option<_>>()
        .ok_or_else(|| format!("a dimension of {:?} is negative", tensor.dims))?;
    let elements = elements(&shape)?;
    if let Some(dtype) = nibble_type(data_type) {
        let bytes = data(tensor, elements.div_ceil(2), files)?;
        let packed = LazyTensor::from_buffer(
            Arc::new(bytes.clone()),
            0..bytes.len(),
            DType::U8,
            &[bytes.len()],
        );
        return Ok(packed.unpack(4, dtype, &shape));
    }
    let width = match (element_type(data_type), data_type) {
        (Some(dtype), _) => dtype.size(),
        (None, DOUBLE) => size_of::<f64>(),
        (None, _) => {
            return Err(format!(
                "element type {data_type} is not supported; f32, f16, bf16, f64, i64, i32, i8, u8, int4, uint4 and bool are"
            ));
        }
    };
    let bytes = elements
        .checked_mul(width)
        .ok_or("its shape has too many bytes")?;
    let bytes = data(tensor, bytes, files)?;
    if data_type == DOUBLE {
        let wide = bytes.chunks_exact(size_of::<f64>());
        let narrow = wide.map(|b| f64::from_le_bytes(b.try_into().expect("chunks of 8")) as f32);
        return Ok(LazyTensor::from_f32(&shape, &narrow.collect::<Vec<f32>>()));
    }
    let dtype = element_type(data_type).expect("other types have been refused");
    let range = 0..bytes.len();
    Ok(LazyTensor::from_buffer(
        Arc::new(bytes),
        range,
        dtype,
        &shape,
    ))
}

/// The type of one code in a byte, for elements of 4 bits.
fn nibble_type(data_type: i32) -> Option<DType> {
    match data_type {
        INT4 => Some(DType::I8),
        UINT4 => Some(DType::U8),
        _ => None,
    }
}

/// The bytes of a tensor, `expected` of them.
fn data(tensor: &TensorProto, expected: usize, files: &mut DataFiles) -> Result<Bytes, String> {
    if tensor.data_location.unwrap_or_default() == EXTERNAL {
        files.bytes(tensor, expected)
    } else {
        inline(tensor, tensor.data_type.unwrap_or_default(), expected)
    }
}

/// The bytes in the model itself, `expected` of them.
fn inline(tensor: &TensorProto, data_type: i32, expected: usize) -> Result<Bytes, String> {
    let bytes = match (&tensor.raw_data, element_type(data_type)) {
        (Some(raw), _) => raw.clone(),
        (None, Some(DType::F32)) => gathered(&tensor.float_data, |v| v.to_le_bytes()),
        (None, Some(DType::I32)) => gathered(&tensor.int32_data, |v| v.to_le_bytes()),
        (None, Some(DType::I64)) => gathered(&tensor.int64_data, |v| v.to_le_bytes()),
        // The low half holds the bits.
        (None, Some(DType::F16 | DType::BF16)) => {
            gathered(&tensor.int32_data, |v| (v as u16).to_le_bytes())
        }
        (None, Some(DType::I8 | DType::U8)) => gathered(&tensor.int32_data, |v| [v as u8]),
        (None, Some(DType::Bool)) => gathered(&tensor.int32_data, |v| [u8::from(v != 0)]),
        // Two to a byte, the first in the lower half.
        (None, None) if nibble_type(data_type).is_some() => {
            gathered(&tensor.int32_data, |v| [v as u8])
        }
        (None, None) => gathered(&tensor.double_data, |v| v.to_le_bytes()),
    };
    if bytes.len() != expected {
        return Err(format!(
            "{} bytes of data, but its shape has {expected}",
            bytes.len()
        ));
    }
    Ok(bytes)
}

fn gathered<T: Copy, const N: usize>(list: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Bytes {
    list.iter().flat_map(|&v| to_bytes(v)).collect()
}

/// Number of elements of a shape whose sizes can be multiplied in any order.
///
/// # Errors
/// When they cannot, or there are too many dimensions; in words.
pub(super) fn elements(shape: &[usize]) -> Result<usize, String> {
    if shape.len() > MAX_RANK {
        let rank = shape.len();
        return Err(format!(
            "{rank} dimensions are too many; {MAX_RANK} at most"
        ));
    }
    // Zeros do not count, so that strides of an empty tensor do not overflow either.
    let sizes = shape.iter().map(|&d| d.max(1));
    let product = sizes.into_iter().try_fold(1usize, |a, b| a.checked_mul(b));
    let representable = product.is_some_and(|p| p <= isize::MAX as usize / size_of::<f64>());
    if !representable || shape.iter().any(|&d| d > MAX_DIM) {
        return Err(format!("shape {shape:?} has too many elements"));
    }
    Ok(shape.iter().product())
}

/// A tensor in memory as a constant of element type `dtype`.
pub(super) fn lazy(tensor: &Tensor, dtype: DType) -> LazyTensor {
    match (&tensor.elements, dtype) {
        (Elements::Float(v), _) => LazyTensor::from_f32(&tensor.shape, v).cast(dtype),
        (Elements::Int(v), DType::I32) => {
            let narrow: Vec<i32> = v.iter().map(|&i| i as i32).collect();
            LazyTensor::from_i32(&tensor.shape, &narrow)
        }
        (Elements::Int(v), DType::Bool) => {
            let bytes: Vec<u8> = v.iter().map(|&i| u8::from(i != 0)).collect();
            let range = 0..bytes.len();
            LazyTensor::from_buffer(Arc::new(bytes), range, DType::Bool, &tensor.shape)
        }
        (Elements::Int(v), DType::I8) => {
            let narrow: Vec<i8> = v.iter().map(|&i| i as i8).collect();
            LazyTensor::from_i8(&tensor.shape, &narrow)
        }
        (Elements::Int(v), DType::U8) => {
            let narrow: Vec<u8> = v.iter().map(|&i| i as u8).collect();
            LazyTensor::from_u8(&tensor.shape, &narrow)
        }
        (Elements::Int(v), _) => LazyTensor::from_i64(&tensor.shape, v),
    }
}
