//! A form per layer, by what the layer's own output loses.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use snapc_ir::eval::{self, EvalError, Evaluation};
use snapc_ir::{Encoding, Graph, GraphOutput, Node, Tensor};

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
            let (psnr, _) = measure.psnr(&chosen, None)?;
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
    /// By layer and level: squared error of the layer's output over its squared norm, on the sample in the middle alone: that
    /// takes as long as running all of them per level. The PSNR of the graph is that of all samples.
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
        measure.listen()?;
        Ok(measure)
    }

    /// Runs the graph as it is and, beside every chosen layer, the layer in every form.
    fn listen(&mut self) -> Result<(), PassError> {
        let mut layer_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let results = layer.nodes.iter().map(|&n| self.graph.nodes()[n].result);
            layer_of.extend(results.map(|result| (result.index(), i)));
        }
        let (pass, graph) = (QuantizeWeights::NAME, self.graph);
        let mut noise = std::mem::take(&mut self.noise);
        self.expected = self
            .context
            .trace(pass, graph, self.samples, |node, evaluation| {
                let Some(&layer) = layer_of.get(&node.result.index()) else {
                    return Ok(());
                };
                let losses = (0..LEVELS)
                    .into_par_iter()
                    .map(|level| self.loss(layer, level, node, evaluation))
                    .collect::<Result<Vec<_>, _>>()?;
                let of_layer = noise[layer].iter_mut().zip(losses);
                of_layer.for_each(|(n, loss)| *n += loss);
                Ok(())
            })?;
        self.noise = noise;
        Ok(())
    }

    /// What the output of a layer's node loses in a form, relative to its square.
    fn loss(
        &self,
        layer: usize,
        level: usize,
        node: &Node,
        evaluation: &Evaluation<'_>,
    ) -> Result<f64, EvalError> {
        let Some(encoding) = &self.encodings[level][layer] else {
            return Ok(0.0);
        };
        let weight = &self.graph.weights()[self.layers[layer].weight];
        let tensor = eval::weight_tensor(&weight.tensor.clone().encode(encoding.clone()));
        let tensor = tensor.map_err(|source| EvalError::Weight {
            graph: self.graph.name().to_owned(),
            weight: weight.name.clone(),
            source,
        })?;
        let sample = evaluation.samples() / 2;
        let mut operands = evaluation.operands(sample, node);
        operands[1] = &tensor;
        let mut coded = node.op.eval(&operands);
        coded.round_to(self.graph.ty(node.result).dtype);
        let result = evaluation.result(sample, node);
        let (signal, noise) = signal_and_noise(result.floats(), coded.floats());
        let relative = noise / signal.max(f64::MIN_POSITIVE);
        Ok(if noise == 0.0 { 0.0 } else { relative })
    }

    /// The least PSNR over outputs with these levels against the graph as it is, over all samples or on one, and the sample
    /// that has it.
    fn psnr(&self, chosen: &[usize], only: Option<usize>) -> Result<(f64, usize), PassError> {
        let encodings: Vec<_> = chosen
            .iter()
            .enumerate()
            .map(|(layer, &level)| self.encodings[level][layer].clone())
            .collect();
        let graph = with_encodings(self.graph, self.layers, &encodings)
            .map_err(PassError::build(QuantizeWeights::NAME))?;
        let looked_at = match only {
            Some(sample) => sample..sample + 1,
            None => 0..self.samples.len(),
        };
        let (pass, samples) = (QuantizeWeights::NAME, &self.samples[looked_at.clone()]);
        let found = self.context.trace(pass, &graph, samples, |_, _| Ok(()))?;
        let floats = |o: &&GraphOutput| graph.ty(o.value).dtype.is_float();
        let mut least = (f64::INFINITY, looked_at.start);
        for output in graph.outputs().iter().filter(floats) {
            for (sample, found) in looked_at.clone().zip(&found) {
                let expected = self.expected[sample][&output.name].floats();
                let psnr = psnr(expected, found[&output.name].floats());
                if psnr < least.0 {
                    least = (psnr, sample);
                }
            }
        }
        Ok(least)
    }

    /// Levels on the ladder with which every output reaches the PSNR, and what it then is: the first such levels, or ones
    /// that are less than [`NEAR_DB`] or [`NEAR_BYTES`] above. Where to look next is told by the noise of the layers, to which
    /// that of the outputs is nearly proportional. The search looks at the sample that came out worst, and at all of them
    /// when it begins and when it thinks to be done.
    fn least_that_reaches(
        &self,
        ladder: &Ladder,
        min_psnr: f64,
    ) -> Result<(Vec<usize>, f64), PassError> {
        let noise = ladder.noise(&self.noise);
        let bytes = |steps: usize| ladder.bytes(&ladder.after(steps)) as f64;
        // All steps up leave every weight as it is where it matters, which reaches any bar.
        let top = ladder.steps.len();
        let (mut low, mut high) = (0, top);
        let (mut reached, mut guess, mut worst) = (None, None, None);
        let mut looks = 0;
        loop {
            let near = reached.is_some_and(|psnr| psnr < min_psnr + NEAR_DB);
            let done = low >= high || near || bytes(high) <= bytes(low) * (1.0 + NEAR_BYTES);
            // Every third look halves what is left, however far off the guesses are.
            let at = match guess {
                _ if done => high,
                Some(guess) if looks % 3 != 0 => high.min(guess + 1).max(low + 1) - 1,
                _ => low.midpoint(high),
            };
            let chosen = ladder.after(at);
            let (psnr, sample) = self.psnr(&chosen, worst.filter(|_| !done))?;
            if done && (psnr >= min_psnr || at == top) {
                return Ok((chosen, psnr));
            }
            worst = Some(sample);
            if psnr >= min_psnr {
                (high, reached) = (at, Some(psnr));
            } else {
                low = at + 1;
                if done {
                    (high, reached) = (top, None);
                }
            }
            let more = psnr - min_psnr - NEAR_DB / 2.0;
            let wanted = noise[at] * 10f64.powf(more / 10.0);
            guess = Some(noise.partition_point(|&n| n > wanted));
            looks += 1;
        }
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
