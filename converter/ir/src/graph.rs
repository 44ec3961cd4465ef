//! A graph: inputs, weights, nodes in topological order, outputs.

use crate::ops::{InferError, Op};
use crate::types::TensorType;
use crate::weight::LazyTensor;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// Position in the graph's list.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The id at a position.
            ///
            /// # Panics
            /// Beyond `u32::MAX`.
            pub fn from_index(index: usize) -> Self {
                $name(u32::try_from(index).expect("a graph has fewer than 2^32 parts"))
            }
        }
    };
}

id! {
    /// A value of a graph.
    ValueId
}
id! {
    /// A node of a graph.
    NodeId
}
id! {
    /// A weight or constant of a graph.
    WeightId
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueDef {
    /// The graph input at this position.
    Input(usize),
    /// A weight or constant.
    Weight(WeightId),
    /// The result of a node.
    Node(NodeId),
}

/// A tensor that flows through the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Element type and shape.
    pub ty: TensorType,
    /// Where it comes from.
    pub def: ValueDef,
}

/// An operator applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// The diffusers module it comes from, e.g. `down_blocks.0.resnets.1.conv1`; several nodes may share one name.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// What it is computed from, in the operator's order.
    pub operands: Vec<ValueId>,
    /// The value it defines.
    pub result: ValueId,
}

/// A constant tensor of the graph.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The diffusers key for a parameter, e.g. `conv_in.weight`; otherwise the name of the node that wanted it.
    pub name: String,
    /// The data.
    pub tensor: LazyTensor,
    /// Whether it comes from the checkpoint, rather than being a constant of the architecture.
    pub is_parameter: bool,
    /// The value it defines.
    pub value: ValueId,
}

/// A named input.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphInput {
    /// Feature name, as in diffusers.
    pub name: String,
    /// The value it defines.
    pub value: ValueId,
}

/// A named output.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphOutput {
    /// Feature name, as in diffusers.
    pub name: String,
    /// The value that is given out.
    pub value: ValueId,
}

/// Why a node cannot be added.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The operator does not accept these operands.
    #[error("graph '{graph}', node '{node}' ({op}): {source}")]
    Infer {
        /// Graph name.
        graph: String,
        /// Node name.
        node: String,
        /// Operator name.
        op: &'static str,
        /// What is wrong.
        source: InferError,
    },
    /// A rebuild used a value that it had dropped.
    #[error("graph '{graph}': '{node}' is used but was dropped by the rebuild")]
    Dropped {
        /// Graph name.
        graph: String,
        /// Name of the node that defined the value.
        node: String,
    },
}

