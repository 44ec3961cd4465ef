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
//! plenty, the first ones go on; default 1024. One goes on in any case: half of SD v1's decoder at 512 pixels needs about
//! 1200 for it, and some hundreds more for what is being computed.
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
mod lockstep;
mod outcome;
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
            memory: 1024,
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
        if graph.weights().iter().any(|w| w.tensor.encoding().is_some()) {
            let reason = "weights are stored as codes already; prune before they are quantized";
            return Err(refused(reason.to_owned()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;
    use snapc_ir::ops::{
        Attention, Concat, Conv2d, GroupNorm, Linear, Reshape, Silu, Transpose, UpsampleNearest,
    };
    use snapc_ir::{DType, Dim, Encoding, LazyTensor, Shape, TensorType, ValueId};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const CHANNELS: usize = 8;

    /// Numbers that are the larger the later they stand.
    fn rising(shape: &[usize]) -> LazyTensor {
        let n: usize = shape.iter().product();
        LazyTensor::from_f32(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
    }

    fn conv(g: &mut Graph, x: ValueId, name: &str, out: usize, groups: usize) -> ValueId {
        let channels = g.ty(x).shape.dims()[1].fixed().unwrap() / groups;
        let weight = rising(&[out, channels, 3, 3]);
        let weight = g.parameter(format!("{name}.weight"), weight);
        let bias = g.parameter(format!("{name}.bias"), rising(&[out]));
        let op = Conv2d {
            strides: [1, 1],
            pads: [1; 4],
            groups,
        };
        g.add(op, &[x, weight, bias], name).unwrap()
    }

    fn norm(g: &mut Graph, x: ValueId, groups: usize) -> ValueId {
        let channels = g.ty(x).shape.dims()[1].fixed().unwrap();
        let scale = g.parameter("norm.weight", rising(&[channels]));
        let bias = g.parameter("norm.bias", rising(&[channels]));
        let op = GroupNorm {
            groups,
            epsilon: 1e-6,
        };
        g.add(op, &[x, scale, bias], "norm").unwrap()
    }

    /// `first`, a GroupNorm of four groups, what `middle` adds, `last`.
    fn network(middle: impl FnOnce(&mut Graph, ValueId) -> ValueId) -> Graph {
        let mut g = Graph::new("vae_decoder");
        let image = Shape::batched(&[2, 3, 3]);
        let x = g.input("x", TensorType::new(DType::F32, image));
        let a = conv(&mut g, x, "first", CHANNELS, 1);
        let b = norm(&mut g, a, 4);
        let c = middle(&mut g, b);
        let y = conv(&mut g, c, "last", 3, 1);
        g.output("y", y);
        g
    }

    fn plain() -> Graph {
        network(|g, x| g.add(Silu {}, &[x], "silu").unwrap())
    }

    fn run(graph: &Graph, ratio: f64) -> Result<Option<Change>, PassError> {
        let pass = PruneChannels {
            ratio,
            ..PruneChannels::default()
        };
        pass.run(graph, &PassContext::default())
    }

    fn weight(graph: &Graph, name: &str) -> (Vec<usize>, Vec<f32>) {
        let weight = graph.weights().iter().find(|w| w.name == name).unwrap();
        let shape = weight.tensor.shape().to_vec();
        (shape, weight.tensor.to_f32().unwrap())
    }

    #[test]
    fn the_groups_with_the_larger_norms_stay_whole() {
        let change = run(&plain(), 0.5).unwrap().unwrap();
        // The filters of `first` rise fast with the channel, the rows of `last` slowly: the last two of four groups stay.
        let bias = vec![4.0, 5.0, 6.0, 7.0];
        assert_eq!(weight(&change.graph, "first.bias"), (vec![4], bias.clone()));
        assert_eq!(weight(&change.graph, "norm.weight").1, bias);
        let (shape, filters) = weight(&change.graph, "first.weight");
        assert_eq!(shape, [4, 2, 3, 3]);
        assert_eq!(filters[0], 72.0);
        let (shape, filters) = weight(&change.graph, "last.weight");
        assert_eq!(shape, [3, 4, 3, 3]);
        assert_eq!((filters[0], filters[36]), (36.0, 108.0));
        assert_eq!(weight(&change.graph, "last.bias").0, [3]);
        let norms: Vec<usize> = change.graph.nodes().iter().filter_map(groups).collect();
        assert_eq!(norms, [2]);
        let expected = [
            ("classes of channels narrowed", 1),
            ("channels removed", 4),
            ("weights thinned out", 5),
            ("layers corrected", 0),
            ("attention scales adjusted", 0),
        ];
        assert_eq!(change.counts, expected);
        assert!(run(&change.graph, 0.5).unwrap().is_none());
    }

    fn groups(node: &snapc_ir::Node) -> Option<usize> {
        match &node.op {
            snapc_ir::Op::GroupNorm(op) => Some(op.groups),
            _ => None,
        }
    }

    #[test]
    fn earlier_groups_stay_where_norms_are_equal() {
        let mut g = Graph::new("vae_decoder");
        let image = TensorType::new(DType::F32, Shape::batched(&[2, 1, 1]));
        let x = g.input("x", image);
        let ones = |shape: &[usize]| {
            LazyTensor::from_f32(shape, &vec![1.0; shape.iter().product::<usize>()])
        };
        let op = Conv2d {
            strides: [1, 1],
            pads: [0; 4],
            groups: 1,
        };
        let w = g.parameter("first.weight", ones(&[4, 2, 1, 1]));
        let b = g.parameter("first.bias", rising(&[4]));
        let a = g.add(op.clone(), &[x, w, b], "first").unwrap();
        let a = norm(&mut g, a, 4);
        let w = g.parameter("last.weight", ones(&[3, 4, 1, 1]));
        let y = g.add(op, &[a, w], "last").unwrap();
        g.output("y", y);
        let change = run(&g, 0.25).unwrap().unwrap();
        assert_eq!(weight(&change.graph, "first.bias").1, [0.0, 1.0, 2.0]);
    }

    #[test]
    fn channels_that_have_to_stay_leave_nothing_to_do() {
        let untouched = |graph: &Graph| run(graph, 0.5).unwrap().is_none();
        let concat = |g: &mut Graph, x| g.add(Concat { axis: 1 }, &[x, x], "concat").unwrap();
        assert!(untouched(&network(concat)));
        let grouped = |g: &mut Graph, x| conv(g, x, "grouped", 6, 2);
        assert!(untouched(&network(grouped)));
        let cut = |g: &mut Graph, x| {
            let shape = [Dim::Batch, 4.into(), 6.into(), 3.into()].to_vec();
            g.add(Reshape { shape }, &[x], "cut").unwrap()
        };
        assert!(untouched(&network(cut)));
        let shown = |g: &mut Graph, x| {
            g.output("features", x);
            x
        };
        assert!(untouched(&network(shown)));
        let mut inner = Graph::new("vae_decoder");
        let image = TensorType::new(DType::F32, Shape::batched(&[CHANNELS, 3, 3]));
        let x = inner.input("x", image);
        let a = norm(&mut inner, x, 4);
        let y = conv(&mut inner, a, "last", 3, 1);
        inner.output("y", y);
        assert!(untouched(&inner), "channels of an input");
        let mut unet = Graph::new("unet");
        let x = unet.input("x", TensorType::new(DType::F32, Shape::batched(&[2, 3, 3])));
        let a = conv(&mut unet, x, "first", CHANNELS, 1);
        let a = norm(&mut unet, a, 4);
        let y = conv(&mut unet, a, "last", 3, 1);
        unet.output("y", y);
        assert!(untouched(&unet), "another graph");
    }

    /// An image as tokens, attention over them, and an image again.
    fn attention(heads: usize) -> Graph {
        network(|g, x| {
            let x = g.add(UpsampleNearest { scale: 2 }, &[x], "up").unwrap();
            let shape = [Dim::Batch, CHANNELS.into(), 36.into()].to_vec();
            let tokens = g.add(Reshape { shape }, &[x], "tokens").unwrap();
            let perm = vec![0, 2, 1];
            let tokens = g.add(Transpose { perm: perm.clone() }, &[tokens], "tokens");
            let mut last = tokens.unwrap();
            let linear = |g: &mut Graph, x: ValueId, name: &str| {
                let w = g.parameter(format!("{name}.weight"), rising(&[CHANNELS, CHANNELS]));
                g.add(Linear {}, &[x, w], name).unwrap()
            };
            let [q, k, v] = ["q", "k", "v"].map(|name| linear(g, last, name));
            let scale = (1.0 / ((CHANNELS / heads) as f64).sqrt()) as f32;
            last = g.add(Attention { heads, scale }, &[q, k, v], "attention").unwrap();
            last = linear(g, last, "out");
            let image = g.add(Transpose { perm }, &[last], "image").unwrap();
            let shape = [Dim::Batch, CHANNELS.into(), 6.into(), 6.into()].to_vec();
            let image = g.add(Reshape { shape }, &[image], "image").unwrap();
            norm(g, image, 4)
        })
    }

    #[test]
    fn the_scale_of_one_head_follows_its_width() {
        let change = run(&attention(1), 0.5).unwrap().unwrap();
        assert!(change.counts.contains(&("attention scales adjusted", 1)));
        let op = change.graph.nodes().iter().find_map(|n| match &n.op {
            snapc_ir::Op::Attention(op) => Some(op.clone()),
            _ => None,
        });
        assert_eq!(op.unwrap().scale, 0.5);
        // Scores were divided by the root of 8 and are by that of 4; the last rows and columns of 8 stay.
        let (shape, q) = weight(&change.graph, "q.weight");
        assert_eq!(shape, [4, 4]);
        let (_, k) = weight(&change.graph, "k.weight");
        assert_eq!(k[0], 36.0);
        assert!((q[0] - 36.0 * 0.5f32.sqrt()).abs() < 1e-5);
    }

    #[test]
    fn channels_of_several_heads_stay() {
        let change = run(&attention(2), 0.5).unwrap().unwrap();
        assert_eq!(weight(&change.graph, "q.weight").0, [8, 4]);
        assert_eq!(weight(&change.graph, "out.weight").0, [4, 8]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let message = |ratio| run(&plain(), ratio).unwrap_err().to_string();
        assert_eq!(
            message(0.3),
            "pass 'prune-channels', graph 'vae_decoder': a ratio of 0.3 does not leave whole groups of the GroupNorms; \
             use a multiple of 1/4 from 0.25 to 0.75"
        );
        for ratio in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(message(ratio).contains("use a multiple of 1/4"), "{ratio}");
        }
        let correcting = PruneChannels {
            correction: Some(true),
            ..PruneChannels::default()
        };
        let error = correcting.run(&plain(), &PassContext::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("correction needs calibration samples"), "{error}");
        let mut calibration = Calibration::default();
        calibration.add("vae_decoder", BTreeMap::new());
        let context = PassContext {
            calibration: Some(&calibration),
            ..PassContext::default()
        };
        let error = correcting.run(&plain(), &context).unwrap_err().to_string();
        assert!(error.contains("input 'x' is not given"), "{error}");
        let encoding = Encoding::affine(8, &[1], vec![1.0], Vec::new()).unwrap();
        let mut encoded = plain();
        encoded.parameter("codes", rising(&[2]).encode(Arc::new(encoding)));
        let error = run(&encoded, 0.5).unwrap_err().to_string();
        assert!(error.contains("prune before they are quantized"), "{error}");
        let mut absent = Graph::new("vae_decoder");
        let ty = TensorType::new(DType::F32, Shape::batched(&[2, 1, 1]));
        let x = absent.input("x", ty);
        let op = Conv2d {
            strides: [1, 1],
            pads: [0; 4],
            groups: 1,
        };
        let w = absent.parameter("w", LazyTensor::absent(DType::F32, &[4, 2, 1, 1]));
        let a = absent.add(op, &[x, w], "first").unwrap();
        let a = norm(&mut absent, a, 2);
        let y = conv(&mut absent, a, "last", 3, 1);
        absent.output("y", y);
        let error = run(&absent, 0.5).unwrap_err().to_string();
        assert!(error.contains("weight 'w': the weight has a type but no data"), "{error}");
    }

    #[test]
    fn cancelling_ends_the_run() {
        let context = PassContext {
            cancelled: &|| true,
            ..PassContext::default()
        };
        let error = PruneChannels::default().run(&plain(), &context);
        assert!(matches!(error, Err(PassError::Cancelled)));
    }
}
