//! Compressed weights that the IR can keep as codes.

use std::sync::Arc;

use snapc_ir::{DType, Encoding, LazyTensor};

use super::super::constant::Constant;
use super::super::error::Fault;
use crate::proto::DataType;

/// `scale · (data − offset)` by groups as a tensor that keeps the codes; `None` when the IR has no such encoding: codes of
/// other widths, offsets that are floats.
///
/// # Errors
/// When a part has the wrong type or size.
pub(super) fn affine(
    data: &Constant,
    groups: &[usize],
    scale: &Constant,
    offset: Option<&Constant>,
) -> Result<Option<LazyTensor>, Fault> {
    // Unsigned codes and their offsets are moved by half of their range.
    let (bits, middle) = match data.dtype {
        DataType::Int4 => (4, 0),
        DataType::UInt4 => (4, 8),
        DataType::Int8 => (8, 0),
        DataType::UInt8 => (8, 128),
        _ => return Ok(None),
    };
    let (Some(dtype), true) = (float_type(scale), divides(&data.shape, groups)) else {
        return Ok(None);
    };
    let count: usize = groups.iter().product();
    let Some(scales) = per_group(scale.floats()?, count) else {
        return Ok(None);
    };
    let offsets = match offset {
        None if middle == 0 => Vec::new(),
        None => vec![0; count],
        Some(offset) if offset.dtype == data.dtype => {
            let Some(offsets) = per_group(offset.integers()?, count) else {
                return Ok(None);
            };
            offsets
        }
        Some(_) => return Ok(None),
    };
    let moved = offsets.into_iter().map(|z| i8::try_from(z - middle));
    let Ok(zero_points) = moved.collect::<Result<Vec<i8>, _>>() else {
        return Ok(None);
    };
    let Ok(encoding) = Encoding::affine(bits, groups, scales, zero_points) else {
        return Ok(None);
    };
    let codes = match middle {
        0 => data.codes(DType::I8)?,
        _ => {
            let signed = data.integers()?.into_iter().map(|q| (q - middle) as u8);
            let bytes = signed.collect();
            let signed = Constant::owned(DataType::Int8, data.shape.clone(), bytes, true)?;
            signed.codes(DType::I8)?
        }
    };
    Ok(Some(LazyTensor::from_codes(
        codes,
        Arc::new(encoding),
        dtype,
    )))
}

/// Entries of tables as a tensor that keeps the indices; `table` is `[groups.., entries, 1]`. `None` when the IR has no such
/// encoding: entries of several elements or of integers.
///
/// # Errors
/// When a part has the wrong type or size.
pub(super) fn palette(indices: &Constant, table: &Constant) -> Result<Option<LazyTensor>, Fault> {
    let bits = match indices.dtype {
        DataType::UInt1 => 1,
        DataType::UInt2 => 2,
        DataType::UInt3 => 3,
        DataType::UInt4 => 4,
        DataType::UInt6 => 6,
        DataType::UInt8 => 8,
        _ => return Ok(None),
    };
    let (Some(dtype), [groups @ .., entries, 1]) = (float_type(table), table.shape.as_slice())
    else {
        return Ok(None);
    };
    if *entries != 1 << bits || !divides(&indices.shape, groups) {
        return Ok(None);
    }
    let Ok(encoding) = Encoding::palette(bits, groups, table.floats()?) else {
        return Ok(None);
    };
    let codes = indices.codes(DType::U8)?;
    Ok(Some(LazyTensor::from_codes(
        codes,
        Arc::new(encoding),
        dtype,
    )))
}

/// The element type of floats that weights can have.
fn float_type(constant: &Constant) -> Option<DType> {
    match constant.dtype {
        DataType::Float16 => Some(DType::F16),
        DataType::Float32 => Some(DType::F32),
        _ => None,
    }
}

fn divides(shape: &[usize], groups: &[usize]) -> bool {
    let whole = |(&size, &parts): (&usize, &usize)| parts > 0 && size.is_multiple_of(parts);
    shape.len() == groups.len() && shape.iter().zip(groups).all(whole)
}

/// One element per group, from as many or from one for all.
fn per_group<T: Copy>(list: Vec<T>, count: usize) -> Option<Vec<T>> {
    match list.as_slice() {
        &[one] => Some(vec![one; count]),
        _ => (list.len() == count).then_some(list),
    }
}
