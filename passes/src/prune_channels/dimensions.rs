//! Dimensions that operators tie together: a channel that goes in one of them goes in all.
//!
//! Every dimension of every value belongs to a class. Operators join the classes of dimensions that have to keep the same
//! channels in the same order, and hold those whose channels all have to stay. What is not known to let channels go holds
//! them.

use snapc_ir::{Dim, Graph, Node, Op, ValueId};

/// What is known about a class of dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class {
    /// All channels have to stay.
    pub(super) held: bool,
    /// Channels that have to go together, because a GroupNorm takes its statistics over them; 0 without a GroupNorm.
    pub(super) norm_group: usize,
    /// The inner channels of an attention with one head.
    pub(super) inner: bool,
}

/// The classes of a graph's dimensions.
pub(super) struct Dimensions {
    /// Index of a value's first dimension.
    first: Vec<usize>,
    parents: Vec<usize>,
    sizes: Vec<usize>,
    classes: Vec<Class>,
}

impl Dimensions {
    /// Traces a graph.
    pub(super) fn trace(graph: &Graph) -> Self {
        let mut dimensions = Dimensions {
            first: Vec::new(),
            parents: Vec::new(),
            sizes: Vec::new(),
            classes: Vec::new(),
        };
        for value in graph.values() {
            dimensions.first.push(dimensions.parents.len());
            for dim in value.ty.shape.dims() {
                dimensions.parents.push(dimensions.parents.len());
                dimensions.sizes.push(dim.fixed().unwrap_or(0));
                let held = matches!(dim, Dim::Batch | Dim::Fixed(0 | 1));
                let class = Class {
                    held,
                    ..Class::default()
                };
                dimensions.classes.push(class);
            }
        }
        let inputs = graph.inputs().iter().map(|i| i.value);
        for value in inputs.chain(graph.outputs().iter().map(|o| o.value)) {
            dimensions.hold_all(graph, value);
        }
        for node in graph.nodes() {
            dimensions.visit(graph, node);
        }
        dimensions
    }

    /// The class of a dimension: a number that all its dimensions share.
    pub(super) fn class(&self, value: ValueId, axis: usize) -> usize {
        self.root(self.first[value.index()] + axis)
    }

    /// What is known about a class.
    pub(super) fn facts(&self, class: usize) -> Class {
        self.classes[class]
    }

    /// Channels of a class.
    pub(super) fn size(&self, class: usize) -> usize {
        self.sizes[class]
    }

    fn root(&self, mut i: usize) -> usize {
        while self.parents[i] != i {
            i = self.parents[i];
        }
        i
    }

    fn tie(&mut self, a: (ValueId, usize), b: (ValueId, usize)) {
        let (a, b) = (self.class(a.0, a.1), self.class(b.0, b.1));
        // The older class stays the root, so that numbers follow the order of the graph.
        let (root, other) = (a.min(b), a.max(b));
        if root == other {
            return;
        }
        let (x, y) = (self.classes[root], self.classes[other]);
        self.parents[other] = root;
        self.classes[root] = Class {
            held: x.held || y.held || self.sizes[root] != self.sizes[other],
            norm_group: common_multiple(x.norm_group, y.norm_group),
            inner: x.inner || y.inner,
        };
    }

    fn hold(&mut self, value: ValueId, axis: usize) {
        let class = self.class(value, axis);
        self.classes[class].held = true;
    }

    fn hold_all(&mut self, graph: &Graph, value: ValueId) {
        for axis in 0..graph.ty(value).shape.rank() {
            self.hold(value, axis);
        }
    }

    /// Ties all dimensions of values of one rank.
    fn tie_all(&mut self, graph: &Graph, a: ValueId, b: ValueId) {
        for axis in 0..graph.ty(a).shape.rank() {
            self.tie((a, axis), (b, axis));
        }
    }

