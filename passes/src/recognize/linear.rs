//! Linear layers: products with a constant matrix.

use snapc_ir::ops::Linear;
use snapc_ir::{BuildError, Node, Op, Rebuild, ValueId};

use super::matcher::Matcher;

/// `x · W + b`.
pub(crate) fn with_bias(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    if !matches!(node.op, Op::Add(_)) {
        return Ok(None);
    }
    for (product, bias) in matcher.orders(node) {
        let Some((x, matrix)) = matcher.inner(product).and_then(|n| operands(matcher, n)) else {
            continue;
        };
        let Some((name, vector)) = matcher.constant(bias) else {
            continue;
        };
        let columns = matcher.constant(matrix).map(|(_, m)| m.shape()[1]);
        let is_row =
            vector.shape().last() == columns.as_ref() && Some(vector.elements()) == columns;
        if !is_row || rebuild.old().ty(product) != rebuild.old().ty(node.result) {
            continue;
        }
        let x = rebuild.operand(x)?;
        let weight = transposed(matcher, matrix, rebuild);
        let vector = vector.clone().reshape(&[vector.elements()]);
        let bias = rebuild.graph.parameter(name, vector);
        let operands = [x, weight, bias];
        return rebuild
            .graph
            .add(Linear {}, &operands, node.name.clone())
            .map(Some);
    }
    Ok(None)
}

/// `x · W`.
pub(crate) fn product(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let Some((x, matrix)) = operands(matcher, node) else {
        return Ok(None);
    };
    let x = rebuild.operand(x)?;
    let weight = transposed(matcher, matrix, rebuild);
    rebuild
        .graph
        .add(Linear {}, &[x, weight], node.name.clone())
        .map(Some)
}

/// The operands of a product with a constant matrix.
fn operands(matcher: &Matcher<'_>, node: &Node) -> Option<(ValueId, ValueId)> {
    match (&node.op, node.operands.as_slice()) {
        (Op::MatMul(_), &[x, matrix]) => {
            let (_, tensor) = matcher.constant(matrix)?;
            (tensor.shape().len() == 2).then_some((x, matrix))
        }
        _ => None,
    }
}

/// A constant matrix `[Cin,Cout]` as `linear` takes it, `[Cout,Cin]`.
fn transposed(matcher: &Matcher<'_>, matrix: ValueId, rebuild: &mut Rebuild<'_>) -> ValueId {
    let (name, tensor) = matcher
        .constant(matrix)
        .expect("the pattern has a constant matrix");
    rebuild
        .graph
        .parameter(name, tensor.clone().permute_codes(&[1, 0]))
}
