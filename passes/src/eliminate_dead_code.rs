//! Drops nodes and weights that no output depends on.
//!
//! # What it does
//! Walks from the outputs back along the operands and keeps what it meets. Inputs stay, used or not, because they are
//! the graph's interface.
//!
//! # When it applies
//! Always. Other passes leave nodes behind that nothing uses any more; this pass removes them.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None.
//!
//! # Example
//! ```text
//! before: a = silu(x); b = sigmoid(x); output b
//! after:  b = sigmoid(x); output b
//! ```

use serde::Deserialize;
use snapc_ir::Graph;

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property};

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EliminateDeadCode {}

impl Describe for EliminateDeadCode {
    const NAME: &'static str = "eliminate-dead-code";
    const ESTABLISHES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for EliminateDeadCode {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let live = graph.live_values();
        let dead_nodes = graph.nodes().iter().filter(|n| !live[n.result.index()]).count();
        let dead_weights = graph.weights().iter().filter(|w| !live[w.value.index()]).count();
        if dead_nodes + dead_weights == 0 {
            return Ok(None);
        }
        let rebuilt = graph.rebuild(|rebuild, node| {
            let kept = live[node.result.index()].then(|| rebuild.copy(node));
            kept.transpose()
        });
        let rebuilt = rebuilt.map_err(PassError::build(Self::NAME))?;
        let counts = vec![("nodes dropped", dead_nodes), ("weights dropped", dead_weights)];
        Ok(Some(Change::new(rebuilt, counts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Sigmoid, Silu};
    use snapc_ir::{DType, LazyTensor, Shape, TensorType};

    fn run(graph: &Graph) -> Option<Change> {
        EliminateDeadCode {}.run(graph, &PassContext::default()).unwrap()
    }

    fn graph() -> Graph {
        let mut g = Graph::new("g");
        let ty = TensorType::new(DType::F32, Shape::batched(&[2]));
        let x = g.input("x", ty.clone());
        g.input("unused", ty);
        let w = g.parameter("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]));
        let dead = g.add(Silu {}, &[x], "dead").unwrap();
        g.add(Add {}, &[dead, w], "dead_too").unwrap();
        let y = g.add(Sigmoid {}, &[x], "y").unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn dead_nodes_and_their_weights_go_and_inputs_stay() {
        let change = run(&graph()).unwrap();
        let names: Vec<&str> = change.graph.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["y"]);
        assert!(change.graph.weights().is_empty());
        assert_eq!(change.graph.inputs().len(), 2);
        assert_eq!(change.counts, [("nodes dropped", 2), ("weights dropped", 1)]);
        assert!(run(&change.graph).is_none());
    }

    #[test]
    fn a_weight_that_nothing_uses_goes() {
        let mut g = run(&graph()).unwrap().graph;
        g.parameter("idle", LazyTensor::from_f32(&[1], &[0.0]));
        let change = run(&g).unwrap();
        assert_eq!(change.counts, [("nodes dropped", 0), ("weights dropped", 1)]);
    }
}
