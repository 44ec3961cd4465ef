//! Parts of a tensor.

use snapc_ir::ops::{Gather, Slice};
use snapc_ir::{LazyTensor, ValueId};

use super::super::call::Call;
use super::super::error::Fault;

/// Positions that a slice with steps may take.
const MAX_POSITIONS: usize = 1 << 20;

/// Several results: equal parts, or parts of given sizes.
pub(super) fn split(call: &mut Call<'_>) -> Result<Vec<ValueId>, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let axis = call.axis_or("axis", shape.len(), 0)?;
    let sizes = match call.optional_ints("split_sizes")? {
        Some(sizes) => sizes.into_iter().map(|n| usize::try_from(n).ok()).collect(),
        None => {
            let count = call.results();
            let size = shape[axis].checked_div(count);
            size.map(|size| vec![size; count])
        }
    };
    let sizes: Option<Vec<usize>> = sizes;
    let total = sizes
        .as_ref()
        .and_then(|s| s.iter().try_fold(0usize, |a, &n| a.checked_add(n)));
    let Some(sizes) = sizes.filter(|_| total == Some(shape[axis])) else {
        return Err(Fault::malformed(format!(
            "the parts do not make up {}",
            shape[axis]
        )));
    };
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        parts.push(part(call, x, axis, start, start + size)?);
        start += size;
    }
    Ok(parts)
}

/// Elements `start..end` along an axis.
pub(super) fn part(
    call: &mut Call<'_>,
    x: ValueId,
    axis: usize,
    start: usize,
    end: usize,
) -> Result<ValueId, Fault> {
    if (start, end) == (0, call.shape(x)[axis]) {
        return Ok(x);
    }
    call.add(Slice { axis, start, end }, &[x])
}

/// `x[begin:end:stride, …]` as in numpy; a mask leaves its bound away, or takes a single index.
pub(super) fn by_index(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let mut x = call.value("x")?;
    let shape = call.shape(x);
    let rank = shape.len();
    let (begin, end) = (call.ints("begin")?, call.ints("end")?);
    let stride = call
        .optional_ints("stride")?
        .unwrap_or_else(|| vec![1; rank]);
    if [begin.len(), end.len(), stride.len()] != [rank; 3] {
        return Err(Fault::malformed(format!("a bound has not {rank} elements")));
    }
    let from_begin = call.flags("begin_mask", rank)?;
    let to_end = call.flags("end_mask", rank)?;
    let squeeze = call.flags("squeeze_mask", rank)?;
    for axis in 0..rank {
        let size = i64::try_from(shape[axis]).unwrap_or(i64::MAX);
        let step = if squeeze[axis] { 1 } else { stride[axis] };
        if step == 0 {
            return Err(Fault::malformed("a stride is 0"));
        }
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        // Negative bounds count from the end; all are cut to the dimension.
        let bound = |value: i64| {
            let value = if value < 0 {
                value.saturating_add(size)
            } else {
                value
            };
            value.clamp(low, high)
        };
        let first = match from_begin[axis] {
            true if step > 0 => low,
            true => high,
            false => bound(begin[axis]),
        };
        let last = match to_end[axis] {
            _ if squeeze[axis] => first + 1,
            true if step > 0 => high,
            true => low,
            false => bound(end[axis]),
        };
        x = stepped(call, x, axis, [first, last, step])?;
    }
    let kept = call.shape(x);
    let kept: Vec<usize> = (0..rank)
        .filter(|&a| !squeeze[a])
        .map(|a| kept[a])
        .collect();
    call.reshape(x, &kept)
}

/// Positions `first`, `first + step`, … before `last` along an axis.
fn stepped(
    call: &mut Call<'_>,
    x: ValueId,
    axis: usize,
    [first, last, step]: [i64; 3],
) -> Result<ValueId, Fault> {
    if step == 1 {
        let bounds = (usize::try_from(first), usize::try_from(last));
        let (Ok(start), Ok(end)) = bounds else {
            return Err(Fault::malformed("a slice is outside of its dimension"));
        };
        return part(call, x, axis, start, end);
    }
    let span = if step > 0 { last - first } else { first - last };
    let count = span.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count == 0 || count > MAX_POSITIONS {
        return Err(Fault::unsupported(format!("a slice of {count} positions")));
    }
    let positions = (0..count as i64).map(|i| i32::try_from(first + i * step));
    let positions = positions.collect::<Result<Vec<i32>, _>>();
    let positions = positions.map_err(|_| Fault::unsupported("a position is beyond 32 bits"))?;
    let positions = call.define(LazyTensor::from_i32(&[count], &positions));
    let op = Gather {
        axis,
        batch_dims: 0,
    };
    call.add(op, &[x, positions])
}

/// `size` elements from `begin` on along each dimension; −1 is the rest.
pub(super) fn by_size(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let mut x = call.value("x")?;
    let shape = call.shape(x);
    let (begin, size) = (call.ints("begin")?, call.ints("size")?);
    if [begin.len(), size.len()] != [shape.len(); 2] {
        return Err(Fault::malformed(format!(
            "a bound has not {} elements",
            shape.len()
        )));
    }
    for axis in 0..shape.len() {
        let start = match begin[axis] {
            from_end @ ..0 => usize::try_from(from_end.unsigned_abs())
                .ok()
                .and_then(|back| shape[axis].checked_sub(back)),
            start => usize::try_from(start).ok(),
        };
        let end = match size[axis] {
            -1 => Some(shape[axis]),
            size => usize::try_from(size)
                .ok()
                .and_then(|n| start?.checked_add(n)),
        };
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Fault::malformed("a slice is outside of its dimension"));
        };
        x = part(call, x, axis, start, end)?;
    }
    Ok(x)
}
