//! Layer and group normalization.

use snapc_ir::ops::{GroupNorm, LayerNorm, Reshape};
use snapc_ir::{BuildError, LazyTensor, Node, Op, Rebuild, Shape, ValueId};

use super::matcher::Matcher;

/// `normal · scale + bias`, with constants `scale` and `bias`.
struct Affine {
    normal: ValueId,
    scale: ValueId,
    bias: ValueId,
}

fn affine(matcher: &Matcher<'_>, node: &Node) -> Option<Affine> {
    if !matches!(node.op, Op::Add(_)) {
        return None;
    }
    matcher.orders(node).into_iter().find_map(|(scaled, bias)| {
        let product = matcher
            .inner(scaled)
            .filter(|n| matches!(n.op, Op::Mul(_)))?;
        matcher.constant(bias)?;
        let mut orders = matcher.orders(product).into_iter();
        let (normal, scale) = orders.find(|&(_, scale)| matcher.constant(scale).is_some())?;
        let keeps_shape = matcher.shape(normal) == matcher.shape(node.result);
        keeps_shape.then_some(Affine {
            normal,
            scale,
            bias,
        })
    })
}

/// `(x - mean) / √(var + epsilon)`: the value, the axes of the mean, and epsilon.
fn normalized(matcher: &Matcher<'_>, value: ValueId) -> Option<(ValueId, Vec<usize>, f32)> {
    let quotient = matcher.node(value).filter(|n| matches!(n.op, Op::Div(_)))?;
    let (centered, deviation) = (quotient.operands[0], quotient.operands[1]);
    let root = matcher
        .node(deviation)
        .filter(|n| matches!(n.op, Op::Sqrt(_)))?;
    let sum = matcher
        .node(root.operands[0])
        .filter(|n| matches!(n.op, Op::Add(_)))?;
    let mut orders = matcher.orders(sum).into_iter();
    let (variance, epsilon) = orders.find_map(|(v, e)| Some((v, matcher.scalar(e)?)))?;
    let (squares, axes) = mean(matcher, variance)?;
    let square = matcher
        .node(squares)
        .filter(|n| matches!(n.op, Op::Mul(_)))?;
    let difference = matcher
        .node(centered)
        .filter(|n| matches!(n.op, Op::Sub(_)))?;
    let x = difference.operands[0];
    let (averaged, mean_axes) = mean(matcher, difference.operands[1])?;
    let fits = square.operands == [centered, centered] && averaged == x && mean_axes == axes;
    fits.then_some((x, axes, epsilon))
}

fn mean(matcher: &Matcher<'_>, value: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let node = matcher.node(value)?;
    match &node.op {
        Op::ReduceMean(op) => Some((node.operands[0], op.axes.clone())),
        _ => None,
    }
}

/// Normalization over the last axis, then scale and bias `[C]`.
pub(crate) fn layer_norm(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let Some((affine, x, epsilon)) = layer(matcher, node) else {
        return Ok(None);
    };
    let operands = [affine.scale, affine.bias, x].map(|v| rebuild.operand(v));
    let [scale, bias, x] = operands;
    let op = LayerNorm { epsilon };
    rebuild
        .graph
        .add(op, &[x?, scale?, bias?], node.name.clone())
        .map(Some)
}

fn layer(matcher: &Matcher<'_>, node: &Node) -> Option<(Affine, ValueId, f32)> {
    let affine = affine(matcher, node)?;
    let (x, axes, epsilon) = normalized(matcher, affine.normal)?;
    let shape = matcher.shape(x)?;
    let channels = *shape.last()?;
    let is_row = |v| {
        matcher
            .constant(v)
            .is_some_and(|(_, t)| t.shape() == [channels])
    };
    let fits = axes == [shape.len() - 1] && is_row(affine.scale) && is_row(affine.bias);
    fits.then_some((affine, x, epsilon))
}

/// A group normalization of `[N,C,…]`.
struct Groups {
    op: GroupNorm,
    /// The value before the channels are grouped, a reshape of `[N,C,H,W]`.
    x: ValueId,
    /// `[N,C,H,W]`
    image: [usize; 4],
    scale: (String, LazyTensor),
    bias: (String, LazyTensor),
}