/// An append-only dataflow graph. A node's operands are defined before it, so the list of nodes is a topological order
/// and cycles cannot be written down. Every node defines exactly one value.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    values: Vec<Value>,
    inputs: Vec<GraphInput>,
    outputs: Vec<GraphOutput>,
    weights: Vec<Weight>,
    nodes: Vec<Node>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            values: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            weights: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The graph's name (`text_encoder`, `unet`, `vae_decoder`).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inputs in order.
    pub fn inputs(&self) -> &[GraphInput] {
        &self.inputs
    }

    /// Outputs in order.
    pub fn outputs(&self) -> &[GraphOutput] {
        &self.outputs
    }

    /// Nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Weights and constants in the order they were added.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Values in the order they were defined.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of an id.
    ///
    /// # Panics
    /// When the graph has no such value; likewise in the other methods that take an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Element type and shape of a value.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.value(id).ty
    }

    /// The node that defines a value, if one does.
    pub fn node_of(&self, id: ValueId) -> Option<&Node> {
        match self.value(id).def {
            ValueDef::Node(n) => Some(&self.nodes[n.index()]),
            _ => None,
        }
    }

    /// The weight behind a value, if it is one.
    pub fn weight_of(&self, id: ValueId) -> Option<&Weight> {
        match self.value(id).def {
            ValueDef::Weight(w) => Some(&self.weights[w.index()]),
            _ => None,
        }
    }

    /// How often each value is used by nodes and outputs, by value index.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let operands = self.nodes.iter().flat_map(|n| &n.operands);
        for v in operands.chain(self.outputs.iter().map(|o| &o.value)) {
            counts[v.index()] += 1;
        }
        counts
    }

    fn define(&mut self, ty: TensorType, def: ValueDef) -> ValueId {
        self.values.push(Value { ty, def });
        ValueId::from_index(self.values.len() - 1)
    }

    /// Declares an input.
    pub fn input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let value = self.define(ty, ValueDef::Input(self.inputs.len()));
        let name = name.into();
        self.inputs.push(GraphInput { name, value });
        value
    }

    fn weight(&mut self, name: String, tensor: LazyTensor, is_parameter: bool) -> ValueId {
        let ty = TensorType::new(tensor.dtype(), crate::Shape::fixed(tensor.shape()));
        let id = WeightId::from_index(self.weights.len());
        let value = self.define(ty, ValueDef::Weight(id));
        self.weights.push(Weight {
            name,
            tensor,
            is_parameter,
            value,
        });
        value
    }

    /// Adds a trained tensor of the checkpoint under its diffusers key.
    pub fn parameter(&mut self, name: impl Into<String>, tensor: LazyTensor) -> ValueId {
        self.weight(name.into(), tensor, true)
    }

    /// Adds a constant of the architecture.
    pub fn constant(&mut self, name: impl Into<String>, tensor: LazyTensor) -> ValueId {
        self.weight(name.into(), tensor, false)
    }

    /// Applies an operator and gives its result.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    ///
    /// # Panics
    /// When an operand is not a value of this graph.
    pub fn add(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        name: impl Into<String>,
    ) -> Result<ValueId, BuildError> {
        let (op, name) = (op.into(), name.into());
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.ty(v)).collect();
        let ty = op.infer(&types).map_err(|source| BuildError::Infer {
            graph: self.name.clone(),
            node: name.clone(),
            op: op.name(),
            source,
        })?;
        let result = self.define(ty, ValueDef::Node(NodeId::from_index(self.nodes.len())));
        self.nodes.push(Node {
            name,
            op,
            operands: operands.to_vec(),
            result,
        });
        Ok(result)
    }

    /// Declares an output.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        let name = name.into();
        self.outputs.push(GraphOutput { name, value });
    }

    /// A new graph in which `step` stands for every node in turn: it gives the value that replaces the node's result
    /// (often [`Rebuild::copy`]) or `None` to drop the node. Weights that nothing uses any more are not carried over.
    ///
    /// # Errors
    /// Those of `step`, and the use of a dropped value.
    pub fn rebuild<E: From<BuildError>>(
        &self,
        mut step: impl FnMut(&mut Rebuild<'_>, &Node) -> Result<Option<ValueId>, E>,
    ) -> Result<Graph, E> {
        let mut rebuild = Rebuild::new(self);
        rebuild.copy_inputs();
        for node in &self.nodes {
            if let Some(value) = step(&mut rebuild, node)? {
                rebuild.bind(node.result, value);
            }
        }
        Ok(rebuild.finish()?)
    }
}

/// A graph under construction from another one.
pub struct Rebuild<'a> {
    old: &'a Graph,
    map: Vec<Option<ValueId>>,
    /// The new graph; nodes may be added to it freely.
    pub graph: Graph,
}

impl<'a> Rebuild<'a> {
    /// An empty new graph of the same name. Inputs are to be declared next, by [`Rebuild::copy_inputs`] or one by one
    /// with [`Graph::input`] and [`Rebuild::bind`].
    pub fn new(old: &'a Graph) -> Self {
        Rebuild {
            old,
            map: vec![None; old.values.len()],
            graph: Graph::new(old.name.clone()),
        }
    }

