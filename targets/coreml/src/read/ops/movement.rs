//! Operations that move elements without changing them.

use snapc_ir::ValueId;
use snapc_ir::ops::{Concat, UpsampleNearest};

use super::super::call::Call;
use super::super::error::Fault;
use super::super::settings::position;

/// Copies that a `tile` may make.
const MAX_COPIES: usize = 1 << 10;

/// `reshape`: one size may be −1, and 0 keeps the operand's.
pub(super) fn reshape(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let from = call.shape(x);
    let wanted = call.ints("shape")?;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &size) in wanted.iter().enumerate() {
        let size = match size {
            -1 if open.is_none() => {
                open = Some(i);
                Some(1)
            }
            0 => from.get(i).copied(),
            _ => usize::try_from(size).ok(),
        };
        let fault = || Fault::malformed(format!("the shape {wanted:?} has no size at {i}"));
        shape.push(size.ok_or_else(fault)?);
    }
    if let Some(i) = open {
        let total: usize = from.iter().product();
        let known = super::super::constant::elements(&shape);
        let rest = known.and_then(|k| total.checked_div(k));
        shape[i] =
            rest.ok_or_else(|| Fault::malformed(format!("the shape {wanted:?} is empty")))?;
    }
    call.reshape(x, &shape)
}

pub(super) fn transpose(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let rank = call.shape(x).len();
    let perm = call.ints("perm")?.into_iter().map(|p| position(p, rank));
    let perm = perm.collect::<Result<Vec<usize>, _>>()?;
    call.transpose(x, &perm)
}

/// New dimensions of size 1; axes are those of the result.
pub(super) fn expand_dims(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let mut shape = call.shape(x);
    let count = call.ints("axes")?.len();
    let axes = call.optional_axes("axes", shape.len() + count)?;
    for axis in axes.into_iter().flatten() {
        shape.insert(axis, 1);
    }
    call.reshape(x, &shape)
}

/// Without some dimensions of size 1, all of them when no axes are given.
pub(super) fn squeeze(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let axes = call.optional_axes("axes", shape.len())?;
    let goes = |axis: usize| match &axes {
        Some(axes) => axes.contains(&axis),
        None => shape[axis] == 1,
    };
    let kept: Vec<usize> = (0..shape.len()).filter(|&a| !goes(a)).collect();
    let kept: Vec<usize> = kept.into_iter().map(|a| shape[a]).collect();
    call.reshape(x, &kept)
}

pub(super) fn concat(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let values = call.values("values")?;
    if call.flag_or("interleave", false)? {
        return Err(Fault::unsupported(
            "interleaved parts have no form in the IR",
        ));
    }
    let rank = call.shape(values[0]).len();
    let axis = call.axis_or("axis", rank, 0)?;
    call.add(Concat { axis }, &values)
}

/// Values of one shape along a new axis.
pub(super) fn stack(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let values = call.values("values")?;
    let rank = call.shape(values[0]).len();
    let axis = call.axis_or("axis", rank + 1, 0)?;
    let mut parts = Vec::new();
    for value in values {
        let mut shape = call.shape(value);
        if axis > shape.len() {
            return Err(Fault::malformed("the values have different ranks"));
        }
        shape.insert(axis, 1);
        parts.push(call.reshape(value, &shape)?);
    }
    call.add(Concat { axis }, &parts)
}

/// Copies along each dimension.
pub(super) fn tile(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let mut x = call.value("x")?;
    let reps = call.ints("reps")?;
    if reps.len() != call.shape(x).len() {
        return Err(Fault::malformed(
            "'reps' must have one element per dimension",
        ));
    }
    for (axis, reps) in reps.into_iter().enumerate() {
        let copies = usize::try_from(reps)
            .ok()
            .filter(|n| (1..=MAX_COPIES).contains(n));
        let copies = copies.ok_or_else(|| Fault::unsupported(format!("{reps} copies")))?;
        if copies > 1 {
            x = call.add(Concat { axis }, &vec![x; copies])?;
        }
    }
    Ok(x)
}

/// Every row and column several times, as often as the scale factors say.
pub(super) fn upsample(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let height = call.float_or("scale_factor_height", 1.0)?;
    let width = call.float_or("scale_factor_width", 1.0)?;
    let is_count = height >= 1.0 && height.fract() == 0.0 && height <= MAX_COPIES as f32;
    if height != width || !is_count {
        return Err(Fault::unsupported(format!(
            "the scale factors {height} and {width} are not one whole number"
        )));
    }
    let scale = height as usize;
    call.add(UpsampleNearest { scale }, &[x])
}

/// To a size that is a multiple of the operand's.
pub(super) fn resize(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let target = [
        call.optional_int("target_size_height")?,
        call.optional_int("target_size_width")?,
    ];
    let &[.., rows, columns] = call.shape(x).as_slice() else {
        return Err(Fault::malformed("x has no rows and columns"));
    };
    let factor = |target: Option<i64>, size: usize| {
        let target = usize::try_from(target?).ok()?;
        (size > 0 && target.is_multiple_of(size)).then(|| target / size)
    };
    match (factor(target[0], rows), factor(target[1], columns)) {
        (Some(scale), Some(width)) if scale == width => call.add(UpsampleNearest { scale }, &[x]),
        _ => Err(Fault::unsupported(
            "the size is not one multiple of the operand's",
        )),
    }
}
