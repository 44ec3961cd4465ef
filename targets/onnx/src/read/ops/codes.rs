//! Codes of few bits: quantized values and weights, palettes, operators on bits.
//!
//! A constant that `DequantizeLinear` or a table makes floats of becomes an encoded weight, whose codes stay in the file.
//! `QuantizeLinear` of values that depend on the inputs becomes `fake_quantize`; its result may only be used by a
//! `DequantizeLinear` of the same grid, which gives the floats back.

use std::sync::Arc;

use snapc_ir::ops::FakeQuantize;
use snapc_ir::tensor::{Elements, strides};
use snapc_ir::{DType, Encoding, LazyTensor, Tensor, Transform};

use super::super::builder::{Builder, Operand};
use super::super::call::Call;
use super::super::error::Fault;
use super::fold::{known, together};
use crate::proto::{INT8, UINT8};

/// What the codes of a value stand for.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Grid {
    /// Into how many parts each dimension is cut.
    groups: Vec<usize>,
    /// One per group.
    scale: Vec<f32>,
    /// One per group, in the range of the codes.
    zero_point: Vec<i64>,
}

impl Grid {
    /// Scale and zero point of a node over a tensor of this shape.
    fn read(b: &mut Builder, call: &Call<'_>, shape: &[usize]) -> Result<Self, Fault> {
        let operand = call.input(1)?;
        let scales = b.shape(operand);
        let constant = |what: &str| {
            Fault::unsupported(format!(
                "the {what} is computed at run time, or the model has too many to read"
            ))
        };
        let scale = b.scales(operand).ok_or_else(|| constant("scale"))?;
        let Elements::Float(scale) = scale.elements else {
            return Err(Fault::malformed("the scale must be floats"));
        };
        let zero_point = match call.optional(2) {
            None => vec![0; scale.len()],
            // One of each may be a scalar here and a vector there.
            Some(zero)
                if b.shape(zero) == scales || (single(&b.shape(zero)) && single(&scales)) =>
            {
                let zero = b.scales(zero).ok_or_else(|| constant("zero point"))?;
                match zero.elements {
                    Elements::Int(v) => v,
                    Elements::Float(_) => {
                        return Err(Fault::malformed("the zero point must be integers"));
                    }
                }
            }
            Some(_) => {
                return Err(Fault::malformed("scale and zero point differ in shape"));
            }
        };
        Ok(Grid {
            groups: groups(call, shape, &scales)?,
            scale,
            zero_point,
        })
    }

    /// The encoding of signed codes of `bits` bits; `unsigned` codes are those with an offset of half their range.
    fn encoding(&self, bits: u32, unsigned: bool) -> Result<Encoding, Fault> {
        let offset = if unsigned { 1 << (bits - 1) } else { 0 };
        let zero = self
            .zero_point
            .iter()
            .map(|z| i8::try_from(z - offset).ok());
        let zero: Option<Vec<i8>> = zero.collect();
        let zero = zero.ok_or_else(|| Fault::malformed("a zero point is out of range"))?;
        let zero = if zero.iter().all(|&z| z == 0) {
            Vec::new()
        } else {
            zero
        };
        let encoding = Encoding::affine(bits, &self.groups, self.scale.clone(), zero);
        encoding.map_err(|e| Fault::malformed(e.to_string()))
    }
}

/// Whether these are the dimensions of a scalar or of a vector of one.
fn single(shape: &[usize]) -> bool {
    matches!(shape, [] | [1])
}

/// How scales of these dimensions cut a tensor into groups.
fn groups(call: &Call<'_>, shape: &[usize], scales: &[usize]) -> Result<Vec<usize>, Fault> {
    let rank = shape.len();
    let misfit = || {
        Fault::malformed(format!(
            "scales of shape {scales:?} do not fit codes of shape {shape:?}"
        ))
    };
    let block = call.int("block_size")?.unwrap_or(0);
    if block == 0 && single(scales) {
        return Ok(vec![1; rank]);
    }
    let axis = call.axis("axis", 1, rank)?;
    if block == 0 {
        let mut groups = vec![1; rank];
        groups[axis] = shape[axis];
        return (scales == [shape[axis]])
            .then_some(groups)
            .ok_or_else(misfit);
    }
    let size = usize::try_from(block).map_err(|_| misfit())?;
    if !shape[axis].is_multiple_of(size) {
        let message = format!("blocks of {size} do not divide axis {axis} of shape {shape:?}");
        return Err(Fault::unsupported(message));
    }
    let mut groups = shape.to_vec();
    groups[axis] /= size;
    (scales == groups).then_some(groups).ok_or_else(misfit)
}

