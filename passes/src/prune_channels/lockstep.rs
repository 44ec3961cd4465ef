//! The original and the thinned graph side by side, with the layers of the latter corrected on the way.

use std::collections::BTreeMap;

use snapc_ir::eval::{EvalError, Evaluation, weight_tensor};
use snapc_ir::ops::{MatMul, Operator};
use snapc_ir::tensor::Elements;
use snapc_ir::{Graph, LazyTensor, Node, Op, Tensor, ValueId};

use super::layer::Layer;
use super::least_squares::NormalEquations;
use super::selection::Selection;

/// Equations per unknown of a layer's row; more positions than this gives are not looked at.
const POSITIONS_PER_INPUT: usize = 8;
/// Positions that are looked at in any case, where there are as many.
const MIN_POSITIONS: usize = 1 << 14;
/// Positions whose equations are summed up at a time.
const BAND: usize = 1024;

/// The two graphs on all samples, node by node.
pub(super) struct Lockstep<'g> {
    original: &'g Graph,
    thinned: &'g Graph,
    selection: &'g Selection,
    /// Of the original graph.
    pub(super) original_run: Evaluation<'g>,
    /// Of the thinned graph.
    pub(super) thinned_run: Evaluation<'g>,
    /// Uses of the original's values.
    uses: Vec<usize>,
    /// Corrected weights, by their values in the thinned graph.
    pub(super) corrected: BTreeMap<ValueId, LazyTensor>,
    /// How many layers were corrected.
    pub(super) layers: usize,
    /// A line for every layer that reads thinned channels.
    pub(super) notes: Vec<String>,
}

/// A layer to correct, and what its results are to come near to.
struct Task<'g> {
    layer: Layer,
    /// The layer's node in the two graphs.
    nodes: (&'g Node, &'g Node),
    /// The other operand of the sum that the result goes into, in the two graphs.
    addend: Option<(ValueId, ValueId)>,
    /// The original's channels that are left in the result.
    channels: Vec<usize>,
    /// The thinned weight, before the correction.
    weight: Tensor,
    /// The thinned bias, where there is one.
    bias: Option<Tensor>,
}

impl<'g> Lockstep<'g> {
    /// Both graphs on these samples, before the first node.
    ///
    /// # Errors
    /// When a sample does not fit the graph.
    pub(super) fn new(
        (original, thinned): (&'g Graph, &'g Graph),
        selection: &'g Selection,
        samples: &[BTreeMap<String, Tensor>],
    ) -> Result<Self, EvalError> {
        Ok(Lockstep {
            original,
            thinned,
            selection,
            original_run: Evaluation::new(original, samples)?,
            thinned_run: Evaluation::new(thinned, samples)?,
            uses: original.use_counts(),
            corrected: BTreeMap::new(),
            layers: 0,
            notes: Vec::new(),
        })
    }

    /// Goes on with the first `samples` samples only, where there are more.
    pub(super) fn truncate(&mut self, samples: usize) {
        self.original_run.truncate(samples);
        self.thinned_run.truncate(samples);
    }

    /// Evaluates the node at a position in both graphs, and corrects it first where it is a layer that reads thinned
    /// channels.
    ///
    /// # Errors
    /// When a weight has no data.
    pub(super) fn step(&mut self, i: usize) -> Result<(), EvalError> {
        self.original_run.step()?;
        // The thinned operands of the last node are still there, and so are those of this one.
        if let Some(task) = self.task(i)? {
            self.correct(&task);
        }
        self.thinned_run.step()?;
        Ok(())
    }

