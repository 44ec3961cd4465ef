//! Narrows a network: removes channels, and corrects the layers behind them by least squares.
//!
//! # What it does
//! Traces which dimensions of values and weights have to keep the same channels: through convolutions, linear layers,
//! residual sums, norms, activations, reshapes, transposes, upsampling and attention. Of every class of channels under a
//! GroupNorm whole groups go, so that the statistics of the others stay what they are; the GroupNorm has fewer groups
//! afterwards. The inner channels of an attention with one head, those of queries and keys and those of values, are classes
//! of their own. All classes lose the same part, so that the result is a network of the same configuration in another width.
//!
//! Which channels stay: those with the largest sum of shares, over all filters and matrices that write or read the class, of
//! the squared norm of the filter or matrix. Where sums are equal, earlier channels stay. Where the scale of an attention is
//! that which diffusers derives from its width, it becomes that of the new width, and the projection of the queries makes up
//! for it.
//!
//! With calibration samples, every layer that reads thinned channels is corrected: the original and the thinned network run
//! side by side, and the layer's matrix and bias become those that bring its results nearest to the original's, with a small
//! penalty on their change (ridge 1e-3 of the mean square of what it reads). A layer whose result is added to a known
//! value makes up for the error of that value too. Positions are thinned out evenly when there are more than the
//! equations need.
//!
//! # When it applies
//! To the graph of the given name, before floats are narrowed. Channels of inputs and outputs stay, and so do those that
//! meet an operator which is not known to let channels go, such as a concatenation. A graph in which channels were selected
//! before is left alone. A ratio that would cut a group of a GroupNorm is refused with the valid ones.
//!
//! # Options
//! `ratio`: which part of the channels goes; default 0.5. `graph`: name of the graph; default `vae_decoder`. `correction`:
//! whether to correct; default when there are calibration samples for the graph. `memory`: how many MiB the values of both
//! networks may take during the correction; where not all samples fit, which is where images are large and positions
//! plenty, the first ones go on; default 1536.
//!
//! # Effect on accuracy
//! Large: at 0.5 a decoder loses three quarters of its weights. The correction wins a part of it back and reports the error
//! of every layer with and without; the rest is for training the exported checkpoint.
//!
//! # Example
//! ```text
//! before: a = conv2d(x, f[64,4,3,3]); b = group_norm(a) {groups=32}; y = conv2d(b, g[3,64,3,3])
//! after:  a = conv2d(x, f'[32,4,3,3]); b = group_norm(a) {groups=16}; y = conv2d(b, g'[3,32,3,3])
//! ```

mod cholesky;
mod correction;
mod dimensions;
mod layer;
mod least_squares;
mod selection;
mod thinned_graph;

use serde::Deserialize;
use snapc_ir::Graph;

use self::correction::corrected;
use self::selection::Prunable;
use self::thinned_graph::{is_thinned, thinned, with_derived_scales};
use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property};

/// See the module documentation.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PruneChannels {
    /// Which part of the channels goes.
    pub ratio: f64,
    /// Name of the graph.
    pub graph: String,
    /// Whether layers are corrected; `None` when calibration samples are there.
    pub correction: Option<bool>,
    /// MiB that the values of both networks may take during the correction.
    pub memory: u64,
}

impl Default for PruneChannels {
    fn default() -> Self {
        PruneChannels {
            ratio: 0.5,
            graph: "vae_decoder".to_owned(),
            correction: None,
            memory: 1536,
        }
    }
}

impl Describe for PruneChannels {
    const NAME: &'static str = "prune-channels";
    const REQUIRES: &'static [Property] = &[Property::FullPrecision];
}

impl Pass for PruneChannels {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        if graph.name() != self.graph || is_thinned(graph) {
            return Ok(None);
        }
        let refused = |reason: String| PassError::Refused {
            pass: Self::NAME,
            graph: graph.name().to_owned(),
            reason,
        };
        let prunable = Prunable::find(graph);
        if prunable.is_empty() {
            return Ok(None);
        }
        let samples = context.calibration.map_or(&[][..], |c| c.samples(graph.name()));
        let correction = self.correction.unwrap_or(!samples.is_empty());
        if correction && samples.is_empty() {
            let reason = "correction needs calibration samples for the graph, and there are none; give some or switch it off";
            return Err(refused(reason.to_owned()));
        }
        let parts = prunable.parts_to_go(self.ratio).map_err(refused)?;
        let selection = prunable.select(graph, parts, Self::NAME, context)?;
        let build = PassError::build(Self::NAME);
        let mut thin = thinned(graph, &selection).map_err(&build)?;
        let mut notes = Vec::new();
        let mut layers = 0;
        if correction {
            let graphs = (graph, &thin);
            let memory = self.memory.saturating_mul(1 << 20);
            let done = corrected(graphs, &selection, samples, memory, Self::NAME, context)?;
            (thin, layers, notes) = (done.graph, done.layers, done.notes);
        } else {
            notes.push("layers are not corrected, for want of calibration samples or by option".to_owned());
        }
        let (thin, scales) = with_derived_scales(graph, &thin).map_err(&build)?;
        let counts = vec![
            ("classes of channels narrowed", selection.classes()),
            ("channels removed", selection.removed()),
            ("weights thinned out", selection.weights(graph)),
            ("layers corrected", layers),
            ("attention scales adjusted", scales),
        ];
        Ok(Some(Change {
            graph: thin,
            counts,
            notes,
        }))
    }
}
