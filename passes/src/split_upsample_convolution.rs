//! Makes a nearest upsampling and its 3x3 convolution four 2x2 convolutions on the small image.
//!
//! # What it does
//! After every cell has become 2x2 equal ones, a 3x3 window meets only 2x2 different cells of the small image, and which
//! ones depends on whether the row and the column of the result are even. So each of the four phases of the result is a
//! 2x2 convolution of the small image, whose taps are sums of those that meet the same cell; concatenations along new
//! axes put the phases side by side. Edges are included: the zero row around the large image meets the zero row around
//! the small one. 16 instead of 36 multiply-adds per cell and pair of channels.
//!
//! # When it applies
//! To an upsampling by 2 whose 3x3 convolution has stride 1, padding 1, and one group, where the cost model sees a gain.
//! A layer takes the longer of two times: that of its multiply-adds and that of reading its weights, of which there are
//! 16 for 9. So small images with many channels lose: at `balance` 256 and batch 1, the upsampling of the UNet from 8x8
//! stays, those from 16x16 and 32x32 and all of the VAE are split. It runs in full precision, so that sums of taps are
//! rounded once.
//!
//! # Options
//! * `balance`: multiply-adds in the time that reading one weight takes; default 256 (2.6 TMAC/s at 20 GB/s and 2 bytes),
//!   a phone's processor has about 86.
//! * `min_gain`: the least factor by which a layer becomes faster in this model; default 1.2. 0 splits all.
//!
//! # Effect on accuracy
//! Rounding only: taps are summed in f32 and rounded to the element type of the weight.
//!
//! # Example
//! ```text
//! before: u = upsample_nearest(x) {scale=2}; y = conv2d(u, w[8,4,3,3]) {pads=[1,1,1,1]}
//! after:  a = conv2d(x, w'[8,4,2,2]) {pads=[1,1,0,0]}; b = … {pads=[1,0,0,1]};
//!         c = … {pads=[0,1,1,0]}; d = … {pads=[0,0,1,1]};
//!         y = interleaved(a, b, c, d)
//! ```

use serde::Deserialize;
use snapc_ir::ops::{Concat, Conv2d, Reshape, UpsampleNearest};
use snapc_ir::{BuildError, Dim, Graph, LazyTensor, Node, Op, Rebuild, ValueId, Weight};

use crate::info::Describe;
use crate::pass::{Change, Pass, PassContext, PassError, Property};
use crate::uses::{Skipped, add_named};

/// See the module documentation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitUpsampleConvolution {
    /// Multiply-adds in the time that reading one weight takes.
    pub balance: f64,
    /// The least factor by which a layer becomes faster.
    pub min_gain: f64,
}

impl Default for SplitUpsampleConvolution {
    fn default() -> Self {
        SplitUpsampleConvolution {
            balance: 256.0,
            min_gain: 1.2,
        }
    }
}

impl Describe for SplitUpsampleConvolution {
    const NAME: &'static str = "split-upsample-convolution";
    const REQUIRES: &'static [Property] = &[Property::FullPrecision];
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for SplitUpsampleConvolution {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let live = graph.live_values();
        let mut skipped = Skipped::default();
        let mut split = 0;
        let rebuilt = graph.rebuild(|rebuild, node| {
            let found = live[node.result.index()].then(|| upsampled(graph, node));
            let Some(found) = found.flatten() else {
                return rebuild.copy(node).map(Some);
            };
            let gain = self.gain(found.cells());
            if gain < self.min_gain {
                let size = format!("{}x{}", found.height, found.width);
                skipped.add(
                    format!("from {size} the gain is {gain:.2}, less than {}", self.min_gain),
                    &node.name,
                );
                return rebuild.copy(node).map(Some);
            }
            split += 1;
            found.split(rebuild, node).map(Some)
        });
        let rebuilt = rebuilt.map_err(PassError::build(Self::NAME))?;
        if split == 0 {
            return Ok(None);
        }
        Ok(Some(Change {
            graph: rebuilt,
            counts: vec![("convolutions split", split)],
            notes: skipped.notes(),
        }))
    }
}

