//! Finds SiLU, quick GELU and GELU in their primitives.
//!
//! # What it does
//! Replaces `x · sigmoid(x)` by `silu`, `x · sigmoid(1.702 x)` by `quick_gelu`, and `x/2 · (1 + erf(x/√2))` by `gelu`,
//! with the factors in any order. Nodes that go out of use are dropped.
//!
//! # When it applies
//! To graphs read from files, since the importer makes composites itself. The constants must be those of the formula,
//! within a unit in the last place of the element type; the approximation of GELU by tanh is another function and stays.
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
//! before: s = sigmoid(x); y = mul(x, s)
//! after:  y = silu(x)
//! ```

use serde::Deserialize;
use snapc_ir::Graph;

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError};
use crate::recognize::{Pattern, activation, rewrite};

/// The composites and what finds them; each is tried at every node in this order.
const PATTERNS: &[(&str, Pattern)] = &[
    ("silu", activation::silu),
    ("quick_gelu", activation::quick_gelu),
    ("gelu", activation::gelu),
];

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FuseActivations {}

impl Describe for FuseActivations {
    const NAME: &'static str = "fuse-activations";
}

impl Pass for FuseActivations {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        rewrite(Self::NAME, graph, PATTERNS)
    }
}
