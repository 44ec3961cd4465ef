//! Where the elements of a value come from when it is only reshaped and transposed.

use snapc_ir::{Op, ValueId};

use super::matcher::Matcher;

/// Steps that one form of attention has at most between its parts, with room to spare; it bounds the time of a walk.
const MAX_STEPS: usize = 12;

/// A value walked back towards its origin: the origin's flat elements in the order in which the value has them.
///
/// The order is a nest of loops, outermost first, each of a length and a stride in the origin's row-major elements.
#[derive(Clone, Debug)]
pub(super) struct Movement {
    /// How far back the walk is.
    pub(super) origin: ValueId,
    order: Vec<(usize, usize)>,
    steps: usize,
}

impl Movement {
    /// The start of a walk: a value in its own order. `None` with an open batch or without elements.
    pub(super) fn new(matcher: &Matcher<'_>, value: ValueId) -> Option<Self> {
        let shape = matcher.shape(value)?;
        if shape.contains(&0) {
            return None;
        }
        let elements = shape.iter().product();
        Some(Movement {
            origin: value,
            order: normal([(elements, 1)]),
            steps: 0,
        })
    }

    /// One reshape or transpose further back; `None` at something else, or at a transpose that is not followed.
    pub(super) fn back(&self, matcher: &Matcher<'_>) -> Option<Self> {
        let node = matcher.node(self.origin)?;
        let origin = *node.operands.first()?;
        if self.steps == MAX_STEPS {
            return None;
        }
        let order = match &node.op {
            Op::Reshape(_) => self.order.clone(),
            Op::Transpose(op) => transposed(&self.order, &matcher.shape(origin)?, &op.perm)?,
            _ => return None,
        };
        Some(Movement {
            origin,
            order,
            steps: self.steps + 1,
        })
    }

    /// One step further back to a value of the same shape and order, such as the operand of a product with a scalar.
    pub(super) fn through(self, origin: ValueId) -> Option<Self> {
        let steps = self.steps + 1;
        (steps <= MAX_STEPS).then_some(Movement {
            origin,
            steps,
            ..self
        })
    }

    /// Whether the origin's elements stand in the order of these loops.
    pub(super) fn is<const N: usize>(&self, loops: [(usize, usize); N]) -> bool {
        self.order == normal(loops)
    }
}

/// Loops without those of length 1, and neighbours that go through memory as one loop joined.
fn normal(loops: impl IntoIterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for (length, stride) in loops {
        match joined.last_mut() {
            _ if length == 1 => {}
            Some(outer) if length.checked_mul(stride) == Some(outer.1) => {
                *outer = (outer.0 * length, stride);
            }
            _ => joined.push((length, stride)),
        }
    }
    joined
}

/// Loops over a transposed tensor as loops over the tensor before, whose sizes are `shape`.
fn transposed(
    order: &[(usize, usize)],
    shape: &[usize],
    perm: &[usize],
) -> Option<Vec<(usize, usize)>> {
    let before = snapc_ir::tensor::strides(shape);
    let sizes: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let after = snapc_ir::tensor::strides(&sizes);
    let mut loops = Vec::new();
    for &(mut length, mut stride) in order {
        // The parts of the loop from its innermost axis outwards.
        let mut parts = Vec::new();
        while length > 1 {
            let covers = |&a: &usize| (after[a]..after[a] * sizes[a]).contains(&stride);
            let axis = (0..sizes.len()).find(covers)?;
            let step = stride / after[axis];
            if !stride.is_multiple_of(after[axis]) || !sizes[axis].is_multiple_of(step) {
                return None;
            }
            let room = sizes[axis] / step;
            let part = length.min(room);
            if !length.is_multiple_of(part) {
                return None;
            }
            parts.push((part, before[perm[axis]] * step));
            length /= part;
            stride = after[axis] * sizes[axis];
        }
        loops.extend(parts.into_iter().rev());
    }
    Some(normal(loops))
}
