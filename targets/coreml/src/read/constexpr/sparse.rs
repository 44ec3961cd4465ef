//! Sparse weights: a mask, and the values where it is set.

use super::super::constant::{Constant, elements};
use super::super::element::bits;
use super::super::error::Fault;
use crate::proto::DataType;

/// The truth values of a mask.
///
/// # Errors
/// When it is of another type.
pub(super) fn mask_bits(mask: &Constant) -> Result<Vec<bool>, Fault> {
    let bits = mask.integers()?;
    Ok(bits.into_iter().map(|bit| bit != 0).collect())
}

/// The elements of `values` where the mask is set, zero elsewhere.
///
/// # Errors
/// When there are not as many values as places.
pub(super) fn scattered(
    values: &Constant,
    mask: &[bool],
    shape: &[usize],
) -> Result<Constant, Fault> {
    let values = whole_bytes(values)?;
    let set = mask.iter().filter(|&&b| b).count();
    if set != values.len() || elements(shape) != Some(mask.len()) {
        let found = values.len();
        return Err(Fault::malformed(format!(
            "the mask has {set} places for {found} values"
        )));
    }
    let size = element_size(&values);
    let mut bytes = vec![0; mask.len() * size];
    let places = bytes.chunks_exact_mut(size).zip(mask);
    let places = places.filter(|(_, set)| **set).map(|(place, _)| place);
    for (place, value) in places.zip(values.bytes().chunks_exact(size)) {
        place.copy_from_slice(value);
    }
    Constant::owned(values.dtype, shape.to_vec(), bytes, true)
}

/// Bytes of an element that has whole ones.
pub(super) fn element_size(values: &Constant) -> usize {
    bits(values.dtype).map_or(1, |bits| bits.div_ceil(8))
}

/// The elements where the mask is set, one after the other.
///
/// # Errors
/// When the mask is of another size.
pub(super) fn gathered(dense: &Constant, mask: &[bool]) -> Result<Constant, Fault> {
    let size = element_size(dense);
    if dense.len() != mask.len() {
        return Err(Fault::malformed(
            "the mask is of another size than the data",
        ));
    }
    let elements = dense.bytes().chunks_exact(size).zip(mask);
    let kept: Vec<u8> = elements
        .filter(|(_, set)| **set)
        .flat_map(|(e, _)| e.to_vec())
        .collect();
    let count = mask.iter().filter(|&&b| b).count();
    Constant::owned(dense.dtype, vec![count], kept, true)
}

/// Elements below a byte as bytes of their own; others unchanged.
fn whole_bytes(values: &Constant) -> Result<Constant, Fault> {
    let dtype = match values.dtype {
        DataType::Int4 => DataType::Int8,
        DataType::UInt1 | DataType::UInt2 | DataType::UInt3 | DataType::UInt4 | DataType::UInt6 => {
            DataType::UInt8
        }
        _ => return Ok(values.clone()),
    };
    let integers = values.integers()?;
    let bytes = integers.into_iter().map(|v| v as u8).collect();
    Constant::owned(dtype, values.shape.clone(), bytes, true)
}
