//! The verifier. A graph that passes holds these invariants, which every pass and target may rely on:
//!
//! 1. Every operand is defined before the node that uses it.
//! 2. Every node's result has the type that its operator infers from its operands.
//! 3. Inputs have non-empty, distinct names.
//! 4. There is an output; outputs have non-empty, distinct names.
//! 5. Every weight's value has the element type and shape of its tensor.
//! 6. Every node has a name.
//! 7. A shape has at most one batch dimension, and no shape overflows the address space.
//! 8. Weights have non-empty names.
//!
//! It does not check that weights are finite (import does) nor that a target can lower the graph (legalisation does).

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;

use crate::graph::{Graph, ValueDef};
use crate::types::{Dim, Shape, TensorType};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Number of the invariant in the module documentation.
    pub invariant: u32,
    /// Graph name.
    pub graph: String,
    /// The node, weight, input or output.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation {
            invariant,
            graph,
            place,
            message,
        } = self;
        write!(
            f,
            "graph '{graph}', {place}: {message} (invariant {invariant})"
        )
    }
}

/// A graph that has passed the verifier. Only [`verify`] makes one, and emission asks for one.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a>(&'a Graph);

impl Deref for Verified<'_> {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        self.0
    }
}

/// Checks all invariants.
///
/// # Errors
/// All violations, in the order of the graph.
pub fn verify(graph: &Graph) -> Result<Verified<'_>, Vec<Violation>> {
    let mut found = Found {
        graph,
        list: Vec::new(),
    };
    check_features(graph, &mut found);
    check_values(graph, &mut found);
    check_weights(graph, &mut found);
    check_nodes(graph, &mut found);
    if found.list.is_empty() {
        Ok(Verified(graph))
    } else {
        Err(found.list)
    }
}

struct Found<'a> {
    graph: &'a Graph,
    list: Vec<Violation>,
}

impl Found<'_> {
    fn add(&mut self, invariant: u32, place: impl Into<String>, message: impl Into<String>) {
        self.list.push(Violation {
            invariant,
            graph: self.graph.name().to_owned(),
            place: place.into(),
            message: message.into(),
        });
    }
}

fn check_features(graph: &Graph, found: &mut Found<'_>) {
    let inputs = graph.inputs().iter().map(|i| i.name.as_str());
    let outputs = graph.outputs().iter().map(|o| o.name.as_str());
    check_names(inputs, 3, "input", found);
    check_names(outputs, 4, "output", found);
    if graph.outputs().is_empty() {
        found.add(4, "the outputs", "there is none");
    }
    for output in graph.outputs() {
        if output.value.index() >= graph.values().len() {
            found.add(1, format!("output '{}'", output.name), "is not defined");
        }
    }
}

fn check_names<'a>(
    names: impl Iterator<Item = &'a str>,
    invariant: u32,
    kind: &str,
    found: &mut Found<'_>,
) {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            found.add(invariant, format!("an {kind}"), "has no name");
        } else if !seen.insert(name) {
            found.add(invariant, format!("{kind} '{name}'"), "is declared twice");
        }
    }
}

fn check_values(graph: &Graph, found: &mut Found<'_>) {
    for (i, value) in graph.values().iter().enumerate() {
        let shape = &value.ty.shape;
        let batches = shape.dims().iter().filter(|d| **d == Dim::Batch).count();
        if batches > 1 || value.ty.bytes_per_batch().is_none() {
            let place = match value.def {
                ValueDef::Node(n) => graph.nodes().get(n.index()).map(|n| n.name.clone()),
                _ => None,
            };
            let place = place.map_or_else(|| format!("value {i}"), |n| format!("node '{n}'"));
            found.add(7, place, format!("shape {shape} is not representable"));
        }
    }
}

fn check_weights(graph: &Graph, found: &mut Found<'_>) {
    for weight in graph.weights() {
        let place = format!("weight '{}'", weight.name);
        let ty = TensorType::new(weight.tensor.dtype(), Shape::fixed(weight.tensor.shape()));
        if *graph.ty(weight.value) != ty {
            let stated = graph.ty(weight.value);
            found.add(
                5,
                &place,
                format!("has type {stated} but its tensor is {ty}"),
            );
        }
        if weight.name.is_empty() {
            found.add(8, "a weight", "has no name");
        }
    }
}

fn check_nodes(graph: &Graph, found: &mut Found<'_>) {
    for node in graph.nodes() {
        let place = format!("node '{}' ({})", node.name, node.op.name());
        if node.name.is_empty() {
            found.add(6, &place, "has no name");
        }
        if node
            .operands
            .iter()
            .any(|v| v.index() >= node.result.index())
        {
            found.add(1, &place, "uses a value before it is defined");
            continue;
        }
        let types: Vec<&TensorType> = node.operands.iter().map(|&v| graph.ty(v)).collect();
        let stated = graph.ty(node.result);
        match node.op.infer(&types) {
            Ok(ty) if ty == *stated => {}
            Ok(ty) => found.add(2, &place, format!("is stated as {stated} but infers {ty}")),
            Err(e) => found.add(2, &place, e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Silu;
    use crate::{DType, LazyTensor};

    fn rules(g: &Graph) -> Vec<u32> {
        match verify(g) {
            Ok(_) => vec![],
            Err(v) => v.iter().map(|v| v.invariant).collect(),
        }
    }

    fn valid() -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        let y = g.add(Silu {}, &[x], "y").unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn a_valid_graph_passes() {
        assert_eq!(rules(&valid()), []);
    }

    #[test]
    fn names_are_checked() {
        let mut g = valid();
        let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[])));
        g.output("", x);
        let unnamed = g.add(Silu {}, &[x], "").unwrap();
        g.output("y", unnamed);
        assert_eq!(rules(&g), [3, 4, 4, 6]);
    }

    #[test]
    fn no_output_is_a_violation() {
        assert_eq!(rules(&Graph::new("g")), [4]);
    }

    #[test]
    fn a_value_of_another_graph_is_a_violation() {
        let mut g = valid();
        g.output("z", crate::ValueId::from_index(99));
        assert_eq!(rules(&g), [1]);
    }

    #[test]
    fn shapes_beyond_memory_or_with_two_batches_are_violations() {
        let mut g = valid();
        let huge = Shape::fixed(&[usize::MAX, 2]);
        g.input("huge", TensorType::new(DType::F32, huge));
        let twice = Shape(vec![Dim::Batch, Dim::Batch]);
        g.input("twice", TensorType::new(DType::F32, twice));
        assert_eq!(rules(&g), [7, 7]);
    }

    #[test]
    fn a_weight_needs_a_name() {
        let mut g = valid();
        g.constant("", LazyTensor::from_f32(&[1], &[1.0]));
        assert_eq!(rules(&g), [8]);
    }
}
