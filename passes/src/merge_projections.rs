//! Makes the projections of attention that read the same value one linear layer.
//!
//! # What it does
//! Of the linear layers that give queries, keys and values to one `attention`, those with the same operand become one
//! whose weight has their rows one after the other, and slices take its result apart: query, key and value in
//! self-attention; key and value in cross-attention, where the query reads another value. Rows are joined when they are
//! written, no data is read.
//!
//! # When it applies
//! When each of the layers gives its result to that `attention` only, has a weight of its own, and either all have a bias
//! or none. It runs before weights are quantized. It is in no default pipeline: the operand is read once instead of two
//! or three times and one large product uses wide units better, but slices of the last axis are copies in every target.
//! It pays for a target whose attention reads the merged rows where they are.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None: every element is the same sum.
//!
//! # Example
//! ```text
//! before: q = linear(x, wq); k = linear(x, wk); v = linear(x, wv); y = attention(q, k, v)
//! after:  p = linear(x, [wq; wk; wv]); q = p[.., 0..c]; k = p[.., c..2c]; v = p[.., 2c..]; y = attention(q, k, v)
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use snapc_ir::ops::{Linear, Slice};
use snapc_ir::{BuildError, Graph, LazyTensor, Node, Op, Rebuild, ValueId, Weight};

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property};
use crate::uses::{Uses, add_named};

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeProjections {}

impl Describe for MergeProjections {
    const NAME: &'static str = "merge-projections";
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for MergeProjections {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let uses = Uses::of(graph);
        let live = graph.live_values();
        let attention = graph.nodes().iter().filter(|n| live[n.result.index()]);
        let groups: Vec<Vec<Projection<'_>>> =
            attention.flat_map(|n| groups(&uses, graph, n)).collect();
        if groups.is_empty() {
            return Ok(None);
        }
        let members = groups.iter().enumerate();
        let group_of: BTreeMap<ValueId, usize> = members
            .flat_map(|(i, group)| group.iter().map(move |p| (p.node.result, i)))
            .collect();
        let mut merged: Vec<Option<ValueId>> = vec![None; groups.len()];
        let rebuilt = graph.rebuild(|rebuild, node| {
            let Some(&index) = group_of.get(&node.result) else {
                return rebuild.copy(node).map(Some);
            };
            let group = &groups[index];
            let all = match merged[index] {
                Some(value) => value,
                None => *merged[index].insert(merge(rebuild, group)?),
            };
            slice(rebuild, group, node, all).map(Some)
        });
        let rebuilt = rebuilt.map_err(PassError::build(Self::NAME))?;
        let counts = vec![
            ("linear layers merged", group_of.len()),
            ("linear layers made", groups.len()),
        ];
        Ok(Some(Change::new(rebuilt, counts)))
    }
}

/// A linear layer in front of attention.
struct Projection<'a> {
    node: &'a Node,
    weight: &'a Weight,
    bias: Option<&'a Weight>,
}

impl<'a> Projection<'a> {
    fn of(uses: &Uses<'a>, node: &'a Node) -> Option<Self> {
        if !matches!(node.op, Op::Linear(_)) || !uses.is_read_once(node.result) {
            return None;
        }
        let bias = match node.operands.get(2) {
            Some(&bias) => Some(uses.own_weight(bias)?),
            None => None,
        };
        let weight = uses.own_weight(node.operands[1])?;
        Some(Projection { node, weight, bias })
    }

    fn columns(&self) -> usize {
        self.weight.tensor.shape()[0]
    }
}

/// The projections of an attention that can be merged with each other, in the order of its operands.
fn groups<'a>(uses: &Uses<'a>, graph: &'a Graph, attention: &Node) -> Vec<Vec<Projection<'a>>> {
    if !matches!(attention.op, Op::Attention(_)) {
        return Vec::new();
    }
    let mut groups: BTreeMap<(ValueId, bool), Vec<Projection<'a>>> = BTreeMap::new();
    for &value in &attention.operands[..3] {
        let node = graph.node_of(value);
        if let Some(projection) = node.and_then(|n| Projection::of(uses, n)) {
            let key = (projection.node.operands[0], projection.bias.is_some());
            groups.entry(key).or_default().push(projection);
        }
    }
    groups.into_values().filter(|g| g.len() > 1).collect()
}

/// Adds the layer that makes all results of a group side by side.
fn merge(rebuild: &mut Rebuild<'_>, group: &[Projection<'_>]) -> Result<ValueId, BuildError> {
    let first = &group[0];
    let name = joined_name(group);
    let x = rebuild.operand(first.node.operands[0])?;
    let rows = group.iter().map(|p| p.weight.tensor.clone()).collect();
    let is_parameter = group.iter().all(|p| p.weight.is_parameter);
    let weight = LazyTensor::concat(rows);
    let weight = add_named(
        &mut rebuild.graph,
        format!("{name}.weight"),
        weight,
        is_parameter,
    );
    let mut operands = vec![x, weight];
    let biases: Vec<LazyTensor> = group
        .iter()
        .filter_map(|p| p.bias.map(|b| b.tensor.clone()))
        .collect();
    if !biases.is_empty() {
        let bias = LazyTensor::concat(biases);
        let bias = add_named(&mut rebuild.graph, format!("{name}.bias"), bias, is_parameter);
        operands.push(bias);
    }
    rebuild.graph.add(Linear {}, &operands, name)
}

/// `block.attn1.to_q`, `block.attn1.to_k`, … become `block.attn1.to_q_to_k_…`.
fn joined_name(group: &[Projection<'_>]) -> String {
    let first = &group[0].node.name;
    let path = first.rfind('.').map_or("", |dot| &first[..=dot]);
    let last = |p: &Projection<'_>| {
        let name = &p.node.name;
        name.rsplit('.').next().unwrap_or(name).to_owned()
    };
    let parts: Vec<String> = group.iter().map(last).collect();
    format!("{path}{}", parts.join("_"))
}

/// The part of a merged result that a node stands for.
fn slice(
    rebuild: &mut Rebuild<'_>,
    group: &[Projection<'_>],
    node: &Node,
    all: ValueId,
) -> Result<ValueId, BuildError> {
    let before = group.iter().take_while(|p| p.node.result != node.result);
    let start = before.map(Projection::columns).sum();
    let size = rebuild.old().ty(node.operands[1]).shape.dims()[0];
    let slice = Slice {
        axis: rebuild.graph.ty(all).shape.rank() - 1,
        start,
        end: start + size.fixed().unwrap_or(0),
    };
    rebuild.graph.add(slice, &[all], node.name.clone())
}
