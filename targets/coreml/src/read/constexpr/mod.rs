//! `constexpr_*`: weights that are stored compressed. Those that the IR has an encoding for stay codes; the others are made
//! dense when they are read.
//!
//! Up to CoreML7 their parameters are attributes, from CoreML8 on inputs; either place is taken. Definitions:
//! coremltools, `converters/mil/mil/ops/defs/iOS16/constexpr_ops.py` and `iOS18/compression.py`.

mod blocks;
mod encoded;
mod palette;
mod sparse;

use self::blocks::{Blocks, shift_scale};
use self::palette::Palette;
use self::sparse::{gathered, mask_bits, scattered};
use super::builder::Entry;
use super::call::Call;
use super::constant::{Constant, elements};
use super::error::Fault;
use crate::proto::DataType;

/// The results of a compressed constant; `None` for another kind of operation.
///
/// # Errors
/// When a parameter is missing or does not go with the others.
pub(super) fn read(call: &mut Call<'_>) -> Result<Option<Vec<Entry>>, Fault> {
    let dense = match call.kind() {
        "constexpr_affine_dequantize" => return Ok(Some(vec![affine(call)?])),
        "constexpr_blockwise_shift_scale" => return Ok(Some(vec![blockwise(call)?])),
        "constexpr_lut_to_dense" => return Ok(Some(vec![palettized(call)?])),
        "constexpr_sparse_to_dense" => vec![sparse(call)?],
        "constexpr_lut_to_sparse" => sparse_palettized(call)?,
        "constexpr_sparse_blockwise_shift_scale" => sparse_blockwise(call)?,
        "constexpr_cast" => vec![cast(call)?],
        _ => return Ok(None),
    };
    Ok(Some(dense.into_iter().map(Entry::Constant).collect()))
}

/// `scale · (quantized_data − zero_point)`, scale and zero point along one axis.
fn affine(call: &mut Call<'_>) -> Result<Entry, Fault> {
    let data = call.constant("quantized_data")?;
    let scale = call.constant("scale")?;
    let zero_point = call.constant("zero_point")?;
    let axis = call.axis_or("axis", data.shape.len().max(1), 0)?;
    let mut groups = vec![1; data.shape.len()];
    for part in [&scale, &zero_point] {
        match (part.shape.as_slice(), groups.get_mut(axis)) {
            ([], _) | ([1], None) => {}
            (&[n], Some(group)) if n == data.shape[axis] => *group = n,
            _ => {
                return Err(Fault::malformed(
                    "scale and zero_point must be scalars or vectors along the axis",
                ));
            }
        }
    }
    shifted_and_scaled(&data, &groups, &scale, Some(&zero_point))
}

/// `scale · (data − offset)` by blocks, as many as `scale` has elements along each dimension.
fn blockwise(call: &mut Call<'_>) -> Result<Entry, Fault> {
    let data = call.constant("data")?;
    let scale = call.constant("scale")?;
    let offset = call.optional_constant("offset")?;
    shifted_and_scaled(&data, &scale.shape, &scale, offset.as_ref())
}

fn shifted_and_scaled(
    data: &Constant,
    groups: &[usize],
    scale: &Constant,
    offset: Option<&Constant>,
) -> Result<Entry, Fault> {
    if let Some(tensor) = encoded::affine(data, groups, scale, offset)? {
        return Ok(Entry::Encoded(tensor));
    }
    let blocks = Blocks::new(&data.shape, groups)?;
    shift_scale(data, &blocks, scale, offset).map(Entry::Constant)
}

fn palettized(call: &mut Call<'_>) -> Result<Entry, Fault> {
    let table = call.constant("lut")?;
    let indices = call.constant("indices")?;
    let Some(shape) = call.optional_constant("shape")? else {
        let axis = call.optional_int("vector_axis")?;
        return looked_up(&indices, &table, axis);
    };
    // Before CoreML8: one table, its indices packed into a vector of bytes.
    let shape = sizes(&shape)?;
    let dtype = match table.shape.as_slice() {
        [2] => DataType::UInt1,
        [4] => DataType::UInt2,
        [16] => DataType::UInt4,
        [64] => DataType::UInt6,
        [256] => DataType::UInt8,
        other => {
            return Err(Fault::malformed(format!(
                "a table of shape {other:?} has no indices of 1, 2, 4, 6 or 8 bits"
            )));
        }
    };
    let mut groups = vec![1; shape.len()];
    groups.extend([table.shape[0], 1]);
    let indices = indices.reinterpreted(dtype, shape)?;
    let table = table.reshaped(groups)?;
    looked_up(&indices, &table, None)
}

