//! Cost model: parameters, multiply-adds, bytes, peak activation memory, all for batch 1. What exceeds a `u64` counts
//! as its largest value.

use std::collections::BTreeMap;

use crate::graph::{Graph, Node, ValueDef, ValueId};
use crate::ops::Op;
use crate::types::TensorType;

/// Cost of a graph or of a part of one, for batch 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Trained elements; a weight used twice counts once.
    pub parameters: u64,
    /// Bytes of all weights and constants, as typed in the graph, or of their codes and what these stand for.
    pub weight_bytes: u64,
    /// Multiply-adds, attention products included; bias and elementwise work are not counted.
    pub macs: u64,
    /// Multiply-adds of QKᵀ and of the product with V alone.
    pub attention_macs: u64,
    /// Bytes of all node results.
    pub activation_bytes: u64,
    /// Largest sum of bytes of values that are live at one node, when nodes run in order and nothing runs in place.
    pub peak_activation_bytes: u64,
    /// Number of nodes.
    pub nodes: u64,
}

fn bytes(ty: &TensorType) -> u64 {
    ty.bytes_per_batch().map_or(u64::MAX, |b| b as u64)
}

/// Whether a matrix product has two computed operands, which in these networks only attention has.
fn is_attention(graph: &Graph, node: &Node) -> bool {
    let computed = |v: &ValueId| !matches!(graph.value(*v).def, ValueDef::Weight(_));
    match node.op {
        Op::Attention(_) => true,
        Op::MatMul(_) => node.operands.iter().all(computed),
        _ => false,
    }
}

fn add_node(graph: &Graph, node: &Node, cost: &mut Cost) {
    let types: Vec<&TensorType> = node.operands.iter().map(|&v| graph.ty(v)).collect();
    let result = graph.ty(node.result);
    let macs = node.op.macs(&types, result);
    cost.nodes += 1;
    cost.macs = cost.macs.saturating_add(macs);
    if is_attention(graph, node) {
        cost.attention_macs = cost.attention_macs.saturating_add(macs);
    }
    cost.activation_bytes = cost.activation_bytes.saturating_add(bytes(result));
}

fn add_weight(graph: &Graph, value: ValueId, seen: &mut [bool], cost: &mut Cost) {
    let Some(weight) = graph.weight_of(value) else {
        return;
    };
    if !std::mem::replace(&mut seen[value.index()], true) {
        let bytes = weight.tensor.stored_bytes_len() as u64;
        cost.weight_bytes = cost.weight_bytes.saturating_add(bytes);
        if weight.is_parameter {
            let elements = weight.tensor.elements() as u64;
            cost.parameters = cost.parameters.saturating_add(elements);
        }
    }
}

/// Cost of a whole graph.
pub fn graph_cost(graph: &Graph) -> Cost {
    let mut cost = Cost::default();
    let mut seen = vec![false; graph.values().len()];
    for node in graph.nodes() {
        add_node(graph, node, &mut cost);
        for &v in &node.operands {
            add_weight(graph, v, &mut seen, &mut cost);
        }
    }
    cost.peak_activation_bytes = peak(graph);
    cost
}

/// Cost per block: nodes are grouped by the first `depth` parts of their dotted names, in order of first appearance by
/// name. A weight counts in the first block that uses it; the peak is that of the values live while the block runs.
pub fn block_costs(graph: &Graph, depth: usize) -> BTreeMap<String, Cost> {
    let mut blocks: BTreeMap<String, Cost> = BTreeMap::new();
    let mut seen = vec![false; graph.values().len()];
    let live = live_bytes(graph);
    for (node, live) in graph.nodes().iter().zip(live) {
        let name: Vec<&str> = node.name.split('.').take(depth).collect();
        let cost = blocks.entry(name.join(".")).or_default();
        add_node(graph, node, cost);
        for &v in &node.operands {
            add_weight(graph, v, &mut seen, cost);
        }
        cost.peak_activation_bytes = cost.peak_activation_bytes.max(live);
    }
    blocks
}

