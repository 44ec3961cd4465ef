//! Questions that patterns ask about a graph.

use snapc_ir::{DType, Graph, LazyTensor, Node, Op, ValueId};

/// Constants with more elements are not read by a pattern.
const MAX_READ: usize = 1 << 12;
/// Products with scalars that are looked through in a row.
const MAX_SCALINGS: usize = 4;

/// A graph under inspection.
pub(crate) struct Matcher<'a> {
    graph: &'a Graph,
    uses: Vec<usize>,
}

impl<'a> Matcher<'a> {
    /// The values that outputs depend on are `live`; only their nodes count as users.
    pub(super) fn new(graph: &'a Graph, live: &[bool]) -> Self {
        let mut uses = vec![0; graph.values().len()];
        let nodes = graph.nodes().iter().filter(|n| live[n.result.index()]);
        let operands = nodes.flat_map(|n| &n.operands);
        for value in operands.chain(graph.outputs().iter().map(|o| &o.value)) {
            uses[value.index()] += 1;
        }
        Matcher { graph, uses }
    }

    /// The node that defines a value, if one does.
    pub(super) fn node(&self, value: ValueId) -> Option<&'a Node> {
        self.graph.node_of(value)
    }

    /// The same for a value that is used only once, so that nothing else asks for what the pattern replaces.
    pub(super) fn inner(&self, value: ValueId) -> Option<&'a Node> {
        self.node(value).filter(|_| self.uses[value.index()] == 1)
    }

    /// Sizes of a value; `None` with an open batch.
    pub(super) fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        self.graph.ty(value).shape.to_fixed()
    }

    /// Element type of a value.
    pub(super) fn dtype(&self, value: ValueId) -> DType {
        self.graph.ty(value).dtype
    }

    /// Name and data of a value that is a weight or a constant.
    pub(super) fn constant(&self, value: ValueId) -> Option<(&'a str, &'a LazyTensor)> {
        let weight = self.graph.weight_of(value)?;
        Some((&weight.name, &weight.tensor))
    }

    /// The one element of a float constant.
    pub(super) fn scalar(&self, value: ValueId) -> Option<f32> {
        let (_, tensor) = self.constant(value)?;
        let single = tensor.elements() == 1 && tensor.dtype().is_float();
        single.then(|| tensor.to_f32().ok())??.first().copied()
    }

    /// Whether a value is a small float constant of equal elements.
    pub(super) fn is_filled(&self, value: ValueId, element: f32) -> bool {
        let Some((_, tensor)) = self.constant(value) else {
            return false;
        };
        let readable = tensor.dtype().is_float() && tensor.elements() <= MAX_READ;
        let elements = readable.then(|| tensor.to_f32().ok()).flatten();
        elements.is_some_and(|e| e.iter().all(|&e| e == element))
    }

    /// The elements of a small integer constant.
    pub(super) fn integers(&self, value: ValueId) -> Option<Vec<i64>> {
        let (_, tensor) = self.constant(value)?;
        let readable = !tensor.dtype().is_float() && tensor.elements() <= MAX_READ;
        readable.then(|| tensor.to_i64().ok()).flatten()
    }

    /// Whether a constant of element type `dtype` is `exact`, rounded to that type.
    pub(super) fn is_near(&self, value: f32, exact: f64, dtype: DType) -> bool {
        // A unit in the last place of the significand.
        let unit = match dtype {
            DType::F16 => 2f64.powi(-10),
            DType::BF16 => 2f64.powi(-7),
            _ => 2f64.powi(-23),
        };
        (f64::from(value) - exact).abs() <= exact.abs() * unit
    }

    /// A value and the product of the scalar constants that it has been multiplied with, or divided by, on the way.
    pub(super) fn unscaled(&self, mut value: ValueId) -> (ValueId, f32) {
        let mut scale = 1.0;
        for _ in 0..MAX_SCALINGS {
            let Some((inner, factor)) = self.scaling(value) else {
                break;
            };
            value = inner;
            scale *= factor;
        }
        (value, scale)
    }

    /// The operand and the factor of a product or quotient with a scalar constant.
    pub(super) fn scaling(&self, value: ValueId) -> Option<(ValueId, f32)> {
        let node = self.node(value)?;
        let (inner, factor) = match (&node.op, node.operands.as_slice()) {
            (Op::Mul(_), &[a, b]) => match (self.scalar(a), self.scalar(b)) {
                (_, Some(factor)) => (a, factor),
                (Some(factor), _) => (b, factor),
                _ => return None,
            },
            (Op::Div(_), &[a, b]) => (a, 1.0 / self.scalar(b)?),
            _ => return None,
        };
        let keeps_shape = self.graph.ty(inner) == self.graph.ty(value);
        (keeps_shape && factor.is_finite()).then_some((inner, factor))
    }

    /// The two operands of a binary node in both orders.
    pub(super) fn orders(&self, node: &Node) -> [(ValueId, ValueId); 2] {
        let (a, b) = (node.operands[0], node.operands[1]);
        [(a, b), (b, a)]
    }
}
