//! Keeping the values of graph outputs apart.

use std::collections::BTreeSet;

use snapc_ir::{Graph, ValueDef, ValueId};

/// The values that outputs give, in a graph and in the one rebuilt from it.
///
/// Targets name a value after the output it feeds. So an output keeps a node of its own: it is never an input or a
/// weight, and no two outputs share a value, unless that was so before.
pub(crate) struct OutputValues {
    old: BTreeSet<ValueId>,
    new: BTreeSet<ValueId>,
}

impl OutputValues {
    /// Those of the graph that is read.
    pub(crate) fn of(graph: &Graph) -> Self {
        OutputValues {
            old: graph.outputs().iter().map(|o| o.value).collect(),
            new: BTreeSet::new(),
        }
    }

    /// Whether an output gives this old value.
    pub(crate) fn contains(&self, old: ValueId) -> bool {
        self.old.contains(&old)
    }

    /// Whether `new`, of the new graph, may stand for the old value.
    pub(crate) fn may_replace(&self, graph: &Graph, old: ValueId, new: ValueId) -> bool {
        let is_node = matches!(graph.value(new).def, ValueDef::Node(_));
        !self.contains(old) || (is_node && !self.new.contains(&new))
    }

    /// Records that `new` stands for the old value.
    pub(crate) fn record(&mut self, old: ValueId, new: ValueId) {
        if self.contains(old) {
            self.new.insert(new);
        }
    }
}
