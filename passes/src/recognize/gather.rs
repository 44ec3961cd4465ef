//! Rows of a batch, taken from the flattened batch.

use snapc_ir::ops::Gather;
use snapc_ir::{BuildError, Node, Op, Rebuild, ValueId};

use super::matcher::Matcher;

/// Casts and reshapes between a search for positions and their use, with room to spare.
const MAX_STEPS: usize = 8;

/// Rows of `x[N,S,C]`, flattened to `[N·S,C]`, at `index[i] + i·S`: torch writes `x[arange(N), index]` so, which pools
/// the text encoder's states.
pub(crate) fn shared_batch(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let Some((x, index)) = parts(matcher, node) else {
        return Ok(None);
    };
    let operands = [rebuild.operand(x)?, rebuild.operand(index)?];
    let op = Gather {
        axis: 1,
        batch_dims: 1,
    };
    rebuild
        .graph
        .add(op, &operands, node.name.clone())
        .map(Some)
}

fn parts(matcher: &Matcher<'_>, node: &Node) -> Option<(ValueId, ValueId)> {
    let Op::Gather(Gather {
        axis: 0,
        batch_dims: 0,
    }) = node.op
    else {
        return None;
    };
    let flatten = matcher.node(node.operands[0])?;
    let sum = matcher.node(node.operands[1])?;
    if !matches!(flatten.op, Op::Reshape(_)) || !matches!(sum.op, Op::Add(_)) {
        return None;
    }
    let x = flatten.operands[0];
    let &[n, rows, columns] = matcher.shape(x)?.as_slice() else {
        return None;
    };
    if matcher.shape(flatten.result)? != [n.checked_mul(rows)?, columns] {
        return None;
    }
    let rows = i64::try_from(rows).ok()?;
    let starts = (0..n as i64).map(|i| i.checked_mul(rows));
    let starts = starts.collect::<Option<Vec<i64>>>()?;
    let mut orders = matcher.orders(sum).into_iter();
    let (index, _) = orders.find(|&(index, offset)| {
        matcher.shape(index).is_some_and(|s| s == [n])
            && matcher.integers(offset).is_some_and(|o| o == starts)
            && is_position(matcher, index)
    })?;
    Some((x, index))
}

/// Whether the indices are positions along an axis, so that none reaches into the next image.
fn is_position(matcher: &Matcher<'_>, mut index: ValueId) -> bool {
    for _ in 0..MAX_STEPS {
        match matcher.node(index) {
            Some(node) if matches!(node.op, Op::ArgMax(_)) => return true,
            Some(node) if matches!(node.op, Op::Cast(_) | Op::Reshape(_)) => {
                index = node.operands[0];
            }
            _ => return false,
        }
    }
    false
}