/// Bits of a code: those that it was unpacked from, or a byte.
fn bits(codes: &LazyTensor) -> u32 {
    let unpacked = codes.transforms().iter().find_map(|t| match t {
        Transform::Unpack { bits, .. } => Some(*bits),
        _ => None,
    });
    unpacked.unwrap_or(8)
}

/// `QuantizeLinear` to 8 bits.
pub(super) fn quantize(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let grid = Grid::read(b, call, &shape)?;
    let asked = call.int("output_dtype")?.unwrap_or(0);
    let unsigned = match (call.optional(2).map(|zero| b.ty(zero).dtype), asked) {
        (Some(DType::U8), _) => true,
        (Some(DType::I8), _) => false,
        (None, 0) => true,
        (None, asked) if asked == i64::from(UINT8) => true,
        (None, asked) if asked == i64::from(INT8) => false,
        _ => return Err(Fault::unsupported("only codes of 8 bits are read")),
    };
    let narrow = call
        .optional(2)
        .and_then(|zero| b.data(zero))
        .is_some_and(|t| bits(t) != 8);
    if narrow || !b.ty(x).dtype.is_float() {
        return Err(Fault::unsupported(
            "only codes of 8 bits of floats are read",
        ));
    }
    let encoding = grid.encoding(8, unsigned)?;
    let floats = match b.data(x).cloned() {
        Some(tensor) if encoding.fits(&shape) => {
            b.parameter(call.name, tensor.encode(Arc::new(encoding)))
        }
        _ => {
            let (&[scale], &[zero]) = (grid.scale.as_slice(), grid.zero_point.as_slice()) else {
                return Err(Fault::unsupported(
                    "values that are computed at run time need one scale for all",
                ));
            };
            let zero = if unsigned { zero } else { zero + 128 };
            let zero_point = usize::try_from(zero);
            let zero_point =
                zero_point.map_err(|_| Fault::malformed("the zero point is out of range"))?;
            b.apply(FakeQuantize { scale, zero_point }, &[x], call.name)?
        }
    };
    b.codes.insert(call.result_name().to_owned(), grid);
    Ok(floats)
}

/// `DequantizeLinear` of a constant, or of what `QuantizeLinear` has given.
pub(super) fn dequantize(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let grid = Grid::read(b, call, &shape)?;
    let to = b.ty(call.input(1)?).dtype;
    if let Some(quantized) = b.codes.get(call.operand_name(0)) {
        if *quantized != grid || b.ty(x).dtype != to {
            return Err(Fault::unsupported(
                "its scale, zero point or type is not that of its QuantizeLinear",
            ));
        }
        return Ok(x);
    }
    let Some(codes) = b.data(x).cloned() else {
        return Err(Fault::unsupported(
            "codes that no QuantizeLinear has given and that are computed at run time",
        ));
    };
    if codes.dtype() == DType::I32 {
        return integers(b, call, &grid, to);
    }
    if !matches!(codes.dtype(), DType::I8 | DType::U8) {
        return Err(Fault::malformed(format!(
            "codes of element type {}",
            codes.dtype()
        )));
    }
    let bits = bits(&codes);
    let unsigned = codes.dtype() == DType::U8;
    if !matches!(bits, 4 | 8) {
        return Err(Fault::unsupported(format!("codes of {bits} bits")));
    }
    let encoding = grid.encoding(bits, unsigned)?;
    if !encoding.fits(&shape) {
        return Err(Fault::malformed("the scales do not fit the codes"));
    }
    let codes = if unsigned {
        signed(&codes, bits)?
    } else {
        codes
    };
    let floats = LazyTensor::from_codes(codes, Arc::new(encoding), to);
    Ok(if shape.is_empty() {
        b.constant(call.name, floats)
    } else {
        b.parameter(call.name, floats)
    })
}

/// Unsigned codes as signed ones, lower by half their range; a copy.
fn signed(codes: &LazyTensor, bits: u32) -> Result<LazyTensor, Fault> {
    let half = 1u8 << (bits - 1);
    let bytes = codes.bytes().map_err(|e| Fault::malformed(e.to_string()))?;
    let shifted: Vec<i8> = bytes
        .iter()
        .map(|c| c.wrapping_sub(half).cast_signed())
        .collect();
    Ok(LazyTensor::from_i8(codes.shape(), &shifted))
}

