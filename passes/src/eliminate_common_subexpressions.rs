//! Computes equal values once.
//!
//! # What it does
//! Of nodes with the same operator, attributes and operands only the first stays; the operands of `add`, `mul` and
//! `equal` may be in either order. Equal constants become one, too. Parameters become one only when name and data are
//! equal: equal values under different checkpoint keys are kept apart, because a later pass may change one of them
//! and because they count as parameters of the model.
//!
//! # When it applies
//! To any graph. Of equal nodes that feed different outputs each stays, since an output needs a value of its own.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None: the values are bit for bit those of before.
//!
//! # Example
//! ```text
//! before: a = silu(x); b = silu(x); y = add(a, b)
//! after:  a = silu(x); y = add(a, a)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use snapc_ir::{BuildError, DType, Graph, Node, Op, Rebuild, ValueId, Weight};

use crate::info::Describe;
use crate::output_values::OutputValues;
use crate::pass::{Change, Pass, PassContext, PassError};

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EliminateCommonSubexpressions {}

impl Describe for EliminateCommonSubexpressions {
    const NAME: &'static str = "eliminate-common-subexpressions";
}

impl Pass for EliminateCommonSubexpressions {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let mut search = Search {
            first_weights: first_weights(graph),
            merged_weights: BTreeSet::new(),
            known: BTreeMap::new(),
            outputs: OutputValues::of(graph),
            merged_nodes: 0,
        };
        let rebuilt = graph.rebuild(|rebuild, node| search.visit(rebuild, node).map(Some));
        let graph = rebuilt.map_err(PassError::build(Self::NAME))?;
        let (nodes, weights) = (search.merged_nodes, search.merged_weights.len());
        if nodes + weights == 0 {
            return Ok(None);
        }
        Ok(Some(Change::new(graph, vec![("nodes merged", nodes), ("weights merged", weights)])))
    }
}

/// For every weight that equals an earlier one, that one; by value.
fn first_weights(graph: &Graph) -> BTreeMap<ValueId, ValueId> {
    type Key<'a> = (Option<&'a str>, DType, &'a [usize]);
    let mut distinct: BTreeMap<Key<'_>, Vec<&Weight>> = BTreeMap::new();
    let mut first = BTreeMap::new();
    for weight in graph.weights() {
        let name = weight.is_parameter.then_some(weight.name.as_str());
        let key = (name, weight.tensor.dtype(), weight.tensor.shape());
        let alike = distinct.entry(key).or_default();
        match alike.iter().find(|w| w.tensor.same_data(&weight.tensor)) {
            Some(earlier) => {
                first.insert(weight.value, earlier.value);
            }
            None => alike.push(weight),
        }
    }
    first
}

/// What makes two nodes equal: the operator with its attributes, and the operands in the new graph.
type Key = (String, Vec<ValueId>);

struct Search {
    first_weights: BTreeMap<ValueId, ValueId>,
    merged_weights: BTreeSet<ValueId>,
    known: BTreeMap<Key, ValueId>,
    outputs: OutputValues,
    merged_nodes: usize,
}

impl Search {
    fn visit(&mut self, rebuild: &mut Rebuild<'_>, node: &Node) -> Result<ValueId, BuildError> {
        let mut operands = Vec::with_capacity(node.operands.len());
        for &operand in &node.operands {
            let first = self.first_weights.get(&operand);
            if first.is_some() {
                self.merged_weights.insert(operand);
            }
            operands.push(rebuild.operand(*first.unwrap_or(&operand))?);
        }
        let key = key(&node.op, &operands);
        let known = self.known.get(&key).copied();
        let usable =
            known.filter(|&k| self.outputs.may_replace(&rebuild.graph, node.result, k));
        if let Some(known) = usable {
            self.merged_nodes += 1;
            self.outputs.record(node.result, known);
            return Ok(known);
        }
        let value = rebuild.graph.add(node.op.clone(), &operands, node.name.clone())?;
        self.outputs.record(node.result, value);
        self.known.entry(key).or_insert(value);
        Ok(value)
    }
}

fn key(op: &Op, operands: &[ValueId]) -> Key {
    let mut operands = operands.to_vec();
    if matches!(op, Op::Add(_) | Op::Mul(_) | Op::Equal(_)) {
        operands.sort_unstable();
    }
    // The debug form writes every attribute, floats with all their digits.
    (format!("{op:?}"), operands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Silu, Sub};
    use snapc_ir::{LazyTensor, Shape, TensorType};

    fn run(graph: &Graph) -> Option<Change> {
        EliminateCommonSubexpressions {}.run(graph, &PassContext::default()).unwrap()
    }

    fn start() -> (Graph, ValueId) {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        (g, x)
    }

    #[test]
    fn equal_nodes_become_one_in_any_order_of_a_sum() {
        let (mut g, x) = start();
        let a = g.add(Silu {}, &[x], "a").unwrap();
        let b = g.add(Silu {}, &[x], "b").unwrap();
        let c = g.add(Add {}, &[a, x], "c").unwrap();
        let d = g.add(Add {}, &[x, b], "d").unwrap();
        let y = g.add(Sub {}, &[c, d], "y").unwrap();
        g.output("y", y);
        let change = run(&g).unwrap();
        let names: Vec<&str> = change.graph.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "c", "y"]);
        assert!(run(&change.graph).is_none());
    }

    #[test]
    fn different_nodes_stay() {
        let (mut g, x) = start();
        let a = g.add(Silu {}, &[x], "a").unwrap();
        let b = g.add(Sub {}, &[a, x], "b").unwrap();
        let c = g.add(Sub {}, &[x, a], "c").unwrap();
        let y = g.add(Sub {}, &[b, c], "y").unwrap();
        g.output("y", y);
        assert!(run(&g).is_none());
    }

    #[test]
    fn constants_merge_by_value_and_parameters_by_name() {
        let (mut g, x) = start();
        let tensor = || LazyTensor::from_f32(&[2], &[0.0, 0.0]);
        let weights = [
            g.constant("one", tensor()),
            g.constant("another", tensor()),
            g.parameter("a.bias", tensor()),
            g.parameter("b.bias", tensor()),
        ];
        let mut y = x;
        for w in weights {
            y = g.add(Add {}, &[y, w], "y").unwrap();
        }
        g.output("y", y);
        let change = run(&g).unwrap();
        let names: Vec<&str> = change.graph.weights().iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["one", "a.bias", "b.bias"]);
        assert_eq!(change.counts, [("nodes merged", 0), ("weights merged", 1)]);
        assert!(run(&change.graph).is_none());
    }

    #[test]
    fn two_outputs_keep_a_node_each() {
        let (mut g, x) = start();
        let a = g.add(Silu {}, &[x], "a").unwrap();
        let b = g.add(Silu {}, &[x], "b").unwrap();
        g.output("a", a);
        g.output("b", b);
        assert!(run(&g).is_none());
    }
}
