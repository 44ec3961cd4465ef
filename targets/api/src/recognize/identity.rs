//! Operators that give back their operand.

use snapc_ir::{BuildError, Node, Op, Rebuild, ValueId};

use super::matcher::Matcher;

/// `x · 1`, `x / 1`, `x + 0` and `x - 0`, when they keep the shape. torch writes the output scale of a ResNet so.
pub(super) fn identity(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let neutral = match node.op {
        Op::Mul(_) | Op::Div(_) => 1.0,
        Op::Add(_) | Op::Sub(_) => 0.0,
        _ => return Ok(None),
    };
    let commutes = matches!(node.op, Op::Mul(_) | Op::Add(_));
    let orders = matcher.orders(node);
    let old = rebuild.old();
    let fits = |&&(x, other): &&(ValueId, ValueId)| {
        matcher.scalar(other) == Some(neutral) && old.ty(x) == old.ty(node.result)
    };
    let found = orders[..if commutes { 2 } else { 1 }].iter().find(fits);
    found.map(|&(x, _)| rebuild.operand(x)).transpose()
}
