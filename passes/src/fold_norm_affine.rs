//! Folds scale and bias of norms into the layers that read them.
//!
//! # What it does
//! A norm ends in `n · γ + β`. Where only linear layers and convolutions read that, directly or through reshapes and
//! transposes, `γ` becomes a factor on the input channels of their weights and `W β` a part of their biases; the norm is
//! left with ones and zeros. That is a LayerNorm in front of query, key and value or of a feed-forward layer, and the
//! GroupNorm at the entry of a spatial transformer or of the VAE's attention. A layer that only gives keys to attention
//! gets no bias from it, since a term that all keys share does not change a softmax.
//!
//! # When it applies
//! When all readers of the norm are such layers with weights of their own in f32, and none has padding: zeros around an
//! image would have to be zeros before `β` is added. A SiLU in between stops it. It runs in full precision, before
//! weights are quantized. It is in no default pipeline, since layers without a bias get one and no target wins time yet:
//! the native norms apply scale and bias while they write, as LayerNorm does everywhere; ONNX and Core ML have operators
//! of their own for scale and bias of a GroupNorm, which they write for ones and zeros too.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! Rounding only: `W β` is summed in f64, the products are in f32.
//!
//! # Example
//! ```text
//! before: n = layer_norm(x, γ, β); y = linear(n, w)
//! after:  n = layer_norm(x, 1, 0); y = linear(n, w·γ, wβ)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use snapc_ir::{Dim, Graph, LazyTensor, Node, Op, Rebuild, ValueId, WeightError};

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property, WeightProblem};
use crate::uses::{Layer, Skipped, Uses};

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldNormAffine {}

impl Describe for FoldNormAffine {
    const NAME: &'static str = "fold-norm-affine";
    const REQUIRES: &'static [Property] = &[Property::FullPrecision];
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for FoldNormAffine {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(
        &self,
        graph: &Graph,
        context: &PassContext<'_>,
    ) -> Result<Option<Change>, PassError> {
        let uses = Uses::of(graph);
        let mut skipped = Skipped::default();
        let mut plan = Plan::default();
        for node in graph.nodes() {
            match fold(&uses, graph, node) {
                Ok(Some((affine, layers))) => plan.add(node, affine, layers),
                Ok(None) => {}
                Err(reason) => skipped.add(reason, &node.name),
            }
        }
        if plan.norms.is_empty() {
            return Ok(None);
        }
        let counts = vec![
            ("norms without scale and bias", plan.norms.len()),
            ("layers changed", plan.layers.len()),
        ];
        let folded = plan.fold_weights(graph.name(), context)?;
        let mut plain = BTreeMap::new();
        let rebuilt = graph.rebuild(|rebuild, node| {
            if plan.norms.contains(&node.result) {
                return plain_norm(rebuild, node, &mut plain).map(Some);
            }
            match (plan.layers.get(&node.result), folded.get(&node.result)) {
                (Some((layer, ..)), Some((weight, bias))) => {
                    let x = rebuild.operand(node.operands[0])?;
                    let added = layer.rebuild(rebuild, x, weight.clone(), bias.clone());
                    added.map(Some)
                }
                _ => rebuild.copy(node).map(Some),
            }
        });
        Ok(Some(Change {
            graph: rebuilt.map_err(PassError::build(Self::NAME))?,
            counts,
            notes: skipped.notes(),
        }))
    }
}

/// A weight, and the bias if there is one.
type Folded = (LazyTensor, Option<LazyTensor>);

/// What is to be done: the results of the norms, and every layer with what goes into it and whether it only gives keys.
#[derive(Default)]
struct Plan<'a> {
    norms: BTreeSet<ValueId>,
    layers: BTreeMap<ValueId, (Layer<'a>, Affine, bool)>,
}

impl<'a> Plan<'a> {
    fn add(&mut self, norm: &Node, affine: Affine, layers: Vec<(Layer<'a>, bool)>) {
        self.norms.insert(norm.result);
        for (layer, is_key) in layers {
            let entry = (layer, affine.clone(), is_key);
            self.layers.insert(layer.node.result, entry);
        }
    }

    /// The new weights and biases of all layers, by results; all that cannot be made are in the error.
    fn fold_weights(
        &self,
        graph: &str,
        context: &PassContext<'_>,
    ) -> Result<BTreeMap<ValueId, Folded>, PassError> {
        let (mut folded, mut problems) = (BTreeMap::new(), Vec::new());
        for (&result, (layer, affine, is_key)) in &self.layers {
            if (context.cancelled)() {
                return Err(PassError::Cancelled);
            }
            match affine.fold(layer, *is_key) {
                Ok(weights) => drop(folded.insert(result, weights)),
                Err(source) => problems.push(WeightProblem {
                    graph: graph.to_owned(),
                    weight: layer.weight.name.clone(),
                    source: source.into(),
                }),
            }
        }
        if problems.is_empty() {
            return Ok(folded);
        }
        let pass = FoldNormAffine::NAME;
        Err(PassError::Weights { pass, problems })
    }
}

/// Scale and bias of a norm, one number per channel.
#[derive(Clone)]
struct Affine {
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Affine {
    /// Weight and bias of a layer that makes of the plain norm what it made of the scaled one.
    fn fold(
        &self,
        layer: &Layer<'_>,
        is_key: bool,
    ) -> Result<Folded, WeightError> {
        let old = layer.bias.map(|b| b.tensor.to_f32()).transpose()?;
        let tensor = &layer.weight.tensor;
        let folded = tensor.clone().scale(1, &self.scale);
        if is_key && old.is_none() {
            return Ok((folded, None));
        }
        let taps: usize = tensor.shape()[2..].iter().product();
        let weight = tensor.to_f32()?;
        let rows = weight.chunks_exact(self.bias.len() * taps);
        let sums = rows.enumerate().map(|(i, row)| {
            let channels = row.chunks_exact(taps).zip(&self.bias);
            let terms = channels.map(|(taps, &beta)| {
                taps.iter().map(|&w| f64::from(w)).sum::<f64>() * f64::from(beta)
            });
            let old = old.as_ref().map_or(0.0, |old| f64::from(old[i]));
            (old + terms.sum::<f64>()) as f32
        });
        let bias: Vec<f32> = sums.collect();
        Ok((folded, Some(LazyTensor::from_f32(&[bias.len()], &bias))))
    }
}

/// Scale and bias of a norm, and the layers that take them, each with whether it only gives keys.
type Folding<'a> = (Affine, Vec<(Layer<'a>, bool)>);

/// What a norm's scale and bias are and where they go. `None` for what is no norm or is plain already; an error says why
/// they stay.
fn fold<'a>(
    uses: &Uses<'a>,
    graph: &'a Graph,
    node: &'a Node,
) -> Result<Option<Folding<'a>>, String> {
    let rank = graph.ty(node.result).shape.rank();
    let axis = match node.op {
        Op::LayerNorm(_) => rank - 1,
        Op::GroupNorm(_) => 1,
        _ => return Ok(None),
    };
    let numbers = |value| {
        let tensor = graph.weight_of(value).map(|w| &w.tensor);
        tensor.and_then(|t| t.to_f32().ok())
    };
    let affine = match (numbers(node.operands[1]), numbers(node.operands[2])) {
        (Some(scale), Some(bias)) => Affine { scale, bias },
        _ => return Err("scale and bias are not known".to_owned()),
    };
    if affine.scale.iter().all(|&s| s == 1.0) && affine.bias.iter().all(|&b| b == 0.0) {
        return Ok(None);
    }
    let mut layers = Vec::new();
    collect(uses, graph, node.result, axis, &mut layers)?;
    Ok((!layers.is_empty()).then_some((affine, layers)))
}

