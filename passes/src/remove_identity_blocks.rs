//! Removes blocks of the UNet that a plan names or that provably change nothing, and duplicates others by plan.
//!
//! # What it does
//! *By plan*, in the graph `unet`: a block that the plan removes becomes the identity, so that what follows it takes what
//! it took. A ResNet of an up stage takes a skip besides; it gives what came from the block before, and its skip is no
//! longer needed. It can go only together with the ResNet of the layer that made the skip, so that diffusers' order of
//! blocks still describes the network; the attention of that layer may stay. A block that the plan duplicates gets a copy
//! right behind it. The copy's weights are parameters of their own with equal values, under the next free number of the
//! stage: behind `up_blocks.1.attentions.0` of a stage with three attentions stands `up_blocks.1.attentions.3`. Numbers of
//! removed blocks are not given again.
//!
//! *By proof*, in every graph: a sum with a residual branch becomes the other operand when the branch ends in a convolution or
//! linear layer whose weight and bias are all zero, whatever moves follow. A spatial transformer with zero `proj_out` goes
//! that way. Moves that cancel and factors of one are the work of `remove-no-ops`.
//!
//! Nodes and weights that nothing needs any more go as well.
//!
//! # When it applies
//! By plan to networks of diffusers' names, before passes that fuse blocks. A plan that names a block which is not there,
//! changes the type of its input or leaves a skip over is refused with the reason for each entry and, for skips, the pairs that
//! can go. A plan that has been carried out is recognised by its copies; one without copies is refused the second
//! time, since its blocks are gone.
//!
//! By proof to any graph with data. Weights are read only when import has not recorded their largest magnitude.
//!
//! # Options
//! `plan`: the name of a plan, or `{"remove": [BLOCK, ...], "duplicate": [BLOCK, ...]}` with diffusers' names of blocks; by
//! default none. `snapfusion` is the only name: SD v1.5 to the efficient UNet of SnapFusion (arXiv 2306.00980, appendix,
//! table 3), 759.33 M parameters.
//!
//! # Effect on accuracy
//! By proof none, as long as what enters the branch is finite; only the sign of a zero may change. A plan makes another network,
//! which is equal to diffusers' without those blocks and has to be trained for it.
//!
//! # Example
//! ```text
//! before: h = conv2d(x, 0, 0) "b.conv2"; y = add(x, h) "b"; z = silu(y)
//! after:  z = silu(x)
//! ```

mod network;
mod plan;
mod proof;
mod rewrite;

use serde::Deserialize;
use snapc_ir::{BuildError, Graph};

use self::network::Network;
pub use self::plan::{BlockKind, BlockName, NAMED_PLANS, NamedPlan, Plan, PlanError, Stage};
use self::proof::{Stop, remove_zero_branches};
use self::rewrite::{Planned, carry_out, is_carried_out, obstacles};
use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError};

/// The graph that plans are for.
const UNET: &str = "unet";

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoveIdentityBlocks {
    /// What goes and what is duplicated.
    pub plan: Option<Plan>,
}

impl Describe for RemoveIdentityBlocks {
    const NAME: &'static str = "remove-identity-blocks";
}

impl Pass for RemoveIdentityBlocks {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let build = PassError::build(Self::NAME);
        let planned = match &self.plan {
            Some(plan) if graph.name() == UNET => self.carry_out(plan, graph)?,
            _ => None,
        };
        let before = planned.as_ref().map_or(graph, |p| &p.graph);
        let proven =
            remove_zero_branches(before, context.cancelled).map_err(|stop| match stop {
                Stop::Build(error) => build(error),
                Stop::Cancelled => PassError::Cancelled,
            })?;
        if planned.is_none() && proven.projections.is_empty() {
            return Ok(None);
        }
        let mut notes = planned.map_or_else(Vec::new, |p| p.notes);
        let plan = self.plan.as_ref().filter(|_| !notes.is_empty());
        let (removed, duplicated) =
            plan.map_or((0, 0), |p| (p.remove().len(), p.duplicate().len()));
        let branches = proven.projections.len();
        let proofs = proven.projections.into_iter();
        notes.extend(
            proofs.map(|name| {
                format!("removed the branch that ends in {name}: its weights are zero")
            }),
        );
        let graph = without_dead_nodes(&proven.graph).map_err(build)?;
        let counts = vec![
            ("blocks removed", removed),
            ("blocks duplicated", duplicated),
            ("zero branches removed", branches),
        ];
        Ok(Some(Change {
            graph,
            counts,
            notes,
        }))
    }
}

impl RemoveIdentityBlocks {
    /// The graph after the plan; `None` when there is nothing to do.
    fn carry_out(&self, plan: &Plan, graph: &Graph) -> Result<Option<Planned>, PassError> {
        let network = Network::of(graph);
        if *plan == Plan::default() || is_carried_out(plan, &network) {
            return Ok(None);
        }
        let reasons = obstacles(plan, &network);
        if !reasons.is_empty() {
            return Err(PassError::Refused {
                pass: Self::NAME,
                graph: graph.name().to_owned(),
                reason: format!("the plan does not fit:\n  {}", reasons.join("\n  ")),
            });
        }
        let planned = carry_out(plan, &network).map_err(PassError::build(Self::NAME))?;
        Ok(Some(planned))
    }
}

fn without_dead_nodes(graph: &Graph) -> Result<Graph, BuildError> {
    let live = graph.live_values();
    graph.rebuild(|rebuild, node| match live[node.result.index()] {
        true => rebuild.copy(node).map(Some),
        false => Ok(None),
    })
}

#[cfg(test)]
mod tests;
