//! Inputs, and the sizes of their symbolic dimensions.

use std::collections::BTreeMap;

use snapc_ir::{Shape, TensorType};

use super::tensor::elements;
use crate::proto::{Dimension, DimensionValue, ValueInfoProto, element_type};

/// The type of an input with every symbol replaced by its size in `sizes`.
///
/// # Errors
/// What is wrong, in words; for a symbol without a size, how to give one.
pub(super) fn bound_type(
    input: &ValueInfoProto,
    sizes: &BTreeMap<String, usize>,
) -> Result<TensorType, String> {
    let tensor = input.ty.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or("it is not a tensor")?;
    let data_type = tensor.elem_type.unwrap_or_default();
    let dtype = element_type(data_type)
        .ok_or_else(|| format!("element type {data_type} is not supported"))?;
    let shape = tensor
        .shape
        .as_ref()
        .ok_or("it has no shape; export with one")?;
    let dims = shape.dim.iter().enumerate();
    let dims = dims.map(|(axis, dim)| size(axis, dim, sizes));
    let dims = dims.collect::<Result<Vec<usize>, String>>()?;
    elements(&dims)?;
    Ok(TensorType::new(dtype, Shape::fixed(&dims)))
}

fn size(axis: usize, dim: &Dimension, sizes: &BTreeMap<String, usize>) -> Result<usize, String> {
    let size = match &dim.value {
        Some(DimensionValue::Size(size)) => usize::try_from(*size).ok(),
        Some(DimensionValue::Symbol(symbol)) => Some(*sizes.get(symbol).ok_or_else(|| {
            format!("axis {axis} has the symbolic size '{symbol}'; bind it to a number, such as {symbol}=1")
        })?),
        None => None,
    };
    let size = size.filter(|&size| size > 0);
    size.ok_or_else(|| {
        format!("axis {axis} has neither a positive size nor a symbol; export with one")
    })
}
