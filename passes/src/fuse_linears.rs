//! Finds linear layers in products with constant matrices.
//!
//! # What it does
//! Replaces a product with a constant matrix by `linear`, together with the constant vector that is added to it, if there
//! is one. The matrix is transposed when it is written. Nodes that go out of use are dropped.
//!
//! # When it applies
//! To a `matmul` whose second operand is a weight of two dimensions. The vector must have one element per column and the
//! product no other user.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None beyond rounding: the bias is added before the sum is rounded to the element type.
//!
//! # Example
//! ```text
//! before: p = matmul(x, w); y = add(p, b)
//! after:  y = linear(x, wᵀ, b)
//! ```

use serde::Deserialize;
use snapc_ir::Graph;

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError};
use crate::recognize::{Pattern, linear, rewrite};

/// The composites and what finds them; each is tried at every node in this order.
const PATTERNS: &[(&str, Pattern)] = &[
    ("linear", linear::with_bias),
    ("linear", linear::product),
];

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FuseLinears {}

impl Describe for FuseLinears {
    const NAME: &'static str = "fuse-linears";
}

impl Pass for FuseLinears {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        rewrite(Self::NAME, graph, PATTERNS)
    }
}
