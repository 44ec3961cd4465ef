//! Folds constant factors into the layers beside them.
//!
//! # What it does
//! A product with a constant, or a quotient by one, goes into the weight of the linear layer or convolution before it
//! (weight and bias) or after it (weight only). The constant is one number or one per channel. Zero padding does not
//! matter, since zeros stay zeros; so `1 / 0.18215` in front of the VAE decoder goes into `post_quant_conv`.
//!
//! # When it applies
//! Before a factor, when the layer's result has no other reader; after it, when all readers are layers. The layers'
//! weights must be their own and in f32. It runs in full precision, before weights are quantized.
//!
//! # Options
//! * `attention`: fold the scale of attention into the layer that gives its queries, and leave a scale of 1; default
//!   false. Attention that is written as primitives then has one product less. The native kernel scales queries while it
//!   reads them and wins nothing (nor would it by `log2 e`), and Core ML's operator for attention has a fixed scale,
//!   which would have to be undone.
//!
//! # Effect on accuracy
//! Rounding only, in f32.
//!
//! # Example
//! ```text
//! before: s = mul(x, 5.49); y = conv2d(s, w, b)
//! after:  y = conv2d(x, 5.49·w, b)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use snapc_ir::ops::Attention;
use snapc_ir::{BuildError, Graph, LazyTensor, Node, Op, ValueId};

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property};
use crate::uses::{Layer, Uses};

/// Constants with more elements are not looked into.
const MAX_FACTORS: usize = 1 << 16;

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldScaling {
    /// Fold the scale of attention into the layer of its queries.
    #[serde(default)]
    pub attention: bool,
}

impl Describe for FoldScaling {
    const NAME: &'static str = "fold-scaling";
    const REQUIRES: &'static [Property] = &[Property::FullPrecision];
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for FoldScaling {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let mut folded = 0;
        let mut latest: Option<Graph> = None;
        // A layer takes one factor at a time.
        loop {
            let current = latest.as_ref().unwrap_or(graph);
            let plan = Plan::of(current, self.attention);
            if plan.count == 0 {
                break;
            }
            folded += plan.count;
            let next = plan.carry_out(current);
            latest = Some(next.map_err(PassError::build(Self::NAME))?);
        }
        let change = |graph| Change::new(graph, vec![("factors folded", folded)]);
        Ok(latest.map(change))
    }
}

/// A factor per channel, or one for all.
#[derive(Clone)]
struct Factors {
    numbers: Vec<f32>,
    /// The axis that they go along, when there is more than one.
    axis: Option<usize>,
}

impl Factors {
    /// What a product or quotient multiplies a value with, and that value.
    fn of(graph: &Graph, node: &Node) -> Option<(ValueId, Self)> {
        let orders = match (&node.op, node.operands.as_slice()) {
            (Op::Mul(_), &[a, b]) => vec![(a, b), (b, a)],
            (Op::Div(_), &[a, b]) => vec![(a, b)],
            _ => return None,
        };
        orders.into_iter().find_map(|(x, factors)| {
            let tensor = &graph.weight_of(factors)?.tensor;
            let keeps_type = graph.ty(x) == graph.ty(node.result);
            if !keeps_type || graph.weight_of(x).is_some() || tensor.elements() > MAX_FACTORS {
                return None;
            }
            let missing = graph.ty(x).shape.rank().checked_sub(tensor.shape().len())?;
            let mut long = (0..tensor.shape().len()).filter(|&d| tensor.shape()[d] != 1);
            let axis = long.next().map(|d| d + missing);
            let mut numbers = tensor.to_f32().ok()?;
            if matches!(node.op, Op::Div(_)) {
                numbers.iter_mut().for_each(|n| *n = 1.0 / *n);
            }
            let usable = long.next().is_none() && numbers.iter().all(|n| n.is_finite());
            (usable && !numbers.is_empty()).then_some((x, Factors { numbers, axis }))
        })
    }

    /// Whether they fit the channels that a layer has along this axis.
    fn fit(&self, axis: usize) -> bool {
        self.axis.is_none_or(|own| own == axis)
    }

    fn scale(&self, tensor: &LazyTensor, axis: usize) -> LazyTensor {
        let numbers = match self.axis {
            Some(_) => self.numbers.clone(),
            None => vec![self.numbers[0]; tensor.shape()[axis]],
        };
        tensor.clone().scale(axis, &numbers)
    }
}