    /// The graph that is read.
    pub fn old(&self) -> &'a Graph {
        self.old
    }

    /// Declares the same inputs.
    pub fn copy_inputs(&mut self) {
        for input in &self.old.inputs {
            let ty = self.old.ty(input.value).clone();
            let value = self.graph.input(input.name.clone(), ty);
            self.bind(input.value, value);
        }
    }

    /// Says which new value stands for an old one.
    ///
    /// # Panics
    /// When the old graph has no such value; likewise in [`Rebuild::operand`].
    pub fn bind(&mut self, old: ValueId, new: ValueId) {
        self.map[old.index()] = Some(new);
    }

    /// The new value that stands for an old one. A weight is carried over at its first use.
    ///
    /// # Errors
    /// When the value was dropped.
    pub fn operand(&mut self, old: ValueId) -> Result<ValueId, BuildError> {
        if let Some(new) = self.map[old.index()] {
            return Ok(new);
        }
        let Some(weight) = self.old.weight_of(old) else {
            let node = self.old.node_of(old).map(|n| n.name.clone());
            return Err(BuildError::Dropped {
                graph: self.old.name.clone(),
                node: node.unwrap_or_else(|| "an input".to_owned()),
            });
        };
        let (name, tensor) = (weight.name.clone(), weight.tensor.clone());
        let new = self.graph.weight(name, tensor, weight.is_parameter);
        self.bind(old, new);
        Ok(new)
    }

    /// All operands of an old node as new values.
    ///
    /// # Errors
    /// When one was dropped.
    pub fn operands(&mut self, node: &Node) -> Result<Vec<ValueId>, BuildError> {
        node.operands.iter().map(|&v| self.operand(v)).collect()
    }

    /// Adds the node unchanged.
    ///
    /// # Errors
    /// When the operator does not accept the new operands.
    pub fn copy(&mut self, node: &Node) -> Result<ValueId, BuildError> {
        let operands = self.operands(node)?;
        self.graph
            .add(node.op.clone(), &operands, node.name.clone())
    }

    /// Declares the outputs that are not declared yet and gives the new graph.
    ///
    /// # Errors
    /// When an output was dropped.
    pub fn finish(mut self) -> Result<Graph, BuildError> {
        for output in &self.old.outputs {
            if self.graph.outputs.iter().all(|o| o.name != output.name) {
                let value = self.operand(output.value)?;
                self.graph.output(output.name.clone(), value);
            }
        }
        Ok(self.graph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Add, Silu};
    use crate::{DType, Shape, verify};

    fn graph() -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        let w = g.parameter("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]));
        let y = g.add(Silu {}, &[x], "first").unwrap();
        let z = g.add(Add {}, &[y, w], "second").unwrap();
        g.output("z", z);
        g
    }

    fn broken(damage: impl FnOnce(&mut Graph)) -> Vec<u32> {
        let mut g = graph();
        damage(&mut g);
        let violations = verify::verify(&g).unwrap_err();
        violations.iter().map(|v| v.invariant).collect()
    }

    #[test]
    fn what_no_method_can_break_the_verifier_sees_all_the_same() {
        assert!(verify::verify(&graph()).is_ok());
        let f16 = TensorType::new(DType::F16, Shape::batched(&[2]));
        assert_eq!(broken(|g| g.nodes[0].operands[0] = g.nodes[1].result), [1]);
        assert_eq!(broken(|g| g.values[3].ty = f16), [2]);
        assert_eq!(
            broken(|g| g.weights[0].tensor = LazyTensor::from_f32(&[1], &[1.0])),
            [5]
        );
    }

    #[test]
    fn a_rebuild_leaves_out_what_nothing_uses() {
        let old = graph();
        let new = old.rebuild::<BuildError>(|rebuild, node| match node.name.as_str() {
            "second" => rebuild.operand(node.operands[0]).map(Some),
            _ => rebuild.copy(node).map(Some),
        });
        let new = new.unwrap();
        assert_eq!((new.nodes().len(), new.weights().len()), (1, 0));
        assert_eq!(new.node_of(new.outputs()[0].value).unwrap().name, "first");
    }

    #[test]
    fn the_use_of_a_dropped_value_is_named() {
        let old = graph();
        let new = old.rebuild::<BuildError>(|rebuild, node| match node.name.as_str() {
            "first" => Ok(None),
            _ => rebuild.copy(node).map(Some),
        });
        assert_eq!(
            new.unwrap_err().to_string(),
            "graph 'g': 'first' is used but was dropped by the rebuild"
        );
    }
}