    fn task(&self, i: usize) -> Result<Option<Task<'g>>, EvalError> {
        let nodes = (&self.original.nodes()[i], &self.thinned.nodes()[i]);
        let (before, after) = nodes;
        let Some(layer) = Layer::of(self.original, before, &self.uses) else {
            return Ok(None);
        };
        if self.selection.kept(before.operands[1], 1).is_none() {
            return Ok(None);
        }
        let weight = |value: ValueId| {
            let weight = self.thinned.weight_of(value).expect("thinning keeps weights weights");
            weight_tensor(&weight.tensor).map_err(|source| EvalError::Weight {
                graph: self.thinned.name().to_owned(),
                weight: weight.name.clone(),
                source,
            })
        };
        let bias = after.operands.get(2).map(|&v| weight(v)).transpose()?;
        let weight = weight(after.operands[1])?;
        let channels = match self.selection.kept(before.operands[1], 0) {
            Some(kept) => kept.to_vec(),
            None => (0..weight.shape[0]).collect(),
        };
        Ok(Some(Task {
            layer,
            nodes,
            addend: self.addend(i),
            channels,
            weight,
            bias,
        }))
    }

    /// The other operand of the sum that the result of node `i` goes into and nowhere else, when it is known by then.
    fn addend(&self, i: usize) -> Option<(ValueId, ValueId)> {
        let result = self.original.nodes()[i].result;
        let reads = |node: &Node| node.operands.contains(&result);
        let sum = (i + 1..self.original.nodes().len()).find(|&n| reads(&self.original.nodes()[n]))?;
        let (before, after) = (&self.original.nodes()[sum], &self.thinned.nodes()[sum]);
        if !matches!(before.op, Op::Add(_)) || self.uses[result.index()] != 1 {
            return None;
        }
        let other = before.operands.iter().position(|&v| v != result)?;
        let pair = (before.operands[other], after.operands[other]);
        let same = self.original.ty(pair.0) == self.original.ty(result);
        let known = self.original_run.is_known(pair.0) && self.thinned_run.is_known(pair.1);
        (same && known).then_some(pair)
    }

    /// Solves a layer's equations and puts the corrected weights in place.
    fn correct(&mut self, task: &Task<'_>) {
        let (outputs, inputs) = (task.weight.shape[0], task.weight.len() / task.weight.shape[0].max(1));
        let matrix = Tensor::float(&[outputs, inputs], task.weight.floats().to_vec());
        let mut equations = NormalEquations::new(inputs + usize::from(task.bias.is_some()), outputs);
        let target = self.sum_up(task, &matrix, &mut equations);
        let name = &task.nodes.1.name;
        let relative = |residual: f64| (residual / target.max(f64::MIN_POSITIVE)).sqrt();
        let before = relative(equations.residual());
        let Some(change) = equations.solve() else {
            self.notes.push(format!("{name}: not corrected, since it reads zeros only"));
            return;
        };
        self.layers += 1;
        self.notes.push(format!(
            "{name}: relative error {before:.4}, {:.4} corrected",
            relative(change.residual)
        ));
        let width = change.matrix.len() / outputs;
        let mut weight = matrix;
        let mut bias = task.bias.clone();
        for (o, change) in change.matrix.chunks_exact(width).enumerate() {
            let add = |x: f32, d: f64| (f64::from(x) + d) as f32;
            let row = floats_mut(&mut weight)[o * inputs..].iter_mut();
            row.zip(&change[..inputs]).for_each(|(w, &d)| *w = add(*w, d));
            if let (Some(bias), Some(&d)) = (&mut bias, change.get(inputs)) {
                let b = &mut floats_mut(bias)[o];
                *b = add(*b, d);
            }
        }
        weight.shape.clone_from(&task.weight.shape);
        let operands = &task.nodes.1.operands[1..];
        for (&value, tensor) in operands.iter().zip([Some(weight), bias].into_iter().flatten()) {
            let lazy = LazyTensor::from_f32(&tensor.shape, tensor.floats());
            self.corrected.insert(value, lazy);
            self.thinned_run.set_weight(value, tensor);
        }
    }

    /// Sums up the equations over the positions of all samples; gives the sum of squares of
    /// the original's results, or of the sums that they go into where these count.
    fn sum_up(&self, task: &Task<'_>, matrix: &Tensor, equations: &mut NormalEquations) -> f64 {
        let (before, after) = task.nodes;
        let inputs = matrix.shape[1];
        let limit = (POSITIONS_PER_INPUT * inputs).max(MIN_POSITIONS);
        let mut energy = 0.0;
        let samples = self.original_run.samples();
        for sample in 0..samples {
            let value = |v: ValueId| self.original_run.value(sample, v).expect("made in this step");
            let thinned = |v: ValueId| self.thinned_run.value(sample, v).expect("made before this node");
            let y = value(before.result);
            let x = thinned(after.operands[0]);
            let all = spread(task.layer.positions(y), limit.div_ceil(samples));
            for positions in all.chunks(BAND) {
                let n = positions.len();
                let mut target = task.layer.results(y, &task.channels, positions);
                let mut result = target.clone();
                if let Some((old, new)) = task.addend {
                    let every: Vec<usize> = (0..task.channels.len()).collect();
                    let old = task.layer.results(value(old), &task.channels, positions);
                    let new = task.layer.results(thinned(new), &every, positions);
                    let error = old.iter().zip(&new).map(|(a, b)| a - b);
                    target.iter_mut().zip(error).for_each(|(t, e)| *t += e);
                    result.iter_mut().zip(&old).for_each(|(r, o)| *r += o);
                }
                energy += result.iter().map(|&t| f64::from(t).powi(2)).sum::<f64>();
                let mut reads = task.layer.reads(x, y, positions);
                let read = Tensor::float(&[inputs, n], reads.clone());
                let made = MatMul {}.eval(&[matrix, &read]);
                for (o, (target, made)) in target.chunks_mut(n).zip(made.floats().chunks(n)).enumerate() {
                    let bias = task.bias.as_ref().map_or(0.0, |b| b.floats()[o]);
                    target.iter_mut().zip(made).for_each(|(t, m)| *t -= m + bias);
                }
                if task.bias.is_some() {
                    reads.extend(std::iter::repeat_n(1.0, n));
                }
                let rows = reads.len() / n;
                let residual = Tensor::float(&[task.channels.len(), n], target);
                equations.add(&Tensor::float(&[rows, n], reads), &residual);
            }
        }
        energy
    }
}

fn floats_mut(tensor: &mut Tensor) -> &mut [f32] {
    match &mut tensor.elements {
        Elements::Float(values) => values,
        Elements::Int(_) => &mut [],
    }
}

/// `limit` of `count` positions, or all of them: spread evenly by the golden ratio, so that they fall on no pattern of rows
/// or columns; in ascending order.
fn spread(count: usize, limit: usize) -> Vec<usize> {
    if count <= limit {
        return (0..count).collect();
    }
    // 2^64 over the golden ratio: multiples of it, modulo 2^64, are evenly spread.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let at = |k: usize| {
        let fraction = u128::from((k as u64).wrapping_mul(STEP));
        ((fraction * count as u128) >> 64) as usize
    };
    let mut positions: Vec<usize> = (0..limit).map(at).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

