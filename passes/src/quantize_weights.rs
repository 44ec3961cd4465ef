//! Stores the weights of convolutions and linear layers as codes of few bits.
//!
//! # What it does
//! Every weight that it chooses becomes codes and what they stand for; the graph and its types stay, so that a target
//! without codes stores the rounded values. `int8`: a scale per output channel. `int4`: a scale per block of input
//! channels. `palette2` to `palette8`: `2^bits` values that leave the least squared error (k-means). `mixed`: every layer
//! gets 4 or 6 bits of a palette, `int8`, or stays, by what its own output loses on a calibration input. Scales and palettes
//! are rounded to the float type of the weight before the codes are made. The notes give the signal-to-noise ratio of the
//! weights, all together and of the worst layers.
//!
//! # When it applies
//! To weights that only convolutions and linear layers use as such, behind `cast-precision`. Kept as they are: layers that
//! `keep` names, weights with less than `min_elements` elements, and what is no such weight: norms, biases, and embedding
//! tables, of which a run reads a few rows only. A weight that is encoded already stays.
//!
//! # Options
//! * `form`: `int8` (default), `int4`, `palette2`, `palette4`, `palette6`, `palette8`, `mixed`.
//! * `block`: input channels per scale of `int4`, 32. Where they do not divide the input channels, there is one scale per
//!   output channel.
//! * `group`: output channels per palette, 0 (default) for one palette per weight. Where they do not divide the output
//!   channels, there is one palette.
//! * `graphs`: names of graphs joined by `+`; default all, for `mixed` the `unet`.
//! * `keep`: names of layers joined by `+`, as whole parts of their names; default
//!   `conv_in+conv_out+time_embedding+time_emb_proj`: first and last convolution and the time path.
//! * `min_elements`: 2048.
//! * `all`: `true` encodes also what `keep` and `min_elements` would keep.
//! * `budget_mb`, for `mixed`: the megabytes (10^6) that all weights of a graph may take together.
//! * `min_psnr`, for `mixed` in place of `budget_mb`: the least PSNR in dB of every output of a graph against the graph as
//!   it was, measured on the calibration inputs. It may be exceeded by 0.2 dB, or for half a percent of the bytes.
//!
//! # Effect on accuracy
//! Of an affine code every weight is within half a scale. Weights near a normal distribution have about 40 dB with `int8`,
//! 32 dB with `palette6`, 20 dB with `int4` and `palette4`. Final latents of the 8-step run of `fixtures/tiny` have 52.8 dB
//! with `int8`, 42.3 dB with `palette6`, 29.6 dB with `int4`, 30.6 dB with `palette4`, 23.4 dB with `palette2`; the decoder
//! alone 56.5 dB and 45.0 dB with the first two, which is why it is encoded too.
//!
//! # Example
//! ```text
//! before: y = conv2d(x, w: f16[320,320,3,3])                     1.84 MB
//! after:  y = conv2d(x, w: f16[320,320,3,3] int8 [320,1,1,1])    0.92 MB
//! ```

mod affine;
mod fidelity;
mod form;
mod mixed;
mod palette;
mod selection;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rayon::prelude::*;
use serde::Deserialize;
use snapc_ir::{Encoding, EncodingError, Graph, LazyTensor, Weight, WeightError};

pub use self::fidelity::{WeightFidelity, weight_fidelity};
pub(crate) use self::form::CodeForm;
pub use self::form::WeightForm;
pub(crate) use self::selection::{KeepRules, Layer, Selection, layers};

use crate::info::Describe;
use crate::name_patterns::{NamePatterns, shortened};
use crate::pass::{Change, Pass, PassContext, PassError, Property, WeightFault, WeightProblem};

/// What is kept by default: first and last convolution of U-Net and decoder, and what carries the timestep.
pub(crate) const KEPT_BY_DEFAULT: [&str; 4] =
    ["conv_in", "conv_out", "time_embedding", "time_emb_proj"];

/// See the module documentation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizeWeights {
    /// What the codes are.
    pub form: WeightForm,
    /// Input channels per scale of `int4`.
    pub block: usize,
    /// Output channels per palette; 0 for one palette per weight.
    pub group: usize,
    /// The graphs whose weights are encoded.
    pub graphs: Option<NamePatterns>,
    /// The layers that are kept.
    pub keep: NamePatterns,
    /// Weights with less elements are kept.
    pub min_elements: usize,
    /// Whether nothing is kept.
    pub all: bool,
    /// Of `mixed`: what the weights of a graph may take, in 10^6 bytes.
    pub budget_mb: Option<f64>,
    /// Of `mixed`: the least PSNR of every output, in dB.
    pub min_psnr: Option<f64>,
}

