//! A form per layer, by what the layer's own output loses.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapc_ir::eval::{self, EvalError};
use snapc_ir::{Encoding, Graph, Node, Tensor};

use super::fidelity::snr;
use super::form::CodeForm;
use super::{Layer, QuantizeWeights, Selection, encode_all, refused, with_encodings};
use crate::info::Describe;
use crate::pass::{PassContext, PassError};

/// Number of forms that a layer can take.
const LEVELS: usize = 4;

/// So much above the wanted PSNR, in dB, another look at the graph is not worth its time.
const NEAR_DB: f64 = 0.2;
/// Nor is it when no more than this share of the bytes can be saved.
const NEAR_BYTES: f64 = 0.005;

/// The forms that a layer can take, the smallest first.
fn levels(group: usize) -> [CodeForm; LEVELS] {
    [
        CodeForm::Palette { bits: 4, group },
        CodeForm::Palette { bits: 6, group },
        CodeForm::Int8,
        CodeForm::Plain,
    ]
}

/// The form of every chosen weight.
///
/// # Errors
/// When there are no inputs to measure on, the graph cannot be run on them, or the budget is too small.
pub(super) fn assign(
    pass: &QuantizeWeights,
    graph: &Graph,
    selection: &Selection,
    context: &PassContext<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<CodeForm>, PassError> {
    let samples = context
        .calibration
        .map_or(&[][..], |c| c.samples(graph.name()));
    if samples.is_empty() {
        let reason = "form 'mixed' measures layers on calibration inputs, and there are none for this graph; give some, or \
                      choose another form";
        return Err(refused(graph, reason));
    }
    let measure = Measure::new(
        graph,
        &selection.chosen,
        levels(pass.group),
        samples,
        context,
    )?;
    let ladder = Ladder::new(&measure);
    let (chosen, psnr) = match (pass.budget_mb, pass.min_psnr) {
        (Some(budget), _) => {
            let chosen = ladder.within(budget * 1e6).map_err(|least| {
                let least = least / 1e6;
                let reason = format!(
                    "'budget_mb' is {budget}, and the weights take {least:.3} MB at least; allow more, or encode also what \
                     is kept (all=true)"
                );
                refused(graph, reason)
            })?;
            let psnr = measure.psnr(&chosen)?;
            (chosen, psnr)
        }
        (None, min_psnr) => measure.least_that_reaches(&ladder, min_psnr.unwrap_or(f64::INFINITY))?,
    };
    notes.push(ladder.note(&chosen, psnr, samples.len()));
    Ok(chosen.iter().map(|&level| measure.levels[level]).collect())
}

/// What every layer loses in every form, and what the graph then gives.
struct Measure<'a> {
    graph: &'a Graph,
    layers: &'a [Layer],
    levels: [CodeForm; LEVELS],
    samples: &'a [BTreeMap<String, Tensor>],
    context: &'a PassContext<'a>,
    /// By level and layer.
    encodings: Vec<Vec<Option<Arc<Encoding>>>>,
    /// By layer and level: squared error of the layer's output over its squared norm, summed over samples.
    noise: Vec<[f64; LEVELS]>,
    /// What the graph gives as it is, per sample.
    expected: Vec<BTreeMap<String, Tensor>>,
}

impl<'a> Measure<'a> {
    fn new(
        graph: &'a Graph,
        layers: &'a [Layer],
        levels: [CodeForm; LEVELS],
        samples: &'a [BTreeMap<String, Tensor>],
        context: &'a PassContext<'a>,
    ) -> Result<Self, PassError> {
        let encode = |form: &CodeForm| {
            encode_all(
                QuantizeWeights::NAME,
                graph,
                layers,
                &vec![*form; layers.len()],
                context,
            )
        };
        let encodings = levels.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let mut measure = Measure {
            graph,
            layers,
            levels,
            samples,
            context,
            encodings,
            noise: vec![[0.0; LEVELS]; layers.len()],
            expected: Vec::new(),
        };
        for sample in samples {
            let outputs = measure.listen(sample)?;
            measure.expected.push(outputs);
        }
        Ok(measure)
    }