impl SplitUpsampleConvolution {
    /// How much faster a layer over this many cells of the small image becomes at batch 1. Per pair of channels it has 36
    /// multiply-adds per cell and 9 weights before, 16 and 16 after.
    fn gain(&self, cells: usize) -> f64 {
        let time = |per_cell: f64, weights: f64| (per_cell * cells as f64).max(self.balance * weights);
        time(36.0, 9.0) / time(16.0, 16.0)
    }
}

/// An upsampling by 2 and the convolution that reads it.
struct Upsampled<'a> {
    /// The small image.
    x: ValueId,
    height: usize,
    width: usize,
    batch: Dim,
    weight: &'a Weight,
    bias: Option<ValueId>,
}

fn upsampled<'a>(graph: &'a Graph, node: &Node) -> Option<Upsampled<'a>> {
    let plain = Conv2d {
        strides: [1, 1],
        pads: [1; 4],
        groups: 1,
    };
    if node.op != plain.into() {
        return None;
    }
    let upsample = graph.node_of(node.operands[0])?;
    let Op::UpsampleNearest(UpsampleNearest { scale: 2 }) = upsample.op else {
        return None;
    };
    let x = upsample.operands[0];
    let weight = graph.weight_of(node.operands[1])?;
    let is_small = weight.tensor.shape()[2..] == [3, 3];
    let &[batch, _, height, width] = graph.ty(x).shape.dims() else {
        return None;
    };
    let found = Upsampled {
        x,
        height: height.fixed()?,
        width: width.fixed()?,
        batch,
        weight,
        bias: node.operands.get(2).copied(),
    };
    (is_small && weight.tensor.encoding().is_none()).then_some(found)
}

/// Which of three taps along one axis meet each of the two cells, in the even and in the odd phase.
const TAPS: [[[f32; 3]; 2]; 2] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
    [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
];

impl Upsampled<'_> {
    fn cells(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    fn split(&self, rebuild: &mut Rebuild<'_>, node: &Node) -> Result<ValueId, BuildError> {
        let x = rebuild.operand(self.x)?;
        let bias = self.bias.map(|b| rebuild.operand(b)).transpose()?;
        let channels = self.weight.tensor.shape()[0];
        let mut phases = Vec::with_capacity(4);
        for row in 0..2 {
            for column in 0..2 {
                let name = format!("{}.phase{row}{column}", self.weight.name);
                let tensor = phase(&self.weight.tensor, row, column);
                let graph = &mut rebuild.graph;
                let weight = add_named(graph, name, tensor, self.weight.is_parameter);
                let op = Conv2d {
                    strides: [1, 1],
                    pads: [1 - row, 1 - column, row, column],
                    groups: 1,
                };
                let operands: Vec<ValueId> = [x, weight].into_iter().chain(bias).collect();
                phases.push(graph.add(op, &operands, node.name.clone())?);
            }
        }
        let (height, width) = (self.height, self.width);
        let sizes = |tail: &[usize]| {
            let tail = tail.iter().map(|&d| Dim::Fixed(d));
            [self.batch, Dim::Fixed(channels)].into_iter().chain(tail).collect()
        };
        let mut rows = Vec::with_capacity(2);
        for pair in phases.chunks_exact(2) {
            let cells = sizes(&[height, width, 1]);
            let row = interleave(rebuild, pair, cells, 4, sizes(&[height, 2 * width]), node)?;
            rows.push(row);
        }
        let lines = sizes(&[height, 1, 2 * width]);
        let whole = sizes(&[2 * height, 2 * width]);
        interleave(rebuild, &rows, lines, 3, whole, node)
    }
}

/// The weight `[Cout,Cin,2,2]` of one phase.
fn phase(weight: &LazyTensor, row: usize, column: usize) -> LazyTensor {
    let (rows, columns) = (TAPS[row], TAPS[column]);
    let mut matrix = Vec::with_capacity(36);
    for of_rows in rows {
        for of_columns in columns {
            let taps = of_rows.iter().flat_map(|r| of_columns.map(|c| r * c));
            matrix.extend(taps);
        }
    }
    let &[cout, cin, ..] = weight.shape() else {
        unreachable!("the weight of a convolution has four dimensions");
    };
    let flat = weight.clone().reshape(&[cout, cin, 9]);
    flat.combine(2, &matrix).reshape(&[cout, cin, 2, 2])
}