impl Default for QuantizeWeights {
    fn default() -> Self {
        QuantizeWeights {
            form: WeightForm::Int8,
            block: 32,
            group: 0,
            graphs: None,
            keep: NamePatterns::of(&KEPT_BY_DEFAULT),
            min_elements: 2048,
            all: false,
            budget_mb: None,
            min_psnr: None,
        }
    }
}

impl Describe for QuantizeWeights {
    const NAME: &'static str = "quantize-weights";
    const INVALIDATES: &'static [Property] = &[Property::PlainWeights];
}

impl Pass for QuantizeWeights {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        self.check_options(graph)?;
        if !self.works_on(graph.name()) {
            return Ok(None);
        }
        let selection = Selection::of(graph, &self.rules());
        if selection.chosen.is_empty() {
            return Ok(None);
        }
        let mut notes = selection.notes();
        let forms = match self.form {
            WeightForm::Mixed => mixed::assign(self, graph, &selection, context, &mut notes)?,
            form => {
                let form = form.code_form(self.block, self.group);
                vec![form; selection.chosen.len()]
            }
        };
        let encodings = encode_all(Self::NAME, graph, &selection.chosen, &forms, context)?;
        let count = encodings.iter().flatten().count();
        if count == 0 {
            return Ok(None);
        }
        notes.extend(fallback_notes(graph, &selection.chosen, &forms));
        let changed = with_encodings(graph, &selection.chosen, &encodings)
            .map_err(PassError::build(Self::NAME))?;
        notes.extend(fidelity::notes(&fidelity_of(Self::NAME, &changed)?));
        let counts = vec![
            ("weights encoded", count),
            (
                "weights kept",
                selection.kept() + selection.chosen.len() - count,
            ),
        ];
        Ok(Some(Change {
            graph: changed,
            counts,
            notes,
        }))
    }
}

impl QuantizeWeights {
    pub(crate) fn rules(&self) -> KeepRules<'_> {
        KeepRules {
            keep: &self.keep,
            min_elements: self.min_elements,
            all: self.all,
        }
    }

    fn works_on(&self, graph: &str) -> bool {
        match &self.graphs {
            Some(graphs) => graphs.mean(graph),
            None => self.form != WeightForm::Mixed || graph == "unet",
        }
    }

    fn check_options(&self, graph: &Graph) -> Result<(), PassError> {
        let is_mixed = self.form == WeightForm::Mixed;
        let bounds = usize::from(self.budget_mb.is_some()) + usize::from(self.min_psnr.is_some());
        let reason = if self.block == 0 {
            "'block' is 0; give the number of input channels per scale"
        } else if is_mixed && bounds != 1 {
            "form 'mixed' needs either 'budget_mb' or 'min_psnr'"
        } else if !is_mixed && bounds != 0 {
            "'budget_mb' and 'min_psnr' are options of form 'mixed'"
        } else {
            return Ok(());
        };
        Err(refused(graph, reason))
    }
}

pub(super) fn refused(graph: &Graph, reason: impl Into<String>) -> PassError {
    PassError::Refused {
        pass: QuantizeWeights::NAME,
        graph: graph.name().to_owned(),
        reason: reason.into(),
    }
}

/// Why a weight cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// Something is wrong with the weight.
    #[error(transparent)]
    Weight(#[from] WeightFault),
    /// The parts of an encoding do not fit: a defect of this pass.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
}

impl From<WeightError> for EncodeError {
    fn from(error: WeightError) -> Self {
        EncodeError::Weight(error.into())
    }
}

impl EncodeError {
    /// For a tensor that is known to hold a value that is not finite.
    fn not_finite(tensor: &LazyTensor) -> Self {
        let (mut position, mut found) = (0, None);
        let looked = tensor.stream_f32::<WeightError>(|values| {
            if let (None, Some(i)) = (found, values.iter().position(|v| !v.is_finite())) {
                found = Some((values[i], position + i));
            }
            position += values.len();
            Ok(())
        });
        let (value, index) = found.unwrap_or((f32::NAN, 0));
        match looked {
            Ok(()) => WeightFault::NotFinite { value, index }.into(),
            Err(error) => error.into(),
        }
    }
}

