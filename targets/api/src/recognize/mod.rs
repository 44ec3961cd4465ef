//! Composites that a reader finds again in a graph of primitives.
//!
//! Exporters write `silu`, `gelu`, norms, linear layers and attention as a handful of primitives each; a runtime has a
//! kernel for the whole. [`recognize`] rewrites a graph to a graph, whatever format it was read from. A pattern is
//! local and exact: the composite computes the same function, so that what does not fit stays as it is.
//!
//! | Pattern | Becomes |
//! |---|---|
//! | `x · sigmoid(x)`, `x · sigmoid(1.702 x)`, `x/2 · (1 + erf(x/√2))` | `silu`, `quick_gelu`, `gelu` |
//! | product with a constant matrix, then addition of a constant vector | `linear` |
//! | normalization over the last axis or over groups of channels, then scale and bias | `layer_norm`, `group_norm` |
//! | `softmax(scale · q · kᵀ + mask) · v` over split heads | `attention` |
//! | rows of a flattened batch, taken at `i · rows + index[i]` | `gather` with a shared batch |
//! | `x · 1`, `x / 1`, `x + 0` | `x` |

mod activation;
mod attention;
mod gather;
mod identity;
mod linear;
mod matcher;
mod movement;
mod norm;

use snapc_ir::{BuildError, Graph, Node, Rebuild, ValueId};

use self::matcher::Matcher;

/// Gives the value that stands for a node's result, when the node is the last of the pattern. What it replaces is left
/// behind without a use.
type Pattern = fn(&Matcher<'_>, &Node, &mut Rebuild<'_>) -> Result<Option<ValueId>, BuildError>;

/// Patterns that are tried in this order at every node.
const PATTERNS: &[Pattern] = &[
    identity::identity,
    activation::silu,
    activation::quick_gelu,
    activation::gelu,
    norm::group_norm,
    norm::layer_norm,
    attention::split_heads,
    gather::shared_batch,
    linear::with_bias,
    linear::product,
];

/// Attention without split heads would also match the inner part of one with them, so it comes after.
const LATE_PATTERNS: &[Pattern] = &[attention::one_head];

/// The graph with every pattern replaced by its composite; new nodes carry the name of the pattern's last node. Nodes
/// and weights without a use are dropped.
///
/// # Errors
/// Only for a graph that breaks the invariants of [`snapc_ir::verify`].
pub fn recognize(graph: &Graph) -> Result<Graph, BuildError> {
    let graph = rewrite(graph, PATTERNS)?;
    rewrite(&graph, LATE_PATTERNS)
}

fn rewrite(graph: &Graph, patterns: &[Pattern]) -> Result<Graph, BuildError> {
    let matcher = Matcher::new(graph);
    let rewritten = graph.rebuild(|rebuild, node| {
        for pattern in patterns {
            if let Some(value) = pattern(&matcher, node, rebuild)? {
                return Ok(Some(value));
            }
        }
        rebuild.copy(node).map(Some)
    })?;
    prune(&rewritten)
}

/// The graph without nodes and weights that no output depends on.
fn prune(graph: &Graph) -> Result<Graph, BuildError> {
    let live = graph.live_values();
    graph.rebuild(|rebuild, node| {
        let kept = live[node.result.index()].then(|| rebuild.copy(node));
        kept.transpose()
    })
}

#[cfg(test)]
mod tests;