    /// Runs the graph as it is and, beside every chosen layer, the layer in every form.
    fn listen(
        &mut self,
        sample: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, PassError> {
        let mut layer_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (i, layer) in self.layers.iter().enumerate() {
            layer_of.extend(
                layer
                    .nodes
                    .iter()
                    .map(|&n| (self.graph.nodes()[n].result.index(), i)),
            );
        }
        let mut noise = std::mem::take(&mut self.noise);
        let pass = QuantizeWeights::NAME;
        let outputs = self
            .context
            .trace(pass, self.graph, sample, |node, operands, result| {
                let Some(&layer) = layer_of.get(&node.result.index()) else {
                    return Ok(());
                };
                let losses = self.losses(layer, node, operands, result)?;
                let of_layer = noise[layer].iter_mut().zip(losses);
                of_layer.for_each(|(n, loss)| *n += loss);
                Ok(())
            });
        self.noise = noise;
        outputs
    }

    /// What a layer's output loses in every form, relative to its square.
    fn losses(
        &self,
        layer: usize,
        node: &Node,
        operands: &[&Tensor],
        result: &Tensor,
    ) -> Result<[f64; LEVELS], EvalError> {
        let weight = &self.graph.weights()[self.layers[layer].weight];
        let mut losses = [0.0; LEVELS];
        for (loss, encodings) in losses.iter_mut().zip(&self.encodings) {
            let Some(encoding) = &encodings[layer] else {
                continue;
            };
            let tensor = eval::weight_tensor(&weight.tensor.clone().encode(encoding.clone()));
            let tensor = tensor.map_err(|source| EvalError::Weight {
                graph: self.graph.name().to_owned(),
                weight: weight.name.clone(),
                source,
            })?;
            let mut with_codes = operands.to_vec();
            with_codes[1] = &tensor;
            let mut coded = node.op.eval(&with_codes);
            coded.round_to(self.graph.ty(node.result).dtype);
            let (signal, noise) = signal_and_noise(result.floats(), coded.floats());
            *loss = if noise == 0.0 {
                0.0
            } else {
                noise / signal.max(f64::MIN_POSITIVE)
            };
        }
        Ok(losses)
    }

    /// The least PSNR over outputs and samples with these levels, against the graph as it is.
    fn psnr(&self, chosen: &[usize]) -> Result<f64, PassError> {
        let encodings: Vec<_> = chosen
            .iter()
            .enumerate()
            .map(|(layer, &level)| self.encodings[level][layer].clone())
            .collect();
        let graph = with_encodings(self.graph, self.layers, &encodings)
            .map_err(PassError::build(QuantizeWeights::NAME))?;
        let mut least = f64::INFINITY;
        for (sample, expected) in self.samples.iter().zip(&self.expected) {
            let pass = QuantizeWeights::NAME;
            let found = self.context.trace(pass, &graph, sample, |_, _, _| Ok(()))?;
            let floats = graph
                .outputs()
                .iter()
                .filter(|o| graph.ty(o.value).dtype.is_float());
            for output in floats {
                least = least.min(psnr(
                    expected[&output.name].floats(),
                    found[&output.name].floats(),
                ));
            }
        }
        Ok(least)
    }

    /// Levels on the ladder with which every output reaches the PSNR, and what it then is: the first such levels, or ones
    /// that are less than [`NEAR_DB`] or [`NEAR_BYTES`] above. Where to look next is told by the noise of the layers, to which
    /// that of the outputs is nearly proportional.
    fn least_that_reaches(
        &self,
        ladder: &Ladder,
        min_psnr: f64,
    ) -> Result<(Vec<usize>, f64), PassError> {
        let noise = ladder.noise(&self.noise);
        let bytes = |steps: usize| ladder.bytes(&ladder.after(steps)) as f64;
        // All steps up leave every weight as it is where it matters, which reaches any bar.
        let (mut low, mut high) = (0, ladder.steps.len());
        let (mut reached, mut guess) = (None, None);
        for look in 0.. {
            let near = reached.is_some_and(|psnr| psnr < min_psnr + NEAR_DB);
            if low >= high || near || bytes(high) <= bytes(low) * (1.0 + NEAR_BYTES) {
                break;
            }
            // Every third look halves what is left, however far off the guesses are.
            let at = match guess {
                Some(guess) if look % 3 != 0 => high.min(guess + 1).max(low + 1) - 1,
                _ => low.midpoint(high),
            };
            let psnr = self.psnr(&ladder.after(at))?;
            if psnr >= min_psnr {
                (high, reached) = (at, Some(psnr));
            } else {
                low = at + 1;
            }
            let more = psnr - min_psnr - NEAR_DB / 2.0;
            let wanted = noise[at] * 10f64.powf(more / 10.0);
            guess = Some(noise.partition_point(|&n| n > wanted));
        }
        let chosen = ladder.after(high);
        let psnr = match reached {
            Some(psnr) => psnr,
            None => self.psnr(&chosen)?,
        };
        Ok((chosen, psnr))
    }
}

fn signal_and_noise(expected: &[f32], found: &[f32]) -> (f64, f64) {
    expected
        .iter()
        .zip(found)
        .fold((0.0, 0.0), |(signal, noise), (&e, &f)| {
            let (e, f) = (f64::from(e), f64::from(f));
            (signal + e * e, noise + (f - e) * (f - e))
        })
}

/// `20 log10((max - min) / RMSE)`.
fn psnr(expected: &[f32], found: &[f32]) -> f64 {
    let (_, noise) = signal_and_noise(expected, found);
    let low = expected.iter().copied().fold(f32::INFINITY, f32::min);
    let high = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    snr(
        f64::from(high - low).powi(2),
        noise / expected.len().max(1) as f64,
    )
}

/// Every layer's way from the smallest form up, in the order of what a byte more saves. Losses of layers count as if they
/// added up, which holds for small errors that know nothing of each other.
struct Ladder {
    levels: [CodeForm; LEVELS],
    /// Layer and the level that it goes to.
    steps: Vec<(usize, usize)>,
    /// By layer and level.
    bytes: Vec<[usize; LEVELS]>,
    /// Bytes of all other weights.
    others: usize,
}

impl Ladder {
    fn new(measure: &Measure<'_>) -> Self {
        let weights = measure.graph.weights();
        let all: usize = weights.iter().map(|w| w.tensor.stored_bytes_len()).sum();
        let chosen = measure.layers.iter().map(|l| &weights[l.weight].tensor);
        let plain: usize = chosen.clone().map(|t| t.stored_bytes_len()).sum();
        let bytes = chosen
            .map(|t| {
                measure
                    .levels
                    .map(|level| level.bytes(t.shape(), t.dtype().size()))
            })
            .collect::<Vec<_>>();
        Ladder {
            levels: measure.levels,
            steps: steps(&bytes, &measure.noise),
            bytes,
            others: all - plain,
        }
    }