fn looked_up(indices: &Constant, table: &Constant, axis: Option<i64>) -> Result<Entry, Fault> {
    if let Some(tensor) = encoded::palette(indices, table)? {
        return Ok(Entry::Encoded(tensor));
    }
    let palette = Palette::new(table, &indices.shape, axis)?;
    palette.look_up(indices).map(Entry::Constant)
}

fn sparse(call: &mut Call<'_>) -> Result<Constant, Fault> {
    let values = call.constant("nonzero_data")?;
    let mask = call.constant("mask")?;
    let mask = match call.optional_constant("shape")? {
        // Before CoreML8 the mask is packed into a vector of bytes.
        Some(shape) => mask.reinterpreted(DataType::UInt1, sizes(&shape)?)?,
        None => mask,
    };
    scattered(&values, &mask_bits(&mask)?, &mask.shape)
}

/// The mask and the values of a sparse tensor whose values are entries of a table.
fn sparse_palettized(call: &mut Call<'_>) -> Result<Vec<Constant>, Fault> {
    let mask = call.constant("indices_mask")?;
    let values = call.constant("indices_nonzero_data")?;
    let table = call.constant("lut")?;
    let axis = call.optional_int("vector_axis")?;
    let bits = mask_bits(&mask)?;
    let indices = scattered(&values, &bits, &mask.shape)?;
    let palette = Palette::new(&table, &mask.shape, axis)?;
    let dense = palette.look_up(&indices)?;
    let (bits, shape) = palette.widened(&bits, &mask.shape);
    let values = gathered(&dense, &bits)?;
    Ok(vec![truth(&bits, shape)?, values])
}

/// The mask and the values of a sparse tensor whose values are quantized by blocks.
fn sparse_blockwise(call: &mut Call<'_>) -> Result<Vec<Constant>, Fault> {
    let mask = call.constant("data_mask")?;
    let values = call.constant("nonzero_data")?;
    let scale = call.constant("scale")?;
    let offset = call.optional_constant("offset")?;
    let bits = mask_bits(&mask)?;
    let data = scattered(&values, &bits, &mask.shape)?;
    let blocks = Blocks::new(&mask.shape, &scale.shape)?;
    let dense = shift_scale(&data, &blocks, &scale, offset.as_ref())?;
    Ok(vec![truth(&bits, mask.shape)?, gathered(&dense, &bits)?])
}

/// Halves as singles.
fn cast(call: &mut Call<'_>) -> Result<Constant, Fault> {
    let source = call.constant("source_val")?;
    match call.word("output_dtype")?.as_str() {
        "fp32" => {}
        other => {
            return Err(Fault::unsupported(format!(
                "output_dtype is '{other}', not 'fp32'"
            )));
        }
    }
    let floats = source.floats()?;
    let bytes = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    Constant::owned(DataType::Float32, source.shape.clone(), bytes, true)
}

/// A mask, one byte per element.
fn truth(bits: &[bool], shape: Vec<usize>) -> Result<Constant, Fault> {
    let bytes = bits.iter().map(|&bit| u8::from(bit)).collect();
    Constant::owned(DataType::UInt8, shape, bytes, false)
}

/// A shape that is written as a constant.
fn sizes(shape: &Constant) -> Result<Vec<usize>, Fault> {
    let sizes = shape.integers()?.into_iter().map(usize::try_from);
    let sizes: Vec<usize> = sizes
        .collect::<Result<_, _>>()
        .map_err(|_| Fault::malformed("the shape has a negative size"))?;
    if sizes.contains(&0) || elements(&sizes).is_none() {
        return Err(Fault::malformed(format!("the shape {sizes:?} is empty")));
    }
    Ok(sizes)
}
