//! Attention: two products with a softmax between them, over heads that are split off and joined again.

use snapc_ir::ops::{Attention, Softmax};
use snapc_ir::{BuildError, Node, Op, Rebuild, ValueId};

use super::matcher::Matcher;
use super::movement::Movement;

/// The parts of an attention over `[N,S,C]`.
struct Parts {
    op: Attention,
    q: ValueId,
    k: ValueId,
    v: ValueId,
    mask: Option<ValueId>,
}

/// Attention whose heads are joined by transposes and reshapes.
pub(super) fn split_heads(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    match node.op {
        Op::Reshape(_) | Op::Transpose(_) => replace(matcher, node, rebuild),
        _ => Ok(None),
    }
}

/// Attention of a single head that was never split off.
pub(super) fn one_head(
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
    let old = [Some(parts.q), Some(parts.k), Some(parts.v), parts.mask];
    let operands = old.into_iter().flatten().map(|v| rebuild.operand(v));
    let operands = operands.collect::<Result<Vec<_>, _>>()?;
    rebuild
        .graph
        .add(parts.op, &operands, node.name.clone())
        .map(Some)
}

fn parts(matcher: &Matcher<'_>, result: ValueId) -> Option<Parts> {
    let &[n, s, c] = matcher.shape(result)?.as_slice() else {
        return None;
    };
    let mut joined = Movement::new(matcher, result)?;
    while let Some(back) = joined.back(matcher) {
        joined = back;
    }
    let product = matcher.node(joined.origin)?;
    let (weights, v) = factors(product)?;
    let softmax = matcher.inner(weights)?;
    let logits = shape_of_logits(matcher, softmax)?;
    let (&[rows, t], lead) = logits
        .split_last_chunk::<2>()
        .map(|(lead, tail)| (tail, lead))?;
    let heads = lead.iter().product::<usize>().checked_div(n)?;
    let d = c.checked_div(heads)?;
    let elements = heads.checked_mul(d)? == c && lead.iter().product::<usize>() == n * heads;
    if rows != s || !elements || !joined.is([(n, s * c), (s, d), (heads, s * d), (d, 1)]) {
        return None;
    }
    let (product, scale, mask) = logits_of(matcher, softmax.operands[0], lead.len())?;
    let (q, k) = factors(product)?;
    let image = [n, heads, s, d];
    let (q, q_scale) = source(matcher, q, image, [(n, s * c), (heads, d), (s, c), (d, 1)])?;
    let image = [n, heads, t, d];
    let (k, k_scale) = source(matcher, k, image, [(n, t * c), (heads, d), (d, 1), (t, c)])?;
    let (v, v_scale) = source(matcher, v, image, [(n, t * c), (heads, d), (t, c), (d, 1)])?;
    let mut scale = scale * q_scale * k_scale;
    // In f16 and bf16 the file can only hold it rounded.
    let usual = 1.0 / (d as f64).sqrt();
    if matcher.is_near(scale, usual, matcher.dtype(result)) {
        scale = usual as f32;
    }
    let op = Attention { heads, scale };
    (v_scale == 1.0).then_some(Parts { op, q, k, v, mask })
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

/// The product behind logits, the factor on it, and the mask that is added to both. A mask is over `[N,heads,S,T]`,
/// so there is none where images and heads are one axis.
fn logits_of<'a>(
    matcher: &Matcher<'a>,
    logits: ValueId,
    lead: usize,
) -> Option<(&'a Node, f32, Option<ValueId>)> {
    let is_product = |v: ValueId| matcher.inner(v).filter(|n| matches!(n.op, Op::MatMul(_)));
    let (value, scale) = matcher.unscaled(logits);
    if let Some(product) = is_product(value) {
        return Some((product, scale, None));
    }
    let sum = matcher.inner(logits)?;
    if !matches!(sum.op, Op::Add(_)) || lead != 2 {
        return None;
    }
    matcher.orders(sum).into_iter().find_map(|(value, mask)| {
        let (value, scale) = matcher.unscaled(value);
        let keeps_shape = matcher.shape(value) == matcher.shape(logits);
        let product = is_product(value).filter(|_| keeps_shape)?;
        Some((product, scale, Some(mask)))
    })
}

/// The value `[N,L,C]` whose elements stand in `operand` in the order of `loops`, and the factor on the way. It is the
/// one farthest back. `image` is `[N, heads, L, C/heads]`.
fn source(
    matcher: &Matcher<'_>,
    operand: ValueId,
    image: [usize; 4],
    loops: [(usize, usize); 4],
) -> Option<(ValueId, f32)> {
    let [n, heads, length, d] = image;
    let mut movement = Movement::new(matcher, operand)?;
    let mut scale = 1.0;
    let mut found = None;
    loop {
        let is_image = matcher.shape(movement.origin)? == [n, length, heads * d];
        if is_image && movement.is(loops) {
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
