//! The graph without the channels that go.

use std::collections::BTreeSet;

use snapc_ir::ops::{Attention, GroupNorm, Reshape};
use snapc_ir::{BuildError, Dim, Graph, LazyTensor, Node, Op, Rebuild, Transform, ValueId, Weight};

use super::selection::Selection;

/// The graph with the kept channels only, node for node. Weights are selected when they are written.
///
/// # Errors
/// When an operator does not accept what is left, which would be a fault of the tracing.
pub(super) fn thinned(graph: &Graph, selection: &Selection) -> Result<Graph, BuildError> {
    let mut carried = BTreeSet::new();
    graph.rebuild(|rebuild, node| {
        for &operand in &node.operands {
            if let (Some(weight), true) = (graph.weight_of(operand), carried.insert(operand)) {
                carry_over(rebuild, weight, selection);
            }
        }
        let operands = rebuild.operands(node)?;
        let op = thinned_op(graph, node, selection);
        rebuild.graph.add(op, &operands, node.name.clone()).map(Some)
    })
}

/// Adds a weight's kept channels to the new graph.
fn carry_over(rebuild: &mut Rebuild<'_>, weight: &Weight, selection: &Selection) {
    let axes = 0..weight.tensor.shape().len();
    let thinned = axes.clone().any(|axis| selection.kept(weight.value, axis).is_some());
    if !thinned {
        return;
    }
    let select = |tensor: LazyTensor, axis| match selection.kept(weight.value, axis) {
        Some(kept) => tensor.select(axis, kept),
        None => tensor,
    };
    let tensor = axes.fold(weight.tensor.clone(), select);
    let name = weight.name.clone();
    let value = if weight.is_parameter {
        rebuild.graph.parameter(name, tensor)
    } else {
        rebuild.graph.constant(name, tensor)
    };
    rebuild.bind(weight.value, value);
}

fn thinned_op(graph: &Graph, node: &Node, selection: &Selection) -> Op {
    let kept = |axis| selection.kept(node.result, axis).map(<[usize]>::len);
    match &node.op {
        Op::GroupNorm(op) => {
            let channels = graph.ty(node.result).shape.dims()[1].fixed().unwrap_or(0);
            let groups = kept(1).map_or(op.groups, |n| n * op.groups / channels.max(1));
            let epsilon = op.epsilon;
            GroupNorm { groups, epsilon }.into()
        }
        Op::Reshape(op) => {
            let dims = op.shape.iter().enumerate();
            let shape = dims.map(|(axis, &dim)| kept(axis).map_or(dim, Dim::Fixed));
            let shape = shape.collect();
            Reshape { shape }.into()
        }
        other => other.clone(),
    }
}

/// Whether channels were selected in the graph before.
pub(super) fn is_thinned(graph: &Graph) -> bool {
    let selects = |t: &Transform| matches!(t, Transform::Select { .. });
    let mut transforms = graph.weights().iter().flat_map(|w| w.tensor.transforms());
    transforms.any(selects)
}

/// One over the square root of the channels of a head: the scale that diffusers' `Attention` derives from its width.
fn derived_scale(channels: usize) -> f32 {
    (1.0 / (channels as f64).sqrt()) as f32
}

/// The graph in which attentions whose inner channels were thinned out have the scale that diffusers derives from what is
/// left of them; the projection of the queries makes up for it. Also gives how many there were.
///
/// # Errors
/// Never for a graph of [`thinned`].
pub(super) fn with_derived_scales(
    original: &Graph,
    thinned: &Graph,
) -> Result<(Graph, usize), BuildError> {
    let mut folds: Vec<(ValueId, f32)> = Vec::new();
    let mut scales: Vec<(ValueId, f32)> = Vec::new();
    let uses = thinned.use_counts();
    for (before, after) in original.nodes().iter().zip(thinned.nodes()) {
        let Op::Attention(op) = &after.op else {
            continue;
        };
        let channels = |g: &Graph, q: ValueId| g.ty(q).shape.dims()[2].fixed().unwrap_or(1);
        let old = channels(original, before.operands[0]);
        let new = channels(thinned, after.operands[0]);
        if old == new || op.heads != 1 || op.scale != derived_scale(old) {
            continue;
        }
        let projection = thinned.node_of(after.operands[0]);
        let Some(projection) = projection.filter(|n| matches!(n.op, Op::Linear(_))) else {
            continue;
        };
        let weights = &projection.operands[1..];
        let own = |w: &ValueId| thinned.weight_of(*w).is_some() && uses[w.index()] == 1;
        if uses[projection.result.index()] == 1 && weights.iter().all(own) {
            let factor = (new as f64 / old as f64).sqrt() as f32;
            folds.extend(weights.iter().map(|&w| (w, factor)));
            scales.push((after.result, derived_scale(new)));
        }
    }
    let graph = thinned.rebuild(|rebuild, node| {
        for &operand in &node.operands {
            let fold = folds.iter().find(|(w, _)| *w == operand);
            if let (Some((_, factor)), Some(weight)) = (fold, thinned.weight_of(operand)) {
                let factors = vec![*factor; weight.tensor.shape()[0]];
                let tensor = weight.tensor.clone().scale(0, &factors);
                let value = rebuild.graph.parameter(weight.name.clone(), tensor);
                rebuild.bind(operand, value);
            }
        }
        let scale = scales.iter().find(|(value, _)| *value == node.result);
        let operands = rebuild.operands(node)?;
        let op = match (&node.op, scale) {
            (Op::Attention(op), Some(&(_, scale))) => {
                let heads = op.heads;
                Attention { heads, scale }.into()
            }
            (op, _) => op.clone(),
        };
        rebuild.graph.add(op, &operands, node.name.clone()).map(Some)
    })?;
    Ok((graph, scales.len()))
}
