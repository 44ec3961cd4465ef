//! Gathers.

use snapc_ir::ops::{Add, Concat, Gather, Mul};
use snapc_ir::{LazyTensor, Op, ValueId};

use super::super::call::Call;
use super::super::constant::elements;
use super::super::error::Fault;
use super::slice::part;

/// Offsets that a gather along an axis may need.
const MAX_OFFSETS: usize = 1 << 20;

/// `gather` along an axis.
pub(super) fn gather(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let (indices, wrapped) = call.indices()?;
    let axis = call.axis_or("axis", shape.len(), 0)?;
    let batch_dims = call.optional_int("batch_dims")?.unwrap_or(0);
    let batch_dims = usize::try_from(batch_dims).unwrap_or(usize::MAX);
    check_wrapped(wrapped, &[shape[axis]])?;
    call.add(Gather { axis, batch_dims }, &[x, indices])
}

/// Whether what was added to negative indices is the size of the dimension they go along.
fn check_wrapped(wrapped: Option<LazyTensor>, sizes: &[usize]) -> Result<(), Fault> {
    let Some(wrapped) = wrapped else {
        return Ok(());
    };
    let added = wrapped.to_i64()?;
    let sizes: Vec<i64> = sizes
        .iter()
        .map(|&n| i64::try_from(n).unwrap_or(i64::MAX))
        .collect();
    match added == sizes {
        true => Ok(()),
        false => Err(Fault::unsupported(format!(
            "{added:?} is added to negative indices, not the size {sizes:?} of the dimension"
        ))),
    }
}

/// `x[i, j, …]` for the rows `(i, j, …)` of the indices.
pub(super) fn gather_nd(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let (indices, wrapped) = call.indices()?;
    if call.optional_int("batch_dims")?.unwrap_or(0) != 0 {
        return Err(Fault::unsupported(
            "shared dimensions have no form in the IR",
        ));
    }
    let index_shape = call.shape(indices);
    let depth = index_shape
        .last()
        .copied()
        .filter(|d| (1..=shape.len()).contains(d));
    let depth = depth.ok_or_else(|| Fault::malformed("the indices do not fit the dimensions"))?;
    let is_wrapped = wrapped.is_some();
    check_wrapped(wrapped, &shape[..depth])?;
    let columns = columns(call, indices, depth)?;
    if depth == 1 {
        let op = Gather {
            axis: 0,
            batch_dims: 0,
        };
        return call.add(op, &[x, columns[0]]);
    }
    // Row `i` of the indices picks from image `i`, as CLIP's pooling does.
    let counts = |value: ValueId| {
        let data = call.builder.data(value)?;
        let counted = data.to_i64().ok()?.into_iter().eq(0..shape[0] as i64);
        (data.shape() == [shape[0]]).then_some(counted)
    };
    if depth == 2 && shape[0] <= MAX_OFFSETS && counts(columns[0]) == Some(true) {
        let op = Gather {
            axis: 1,
            batch_dims: 1,
        };
        return call.add(op, &[x, columns[1]]);
    }
    if is_wrapped {
        return Err(Fault::unsupported(
            "indices that may be negative, over several dimensions",
        ));
    }
    let mut position = None;
    for (k, &column) in columns.iter().enumerate() {
        let stride: usize = shape[k + 1..depth].iter().product();
        let scaled = scaled(call, column, stride)?;
        position = Some(match position {
            None => scaled,
            Some(sum) => call.add(Add {}, &[sum, scaled])?,
        });
    }
    let position = position.ok_or_else(|| Fault::malformed("there are no indices"))?;
    let flat: Vec<usize> = std::iter::once(shape[..depth].iter().product())
        .chain(shape[depth..].iter().copied())
        .collect();
    let flat = call.reshape(x, &flat)?;
    let op = Gather {
        axis: 0,
        batch_dims: 0,
    };
    call.add(op, &[flat, position])
}

fn scaled(call: &mut Call<'_>, index: ValueId, stride: usize) -> Result<ValueId, Fault> {
    let stride =
        i32::try_from(stride).map_err(|_| Fault::unsupported("positions are beyond 32 bits"))?;
    if stride == 1 {
        return Ok(index);
    }
    let stride = call.define(LazyTensor::from_i32(&[], &[stride]));
    call.add(Mul {}, &[index, stride])
}

/// The columns of indices `[…, depth]`: the parts they were put together from, or slices.
fn columns(call: &mut Call<'_>, indices: ValueId, depth: usize) -> Result<Vec<ValueId>, Fault> {
    let mut shape = call.shape(indices);
    let axis = shape.len() - 1;
    shape.pop();
    let joined = call
        .builder
        .graph
        .node_of(indices)
        .and_then(|n| match &n.op {
            Op::Concat(Concat { axis: a }) if *a == axis && n.operands.len() == depth => {
                Some(n.operands.clone())
            }
            _ => None,
        });
    let mut columns = Vec::new();
    for k in 0..depth {
        let column = match &joined {
            Some(parts) => parts[k],
            None => part(call, indices, axis, k, k + 1)?,
        };
        columns.push(call.reshape(column, &shape)?);
    }
    Ok(columns)
}

/// `y[…, i, …] = x[…, indices[…, i, …], …]`: positions in the flat tensor.
pub(super) fn gather_along_axis(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let indices = call.value("indices")?;
    let index_shape = call.shape(indices);
    let axis = call.axis_or("axis", shape.len(), 0)?;
    let fits = |a: usize| a == axis || shape[a] == index_shape[a];
    if index_shape.len() != shape.len() || !(0..shape.len()).all(fits) {
        return Err(Fault::malformed(
            "the indices have not the shape of x beside the axis",
        ));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let total = elements(&shape).filter(|n| i32::try_from(*n).is_ok());
    let count = elements(&index_shape).filter(|n| *n <= MAX_OFFSETS);
    let (Some(total), Some(count)) = (total, count) else {
        return Err(Fault::unsupported("too many positions"));
    };
    let along = index_shape[axis];
    let offsets = (0..count).map(|i| {
        let (outer, rest) = (i / (along * inner), i % inner);
        (outer * shape[axis] * inner + rest) as i32
    });
    let offsets = LazyTensor::from_i32(&index_shape, &offsets.collect::<Vec<_>>());
    let offsets = call.define(offsets);
    let positions = scaled(call, indices, inner)?;
    let positions = call.add(Add {}, &[positions, offsets])?;
    let flat = call.reshape(x, &[total])?;
    let op = Gather {
        axis: 0,
        batch_dims: 0,
    };
    call.add(op, &[flat, positions])
}