    /// The levels after some steps.
    fn after(&self, steps: usize) -> Vec<usize> {
        let mut chosen = vec![0; self.bytes.len()];
        for &(layer, level) in &self.steps[..steps] {
            chosen[layer] = level;
        }
        chosen
    }

    /// The noise of all layers after every number of steps, from none on.
    fn noise(&self, of_layers: &[[f64; LEVELS]]) -> Vec<f64> {
        (0..=self.steps.len())
            .map(|steps| {
                let chosen = self.after(steps);
                let each = of_layers.iter().zip(&chosen);
                each.map(|(noise, &level)| noise[level]).sum()
            })
            .collect()
    }

    fn bytes(&self, chosen: &[usize]) -> usize {
        let each = self.bytes.iter().zip(chosen);
        self.others + each.map(|(bytes, &level)| bytes[level]).sum::<usize>()
    }

    /// The levels when every step is taken that still fits, or the least bytes when none does.
    fn within(&self, budget: f64) -> Result<Vec<usize>, f64> {
        // Not the first level but the smallest: a palette may take more than what it replaces.
        let smallest = |bytes: &[usize; LEVELS]| {
            let level = (0..LEVELS).min_by_key(|&level| (bytes[level], LEVELS - level));
            level.unwrap_or(0)
        };
        let mut chosen: Vec<usize> = self.bytes.iter().map(smallest).collect();
        let mut total = self.bytes(&chosen);
        if total as f64 > budget {
            return Err(total as f64);
        }
        for &(layer, level) in &self.steps {
            let larger = total - self.bytes[layer][chosen[layer]] + self.bytes[layer][level];
            if level > chosen[layer] && larger as f64 <= budget {
                chosen[layer] = level;
                total = larger;
            }
        }
        Ok(chosen)
    }

    fn note(&self, chosen: &[usize], psnr: f64, samples: usize) -> String {
        let counts = (0..LEVELS).map(|level| {
            let count = chosen.iter().filter(|&&c| c == level).count();
            format!("{count} {}", self.levels[level])
        });
        format!(
            "forms of the layers: {}; all weights together {:.2} MB; least PSNR of an output {psnr:.1} dB on {samples} \
             calibration inputs",
            counts.collect::<Vec<_>>().join(", "),
            self.bytes(chosen) as f64 / 1e6
        )
    }
}

/// Steps up, the one that saves the most noise per byte first; a step may pass a level.
fn steps(bytes: &[[usize; LEVELS]], noise: &[[f64; LEVELS]]) -> Vec<(usize, usize)> {
    let mut level = vec![0; bytes.len()];
    let mut steps = Vec::new();
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for (layer, &now) in level.iter().enumerate() {
            for next in now + 1..LEVELS {
                let saved = noise[layer][now] - noise[layer][next];
                if saved <= 0.0 {
                    continue;
                }
                let more = bytes[layer][next] as f64 - bytes[layer][now] as f64;
                let worth = if more > 0.0 {
                    saved / more
                } else {
                    f64::INFINITY
                };
                if best.is_none_or(|(most, ..)| worth > most) {
                    best = Some((worth, layer, next));
                }
            }
        }
        let Some((_, layer, next)) = best else {
            return steps;
        };
        level[layer] = next;
        steps.push((layer, next));
    }
}
