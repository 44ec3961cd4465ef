//! Attention: two products with a softmax between them, over heads that are split off and joined again.

use snapc_ir::ops::{Attention, Reshape, Softmax, Transpose};
use snapc_ir::{BuildError, Node, Op, Rebuild, Shape, ValueId};

use super::matcher::Matcher;
use super::movement::Movement;

/// The parts of an attention over `[N,S,C]`.
struct Parts {
    op: Attention,
    /// Queries, keys and values.
    operands: [Rows; 3],
    mask: Option<Mask>,
}

/// Where the rows `[N,L,C]` of an operand are.
enum Rows {
    /// A value of this shape.
    Joined(ValueId),
    /// A value in the order `[N,heads,L,d]`, or `[N,heads,d,L]` when it is `flipped`, whatever its shape.
    Split {
        value: ValueId,
        sizes: [usize; 4],
        flipped: bool,
    },
}

/// A mask, and the shape that makes it broadcast to `[N,heads,S,T]` where it does not by itself.
struct Mask {
    value: ValueId,
    shape: Option<[usize; 4]>,
}

/// Attention whose heads are joined by transposes and reshapes.
pub(crate) fn split_heads(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    match node.op {
        Op::Reshape(_) | Op::Transpose(_) => replace(matcher, node, rebuild),
        _ => Ok(None),
    }
}

/// Attention of a single head that was never split off. It also fits the inner part of attention with split heads.
pub(crate) fn one_head(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    match node.op {
        Op::MatMul(_) => replace(matcher, node, rebuild),
        _ => Ok(None),
    }
}

fn replace(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let Some(parts) = parts(matcher, node.result) else {
        return Ok(None);
    };
    let mut operands = Vec::with_capacity(4);
    for rows in &parts.operands {
        operands.push(join(rows, rebuild, &node.name)?);
    }
    if let Some(mask) = &parts.mask {
        let value = rebuild.operand(mask.value)?;
        operands.push(match mask.shape {
            Some(shape) => reshape(rebuild, value, &shape, &node.name)?,
            None => value,
        });
    }
    rebuild
        .graph
        .add(parts.op, &operands, node.name.clone())
        .map(Some)
}

/// The rows `[N,L,C]` in the new graph.
fn join(rows: &Rows, rebuild: &mut Rebuild<'_>, name: &str) -> Result<ValueId, BuildError> {
    let (value, [n, heads, length, d], flipped) = match *rows {
        Rows::Joined(value) => return rebuild.operand(value),
        Rows::Split {
            value,
            sizes,
            flipped,
        } => (value, sizes, flipped),
    };
    let value = rebuild.operand(value)?;
    let (split, perm) = if flipped {
        ([n, heads, d, length], vec![0, 3, 1, 2])
    } else {
        ([n, heads, length, d], vec![0, 2, 1, 3])
    };
    let split = reshape(rebuild, value, &split, name)?;
    let moved = rebuild.graph.add(Transpose { perm }, &[split], name)?;
    reshape(rebuild, moved, &[n, length, heads * d], name)
}

/// The value in another shape, or itself when it has that already.
fn reshape(
    rebuild: &mut Rebuild<'_>,
    value: ValueId,
    sizes: &[usize],
    name: &str,
) -> Result<ValueId, BuildError> {
    let shape = Shape::fixed(sizes);
    if rebuild.graph.ty(value).shape == shape {
        return Ok(value);
    }
    rebuild
        .graph
        .add(Reshape { shape: shape.0 }, &[value], name)
}

fn parts(matcher: &Matcher<'_>, result: ValueId) -> Option<Parts> {
    let &[n, s, c] = matcher.shape(result)?.as_slice() else {
        return None;
    };
    let joined = product_behind(matcher, result)?;
    let product = matcher.node(joined.origin)?;
    let (weights, v) = factors(product)?;
    let softmax = matcher.inner(weights)?;
    let logits = shape_of_logits(matcher, softmax)?;
    let (&[rows, t], lead) = logits
        .split_last_chunk::<2>()
        .map(|(lead, tail)| (tail, lead))?;
    let images = lead.iter().product::<usize>();
    let heads = images.checked_div(n)?;
    let d = c.checked_div(heads)?;
    let divides = heads.checked_mul(d)? == c && images == n * heads;
    if rows != s || !divides || !joined.is([(n, s * c), (s, d), (heads, s * d), (d, 1)]) {
        return None;
    }
    let (product, scale, mask) = logits_of(matcher, softmax.operands[0])?;
    let mask = match mask {
        Some(value) => Some(mask_over(matcher, value, &logits, [n, heads, s, t])?),
        None => None,
    };
    let (q, k) = factors(product)?;
    let sizes = [n, heads, s, d];
    let order = [(n, s * c), (heads, d), (s, c), (d, 1)];
    let (q, q_scale) = source(matcher, q, sizes, order, false)?;
    let sizes = [n, heads, t, d];
    let order = [(n, t * c), (heads, d), (d, 1), (t, c)];
    let (k, k_scale) = source(matcher, k, sizes, order, true)?;
    let order = [(n, t * c), (heads, d), (t, c), (d, 1)];
    let (v, v_scale) = source(matcher, v, sizes, order, false)?;
    let mut scale = scale * q_scale * k_scale;
    // In f16 and bf16 the file can only hold it rounded.
    let usual = 1.0 / (d as f64).sqrt();
    if matcher.is_near(scale, usual, matcher.dtype(result)) {
        scale = usual as f32;
    }
    (v_scale == 1.0 && scale.is_finite()).then_some(Parts {
        op: Attention { heads, scale },
        operands: [q, k, v],
        mask,
    })
}

