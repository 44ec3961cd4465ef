//! Finds layer and group normalization in their primitives.
//!
//! # What it does
//! Replaces `(x - mean) / √(var + ε) · scale + bias` by `layer_norm` when the mean is over the last axis, and by
//! `group_norm` when it is over groups of channels that a reshape makes, which is how `torch.onnx` writes
//! `torch.nn.GroupNorm`, with or without `InstanceNormalization` in the middle. Nodes that go out of use are dropped.
//!
//! # When it applies
//! To graphs with fixed shapes, as read from files. Scale and bias must be constants, one element per channel.
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
//! before: m = reduce_mean(x); c = sub(x, m); v = reduce_mean(mul(c, c)); n = div(c, sqrt(add(v, 1e-5)));
//!         y = add(mul(n, scale), bias)
//! after:  y = layer_norm(x, scale, bias)
//! ```

use serde::Deserialize;
use snapc_ir::Graph;

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError};
use crate::recognize::{Pattern, norm, rewrite};

/// The composites and what finds them; each is tried at every node in this order.
const PATTERNS: &[(&str, Pattern)] = &[
    ("group_norm", norm::group_norm),
    ("layer_norm", norm::layer_norm),
];

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FuseNorms {}

impl Describe for FuseNorms {
    const NAME: &'static str = "fuse-norms";
}

impl Pass for FuseNorms {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        rewrite(Self::NAME, graph, PATTERNS)
    }
}
