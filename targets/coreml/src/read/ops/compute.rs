//! Convolutions, products and reductions.

use snapc_ir::ValueId;
use snapc_ir::ops::{ArgMax, Conv2d, Linear, MatMul, Mul, ReduceMean};

use super::super::call::Call;
use super::super::error::Fault;

/// Biases are looked at for zeros up to this many elements.
const MAX_BIAS: usize = 1 << 16;

/// Convolution over rows and columns, without dilation.
pub(super) fn conv(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let (x, weight) = (call.value("x")?, call.value("weight")?);
    let bias = call.optional_value("bias")?;
    let (&[_, _, rows, columns], &[_, _, kernel_rows, kernel_columns]) =
        (call.shape(x).as_slice(), call.shape(weight).as_slice())
    else {
        return Err(Fault::unsupported(
            "only convolutions over rows and columns are read",
        ));
    };
    let strides = pair(call, "strides")?;
    let dilations = pair(call, "dilations")?;
    let kernel = [kernel_rows, kernel_columns];
    if (0..2).any(|i| dilations[i] > 1 && kernel[i] > 1) {
        return Err(Fault::unsupported(format!(
            "dilations {dilations:?} have no form in the IR"
        )));
    }
    let groups = call.optional_int("groups")?.unwrap_or(1);
    let groups = usize::try_from(groups).unwrap_or(0);
    let kind = call.optional_word("pad_type")?;
    let pads = match kind.as_deref().unwrap_or("valid") {
        "valid" => [0; 4],
        "custom" => custom_pads(call)?,
        same @ ("same" | "same_lower") => {
            // As many zeros as keep ⌈size / stride⌉ results; an odd one stands behind, or before for `same_lower`.
            let total = |size: usize, i: usize| {
                let last = (size.div_ceil(strides[i]).max(1) - 1).saturating_mul(strides[i]);
                last.saturating_add(kernel[i]).saturating_sub(size)
            };
            let (height, width) = (total(rows, 0), total(columns, 1));
            let lower = usize::from(same == "same_lower");
            let before = [(height + lower) / 2, (width + lower) / 2];
            [before[0], before[1], height - before[0], width - before[1]]
        }
        other => return Err(Fault::malformed(format!("unknown pad_type '{other}'"))),
    };
    let op = Conv2d {
        strides,
        pads,
        groups,
    };
    let operands = [Some(x), Some(weight), bias];
    call.add(op, &operands.into_iter().flatten().collect::<Vec<_>>())
}

/// The parameter `pad`, before and after each dimension, in the order of the IR.
fn custom_pads(call: &mut Call<'_>) -> Result<[usize; 4], Fault> {
    let pads = call.ints("pad")?.into_iter().map(usize::try_from);
    let pads = pads.collect::<Result<Vec<_>, _>>().ok();
    let pads: Option<[usize; 4]> = pads.and_then(|p| p.try_into().ok());
    let [top, bottom, left, right] =
        pads.ok_or_else(|| Fault::malformed("'pad' must be four sizes"))?;
    Ok([top, left, bottom, right])
}

/// Two positive numbers, 1 when they are not given.
fn pair(call: &mut Call<'_>, parameter: &str) -> Result<[usize; 2], Fault> {
    let Some(given) = call.optional_ints(parameter)? else {
        return Ok([1, 1]);
    };
    let sizes = given
        .iter()
        .map(|&n| usize::try_from(n).ok().filter(|n| *n > 0));
    let sizes: Option<Vec<usize>> = sizes.collect();
    let sizes: Option<[usize; 2]> = sizes.and_then(|s| s.try_into().ok());
    sizes.ok_or_else(|| Fault::malformed(format!("'{parameter}' must be two positive numbers")))
}

/// A linear layer. The bias of zeros that the format wants is left out.
pub(super) fn linear(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let (x, weight) = (call.value("x")?, call.value("weight")?);
    let bias = call.optional_value("bias")?;
    let bias = match bias {
        Some(bias) if is_zero(call, bias)? => None,
        other => other,
    };
    let shape = call.shape(x);
    let is_vector = shape.len() == 1;
    let rows = match is_vector {
        true => call.reshape(x, &[1, shape[0]])?,
        false => x,
    };
    let operands = [Some(rows), Some(weight), bias];
    let y = call.add(
        Linear {},
        &operands.into_iter().flatten().collect::<Vec<_>>(),
    )?;
    match is_vector {
        true => {
            let size = call.shape(y)[1];
            call.reshape(y, &[size])
        }
        false => Ok(y),
    }
}

fn is_zero(call: &Call<'_>, value: ValueId) -> Result<bool, Fault> {
    match call.builder.data(value) {
        Some(data) if data.dtype().is_float() && data.elements() <= MAX_BIAS => {
            Ok(data.to_f32()?.iter().all(|&v| v == 0.0))
        }
        _ => Ok(false),
    }
}

pub(super) fn matmul(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let mut operands = [call.value("x")?, call.value("y")?];
    for (operand, parameter) in operands.iter_mut().zip(["transpose_x", "transpose_y"]) {
        if call.flag_or(parameter, false)? {
            *operand = swapped(call, *operand)?;
        }
    }
    call.add(MatMul {}, &operands)
}

/// A value with its last two dimensions exchanged.
pub(super) fn swapped(call: &mut Call<'_>, x: ValueId) -> Result<ValueId, Fault> {
    let rank = call.shape(x).len();
    if rank < 2 {
        return Err(Fault::malformed("a vector cannot be transposed"));
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    call.transpose(x, &perm)
}

/// Mean or sum over some axes, all when none are given.
pub(super) fn reduce(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let axes = call.optional_axes("axes", shape.len())?;
    let axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
    let keeps = call.flag_or("keep_dims", false)?;
    let is_sum = call.kind() == "reduce_sum";
    let count: usize = axes.iter().map(|&a| shape[a]).product();
    let mut y = call.add(ReduceMean { axes: axes.clone() }, &[x])?;
    if is_sum {
        let count = call.scalar(y, count as f32);
        y = call.add(Mul {}, &[y, count])?;
    }
    if keeps {
        return Ok(y);
    }
    let left = (0..shape.len()).filter(|a| !axes.contains(a));
    let left: Vec<usize> = left.map(|a| shape[a]).collect();
    call.reshape(y, &left)
}

pub(super) fn arg_max(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let mut shape = call.shape(x);
    let axis = call.axis_or("axis", shape.len(), -1)?;
    let keeps = call.flag_or("keep_dims", false)?;
    let y = call.add(ArgMax { axis }, &[x])?;
    if !keeps {
        return Ok(y);
    }
    shape[axis] = 1;
    call.reshape(y, &shape)
}
