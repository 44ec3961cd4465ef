//! Which nodes become one instruction: a product or norm with what follows it, and gated units.
//!
//! Every pattern asks that nothing else reads the values in between, and that the graph does not round them, since a
//! fused instruction keeps them in f32.

use snapc_ir::{Dim, Graph, Node, Op, ValueId};
use snapc_program::Activation;

use super::Activations;
use super::constants::Constant;

/// A node and the ones after it that its instruction computes as well: `activation(head + bias) + residual`.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// Position of the product or norm.
    pub(super) head: usize,
    /// A vector over the channels that is added to a product, besides its own bias.
    pub(super) bias: Option<ValueId>,
    /// Applied to the product or norm.
    pub(super) activation: Activation,
    /// Added last; of the type of the result.
    pub(super) residual: Option<ValueId>,
}

/// What becomes of a node.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// An instruction of its own, or a few.
    Alone,
    /// Computed by a later node's instruction.
    Absorbed,
    /// The last of a chain.
    Chain(Chain),
    /// The product of a gated unit, whose instruction takes this value (diffusers `GEGLU`).
    Geglu(ValueId),
}

/// The fate of every node, by position.
pub(super) fn plan(
    graph: &Graph,
    constants: &[Option<Constant>],
    activations: Activations,
) -> Vec<Fate> {
    let mut planner = Planner {
        graph,
        constants,
        activations,
        uses: graph.use_counts(),
        fates: Vec::with_capacity(graph.nodes().len()),
    };
    for (index, node) in graph.nodes().iter().enumerate() {
        let fate = planner.fate(index, node);
        planner.fates.push(fate);
    }
    planner.fates
}

/// Whether the operand is a matrix that is known: a linear layer written as a product.
pub(super) fn is_linear_product(node: &Node, constants: &[Option<Constant>]) -> bool {
    let (Op::MatMul(_), [left, right]) = (&node.op, node.operands.as_slice()) else {
        return false;
    };
    let right = constants[right.index()].as_ref();
    constants[left.index()].is_none() && right.is_some_and(|c| c.tensor.shape().len() == 2)
}

struct Planner<'a> {
    graph: &'a Graph,
    constants: &'a [Option<Constant>],
    activations: Activations,
    uses: Vec<usize>,
    fates: Vec<Fate>,
}

