//! Inputs on which passes run graphs to see what values they take.

use std::collections::BTreeMap;

use snapc_ir::Tensor;

/// Inputs of graphs, by graph name: each sample gives every input of the graph by name.
///
/// Passes run graphs with [`snapc_ir::eval`]; samples are for batch 1 or more, and few: one run of a full-size UNet takes the
/// evaluator half a minute.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    samples: BTreeMap<String, Vec<BTreeMap<String, Tensor>>>,
}

impl Calibration {
    /// Adds a sample for a graph.
    pub fn add(&mut self, graph: impl Into<String>, inputs: BTreeMap<String, Tensor>) {
        self.samples.entry(graph.into()).or_default().push(inputs);
    }

    /// The samples for a graph; none when there are none.
    pub fn samples(&self, graph: &str) -> &[BTreeMap<String, Tensor>] {
        self.samples.get(graph).map_or(&[], Vec::as_slice)
    }
}
