//! Makes a convolution of a concatenation the sum of convolutions of its parts.
//!
//! # What it does
//! `conv(concat(a, b), W)` becomes `conv(a, W[:, ..Ca]) + conv(b, W[:, Ca..])`, with the weight cut along its input
//! channels when it is written. Norms and activations in between are applied to each part: an activation always can be, a
//! GroupNorm when no group has channels of both parts. That is the concatenation with the skip connection in the UNet,
//! which then is never written.
//!
//! # When it applies
//! When the concatenation along the channels goes away altogether, that is, when everything that reads it are
//! convolutions with one group, GroupNorms and activations that can be split, down to the last one. Else nothing changes.
//! It runs before weights are quantized. The multiply-adds stay the same; what is won is the copy, what is lost an
//! addition per convolution, which the native target does inside the product and the others do not. In Stable Diffusion
//! v1.5 groups straddle the seam where widths are 1280+640 and 640+320.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! Rounding only: the sum is made in another order, and in f16 it is rounded once more.
//!
//! # Example
//! ```text
//! before: c = concat(a, b) {axis=1}; y = conv2d(silu(c), w, bias)
//! after:  y = add(conv2d(silu(a), w[:, ..4], bias), conv2d(silu(b), w[:, 4..]))
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use snapc_ir::ops::{Add, Concat, GroupNorm};
use snapc_ir::{BuildError, Graph, Node, Op, Rebuild, ValueId};

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property};
use crate::uses::{Skipped, Uses, add_named};

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConcatConvolution {}

impl Describe for SplitConcatConvolution {
    const NAME: &'static str = "split-concat-convolution";
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for SplitConcatConvolution {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let mut latest: Option<Graph> = None;
        let (mut concatenations, mut convolutions) = (0, 0);
        // A concatenation that another one read goes when that one is gone.
        loop {
            let current = latest.as_ref().unwrap_or(graph);
            let (plan, skipped) = Plan::of(current);
            if plan.concatenations.is_empty() {
                return Ok(latest.map(|graph| Change {
                    graph,
                    counts: vec![
                        ("concatenations removed", concatenations),
                        ("convolutions split", convolutions),
                    ],
                    notes: skipped.notes(),
                }));
            }
            concatenations += plan.concatenations.len();
            convolutions += plan.convolutions.len();
            let next = plan.carry_out(current);
            latest = Some(next.map_err(PassError::build(Self::NAME))?);
        }
    }
}

/// Where the parts of a concatenation of images along the channels begin and end: one more number than parts.
fn seams(graph: &Graph, node: &Node) -> Option<Vec<usize>> {
    let is_image = graph.ty(node.result).shape.rank() == 4;
    if node.op != (Concat { axis: 1 }).into() || !is_image || node.operands.len() < 2 {
        return None;
    }
    let mut seams = vec![0];
    for &part in &node.operands {
        let channels = graph.ty(part).shape.dims()[1].fixed()?;
        seams.push(seams.last()? + channels);
    }
    Some(seams)
}

/// What is split, by results, each with the seams of its channels.
#[derive(Default)]
struct Plan {
    concatenations: BTreeSet<ValueId>,
    /// Norms and activations.
    between: BTreeMap<ValueId, Vec<usize>>,
    convolutions: BTreeMap<ValueId, Vec<usize>>,
}

impl Plan {
    /// What can be done, and what was skipped.
    fn of(graph: &Graph) -> (Self, Skipped) {
        let uses = Uses::of(graph);
        let live = graph.live_values();
        let (mut plan, mut skipped) = (Plan::default(), Skipped::default());
        for node in graph.nodes().iter().filter(|n| live[n.result.index()]) {
            let Some(seams) = seams(graph, node) else {
                continue;
            };
            let mut found = Plan::default();
            match found.follow(&uses, graph, node.result, &seams) {
                Ok(()) => {
                    plan.concatenations.insert(node.result);
                    plan.convolutions.append(&mut found.convolutions);
                    plan.between.append(&mut found.between);
                }
                Err(reason) => skipped.add(reason, &node.name),
            }
        }
        (plan, skipped)
    }