impl Planner<'_> {
    fn fate(&mut self, index: usize, node: &Node) -> Fate {
        if self.constants[node.result.index()].is_some() {
            return Fate::Absorbed;
        }
        let chain = match &node.op {
            _ if self.is_head(node) => Some(Chain {
                head: index,
                bias: None,
                activation: Activation::None,
                residual: None,
            }),
            Op::Silu(_) => self.activated(node, Activation::Silu),
            Op::Gelu(_) => self.activated(node, Activation::Gelu),
            Op::QuickGelu(_) => self.activated(node, Activation::QuickGelu),
            Op::Add(_) => self.added(node),
            Op::Mul(_) => return self.gated(node).map_or(Fate::Alone, Fate::Geglu),
            _ => None,
        };
        chain.map_or(Fate::Alone, Fate::Chain)
    }

    fn is_known(&self, value: ValueId) -> bool {
        self.constants[value.index()].is_some()
    }

    fn is_head(&self, node: &Node) -> bool {
        match &node.op {
            Op::Conv2d(op) => op.groups == 1 && self.is_known(node.operands[1]),
            Op::Linear(_) => self.is_known(node.operands[1]),
            Op::GroupNorm(_) => true,
            _ => is_linear_product(node, self.constants),
        }
    }

    /// Whether a value may stay inside an instruction.
    fn is_internal(&self, value: ValueId) -> bool {
        let dtype = self.graph.ty(value).dtype;
        self.uses[value.index()] == 1 && !self.activations.rounds(dtype)
    }

    /// Position of the node that defines a value, if one does.
    fn definition(&self, value: ValueId) -> Option<usize> {
        match self.graph.value(value).def {
            snapc_ir::ValueDef::Node(node) => Some(node.index()),
            _ => None,
        }
    }

    /// The chain that ends in a value and may go on.
    fn open_chain(&self, value: ValueId) -> Option<(usize, &Chain)> {
        let index = self.definition(value)?;
        match &self.fates[index] {
            Fate::Chain(chain) if chain.residual.is_none() && self.is_internal(value) => {
                Some((index, chain))
            }
            _ => None,
        }
    }

    fn absorb(&mut self, index: usize) {
        self.fates[index] = Fate::Absorbed;
    }

    /// An activation behind a product or norm.
    fn activated(&mut self, node: &Node, activation: Activation) -> Option<Chain> {
        let (index, chain) = self.open_chain(node.operands[0])?;
        if chain.activation != Activation::None {
            return None;
        }
        let chain = Chain {
            activation,
            ..chain.clone()
        };
        self.absorb(index);
        Some(chain)
    }

    /// A bias or residual behind a product. Of two products the later one takes the other as its residual.
    fn added(&mut self, node: &Node) -> Option<Chain> {
        let &[a, b] = node.operands.as_slice() else {
            return None;
        };
        let mut choices = [(a, b), (b, a)];
        choices.sort_by_key(|(value, _)| std::cmp::Reverse(self.definition(*value)));
        let found = choices.into_iter().find_map(|(value, other)| {
            let (index, chain) = self.open_chain(value)?;
            let chain = self.with_term(node, chain, other)?;
            Some((index, chain))
        });
        let (index, chain) = found?;
        self.absorb(index);
        Some(chain)
    }

    /// The chain with another term at its end.
    fn with_term(&self, node: &Node, chain: &Chain, term: ValueId) -> Option<Chain> {
        let head = &self.graph.nodes()[chain.head];
        if matches!(head.op, Op::GroupNorm(_)) {
            return None;
        }
        let result = self.graph.ty(node.result);
        if result.shape != self.graph.ty(head.result).shape {
            return None;
        }
        let is_open = chain.bias.is_none() && chain.activation == Activation::None;
        if is_open && self.is_vector(term, head) {
            return Some(Chain {
                bias: Some(term),
                ..chain.clone()
            });
        }
        let fits = self.graph.ty(term) == result && !self.is_known(term);
        fits.then(|| Chain {
            residual: Some(term),
            ..chain.clone()
        })
    }

    /// Whether a value broadcasts to the result of a product as a vector over its channels.
    fn is_vector(&self, value: ValueId, product: &Node) -> bool {
        let result = self.graph.ty(product.result).shape.dims();
        let channels = match product.op {
            Op::Conv2d(_) => 1,
            _ => result.len() - 1,
        };
        let own = self.graph.ty(value).shape.dims();
        let Some(missing) = result.len().checked_sub(own.len()) else {
            return false;
        };
        let fits = |(axis, dim): (usize, &Dim)| match axis + missing == channels {
            true => *dim == result[channels],
            false => *dim == Dim::Fixed(1),
        };
        own.len() > result.len() - 1 - channels && own.iter().enumerate().all(fits)
    }

    /// `x[…, ..K] · gelu(x[…, K..])` over the last dimension: `x`.
    fn gated(&mut self, node: &Node) -> Option<ValueId> {
        let &[a, b] = node.operands.as_slice() else {
            return None;
        };
        [(a, b), (b, a)].into_iter().find_map(|(value, gate)| {
            let gelu = self.definition(gate)?;
            let gelu_node = &self.graph.nodes()[gelu];
            let Op::Gelu(_) = gelu_node.op else {
                return None;
            };
            let (first, x, lower) = self.part(value)?;
            let (second, y, upper) = self.part(gelu_node.operands[0])?;
            let width = self.graph.ty(x).shape.dims().last()?.fixed()?;
            let halves = lower == (0, width / 2) && upper == (width / 2, width);
            if x != y || !halves || !self.is_internal(gate) {
                return None;
            }
            for index in [first, second, gelu] {
                self.absorb(index);
            }
            Some(x)
        })
    }

    /// The slice of the last dimension that a value is: position of the node, what is cut, and the range.
    fn part(&self, value: ValueId) -> Option<(usize, ValueId, (usize, usize))> {
        let index = self.definition(value)?;
        let node = &self.graph.nodes()[index];
        let Op::Slice(op) = &node.op else {
            return None;
        };
        let x = node.operands[0];
        let is_last = op.axis + 1 == self.graph.ty(x).shape.rank();
        (is_last && self.uses[value.index()] == 1).then_some((index, x, (op.start, op.end)))
    }
}
