//! Convolutions and linear layers as one matrix product per position.

use snapc_ir::ops::Conv2d;
use snapc_ir::{Graph, Node, Op, Tensor};

/// A layer that multiplies a matrix `[outputs][inputs]` with what it reads at each position.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    /// Reads a patch `[Cin][KH][KW]` of an image.
    Conv2d {
        /// Strides and pads; one group.
        op: Conv2d,
        /// Rows and columns of the filter.
        kernel: [usize; 2],
    },
    /// Reads a row of the last dimension.
    Linear,
}

impl Layer {
    /// The layer of a node whose weights are its own; `None` for any other node.
    pub(super) fn of(graph: &Graph, node: &Node, uses: &[usize]) -> Option<Layer> {
        let weights = node.operands.get(1..)?;
        let own = |&w: &snapc_ir::ValueId| graph.weight_of(w).is_some() && uses[w.index()] == 1;
        if !weights.iter().all(own) {
            return None;
        }
        match &node.op {
            Op::Conv2d(op) if op.groups == 1 => {
                let filter = graph.weight_of(weights[0])?.tensor.shape();
                Some(Layer::Conv2d {
                    op: op.clone(),
                    kernel: [filter[2], filter[3]],
                })
            }
            Op::Linear(_) => Some(Layer::Linear),
            _ => None,
        }
    }

    /// Positions in a result.
    pub(super) fn positions(&self, y: &Tensor) -> usize {
        let channels = match self {
            Layer::Conv2d { .. } => y.shape[1],
            Layer::Linear => y.shape.last().copied().unwrap_or(1),
        };
        y.len() / channels.max(1)
    }

    /// The elements of a result `y` at these positions, for these channels: `[channels][positions]`.
    pub(super) fn results(&self, y: &Tensor, channels: &[usize], positions: &[usize]) -> Vec<f32> {
        let values = y.floats();
        let mut found = Vec::with_capacity(channels.len() * positions.len());
        for &channel in channels {
            let at = |&position: &usize| match self {
                Layer::Conv2d { .. } => {
                    let plane = y.shape[2] * y.shape[3];
                    let image = position / plane;
                    values[(image * y.shape[1] + channel) * plane + position % plane]
                }
                Layer::Linear => values[position * y.shape[y.shape.len() - 1] + channel],
            };
            found.extend(positions.iter().map(at));
        }
        found
    }

    /// What the layer reads of `x` for the result `y` at these positions, in the order of its weight:
    /// `[inputs][positions]`.
    pub(super) fn reads(&self, x: &Tensor, y: &Tensor, positions: &[usize]) -> Vec<f32> {
        match self {
            Layer::Conv2d { op, kernel } => patches(op, *kernel, x, y, positions),
            Layer::Linear => {
                let channels = x.shape[x.shape.len() - 1];
                let values = x.floats();
                let rows = |channel| positions.iter().map(move |p| values[p * channels + channel]);
                (0..channels).flat_map(rows).collect()
            }
        }
    }
}

fn patches(
    op: &Conv2d,
    [kernel_rows, kernel_columns]: [usize; 2],
    x: &Tensor,
    y: &Tensor,
    positions: &[usize],
) -> Vec<f32> {
    let (channels, height, width) = (x.shape[1], x.shape[2], x.shape[3]);
    let (rows, columns) = (y.shape[2], y.shape[3]);
    let values = x.floats();
    let mut found = Vec::with_capacity(channels * kernel_rows * kernel_columns * positions.len());
    for channel in 0..channels {
        for u in 0..kernel_rows {
            for v in 0..kernel_columns {
                let at = |&position: &usize| {
                    let (image, cell) = (position / (rows * columns), position % (rows * columns));
                    let row = (cell / columns * op.strides[0] + u).checked_sub(op.pads[0]);
                    let column = (cell % columns * op.strides[1] + v).checked_sub(op.pads[1]);
                    match row.zip(column) {
                        Some((r, c)) if r < height && c < width => {
                            values[((image * channels + channel) * height + r) * width + c]
                        }
                        _ => 0.0,
                    }
                };
                found.extend(positions.iter().map(at));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::float(shape, (0..n).map(|i| (i as f32 * step).sin()).collect())
    }

    /// `weight` times what the layer reads, against the operator's own result.
    fn check(op: &Op, layer: &Layer, x: &Tensor, weight: &Tensor) {
        let y = op.eval(&[x, weight]);
        let positions: Vec<usize> = (0..layer.positions(&y)).rev().step_by(3).collect();
        let reads = layer.reads(x, &y, &positions);
        let inputs = reads.len() / positions.len();
        for channel in 0..weight.shape[0] {
            let found = layer.results(&y, &[channel], &positions);
            let row = &weight.floats()[channel * inputs..(channel + 1) * inputs];
            for (p, result) in found.iter().enumerate() {
                let read = (0..inputs).map(|i| reads[i * positions.len() + p]);
                let sum: f32 = row.iter().zip(read).map(|(w, r)| w * r).sum();
                assert!((sum - result).abs() < 1e-4, "{sum} is not {result}");
            }
        }
    }

    #[test]
    fn the_product_with_what_is_read_is_the_result() {
        let op = Conv2d {
            strides: [2, 1],
            pads: [1, 0, 1, 2],
            groups: 1,
        };
        let (x, weight) = (wave(&[2, 3, 5, 6], 0.7), wave(&[4, 3, 3, 2], 1.3));
        let layer = Layer::Conv2d {
            op: op.clone(),
            kernel: [3, 2],
        };
        check(&op.into(), &layer, &x, &weight);
        let (x, weight) = (wave(&[2, 7, 5], 0.7), wave(&[3, 5], 1.3));
        check(&snapc_ir::ops::Linear {}.into(), &Layer::Linear, &x, &weight);
    }
}