    fn visit(&mut self, graph: &Graph, node: &Node) {
        let (x, y) = (node.operands.first().copied(), node.result);
        let rank = |v: ValueId| graph.ty(v).shape.rank();
        match (&node.op, x) {
            (
                Op::Cast(_)
                | Op::Cos(_)
                | Op::Erf(_)
                | Op::Exp(_)
                | Op::Gelu(_)
                | Op::QuickGelu(_)
                | Op::Sigmoid(_)
                | Op::Silu(_)
                | Op::Sin(_)
                | Op::Sqrt(_),
                Some(x),
            ) => self.tie_all(graph, x, y),
            (Op::Add(_) | Op::Div(_) | Op::Mul(_) | Op::Sub(_), _) => {
                for &operand in &node.operands {
                    self.broadcast(graph, operand, y, rank(y));
                }
            }
            (Op::Softmax(op), Some(x)) => {
                self.tie_all(graph, x, y);
                self.hold(x, op.axis);
            }
            (Op::Transpose(op), Some(x)) => {
                for (axis, &from) in op.perm.iter().enumerate() {
                    self.tie((x, from), (y, axis));
                }
            }
            (Op::Reshape(_), Some(x)) => self.reshape(graph, x, y),
            (Op::UpsampleNearest(_), Some(x)) => {
                for axis in 0..2 {
                    self.tie((x, axis), (y, axis));
                }
            }
            (Op::Conv2d(op), Some(x)) => {
                let weight = node.operands[1];
                let outputs = node.operands[2..].iter().map(|&bias| (bias, 0));
                for output in [(weight, 0)].into_iter().chain(outputs) {
                    self.tie(output, (y, 1));
                }
                self.tie((x, 0), (y, 0));
                if op.groups == 1 {
                    self.tie((x, 1), (weight, 1));
                } else {
                    self.hold(x, 1);
                    self.hold(weight, 1);
                    self.hold(y, 1);
                }
            }
            (Op::Linear(_), Some(x)) => {
                let (weight, last) = (node.operands[1], rank(x) - 1);
                self.tie((x, last), (weight, 1));
                self.tie((weight, 0), (y, last));
                for &bias in &node.operands[2..] {
                    self.tie((bias, 0), (y, last));
                }
                for axis in 0..last {
                    self.tie((x, axis), (y, axis));
                }
            }
            (Op::MatMul(_), Some(a)) => {
                let (b, inner) = (node.operands[1], rank(a) - 1);
                self.tie((a, inner), (b, rank(b) - 2));
                self.tie((a, inner - 1), (y, rank(y) - 2));
                self.tie((b, rank(b) - 1), (y, rank(y) - 1));
                for (operand, lead) in [(a, rank(a) - 2), (b, rank(b) - 2)] {
                    self.broadcast_lead(graph, (operand, lead), (y, rank(y) - 2));
                }
            }
            (Op::GroupNorm(op), Some(x)) => {
                self.tie_all(graph, x, y);
                for &affine in &node.operands[1..] {
                    self.tie((affine, 0), (y, 1));
                }
                let class = self.class(y, 1);
                let group = self.sizes[class] / op.groups;
                let facts = &mut self.classes[class];
                facts.norm_group = common_multiple(facts.norm_group, group);
            }
            (Op::Attention(op), Some(q)) => {
                let (k, v) = (node.operands[1], node.operands[2]);
                let ties = [
                    ((q, 0), (y, 0)),
                    ((q, 1), (y, 1)),
                    ((k, 1), (v, 1)),
                    ((q, 2), (k, 2)),
                    ((v, 2), (y, 2)),
                ];
                ties.into_iter().for_each(|(a, b)| self.tie(a, b));
                for &mask in &node.operands[3..] {
                    self.hold_all(graph, mask);
                }
                for channels in [q, v] {
                    if op.heads == 1 {
                        let class = self.class(channels, 2);
                        self.classes[class].inner = true;
                    } else {
                        self.hold(channels, 2);
                    }
                }
            }
            _ => {
                for &value in node.operands.iter().chain([&y]) {
                    self.hold_all(graph, value);
                }
            }
        }
    }

    /// Ties the dimensions of an operand that is broadcast to a result.
    fn broadcast(&mut self, graph: &Graph, operand: ValueId, y: ValueId, rank: usize) {
        let lead = graph.ty(operand).shape.rank();
        self.broadcast_lead(graph, (operand, lead), (y, rank));
    }

    /// The same for the first dimensions of both, as many as given.
    fn broadcast_lead(
        &mut self,
        graph: &Graph,
        (operand, lead): (ValueId, usize),
        (y, rank): (ValueId, usize),
    ) {
        for axis in 0..lead {
            let to = rank - lead + axis;
            if graph.ty(operand).shape.dims()[axis] == graph.ty(y).shape.dims()[to] {
                self.tie((operand, axis), (y, to));
            }
        }
    }

    /// Ties dimensions that a reshape leaves whole and holds those that it cuts or joins.
    fn reshape(&mut self, graph: &Graph, x: ValueId, y: ValueId) {
        let wide = |v: ValueId| -> Vec<(usize, Dim)> {
            let dims = graph.ty(v).shape.dims().iter().copied().enumerate();
            dims.filter(|(_, d)| *d != Dim::Fixed(1)).collect()
        };
        let (from, to) = (wide(x), wide(y));
        let (mut i, mut j) = (0, 0);
        while i < from.len() && j < to.len() {
            if from[i].1 == to[j].1 {
                self.tie((x, from[i].0), (y, to[j].0));
                (i, j) = (i + 1, j + 1);
                continue;
            }
            // A stretch over which the products agree; the batch agrees with no number.
            let (start_i, start_j) = (i, j);
            let size = |d: Dim| d.fixed().map(|n| n as u128);
            let (mut a, mut b) = (size(from[i].1), size(to[j].1));
            (i, j) = (i + 1, j + 1);
            while let (Some(left), Some(right)) = (a, b) {
                if left == right {
                    break;
                }
                let (list, next, product) = if left < right {
                    (&from, &mut i, &mut a)
                } else {
                    (&to, &mut j, &mut b)
                };
                let more = list.get(*next).and_then(|d| size(d.1));
                *product = product.zip(more).and_then(|(p, m)| p.checked_mul(m));
                *next += 1;
            }
            if a.is_none() || b.is_none() {
                (i, j) = (from.len(), to.len());
            }
            from[start_i..i].iter().for_each(|d| self.hold(x, d.0));
            to[start_j..j].iter().for_each(|d| self.hold(y, d.0));
        }
        from[i.min(from.len())..].iter().for_each(|d| self.hold(x, d.0));
        to[j.min(to.len())..].iter().for_each(|d| self.hold(y, d.0));
    }
}

/// The least common multiple; 0 stands for "none".
fn common_multiple(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    match (a, b) {
        (0, n) | (n, 0) => n,
        _ => a / gcd(a, b) * b,
    }
}
