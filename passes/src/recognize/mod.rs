//! Composites found again in a graph of primitives: the matching behind the passes `fuse-activations`, `fuse-attention`,
//! `fuse-gathers`, `fuse-linears` and `fuse-norms`.
//!
//! A pattern is local and exact: the composite computes the same function, and what does not fit stays as it is. Patterns
//! look at graphs with fixed shapes, as readers of files make them.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod gather;
pub(crate) mod linear;
mod matcher;
mod movement;
pub(crate) mod norm;

use std::collections::BTreeMap;

use snapc_ir::{BuildError, Graph, Node, Rebuild, ValueId};

use crate::pass::{Change, PassContext, PassError};
use crate::pipeline::Pipeline;

pub(crate) use self::matcher::Matcher;

/// The named pipeline that finds all composites of a graph that was read from a file.
const PIPELINE: &str = "recognize";

/// Gives the value that stands for a node's result, when the node is the last of the pattern. What it replaces is left
/// behind without a use.
pub(crate) type Pattern =
    fn(&Matcher<'_>, &Node, &mut Rebuild<'_>) -> Result<Option<ValueId>, BuildError>;

/// The graph with every pattern replaced by its composite, until no pattern fits any more; patterns are tried in order at
/// every node, and each comes with the name of what it makes, for the report. New nodes carry the name of the pattern's
/// last node. Nodes and weights that go out of use are dropped. `None` when nothing fits.
pub(crate) fn rewrite(
    pass: &'static str,
    graph: &Graph,
    patterns: &[(&'static str, Pattern)],
) -> Result<Option<Change>, PassError> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut latest = None;
    while let Some(next) = sweep(latest.as_ref().unwrap_or(graph), patterns, &mut counts)
        .map_err(PassError::build(pass))?
    {
        latest = Some(next);
    }
    Ok(latest.map(|graph| Change::new(graph, counts.into_iter().collect())))
}

fn sweep(
    graph: &Graph,
    patterns: &[(&'static str, Pattern)],
    counts: &mut BTreeMap<&'static str, usize>,
) -> Result<Option<Graph>, BuildError> {
    let live = graph.live_values();
    let matcher = Matcher::new(graph, &live);
    let mut found = false;
    let rewritten = graph.rebuild(|rebuild, node| {
        if live[node.result.index()] {
            for (name, pattern) in patterns {
                if let Some(value) = pattern(&matcher, node, rebuild)? {
                    found = true;
                    *counts.entry(name).or_default() += 1;
                    return Ok(Some(value));
                }
            }
        }
        rebuild.copy(node).map(Some)
    })?;
    if !found {
        return Ok(None);
    }
    let live = rewritten.live_values();
    let pruned = rewritten.rebuild(|rebuild, node| {
        let kept = live[node.result.index()].then(|| rebuild.copy(node));
        kept.transpose()
    });
    pruned.map(Some)
}

/// The composites of a graph that was read from a file: what the pipeline `recognize` makes of it.
///
/// # Errors
/// Only for a graph that breaks the invariants of [`snapc_ir::verify`].
pub fn recognize(graph: &Graph) -> Result<Graph, PassError> {
    let pipeline: Pipeline = PIPELINE.parse().expect("a named pipeline is possible");
    let context = PassContext::default();
    let mut latest = None;
    for pass in pipeline.passes() {
        if let Some(change) = pass.run(latest.as_ref().unwrap_or(graph), &context)? {
            latest = Some(change.graph);
        }
    }
    Ok(latest.unwrap_or_else(|| graph.clone()))
}

#[cfg(test)]
mod tests;
