//! Operators that move elements and change none.

use snapc_ir::ops::{Concat, Gather, Reshape, Slice, Transpose};
use snapc_ir::{LazyTensor, Shape};

use super::super::builder::{Builder, Operand, dims};
use super::super::call::{Call, normal_axes, normal_axis};
use super::super::error::Fault;
use super::super::tensor::elements;
use super::fold::expanded;

/// `x` with the sizes `to`.
pub(super) fn reshaped(
    b: &mut Builder,
    x: Operand,
    to: &[usize],
    name: &str,
) -> Result<Operand, Fault> {
    if b.shape(x) == to {
        return Ok(x);
    }
    elements(to).map_err(Fault::Malformed)?;
    b.apply(Reshape { shape: dims(to) }, &[x], name)
}

/// `Dropout`, which does nothing at inference.
pub(super) fn dropout(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    if let Some(training) = call.optional_integers(b, 2)?
        && training.iter().any(|&t| t != 0)
    {
        return Err(Fault::unsupported("training mode; export for inference"));
    }
    call.input(0)
}

/// `Reshape`: a size of 0 copies that of the operand, -1 takes what is left.
pub(super) fn reshape(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let from = b.shape(x);
    let target = call.integers(b, 1)?;
    let allow_zero = call.flag("allowzero", false)?;
    let fault = || {
        Fault::malformed(format!(
            "shape {target:?} does not fit {}",
            Shape::fixed(&from)
        ))
    };
    let mut to = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, &size) in target.iter().enumerate() {
        to.push(match size {
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            0 if !allow_zero => *from.get(axis).ok_or_else(fault)?,
            size => usize::try_from(size).map_err(|_| fault())?,
        });
    }
    if let Some(axis) = open {
        let known = elements(&to).map_err(Fault::Malformed)?;
        let all = elements(&from).map_err(Fault::Malformed)?;
        if known == 0 || !all.is_multiple_of(known) {
            return Err(fault());
        }
        to[axis] = all / known;
    }
    reshaped(b, x, &to, call.name)
}

/// `Flatten` to a matrix.
pub(super) fn flatten(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let axis = call.int("axis")?.unwrap_or(1);
    // The axis may lie behind the last one.
    let at_end = usize::try_from(axis).is_ok_and(|a| a == shape.len());
    let axis = if at_end {
        shape.len()
    } else {
        normal_axis(axis, shape.len())?
    };
    let (rows, columns) = shape.split_at(axis);
    let matrix = [rows.iter().product(), columns.iter().product()];
    reshaped(b, x, &matrix, call.name)
}

/// `Squeeze`: without some sizes of 1, or without all of them.
pub(super) fn squeeze(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let axes = match call.optional_integers(b, 1)? {
        Some(axes) => normal_axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&a| shape[a] == 1).collect(),
    };
    if axes.iter().any(|&a| shape[a] != 1) {
        let message = format!("axes {axes:?} of {} are not all 1", Shape::fixed(&shape));
        return Err(Fault::malformed(message));
    }
    let kept = (0..shape.len()).filter(|a| !axes.contains(a));
    let kept: Vec<usize> = kept.map(|a| shape[a]).collect();
    reshaped(b, x, &kept, call.name)
}

/// `Unsqueeze`: with sizes of 1 put in.
pub(super) fn unsqueeze(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let mut shape = b.shape(x);
    let axes = call.integers(b, 1)?;
    for axis in normal_axes(&axes, shape.len() + axes.len())? {
        shape.insert(axis, 1);
    }
    reshaped(b, x, &shape, call.name)
}

/// `Transpose`; without `perm` the order of the axes is reversed.
pub(super) fn transpose(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let rank = b.shape(x).len();
    let perm: Vec<usize> = match call.ints("perm")? {
        Some(perm) => {
            let axes = perm.iter().map(|&a| normal_axis(a, rank));
            axes.collect::<Result<_, _>>()?
        }
        None => (0..rank).rev().collect(),
    };
    b.apply(Transpose { perm }, &[x], call.name)
}

/// Elements `start..end` along an axis.
pub(super) fn sliced(
    b: &mut Builder,
    x: Operand,
    [axis, start, end]: [usize; 3],
    name: &str,
) -> Result<Operand, Fault> {
    if start == 0 && b.shape(x).get(axis) == Some(&end) {
        return Ok(x);
    }
    b.apply(Slice { axis, start, end }, &[x], name)
}

/// `Slice` with steps of 1. Bounds count from the end when negative and are clamped.
pub(super) fn slice(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let mut x = call.input(0)?;
    let rank = b.shape(x).len();
    let (starts, ends) = (call.integers(b, 1)?, call.integers(b, 2)?);
    let axes = match call.optional_integers(b, 3)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = call.optional_integers(b, 4)?;
    let count = starts.len();
    if ends.len() != count
        || axes.len() != count
        || steps.as_ref().is_some_and(|s| s.len() != count)
    {
        return Err(Fault::malformed(
            "starts, ends, axes and steps differ in number",
        ));
    }
    if steps.is_some_and(|s| s.iter().any(|&s| s != 1)) {
        return Err(Fault::unsupported("every step must be 1"));
    }
    normal_axes(&axes, rank)?;
    for ((&axis, &start), &end) in axes.iter().zip(&starts).zip(&ends) {
        let axis = normal_axis(axis, rank)?;
        let size = b.shape(x)[axis];
        let bound = |v: i64| {
            let size = size as i64;
            let v = if v < 0 { v.saturating_add(size) } else { v };
            v.clamp(0, size) as usize
        };
        x = sliced(b, x, [axis, bound(start), bound(end)], call.name)?;
    }
    Ok(x)
}

