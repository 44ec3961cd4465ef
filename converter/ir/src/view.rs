//! The graph as petgraph sees it: one vertex per value, one edge per use.

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

use crate::graph::{Graph, ValueId};

impl Graph {
    /// A petgraph of the values, for its algorithms: vertex `i` is value `i`, an edge leads from each operand to the
    /// result and carries the operand's position.
    pub fn to_petgraph(&self) -> DiGraph<ValueId, usize> {
        let edges = self.nodes().iter().map(|n| n.operands.len()).sum();
        let mut view = DiGraph::with_capacity(self.values().len(), edges);
        for i in 0..self.values().len() {
            view.add_node(ValueId::from_index(i));
        }
        for node in self.nodes() {
            for (position, operand) in node.operands.iter().enumerate() {
                let from = NodeIndex::new(operand.index());
                view.add_edge(from, NodeIndex::new(node.result.index()), position);
            }
        }
        view
    }

    /// Which values an output depends on, by value index.
    pub fn live_values(&self) -> Vec<bool> {
        let view = self.to_petgraph();
        let backwards = Reversed(&view);
        let mut live = vec![false; self.values().len()];
        let mut search = Dfs::empty(backwards);
        for output in self.outputs() {
            search.move_to(NodeIndex::new(output.value.index()));
            while let Some(vertex) = search.next(backwards) {
                live[vertex.index()] = true;
            }
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::{Add, Silu};
    use crate::{DType, Graph, LazyTensor, Shape, TensorType};

    #[test]
    fn what_outputs_depend_on_is_live() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[2])));
        let w = g.parameter("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]));
        let dead = g.add(Silu {}, &[x], "dead").unwrap();
        let y = g.add(Add {}, &[x, w], "y").unwrap();
        g.output("y", y);
        let live = g.live_values();
        assert!(live[x.index()] && live[w.index()] && live[y.index()]);
        assert!(!live[dead.index()]);
    }
}
