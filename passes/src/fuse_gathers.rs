//! Finds gathers per image in gathers from a flattened batch.
//!
//! # What it does
//! Replaces the gather of rows `i · S + index[i]` from `x[N,S,C]`, flattened to `[N·S,C]`, by a gather at `index` with a
//! shared batch: torch writes `x[arange(N), index]` so, which pools the states of the text encoder. Nodes that go out of
//! use are dropped.
//!
//! # When it applies
//! When the offsets are the constants `0, S, 2S, …` and `index` is the result of an `arg_max`, so that it cannot reach
//! into the next image.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None: the same rows are taken.
//!
//! # Example
//! ```text
//! before: y = gather(reshape(x), add(index, [0, 4]))
//! after:  y = gather(x, index) {axis=1, batch_dims=1}
//! ```

use serde::Deserialize;
use snapc_ir::Graph;

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError};
use crate::recognize::{Pattern, gather, rewrite};

/// The composites and what finds them; each is tried at every node in this order.
const PATTERNS: &[(&str, Pattern)] = &[
    ("gather", gather::shared_batch),
];

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FuseGathers {}

impl Describe for FuseGathers {
    const NAME: &'static str = "fuse-gathers";
}

impl Pass for FuseGathers {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        rewrite(Self::NAME, graph, PATTERNS)
    }
}
