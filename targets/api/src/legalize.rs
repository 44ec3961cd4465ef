//! Legalization: composites that a target does not have become simpler operators.

use snapc_ir::{Graph, Node};

use crate::error::TargetError;
use crate::target::Capabilities;

/// The graph with every composite that is not native replaced by its decomposition, until none is left. New nodes
/// carry the name of the node they come from.
///
/// # Errors
/// [`TargetError::Unsupported`] for a value of more dimensions than the target has, or with an open batch that the
/// target needs bound.
pub fn legalize(graph: &Graph, caps: &Capabilities) -> Result<Graph, TargetError> {
    let mut legal = graph.clone();
    while legal.nodes().iter().any(|n| is_foreign(n, caps)) {
        legal = decompose_once(&legal, caps)?;
    }
    check(&legal, caps)?;
    Ok(legal)
}

fn is_foreign(node: &Node, caps: &Capabilities) -> bool {
    node.op.is_composite() && !(caps.native)(&node.op)
}

/// A decomposition may use composites, so this may have to be repeated.
fn decompose_once(graph: &Graph, caps: &Capabilities) -> Result<Graph, TargetError> {
    graph.rebuild(|rebuild, node| {
        if !is_foreign(node, caps) {
            return Ok(Some(rebuild.copy(node)?));
        }
        let operands = rebuild.operands(node)?;
        let value = node
            .op
            .decompose(&mut rebuild.graph, &operands, &node.name)?;
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(unsupported(
                graph,
                node,
                "it is composite but has no decomposition",
            )),
        }
    })
}

fn check(graph: &Graph, caps: &Capabilities) -> Result<(), TargetError> {
    for node in graph.nodes() {
        let shape = &graph.ty(node.result).shape;
        if shape.rank() > caps.max_rank {
            let (rank, max) = (shape.rank(), caps.max_rank);
            let reason = format!("the result has {rank} dimensions, the target takes {max}");
            return Err(unsupported(graph, node, reason));
        }
        if shape.has_batch() && !caps.symbolic_batch {
            let reason = "the batch is open; bind it to a size";
            return Err(unsupported(graph, node, reason));
        }
    }
    Ok(())
}

fn unsupported(graph: &Graph, node: &Node, reason: impl Into<String>) -> TargetError {
    TargetError::Unsupported {
        graph: graph.name().to_owned(),
        node: node.name.clone(),
        op: node.op.name(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Gelu, Silu};
    use snapc_ir::{DType, Op, Shape, TensorType};

    fn graph() -> Graph {
        let mut g = Graph::new("unet");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[3])));
        let y = g.add(Silu {}, &[x], "act").unwrap();
        let z = g.add(Gelu {}, &[y], "gate").unwrap();
        g.output("z", z);
        g
    }

    fn caps(native: fn(&Op) -> bool) -> Capabilities {
        Capabilities {
            native,
            symbolic_batch: true,
            max_rank: 5,
        }
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.nodes().iter().map(|n| n.op.name()).collect()
    }

    #[test]
    fn composites_that_are_not_native_are_decomposed() {
        let legal = legalize(&graph(), &caps(|op| matches!(op, Op::Gelu(_)))).unwrap();
        assert_eq!(names(&legal), ["sigmoid", "mul", "gelu"]);
        assert!(legal.nodes()[..2].iter().all(|n| n.name == "act"));
        let legal = legalize(&graph(), &caps(|_| false)).unwrap();
        assert!(legal.nodes().iter().all(|n| !n.op.is_composite()));
        let legal = legalize(&graph(), &caps(|_| true)).unwrap();
        assert_eq!(names(&legal), ["silu", "gelu"]);
    }

    #[test]
    fn every_composite_has_a_decomposition() {
        for example in Op::examples() {
            let mut g = Graph::new("g");
            let operands: Vec<_> = example
                .operands
                .iter()
                .enumerate()
                .map(|(i, ty)| g.input(format!("x{i}"), ty.clone()))
                .collect();
            let y = g.add(example.op.clone(), &operands, "y").unwrap();
            g.output("y", y);
            let mut caps = caps(|_| false);
            caps.max_rank = 8;
            let legal = legalize(&g, &caps).unwrap();
            assert!(!names(&legal).is_empty());
            assert_eq!(legal.ty(legal.outputs()[0].value), g.ty(y));
        }
    }

    #[test]
    fn rank_and_open_batch_are_refused_by_name() {
        let mut flat = caps(|_| true);
        flat.max_rank = 1;
        let error = legalize(&graph(), &flat).unwrap_err().to_string();
        let start = "graph 'unet', node 'act': silu is not supported by this target";
        assert!(error.starts_with(start), "{error}");
        let mut fixed = caps(|_| true);
        fixed.symbolic_batch = false;
        let error = legalize(&graph(), &fixed).unwrap_err().to_string();
        assert!(error.contains("the batch is open"), "{error}");
    }
}