    fn carry_out(&self, graph: &Graph) -> Result<Graph, BuildError> {
        let live = graph.live_values();
        let mut parts: BTreeMap<ValueId, Vec<ValueId>> = BTreeMap::new();
        graph.rebuild(|rebuild, node| {
            // What reads a concatenation without serving an output was not looked at.
            if !live[node.result.index()] {
                return Ok(None);
            }
            if self.concatenations.contains(&node.result) {
                parts.insert(node.result, rebuild.operands(node)?);
                return Ok(None);
            }
            if let Some(seams) = self.between.get(&node.result) {
                let split = split(rebuild, node, seams, &parts[&node.operands[0]])?;
                parts.insert(node.result, split);
                return Ok(None);
            }
            if let Some(seams) = self.convolutions.get(&node.result) {
                return sum(rebuild, node, seams, &parts[&node.operands[0]]).map(Some);
            }
            rebuild.copy(node).map(Some)
        })
    }

    /// Takes in everything that reads a value; an error says what cannot be split.
    fn follow(
        &mut self,
        uses: &Uses<'_>,
        graph: &Graph,
        value: ValueId,
        seams: &[usize],
    ) -> Result<(), String> {
        if uses.is_output(value) {
            return Err("an output gives it".to_owned());
        }
        for (reader, position) in uses.readers(value) {
            let known = |i: usize| {
                let weight = reader.operands.get(i).and_then(|&v| graph.weight_of(v));
                weight.is_some_and(|w| w.tensor.encoding().is_none())
            };
            match &reader.op {
                Op::Conv2d(op) if position == 0 && op.groups == 1 && known(1) => {
                    self.convolutions.insert(reader.result, seams.to_vec());
                    continue;
                }
                Op::GroupNorm(op) if position == 0 && known(1) && known(2) => {
                    let per_group = seams.last().map_or(0, |c| c / op.groups);
                    if seams.iter().any(|seam| !seam.is_multiple_of(per_group.max(1))) {
                        return Err("a group of a group_norm has channels of two parts".to_owned());
                    }
                }
                Op::Silu(_) | Op::Gelu(_) | Op::QuickGelu(_) | Op::Sigmoid(_) => {}
                op => return Err(format!("{} reads it", op.name())),
            }
            self.between.insert(reader.result, seams.to_vec());
            self.follow(uses, graph, reader.result, seams)?;
        }
        Ok(())
    }
}

/// A norm or activation on each part.
fn split(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    seams: &[usize],
    parts: &[ValueId],
) -> Result<Vec<ValueId>, BuildError> {
    let ranges = seams.iter().zip(&seams[1..]);
    let channels = seams[seams.len() - 1];
    let mut results = Vec::with_capacity(parts.len());
    for (&part, (&start, &end)) in parts.iter().zip(ranges) {
        let mut operands = vec![part];
        for &weight in &node.operands[1..] {
            operands.push(cut(rebuild, weight, 0, start, end));
        }
        let op = match &node.op {
            Op::GroupNorm(op) => GroupNorm {
                groups: (end - start) / (channels / op.groups),
                ..op.clone()
            }
            .into(),
            op => op.clone(),
        };
        results.push(rebuild.graph.add(op, &operands, node.name.clone())?);
    }
    Ok(results)
}

/// The sum of a convolution's parts; the first has the bias.
fn sum(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    seams: &[usize],
    parts: &[ValueId],
) -> Result<ValueId, BuildError> {
    let bias = node.operands.get(2).map(|&b| rebuild.operand(b)).transpose()?;
    let ranges = seams.iter().zip(&seams[1..]);
    let mut total = None;
    for (&part, (&start, &end)) in parts.iter().zip(ranges) {
        let weight = cut(rebuild, node.operands[1], 1, start, end);
        let mut operands = vec![part, weight];
        operands.extend(bias.filter(|_| total.is_none()));
        let graph = &mut rebuild.graph;
        let term = graph.add(node.op.clone(), &operands, node.name.clone())?;
        total = Some(match total {
            Some(sum) => graph.add(Add {}, &[sum, term], node.name.clone())?,
            None => term,
        });
    }
    Ok(total.expect("a concatenation has parts"))
}

/// Some of a weight's channels, under a name that says which.
fn cut(
    rebuild: &mut Rebuild<'_>,
    value: ValueId,
    axis: usize,
    start: usize,
    end: usize,
) -> ValueId {
    let weight = rebuild.old().weight_of(value).expect("the plan has known weights only");
    let tensor = weight.tensor.clone().slice(axis, start, end);
    let name = format!("{}.channels{start}", weight.name);
    add_named(&mut rebuild.graph, name, tensor, weight.is_parameter)
}