/// Constants in 32 bits, as biases are: computed, since they are few.
fn integers(b: &mut Builder, call: &Call<'_>, grid: &Grid, to: DType) -> Result<Operand, Fault> {
    let tensor = known(b, call, 0)?;
    let (own, of) = (strides(&tensor.shape), strides(&grid.groups));
    let group = |flat: usize| {
        let along = tensor.shape.iter().zip(&grid.groups).enumerate();
        let index = |(d, (&size, &parts)): (usize, (&usize, &usize))| {
            flat / own[d] % size / (size / parts) * of[d]
        };
        along.map(index).sum::<usize>()
    };
    let float = |(i, &code): (usize, &i64)| {
        let group = group(i);
        grid.scale[group] * (code - grid.zero_point[group]) as f32
    };
    let floats = tensor.ints().iter().enumerate().map(float).collect();
    let mut floats = Tensor::float(&tensor.shape, floats);
    floats.round_to(to);
    Ok(b.known(call.name, &floats, to))
}

/// The weight that `Gather` or `GatherElements` along `axis` takes from a table with one entry per code, or a row of
/// entries per group; `None` when the operands are others.
pub(super) fn palette(
    b: &mut Builder,
    call: &Call<'_>,
    table: Operand,
    indices: Operand,
    axis: usize,
) -> Result<Option<Operand>, Fault> {
    let shape = b.shape(indices);
    let (Some(codes), Some(data)) = (b.narrow_codes(indices).cloned(), b.data(table)) else {
        return Ok(None);
    };
    let dtype = data.dtype();
    let (rows, entries) = match (data.shape(), call.op) {
        (&[entries], "Gather") => (1, entries),
        (&[rows, entries], "GatherElements")
            if axis == 1 && shape.len() == 2 && shape[0] == rows =>
        {
            (rows, entries)
        }
        _ => return Ok(None),
    };
    let bits = bits(&codes);
    if !dtype.is_float() || entries != 1 << bits {
        return Ok(None);
    }
    let Some(values) = b.elements(table) else {
        return Ok(None);
    };
    let mut groups = vec![1; shape.len()];
    if rows > 1 {
        groups[0] = rows;
    }
    let encoding = Encoding::palette(bits, &groups, values.floats().to_vec());
    let encoding = encoding.map_err(|e| Fault::malformed(e.to_string()))?;
    if !encoding.fits(codes.shape()) {
        return Ok(None);
    }
    let floats = LazyTensor::from_codes(codes, Arc::new(encoding), dtype);
    Ok(Some(b.parameter(call.name, floats)))
}

/// `GatherElements`, from tables of palettes.
pub(super) fn gather_elements(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let (table, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis("axis", 0, b.shape(table).len())?;
    palette(b, call, table, indices, axis)?.ok_or_else(|| {
        Fault::unsupported("it is read only as the tables of a palette with constant codes")
    })
}

/// `BitShift`, `BitwiseAnd`, `BitwiseOr` of constants; bytes, where they are shifted.
pub(super) fn bitwise(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let dtype = b.ty(call.input(0)?).dtype;
    let (x, y) = (known(b, call, 0)?, known(b, call, 1)?);
    let [x, y] = together(b, [&x, &y])?;
    let (Elements::Int(left), Elements::Int(right)) = (&x.elements, &y.elements) else {
        return Err(Fault::malformed("the operands must be integers"));
    };
    let direction = call.string("direction")?;
    if call.op == "BitShift" && dtype != DType::U8 {
        return Err(Fault::unsupported(format!("shifts of {dtype}; bytes are")));
    }
    // A byte has nothing left after 8 steps; the count of a hostile file is not negative, being a byte.
    let apply = |(&a, &b): (&i64, &i64)| match (call.op, direction) {
        ("BitwiseAnd", _) => Some(a & b),
        ("BitwiseOr", _) => Some(a | b),
        (_, Some("LEFT")) => Some((a << b.clamp(0, 8)) & 0xff),
        (_, Some("RIGHT")) => Some(a >> b.clamp(0, 8)),
        _ => None,
    };
    let values: Option<Vec<i64>> = left.iter().zip(right).map(apply).collect();
    let values =
        values.ok_or_else(|| Fault::malformed("the direction is neither LEFT nor RIGHT"))?;
    Ok(b.known(call.name, &Tensor::int(&x.shape, values), dtype))
}
