//! Least-squares correction of the layers that read thinned channels (He, Zhang and Sun, *Channel Pruning for Accelerating
//! Very Deep Neural Networks*, ICCV 2017, sections 3.1 and 3.2).
//!
//! The original and the thinned graph run side by side, node by node. At every layer that reads thinned channels, its matrix
//! and bias become those that bring its results, from the thinned and so far corrected network, nearest to the original's.
//! Where the result is added to a value that is known already, the error of that value is made up for as well.

use std::collections::BTreeMap;

use snapc_ir::eval::EvalError;
use snapc_ir::{Graph, LazyTensor, Tensor, ValueId};

use super::lockstep::Lockstep;
use super::outcome::output_notes;
use super::selection::Selection;
use crate::pass::{PassContext, PassError};

/// What was corrected.
pub(super) struct Correction {
    /// The thinned graph with corrected weights.
    pub(super) graph: Graph,
    /// How many layers were corrected.
    pub(super) layers: usize,
    /// One line per layer, and one per output of the graph.
    pub(super) notes: Vec<String>,
}

/// Corrects the thinned graph on samples of the graph's inputs. `memory` is how many bytes the values of both graphs may
/// take: as many samples go on as fit, one at least.
///
/// # Errors
/// When a sample does not fit the graph, a weight has no data, or the run was cancelled.
pub(super) fn corrected(
    (original, thinned): (&Graph, &Graph),
    selection: &Selection,
    samples: &[BTreeMap<String, Tensor>],
    memory: u64,
    pass: &'static str,
    context: &PassContext<'_>,
) -> Result<Correction, PassError> {
    let failed = |source: EvalError| PassError::Calibration {
        pass,
        source: Box::new(source),
    };
    let mut lockstep = Lockstep::new((original, thinned), selection, samples).map_err(failed)?;
    let live = live_bytes(original, thinned);
    for (i, live) in live.into_iter().enumerate() {
        if (context.cancelled)() {
            return Err(PassError::Cancelled);
        }
        let fitting = usize::try_from(memory / live.max(1)).unwrap_or(usize::MAX);
        lockstep.truncate(fitting.max(1));
        lockstep.step(i).map_err(failed)?;
    }
    let Lockstep {
        original_run,
        thinned_run,
        corrected,
        layers,
        mut notes,
        ..
    } = lockstep;
    notes.extend(output_notes(thinned, samples, original_run, thinned_run).map_err(failed)?);
    let graph = with_weights(thinned, &corrected).map_err(PassError::build(pass))?;
    Ok(Correction {
        graph,
        layers,
        notes,
    })
}

/// The graph with other elements for some weights.
fn with_weights(
    graph: &Graph,
    weights: &BTreeMap<ValueId, LazyTensor>,
) -> Result<Graph, snapc_ir::BuildError> {
    graph.rebuild(|rebuild, node| {
        for operand in &node.operands {
            if let (Some(tensor), Some(weight)) = (weights.get(operand), graph.weight_of(*operand)) {
                let value = rebuild.graph.parameter(weight.name.clone(), tensor.clone());
                rebuild.bind(*operand, value);
            }
        }
        rebuild.copy(node).map(Some)
    })
}

/// Bytes per unit of batch of the values that are needed while each node runs, of both graphs together.
fn live_bytes(original: &Graph, thinned: &Graph) -> Vec<u64> {
    let of = |graph: &Graph| -> Vec<u64> {
        let bytes = |v: ValueId| match graph.weight_of(v) {
            Some(_) => 0,
            None => graph.ty(v).bytes_per_batch().map_or(u64::MAX, |b| b as u64),
        };
        let mut uses = graph.use_counts();
        let mut live: u64 = 0;
        let mut all = Vec::with_capacity(graph.nodes().len());
        for input in graph.inputs() {
            live = live.saturating_add(bytes(input.value));
        }
        for node in graph.nodes() {
            live = live.saturating_add(bytes(node.result));
            all.push(live);
            for &v in &node.operands {
                uses[v.index()] -= 1;
                if uses[v.index()] == 0 {
                    live = live.saturating_sub(bytes(v));
                }
            }
        }
        all
    };
    let (a, b) = (of(original), of(thinned));
    a.into_iter().zip(b).map(|(a, b)| a.saturating_add(b)).collect()
}