/// The encodings of some weights, in parallel; none where the form is to leave the weight.
pub(crate) fn encode_all(
    pass: &'static str,
    graph: &Graph,
    layers: &[Layer],
    forms: &[CodeForm],
    context: &PassContext<'_>,
) -> Result<Vec<Option<Arc<Encoding>>>, PassError> {
    let made: Vec<Result<Option<Arc<Encoding>>, EncodeError>> = layers
        .par_iter()
        .zip(forms)
        .map(|(layer, form)| {
            if (context.cancelled)() {
                return Ok(None);
            }
            let tensor = &graph.weights()[layer.weight].tensor;
            Ok(form.encoding(tensor)?.map(Arc::new))
        })
        .collect();
    if (context.cancelled)() {
        return Err(PassError::Cancelled);
    }
    let (mut encodings, mut problems) = (Vec::new(), Vec::new());
    for (layer, encoding) in layers.iter().zip(made) {
        match encoding {
            Ok(encoding) => encodings.push(encoding),
            Err(EncodeError::Weight(source)) => problems.push(WeightProblem {
                graph: graph.name().to_owned(),
                weight: graph.weights()[layer.weight].name.clone(),
                source,
            }),
            Err(EncodeError::Encoding(error)) => {
                return Err(PassError::Refused {
                    pass,
                    graph: graph.name().to_owned(),
                    reason: format!("{error}; this is a bug in the pass"),
                });
            }
        }
    }
    if problems.is_empty() {
        Ok(encodings)
    } else {
        Err(PassError::Weights { pass, problems })
    }
}

/// The graph with some of its weights encoded.
pub(crate) fn with_encodings(
    graph: &Graph,
    layers: &[Layer],
    encodings: &[Option<Arc<Encoding>>],
) -> Result<Graph, snapc_ir::BuildError> {
    let mut of_weight: Vec<Option<&Arc<Encoding>>> = vec![None; graph.weights().len()];
    for (layer, encoding) in layers.iter().zip(encodings) {
        of_weight[layer.weight] = encoding.as_ref();
    }
    let tensor = |index: usize, weight: &Weight| match of_weight[index] {
        Some(encoding) => weight.tensor.clone().encode(encoding.clone()),
        None => weight.tensor.clone(),
    };
    with_tensors(graph, tensor)
}

/// The graph with other tensors of the same types for its weights, in the same order of everything.
fn with_tensors(
    graph: &Graph,
    tensor: impl Fn(usize, &Weight) -> LazyTensor,
) -> Result<Graph, snapc_ir::BuildError> {
    let mut bound = vec![false; graph.weights().len()];
    graph.rebuild(|rebuild, node| {
        for &operand in &node.operands {
            let Some(index) = weight_index(graph, operand) else {
                continue;
            };
            if !std::mem::replace(&mut bound[index], true) {
                let weight = &graph.weights()[index];
                let name = weight.name.clone();
                let tensor = tensor(index, weight);
                let value = if weight.is_parameter {
                    rebuild.graph.parameter(name, tensor)
                } else {
                    rebuild.graph.constant(name, tensor)
                };
                rebuild.bind(weight.value, value);
            }
        }
        rebuild.copy(node).map(Some)
    })
}

/// Position of the weight behind a value.
pub(crate) fn weight_index(graph: &Graph, value: snapc_ir::ValueId) -> Option<usize> {
    match graph.value(value).def {
        snapc_ir::ValueDef::Weight(id) => Some(id.index()),
        _ => None,
    }
}

/// The fidelity of all encoded weights; data that cannot be made is an error of the pass.
pub(crate) fn fidelity_of(
    pass: &'static str,
    graph: &Graph,
) -> Result<Vec<WeightFidelity>, PassError> {
    weight_fidelity(graph).map_err(|problem| PassError::Weights {
        pass,
        problems: vec![problem],
    })
}

/// Which layers have coarser groups than asked for.
fn fallback_notes(graph: &Graph, layers: &[Layer], forms: &[CodeForm]) -> Option<String> {
    let coarser = layers.iter().zip(forms).filter_map(|(layer, form)| {
        let weight = &graph.weights()[layer.weight];
        form.falls_back(weight.tensor.shape())
            .then(|| weight.name.clone())
    });
    let coarser: Vec<String> = coarser.collect();
    (!coarser.is_empty()).then(|| {
        format!(
            "the channels of {} weights cannot be divided as asked, so that they have {}: {}",
            coarser.len(),
            forms[0].coarser(),
            shortened(&coarser)
        )
    })
}