/// The product that a value moves. Nothing else may read what is between, or the product would stay besides the composite.
fn product_behind(matcher: &Matcher<'_>, result: ValueId) -> Option<Movement> {
    let mut joined = Movement::new(matcher, result)?;
    while let Some(back) = joined.back(matcher) {
        matcher.inner(back.origin)?;
        joined = back;
    }
    Some(joined)
}

fn factors(product: &Node) -> Option<(ValueId, ValueId)> {
    match (&product.op, product.operands.as_slice()) {
        (Op::MatMul(_), &[a, b]) => Some((a, b)),
        _ => None,
    }
}

/// Sizes of the logits under a softmax over their last axis.
fn shape_of_logits(matcher: &Matcher<'_>, softmax: &Node) -> Option<Vec<usize>> {
    let shape = matcher.shape(softmax.result)?;
    match softmax.op {
        Op::Softmax(Softmax { axis }) if axis + 1 == shape.len() => Some(shape),
        _ => None,
    }
}

/// The product behind logits, the factor on it, and the mask that is added to both.
fn logits_of<'a>(
    matcher: &Matcher<'a>,
    logits: ValueId,
) -> Option<(&'a Node, f32, Option<ValueId>)> {
    let is_product = |v: ValueId| matcher.inner(v).filter(|n| matches!(n.op, Op::MatMul(_)));
    let (value, scale) = matcher.unscaled(logits);
    if let Some(product) = is_product(value) {
        return Some((product, scale, None));
    }
    let sum = matcher.inner(logits)?;
    if !matches!(sum.op, Op::Add(_)) {
        return None;
    }
    matcher.orders(sum).into_iter().find_map(|(value, mask)| {
        let (value, scale) = matcher.unscaled(value);
        let keeps_shape = matcher.shape(value) == matcher.shape(logits);
        let product = is_product(value).filter(|_| keeps_shape)?;
        Some((product, scale, Some(mask)))
    })
}

/// A mask as `[N,heads,S,T]` takes it. Where images and heads are one axis, it is the same for all of them or has them all.
fn mask_over(
    matcher: &Matcher<'_>,
    value: ValueId,
    logits: &[usize],
    sizes: [usize; 4],
) -> Option<Mask> {
    let shape = matcher.shape(value)?;
    if logits == sizes {
        return Some(Mask { value, shape: None });
    }
    let &[images, rows, columns] = logits else {
        return None;
    };
    if shape.len() < 3 || shape[0] == 1 {
        return Some(Mask { value, shape: None });
    }
    let shape = (shape == [images, rows, columns]).then_some(sizes);
    shape.map(|_| Mask { value, shape })
}

/// The rows whose elements stand in `operand` in the order of `loops`, and the factor on the way: a value `[N,L,C]`, the
/// one farthest back, or else the operand without its factor. `sizes` is `[N,heads,L,C/heads]`; a `flipped` operand has
/// the last two the other way round.
fn source(
    matcher: &Matcher<'_>,
    operand: ValueId,
    sizes: [usize; 4],
    loops: [(usize, usize); 4],
    flipped: bool,
) -> Option<(Rows, f32)> {
    if let Some((value, scale)) = joined_source(matcher, operand, sizes, loops) {
        return Some((Rows::Joined(value), scale));
    }
    let [n, heads, length, d] = sizes;
    let matrix = if flipped { [d, length] } else { [length, d] };
    let shape = matcher.shape(operand)?;
    let (lead, tail) = shape.split_last_chunk::<2>()?;
    if *tail != matrix || lead.iter().product::<usize>() != n * heads {
        return None;
    }
    let (value, scale) = matcher.unscaled(operand);
    let rows = Rows::Split {
        value,
        sizes,
        flipped,
    };
    Some((rows, scale))
}

fn joined_source(
    matcher: &Matcher<'_>,
    operand: ValueId,
    sizes: [usize; 4],
    loops: [(usize, usize); 4],
) -> Option<(ValueId, f32)> {
    let [n, heads, length, d] = sizes;
    let mut movement = Movement::new(matcher, operand)?;
    let mut scale = 1.0;
    let mut found = None;
    loop {
        let is_joined = matcher.shape(movement.origin)? == [n, length, heads * d];
        if is_joined && movement.is(loops) {
            found = Some((movement.origin, scale));
        }
        if let Some(back) = movement.back(matcher) {
            movement = back;
        } else if let Some((inner, factor)) = matcher.scaling(movement.origin) {
            let Some(further) = movement.through(inner) else {
                return found;
            };
            movement = further;
            scale *= factor;
        } else {
            return found;
        }
    }
}
