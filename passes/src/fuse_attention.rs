//! Finds attention in two products with a softmax between them.
//!
//! # What it does
//! Replaces `softmax(scale · q · kᵀ + mask) · v` over heads that are split off and joined again by one `attention` with
//! the number of heads and the scale. What only moves elements (reshape, transpose) is followed element by element, so
//! that any way to split and to join heads is found: four axes, images and heads in one axis, a single head that is never
//! split off, keys that come transposed. The scale is the product of all factors on queries, keys and logits, and a
//! quotient counts as its inverse. Operands that nowhere are rows `[N,L,C]` are made so by a transpose. Nodes that go out
//! of use are dropped.
//!
//! # When it applies
//! To graphs with fixed shapes, as read from files; the importer makes `attention` itself. The softmax must be over the
//! last axis, all factors scalar constants (one per head stays), and nothing else may read logits, weights or the
//! product.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! Better, if anything: a composite computes in f32 inside and rounds once, where the primitives round after each step.
//! In f32 the results differ by rounding only.
//!
//! # Example
//! ```text
//! before: q = transpose(reshape(q)); k = transpose(reshape(k)); v = transpose(reshape(v));
//!         w = softmax(mul(matmul(q, k), 0.125)); y = reshape(transpose(matmul(w, v)))
//! after:  y = attention(q, k, v) {heads=8, scale=0.125}
//! ```

use serde::Deserialize;
use snapc_ir::Graph;

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError};
use crate::recognize::{Pattern, attention, rewrite};

/// Heads that are split off and joined again.
const SPLIT: &[(&str, Pattern)] = &[("attention", attention::split_heads)];
/// What is left then: this would also match the inner part of attention with split heads.
const SINGLE: &[(&str, Pattern)] = &[("attention", attention::one_head)];

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FuseAttention {}

impl Describe for FuseAttention {
    const NAME: &'static str = "fuse-attention";
}

impl Pass for FuseAttention {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let split = rewrite(Self::NAME, graph, SPLIT)?;
        let latest = split.as_ref().map_or(graph, |change| &change.graph);
        let Some(mut change) = rewrite(Self::NAME, latest, SINGLE)? else {
            return Ok(split);
        };
        let counts = split.into_iter().chain([change.clone()]);
        let found = counts.flat_map(|c| c.counts).map(|(_, n)| n).sum();
        change.counts = vec![("attention", found)];
        Ok(Some(change))
    }
}