/// The layers that read a value whose channels are along `axis`.
fn collect<'a>(
    uses: &Uses<'a>,
    graph: &'a Graph,
    value: ValueId,
    axis: usize,
    layers: &mut Vec<(Layer<'a>, bool)>,
) -> Result<(), String> {
    if uses.is_output(value) {
        return Err("an output gives it".to_owned());
    }
    let shape = &graph.ty(value).shape;
    for (reader, position) in uses.readers(value) {
        let moved = match &reader.op {
            Op::Reshape(op) => reshaped_axis(shape.dims(), &op.shape, axis),
            Op::Transpose(op) => op.perm.iter().position(|&p| p == axis),
            Op::Conv2d(op) if op.pads != [0; 4] || op.groups != 1 => {
                return Err("a convolution with padding or groups reads it".to_owned());
            }
            Op::Linear(_) | Op::Conv2d(_) if position == 0 => {
                if axis != Layer::channel_axis(reader, shape.rank()) {
                    return Err("its channels are not those of a layer".to_owned());
                }
                let layer = Layer::of(uses, reader);
                let layer = layer.ok_or("a layer's weights are shared, narrow or not known")?;
                layers.push((layer, gives_keys(uses, reader)));
                continue;
            }
            op => return Err(format!("{} reads it", op.name())),
        };
        let moved = moved.ok_or("a reshape takes its channels apart")?;
        collect(uses, graph, reader.result, moved, layers)?;
    }
    Ok(())
}

/// Whether a layer's result is keys of attention and nothing else.
fn gives_keys(uses: &Uses<'_>, node: &Node) -> bool {
    let is_key = |(reader, position): (&Node, usize)| {
        matches!(reader.op, Op::Attention(_)) && position == 1
    };
    !uses.is_output(node.result) && uses.readers(node.result).all(is_key)
}

/// Where an axis is after a reshape, when it is still a dimension of its own.
fn reshaped_axis(from: &[Dim], to: &[Dim], axis: usize) -> Option<usize> {
    let lead = |dims: &[Dim]| {
        let batches = dims.iter().filter(|d| d.fixed().is_none()).count();
        let product: usize = dims.iter().filter_map(|d| d.fixed()).product();
        (batches, product)
    };
    let same = |&i: &usize| to[i] == from[axis] && lead(&to[..i]) == lead(&from[..axis]);
    (0..to.len()).find(same)
}

/// The norm with ones and zeros, which norms of the same width share.
fn plain_norm(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    shared: &mut BTreeMap<usize, [ValueId; 2]>,
) -> Result<ValueId, snapc_ir::BuildError> {
    let x = rebuild.operand(node.operands[0])?;
    let ty = rebuild.old().ty(node.operands[1]);
    let channels = ty.shape.elements_per_batch().unwrap_or(0);
    let dtype = ty.dtype;
    let [one, zero] = *shared.entry(channels).or_insert_with(|| {
        [("ones", 1.0), ("zeros", 0.0)].map(|(name, number)| {
            let tensor = LazyTensor::from_f32(&[channels], &vec![number; channels]).cast(dtype);
            rebuild.graph.constant(format!("{}.{name}", node.name), tensor)
        })
    });
    rebuild
        .graph
        .add(node.op.clone(), &[x, one, zero], node.name.clone())
}