fn peak(graph: &Graph) -> u64 {
    live_bytes(graph).into_iter().max().unwrap_or(0)
}

/// Bytes of the values that are live while each node runs: its operands, its result, and all that is used later.
fn live_bytes(graph: &Graph) -> Vec<u64> {
    let is_weight = |v: ValueId| matches!(graph.value(v).def, ValueDef::Weight(_));
    let mut uses = graph.use_counts();
    // Wider than the sizes, so that what is subtracted later has been counted in full.
    let bytes = |v: ValueId| u128::from(bytes(graph.ty(v)));
    let mut live: u128 = graph.inputs().iter().map(|i| bytes(i.value)).sum();
    let mut all = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        live += bytes(node.result);
        all.push(u64::try_from(live).unwrap_or(u64::MAX));
        for &v in &node.operands {
            uses[v.index()] -= 1;
            if uses[v.index()] == 0 && !is_weight(v) {
                live -= bytes(v);
            }
        }
        if uses[node.result.index()] == 0 {
            live -= bytes(node.result);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Linear, MatMul, Silu, Transpose};
    use crate::{DType, LazyTensor, Shape};

    #[test]
    fn a_small_graph_costs_what_hand_counting_says() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[3, 4])));
        let w = g.parameter("w", LazyTensor::absent(DType::F32, &[5, 4]));
        let a = g.add(Linear {}, &[x, w], "block.0.a").unwrap();
        let b = g.add(Linear {}, &[x, w], "block.1.b").unwrap();
        let t = g
            .add(
                Transpose {
                    perm: vec![0, 2, 1],
                },
                &[b],
                "block.1.t",
            )
            .unwrap();
        let p = g.add(MatMul {}, &[a, t], "block.1.p").unwrap();
        let y = g.add(Silu {}, &[p], "out").unwrap();
        g.output("y", y);
        let cost = graph_cost(&g);
        assert_eq!(cost.parameters, 20);
        assert_eq!(cost.weight_bytes, 80);
        // two projections of 3x4 by 4x5, one product of 3x5 by 5x3
        assert_eq!(cost.macs, 60 + 60 + 45);
        assert_eq!(cost.attention_macs, 45);
        assert_eq!(cost.activation_bytes, 4 * (15 + 15 + 15 + 9 + 9));
        // x is freed after b; a, b and t are live together while t runs
        assert_eq!(cost.peak_activation_bytes, 4 * 45);
        let blocks = block_costs(&g, 2);
        assert_eq!(blocks["block.0"].parameters, 20);
        assert_eq!(blocks["block.1"].parameters, 0);
        assert_eq!(blocks["block.1"].macs, 105);
    }

    #[test]
    fn sums_beyond_a_u64_stay_at_its_largest_value() {
        let mut g = Graph::new("g");
        let ty = |sides: &[usize]| TensorType::new(DType::F32, Shape::batched(sides));
        let huge = g.input("huge", ty(&[1 << 61]));
        let (a, b) = (ty(&[1 << 20, 1 << 21]), ty(&[1 << 21, 1 << 20]));
        let (a, b) = (g.input("a", a), g.input("b", b));
        let small = g.input("small", ty(&[4]));
        let once = g.add(Silu {}, &[huge], "once").unwrap();
        g.add(Silu {}, &[once], "twice").unwrap();
        // 2^61 multiply-adds each
        for _ in 0..8 {
            g.add(MatMul {}, &[a, b], "product").unwrap();
        }
        let last = g.add(Silu {}, &[small], "last").unwrap();
        g.output("y", last);
        let cost = graph_cost(&g);
        assert_eq!(cost.activation_bytes, u64::MAX);
        assert_eq!(cost.peak_activation_bytes, u64::MAX);
        assert_eq!((cost.macs, cost.attention_macs), (u64::MAX, u64::MAX));
        // Only the small values are left, whatever went before.
        assert_eq!(block_costs(&g, 1)["last"].peak_activation_bytes, 32);
    }
}