/// Elements of the parts by turns: each part gets an axis of size one, along which they are joined and which then goes up
/// in `whole`.
fn interleave(
    rebuild: &mut Rebuild<'_>,
    parts: &[ValueId],
    with_axis: Vec<Dim>,
    axis: usize,
    whole: Vec<Dim>,
    node: &Node,
) -> Result<ValueId, BuildError> {
    let name = &node.name;
    let graph = &mut rebuild.graph;
    let mut split = Vec::with_capacity(parts.len());
    for &part in parts {
        let shape = with_axis.clone();
        split.push(graph.add(Reshape { shape }, &[part], name)?);
    }
    let joined = graph.add(Concat { axis }, &split, name)?;
    graph.add(Reshape { shape: whole }, &[joined], name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::cost::graph_cost;
    use snapc_ir::{DType, Shape, TensorType};

    /// Upsampling of a square image, then its convolution without a change of channels.
    fn layer(channels: usize, side: usize, pads: usize) -> Graph {
        let mut g = Graph::new("g");
        let shape = Shape::batched(&[channels, side, side]);
        let x = g.input("x", TensorType::new(DType::F32, shape));
        let up = g.add(UpsampleNearest { scale: 2 }, &[x], "up").unwrap();
        let shape = [channels, channels, 3, 3];
        let weight = g.parameter("conv.weight", LazyTensor::absent(DType::F32, &shape));
        let op = Conv2d {
            strides: [1, 1],
            pads: [pads; 4],
            groups: 1,
        };
        let y = g.add(op, &[up, weight], "conv").unwrap();
        g.output("y", y);
        g
    }

    fn run(options: &SplitUpsampleConvolution, graph: &Graph) -> Option<Change> {
        options.run(graph, &PassContext::default()).unwrap()
    }

    #[test]
    fn stable_diffusion_saves_what_its_sizes_say() {
        // Channels and sides of the upsamplings of Stable Diffusion v1.5's UNet and of its VAE's decoder at 512x512, and
        // their multiply-adds: 36 or 16 per cell and pair of channels.
        let unet = [(1280, 8), (1280, 16), (640, 32)];
        let vae = [(512, 64), (512, 128), (256, 256)];
        for (layers, before, after) in [(unet, 33.97, 15.10), (vae, 347.89, 154.62)] {
            let all = SplitUpsampleConvolution {
                min_gain: 0.0,
                ..SplitUpsampleConvolution::default()
            };
            let (mut old, mut new) = (0.0, 0.0);
            for (channels, side) in layers {
                let graph = layer(channels, side, 1);
                let change = run(&all, &graph).unwrap();
                old += graph_cost(&graph).macs as f64 / 1e9;
                new += graph_cost(&change.graph).macs as f64 / 1e9;
                assert!(run(&all, &change.graph).is_none());
            }
            assert!((old - before).abs() < 0.01 && (new - after).abs() < 0.01, "{old} {new}");
        }
    }

    #[test]
    fn only_layers_that_become_faster_are_split() {
        let default = SplitUpsampleConvolution::default();
        assert!(run(&default, &layer(1280, 8, 1)).is_none());
        assert!(run(&default, &layer(1280, 16, 1)).is_some());
        assert!(run(&default, &layer(640, 32, 1)).is_some());
        // A phone's processor computes longer for each weight that it reads.
        let phone = SplitUpsampleConvolution {
            balance: 86.0,
            ..default
        };
        assert!(run(&phone, &layer(1280, 8, 1)).is_some());
    }

    #[test]
    fn a_convolution_without_padding_stays() {
        let all = SplitUpsampleConvolution {
            min_gain: 0.0,
            ..SplitUpsampleConvolution::default()
        };
        assert!(run(&all, &layer(4, 8, 0)).is_none());
    }
}
