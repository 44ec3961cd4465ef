//! What is known when a graph is compiled: weights, and what movements and casts make of them.

use snapc_ir::{Dim, Graph, LazyTensor, Node, Op};

/// A tensor that is known, in the logical dimensions of its IR value.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    /// Name of the weight that it comes from.
    pub(super) name: String,
    /// The data.
    pub(super) tensor: LazyTensor,
}

/// The constants of a graph by value index. Weights that pass through movements and casts stay lazy, so that a graph in
/// which they stand as nodes has none of them at run time.
pub(super) fn constants(graph: &Graph) -> Vec<Option<Constant>> {
    let mut found = vec![None; graph.values().len()];
    for weight in graph.weights() {
        found[weight.value.index()] = Some(Constant {
            name: weight.name.clone(),
            tensor: weight.tensor.clone(),
        });
    }
    for node in graph.nodes() {
        let operand = node.operands.first().map(|v| &found[v.index()]);
        if let Some(Some(constant)) = operand {
            found[node.result.index()] = moved(node, constant);
        }
    }
    found
}

/// The constant after the node, when that is a movement or a cast between floats.
fn moved(node: &Node, constant: &Constant) -> Option<Constant> {
    let tensor = constant.tensor.clone();
    let tensor = match &node.op {
        Op::Cast(op) if op.to.is_float() && tensor.dtype().is_float() => tensor.cast(op.to),
        Op::Transpose(op) => tensor.permute(&op.perm),
        Op::Reshape(op) => {
            let fixed = op.shape.iter().copied().map(Dim::fixed);
            tensor.reshape(&fixed.collect::<Option<Vec<_>>>()?)
        }
        Op::Slice(op) => tensor.slice(op.axis, op.start, op.end),
        _ => return None,
    };
    let name = constant.name.clone();
    Some(Constant { name, tensor })
}