/// What becomes of nodes, by their results.
#[derive(Default)]
struct Plan<'a> {
    count: usize,
    /// Products that go, with the value that they scale.
    gone: BTreeMap<ValueId, ValueId>,
    /// Layers that a product stands for.
    replaced: BTreeSet<ValueId>,
    /// By product: the layer before it that takes its factors.
    before: BTreeMap<ValueId, (Layer<'a>, Factors)>,
    /// By attention: the same operator with a scale of 1.
    unscaled: BTreeMap<ValueId, Attention>,
    /// By layer of queries: the scale that it takes.
    queries: BTreeMap<ValueId, (Layer<'a>, Factors)>,
    /// By layer: the factors on its operand.
    after: BTreeMap<ValueId, (Layer<'a>, Factors)>,
}

impl<'a> Plan<'a> {
    fn of(graph: &'a Graph, attention: bool) -> Self {
        let uses = Uses::of(graph);
        let live = graph.live_values();
        let mut plan = Plan::default();
        let mut taken = BTreeSet::new();
        for node in graph.nodes().iter().filter(|n| live[n.result.index()]) {
            if let (true, Op::Attention(op)) = (attention, &node.op) {
                plan.count += usize::from(plan.unscale(&uses, graph, (node, op), &mut taken));
                continue;
            }
            let Some((x, factors)) = Factors::of(graph, node) else {
                continue;
            };
            let rank = graph.ty(x).shape.rank();
            if let Some(layer) = layer_before(&uses, graph, x)
                && factors.fit(Layer::channel_axis(layer.node, rank))
                && taken.insert(layer.node.result)
            {
                plan.replaced.insert(layer.node.result);
                plan.before.insert(node.result, (layer, factors));
                plan.count += 1;
                continue;
            }
            let Some(layers) = layers_after(&uses, node, &factors, rank) else {
                continue;
            };
            if layers.iter().any(|l| taken.contains(&l.node.result)) {
                continue;
            }
            for layer in layers {
                taken.insert(layer.node.result);
                plan.after.insert(layer.node.result, (layer, factors.clone()));
            }
            plan.gone.insert(node.result, x);
            plan.count += 1;
        }
        plan
    }

    /// Takes the scale of attention into the layer of its queries; whether that can be done.
    fn unscale(
        &mut self,
        uses: &Uses<'a>,
        graph: &'a Graph,
        (node, op): (&Node, &Attention),
        taken: &mut BTreeSet<ValueId>,
    ) -> bool {
        let Some(layer) = layer_before(uses, graph, node.operands[0]) else {
            return false;
        };
        if op.scale == 1.0 || !op.scale.is_finite() || !taken.insert(layer.node.result) {
            return false;
        }
        let factors = Factors {
            numbers: vec![op.scale],
            axis: None,
        };
        let plain = Attention {
            scale: 1.0,
            ..op.clone()
        };
        self.queries.insert(layer.node.result, (layer, factors));
        self.unscaled.insert(node.result, plain);
        true
    }

    fn carry_out(&self, graph: &Graph) -> Result<Graph, BuildError> {
        let live = graph.live_values();
        graph.rebuild(|rebuild, node| {
            // What reads a replaced layer without serving an output was not looked at.
            if self.replaced.contains(&node.result) || !live[node.result.index()] {
                return Ok(None);
            }
            if let Some(&x) = self.gone.get(&node.result) {
                return rebuild.operand(x).map(Some);
            }
            if let Some(op) = self.unscaled.get(&node.result) {
                let operands = rebuild.operands(node)?;
                let name = node.name.clone();
                return rebuild.graph.add(op.clone(), &operands, name).map(Some);
            }
            let before = self.before.get(&node.result);
            if let Some((layer, factors)) = before.or(self.queries.get(&node.result)) {
                let x = rebuild.operand(layer.node.operands[0])?;
                let weight = factors.scale(&layer.weight.tensor, 0);
                let bias = layer.bias.map(|b| factors.scale(&b.tensor, 0));
                return layer.rebuild(rebuild, x, weight, bias).map(Some);
            }
            if let Some((layer, factors)) = self.after.get(&node.result) {
                let x = rebuild.operand(node.operands[0])?;
                let weight = factors.scale(&layer.weight.tensor, 1);
                let bias = layer.bias.map(|b| b.tensor.clone());
                return layer.rebuild(rebuild, x, weight, bias).map(Some);
            }
            rebuild.copy(node).map(Some)
        })
    }
}

/// The layer whose result is read by nothing but a product.
fn layer_before<'a>(uses: &Uses<'a>, graph: &'a Graph, x: ValueId) -> Option<Layer<'a>> {
    let layer = Layer::of(uses, graph.node_of(x)?)?;
    uses.is_read_once(x).then_some(layer)
}

/// The layers that read a product, when nothing else does.
fn layers_after<'a>(
    uses: &Uses<'a>,
    node: &Node,
    factors: &Factors,
    rank: usize,
) -> Option<Vec<Layer<'a>>> {
    if uses.is_output(node.result) {
        return None;
    }
    let layer = |(reader, position): (&'a Node, usize)| {
        let mixes = !matches!(&reader.op, Op::Conv2d(op) if op.groups != 1);
        let fits = factors.fit(Layer::channel_axis(reader, rank)) && mixes;
        (position == 0 && fits).then(|| Layer::of(uses, reader))?
    };
    let layers: Vec<Layer<'a>> = uses.readers(node.result).map(layer).collect::<Option<_>>()?;
    (!layers.is_empty()).then_some(layers)
}
