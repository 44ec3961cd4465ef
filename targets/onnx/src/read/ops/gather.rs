//! Operators that pick elements by index.

use snapc_ir::ops::{Add, Gather, Mul};
use snapc_ir::{Op, Tensor};

use super::super::builder::{Builder, Operand};
use super::super::call::Call;
use super::super::error::Fault;
use super::codes::palette;
use super::movement::{reshaped, sliced};

/// Casts and reshapes that are looked through in a row.
const MAX_STEPS: usize = 8;

/// `Gather`.
pub(super) fn gather(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis("axis", 0, b.shape(x).len())?;
    if let Some(weight) = palette(b, call, x, indices, axis)? {
        return Ok(weight);
    }
    let op = Gather {
        axis,
        batch_dims: 0,
    };
    b.apply(op, &[x, indices], call.name)
}

/// `GatherND` with rows of indices: one index behind the shared batch, or several without one.
pub(super) fn gather_nd(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch_dims = usize::try_from(call.int("batch_dims")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let (x_shape, indices_shape) = (b.shape(x), b.shape(indices));
    let Some((&width, lead)) = indices_shape.split_last() else {
        return Err(Fault::malformed("operand 1 is a scalar"));
    };
    let indexed = batch_dims
        .checked_add(width)
        .and_then(|end| x_shape.get(batch_dims..end));
    let indexed = indexed.ok_or_else(|| Fault::malformed("it indexes more axes than there are"))?;
    if width == 1 && batch_dims <= 1 {
        let indices = reshaped(b, indices, lead, call.name)?;
        let op = Gather {
            axis: batch_dims,
            batch_dims,
        };
        return b.apply(op, &[x, indices], call.name);
    }
    if width == 0 || batch_dims != 0 {
        return Err(Fault::unsupported(format!(
            "{width} indices behind {batch_dims} shared axes"
        )));
    }
    let rows = indexed.iter().product();
    let flat = [&[rows], &x_shape[width..]].concat();
    let flat = reshaped(b, x, &flat, call.name)?;
    let mut stride = rows;
    let mut row = None;
    for (i, &size) in indexed.iter().enumerate() {
        stride /= size.max(1);
        let column = column(b, indices, i, call.name)?;
        let column = reshaped(b, column, lead, call.name)?;
        // A negative index would reach into the row before; along the first axis it counts from the end in both forms.
        if i > 0 && !is_position(b, column) {
            return Err(Fault::unsupported(
                "an index that may be negative at run time",
            ));
        }
        let mut offset = column;
        if stride != 1 {
            let dtype = b.ty(column).dtype;
            let stride = Tensor::int(&[], vec![stride as i64]);
            let stride = b.known(call.name, &stride, dtype);
            offset = b.apply(Mul {}, &[column, stride], call.name)?;
        }
        row = Some(match row {
            None => offset,
            Some(row) => b.apply(Add {}, &[row, offset], call.name)?,
        });
    }
    let row = row.ok_or_else(|| Fault::malformed("there is no index"))?;
    let op = Gather {
        axis: 0,
        batch_dims: 0,
    };
    b.apply(op, &[flat, row], call.name)
}

/// Column `i` of rows of indices; the operand itself when they were put together from columns.
fn column(b: &mut Builder, indices: Operand, i: usize, name: &str) -> Result<Operand, Fault> {
    let rank = b.shape(indices).len();
    if let Operand::Computed(value) = indices
        && let Some(node) = b.graph.node_of(value)
        && matches!(&node.op, Op::Concat(op) if op.axis + 1 == rank)
        && b.graph.ty(value).shape.dims().last() == Some(&snapc_ir::Dim::Fixed(node.operands.len()))
    {
        let parts: Vec<Operand> = node
            .operands
            .clone()
            .into_iter()
            .map(|v| b.operand(v))
            .collect();
        let single = parts.iter().all(|&p| b.shape(p).last() == Some(&1));
        if let Some(&part) = parts.get(i).filter(|_| single) {
            return Ok(part);
        }
    }
    sliced(b, indices, [rank - 1, i, i + 1], name)
}

/// Whether an index is known not to be negative: a constant that is not, or the position of a maximum.
fn is_position(b: &mut Builder, index: Operand) -> bool {
    let Operand::Computed(mut value) = index else {
        return b.elements(index).is_some_and(|t| match t.elements {
            snapc_ir::tensor::Elements::Int(v) => v.iter().all(|&i| i >= 0),
            snapc_ir::tensor::Elements::Float(_) => false,
        });
    };
    for _ in 0..MAX_STEPS {
        match b.graph.node_of(value) {
            Some(node) if matches!(node.op, Op::ArgMax(_)) => return true,
            Some(node) if matches!(node.op, Op::Cast(_) | Op::Reshape(_)) => {
                value = node.operands[0];
            }
            _ => return false,
        }
    }
    false
}