/// `Split` by given sizes or into equal parts, of which the last may be smaller.
pub(super) fn split(b: &mut Builder, call: &Call<'_>) -> Result<Vec<Operand>, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let axis = call.axis("axis", 0, shape.len())?;
    let sizes = match call.optional_integers(b, 1)? {
        Some(sizes) => {
            let sizes = sizes.iter().map(|&s| usize::try_from(s).ok());
            let negative = || Fault::malformed("a size to split into is negative");
            sizes.collect::<Option<Vec<usize>>>().ok_or_else(negative)?
        }
        None => {
            // The number of results also bounds the parts by what the file holds.
            let parts = call.results;
            if let Some(stated) = call.int("num_outputs")?
                && usize::try_from(stated) != Ok(parts)
            {
                return Err(Fault::malformed(format!(
                    "num_outputs is {stated}, but there are {parts} results"
                )));
            }
            equal_parts(shape[axis], parts)?
        }
    };
    let mut parts = Vec::with_capacity(sizes.len());
    let mut start = 0usize;
    for size in sizes {
        let end = start.checked_add(size).filter(|&end| end <= shape[axis]);
        let end = end.ok_or_else(|| Fault::malformed("the parts are larger than the whole"))?;
        parts.push(sliced(b, x, [axis, start, end], call.name)?);
        start = end;
    }
    if start != shape[axis] {
        return Err(Fault::malformed("the parts are smaller than the whole"));
    }
    Ok(parts)
}

fn equal_parts(size: usize, parts: usize) -> Result<Vec<usize>, Fault> {
    let split = |full: usize| {
        let each = size.div_ceil(parts);
        let last = size.checked_sub(each.checked_mul(full)?)?;
        (last > 0).then(|| [vec![each; full], vec![last]].concat())
    };
    match parts.checked_sub(1).and_then(split) {
        Some(sizes) => Ok(sizes),
        None => Err(Fault::malformed(format!(
            "{size} cannot be split into {parts} parts"
        ))),
    }
}

/// `Concat`.
pub(super) fn concat(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let operands = call.all()?;
    let first = call.input(0)?;
    let rank = b.shape(first).len();
    let axis = match call.int("axis")? {
        Some(axis) => normal_axis(axis, rank)?,
        None => return Err(Fault::malformed("attribute 'axis' is missing")),
    };
    match operands.as_slice() {
        [only] => Ok(*only),
        _ => b.apply(Concat { axis }, &operands, call.name),
    }
}

/// `Expand`.
pub(super) fn expand(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let target = call.integers(b, 1)?;
    let target = target.iter().map(|&d| usize::try_from(d).ok());
    let negative = || Fault::malformed("a size to expand to is negative");
    let target: Vec<usize> = target.collect::<Option<_>>().ok_or_else(negative)?;
    broadcast(b, x, &target, call.name)
}

/// `x` broadcast together with a shape. The IR repeats nothing by itself, so elements are gathered several times.
pub(super) fn broadcast(
    b: &mut Builder,
    mut x: Operand,
    target: &[usize],
    name: &str,
) -> Result<Operand, Fault> {
    let mut shape = b.shape(x);
    let wide = Shape::fixed(&shape).broadcast(&Shape::fixed(target));
    let wide = wide.and_then(|s| s.to_fixed()).ok_or_else(|| {
        let (from, to) = (Shape::fixed(&shape), Shape::fixed(target));
        Fault::malformed(format!("{from} does not broadcast with {to}"))
    })?;
    let count = elements(&wide).map_err(Fault::Malformed)?;
    if shape == wide {
        return Ok(x);
    }
    if b.data(x).is_some() && b.take_budget(count) {
        let dtype = b.ty(x).dtype;
        if let Some(tensor) = b.elements(x) {
            return Ok(b.known(name, &expanded(&tensor, &wide), dtype));
        }
    }
    let missing = wide.len() - shape.len();
    shape.splice(0..0, std::iter::repeat_n(1, missing));
    x = reshaped(b, x, &shape, name)?;
    for axis in 0..wide.len() {
        let times = wide[axis];
        if shape[axis] == times {
            continue;
        }
        if !b.take_budget(times) {
            return Err(Fault::unsupported(format!(
                "it repeats axis {axis} {times} times"
            )));
        }
        let indices = LazyTensor::from_i32(&[times], &vec![0; times]);
        let indices = b.constant(name, indices);
        let op = Gather {
            axis,
            batch_dims: 0,
        };
        x = b.apply(op, &[x, indices], name)?;
    }
    Ok(x)
}
