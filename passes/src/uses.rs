//! Who reads the values of a graph, and layers whose weights may be changed.

use std::collections::BTreeMap;

use snapc_ir::{DType, Graph, LazyTensor, Node, Op, Rebuild, ValueId, Weight};

/// The readers of every value, by nodes that an output depends on.
pub(crate) struct Uses<'a> {
    graph: &'a Graph,
    readers: Vec<Vec<(usize, usize)>>,
    is_output: Vec<bool>,
}

impl<'a> Uses<'a> {
    pub(crate) fn of(graph: &'a Graph) -> Self {
        let live = graph.live_values();
        let mut readers = vec![Vec::new(); graph.values().len()];
        for (index, node) in graph.nodes().iter().enumerate() {
            if live[node.result.index()] {
                for (position, value) in node.operands.iter().enumerate() {
                    readers[value.index()].push((index, position));
                }
            }
        }
        let mut is_output = vec![false; graph.values().len()];
        for output in graph.outputs() {
            is_output[output.value.index()] = true;
        }
        Uses {
            graph,
            readers,
            is_output,
        }
    }

    /// The nodes that read a value, each with the position among its operands.
    pub(crate) fn readers(&self, value: ValueId) -> impl Iterator<Item = (&'a Node, usize)> {
        let graph = self.graph;
        let readers = self.readers[value.index()].iter();
        readers.map(move |&(node, position)| (&graph.nodes()[node], position))
    }

    /// Whether an output gives the value.
    pub(crate) fn is_output(&self, value: ValueId) -> bool {
        self.is_output[value.index()]
    }

    /// Whether one operand of one node is all that asks for the value.
    pub(crate) fn is_read_once(&self, value: ValueId) -> bool {
        self.readers[value.index()].len() == 1 && !self.is_output(value)
    }

    /// The weight behind a value when its floats may be changed: it is not encoded, and nothing else reads it.
    pub(crate) fn own_weight(&self, value: ValueId) -> Option<&'a Weight> {
        let weight = self.graph.weight_of(value)?;
        let free = weight.tensor.encoding().is_none() && self.is_read_once(value);
        free.then_some(weight)
    }

    /// The same in f32 and with data.
    fn own_numbers(&self, value: ValueId) -> Option<&'a Weight> {
        let weight = self.own_weight(value)?;
        let tensor = &weight.tensor;
        (tensor.dtype() == DType::F32 && tensor.is_present()).then_some(weight)
    }
}

/// A linear layer or a convolution whose weight and bias are known in f32 and its own.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) node: &'a Node,
    pub(crate) weight: &'a Weight,
    pub(crate) bias: Option<&'a Weight>,
}

impl<'a> Layer<'a> {
    /// The layer that a node is.
    pub(crate) fn of(uses: &Uses<'a>, node: &'a Node) -> Option<Self> {
        if !matches!(node.op, Op::Linear(_) | Op::Conv2d(_)) {
            return None;
        }
        let weight = uses.own_numbers(node.operands[1])?;
        let bias = match node.operands.get(2) {
            Some(&bias) => Some(uses.own_numbers(bias)?),
            None => None,
        };
        Some(Layer { node, weight, bias })
    }

    /// The axis of the channels that it sums over, in a value of this rank.
    pub(crate) fn channel_axis(node: &Node, rank: usize) -> usize {
        match node.op {
            Op::Conv2d(_) => 1,
            _ => rank - 1,
        }
    }

    /// Adds the layer to a new graph, with another weight and bias, on a value of that graph.
    pub(crate) fn rebuild(
        &self,
        rebuild: &mut Rebuild<'_>,
        x: ValueId,
        weight: LazyTensor,
        bias: Option<LazyTensor>,
    ) -> Result<ValueId, snapc_ir::BuildError> {
        let name = &self.node.name;
        let mut operands = vec![x, add_weight(&mut rebuild.graph, self.weight, weight)];
        if let Some(tensor) = bias {
            operands.push(match self.bias {
                Some(old) => add_weight(&mut rebuild.graph, old, tensor),
                None => {
                    let name = format!("{name}.bias");
                    add_named(&mut rebuild.graph, name, tensor, self.weight.is_parameter)
                }
            });
        }
        let op = self.node.op.clone();
        rebuild.graph.add(op, &operands, name.clone())
    }
}

/// A weight with other data.
fn add_weight(graph: &mut Graph, old: &Weight, tensor: LazyTensor) -> ValueId {
    add_named(graph, old.name.clone(), tensor, old.is_parameter)
}

/// A parameter or a constant.
pub(crate) fn add_named(
    graph: &mut Graph,
    name: String,
    tensor: LazyTensor,
    is_parameter: bool,
) -> ValueId {
    if is_parameter {
        graph.parameter(name, tensor)
    } else {
        graph.constant(name, tensor)
    }
}

/// Reasons why something was left as it was, each with how often and where first.
#[derive(Default)]
pub(crate) struct Skipped(BTreeMap<String, (usize, String)>);

impl Skipped {
    pub(crate) fn add(&mut self, reason: impl Into<String>, place: &str) {
        let entry = self.0.entry(reason.into());
        entry.or_insert_with(|| (0, place.to_owned())).0 += 1;
    }

    /// One line per reason.
    pub(crate) fn notes(self) -> Vec<String> {
        let lines = self
            .0
            .into_iter()
            .map(|(reason, (count, place))| format!("skipped {count}, first '{place}': {reason}"));
        lines.collect()
    }
}