/// Channels reshaped to groups, normalized, reshaped back, then scale and bias per channel: torch exports
/// `torch.nn.GroupNorm` so, with `InstanceNormalization` in the middle.
pub(crate) fn group_norm(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let Some(groups) = groups(matcher, node) else {
        return Ok(None);
    };
    let name = &node.name;
    let image = Shape::fixed(&groups.image);
    let mut x = rebuild.operand(groups.x)?;
    if rebuild.graph.ty(x).shape != image {
        let shape = image.0.clone();
        x = rebuild.graph.add(Reshape { shape }, &[x], name)?;
    }
    let scale = rebuild.graph.parameter(groups.scale.0, groups.scale.1);
    let bias = rebuild.graph.parameter(groups.bias.0, groups.bias.1);
    let mut y = rebuild.graph.add(groups.op, &[x, scale, bias], name)?;
    let result = &rebuild.old().ty(node.result).shape;
    if *result != image {
        let shape = result.0.clone();
        y = rebuild.graph.add(Reshape { shape }, &[y], name)?;
    }
    Ok(Some(y))
}

fn groups(matcher: &Matcher<'_>, node: &Node) -> Option<Groups> {
    let affine = affine(matcher, node)?;
    let shape = matcher.shape(node.result)?;
    let [n, channels, positions @ ..] = shape.as_slice() else {
        return None;
    };
    let scale = per_channel(matcher, affine.scale, &shape)?;
    let bias = per_channel(matcher, affine.bias, &shape)?;
    let (grouped, epsilon) = grouped_normal(matcher, unreshaped(matcher, affine.normal))?;
    let [grouped_n, groups, ..] = matcher.shape(grouped)?[..] else {
        return None;
    };
    if grouped_n != *n || groups == 0 || !channels.is_multiple_of(groups) {
        return None;
    }
    let x = unreshaped(matcher, grouped);
    // The image as the nearest four-dimensional value has it; rows and columns do not change the result.
    let image = match (positions, matcher.shape(x)?.as_slice()) {
        (&[h, w], _) => [*n, *channels, h, w],
        (_, &[xn, xc, h, w]) if xn == *n && xc == *channels => [*n, *channels, h, w],
        _ => [*n, *channels, positions.iter().product(), 1],
    };
    let op = GroupNorm { groups, epsilon };
    Some(Groups {
        op,
        x,
        image,
        scale,
        bias,
    })
}

/// A value `[N,G,…]` that is normalized over all but its first two axes, and epsilon.
fn grouped_normal(matcher: &Matcher<'_>, value: ValueId) -> Option<(ValueId, f32)> {
    if let Some((x, axes, epsilon)) = normalized(matcher, value) {
        let rank = matcher.shape(x)?.len();
        return axes.into_iter().eq(2..rank).then_some((x, epsilon));
    }
    let node = matcher.node(value)?;
    match (&node.op, node.operands.as_slice()) {
        (Op::GroupNorm(op), &[x, scale, bias]) => {
            let per_group = matcher.shape(x)?[1] == op.groups;
            let plain = matcher.is_filled(scale, 1.0) && matcher.is_filled(bias, 0.0);
            (per_group && plain).then_some((x, op.epsilon))
        }
        _ => None,
    }
}

/// A value before the reshapes that follow it, of which exporters write three at most.
fn unreshaped(matcher: &Matcher<'_>, mut value: ValueId) -> ValueId {
    for _ in 0..3 {
        match matcher.node(value) {
            Some(node) if matches!(node.op, Op::Reshape(_)) => value = node.operands[0],
            _ => break,
        }
    }
    value
}

/// Name and data of a constant that broadcasts along axis 1 of `shape`, as a vector.
fn per_channel(
    matcher: &Matcher<'_>,
    value: ValueId,
    shape: &[usize],
) -> Option<(String, LazyTensor)> {
    let (name, tensor) = matcher.constant(value)?;
    let missing = shape.len().checked_sub(tensor.shape().len())?;
    let channel_axis = 1usize.checked_sub(missing)?;
    let fits = tensor.elements() == shape[1] && tensor.shape().get(channel_axis) == Some(&shape[1]);
    fits.then(|| (name.to_owned(), tensor.clone().reshape_codes(&[shape[1]])))
}
