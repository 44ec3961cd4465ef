//! Random small networks of layers for property tests: convolutions, norms, attention and what stands between them.

use proptest::prelude::*;
use snapc_ir::ops::{
    Add, Attention, Concat, Conv2d, Div, GroupNorm, LayerNorm, Linear, Mul, Reshape, Silu,
    Transpose, UpsampleNearest,
};
use snapc_ir::{DType, Dim, Graph, LazyTensor, Op, Shape, TensorType, ValueId};

/// Networks of the inputs `image` [N,4,4,4] and `context` [N,3,6] with up to 14 layers. The batch is open, or 2 when
/// `batch` says so.
pub(crate) fn networks(batch: Dim) -> impl Strategy<Value = Graph> {
    // Which layer, and numbers that choose its operand and attributes.
    let choice = (0..13usize, any::<usize>(), any::<usize>());
    let choices = proptest::collection::vec(choice, 2..14);
    let outputs = proptest::collection::vec(any::<usize>(), 1..3);
    (choices, outputs).prop_map(move |(choices, outputs)| {
        let mut network = Network::new(batch);
        for (kind, a, b) in choices {
            network.layer(kind, a, b);
        }
        network.finish(&outputs)
    })
}

/// Uneven numbers around 0.
pub(crate) fn wave(shape: &[usize], phase: f32) -> LazyTensor {
    let elements: usize = shape.iter().product();
    let numbers = (0..elements).map(|i| ((i as f32 * 1.7 + phase).sin() * 0.6) + 0.05);
    LazyTensor::from_f32(shape, &numbers.collect::<Vec<_>>())
}

struct Network {
    graph: Graph,
    batch: Dim,
    images: Vec<ValueId>,
    tokens: Vec<ValueId>,
    context: ValueId,
    count: usize,
}

impl Network {
    fn new(batch: Dim) -> Self {
        let mut graph = Graph::new("network");
        let ty = |sizes: &[usize]| {
            let sizes = sizes.iter().map(|&d| Dim::Fixed(d));
            TensorType::new(
                DType::F32,
                Shape([batch].into_iter().chain(sizes).collect()),
            )
        };
        let image = graph.input("image", ty(&[4, 4, 4]));
        let context = graph.input("context", ty(&[3, 6]));
        Network {
            graph,
            batch,
            images: vec![image],
            tokens: vec![context],
            context,
            count: 0,
        }
    }

    fn weight(&mut self, shape: &[usize]) -> ValueId {
        self.count += 1;
        self.graph
            .parameter(format!("w{}", self.count), wave(shape, self.count as f32))
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        self.count += 1;
        let name = format!("layer.{}", self.count);
        self.graph.add(op, operands, name).expect("the layers fit")
    }

    fn sizes(&self, value: ValueId) -> Vec<usize> {
        let dims = self.graph.ty(value).shape.dims().iter();
        dims.filter_map(|d| d.fixed()).collect()
    }

    fn shape(&self, sizes: &[usize]) -> Vec<Dim> {
        let sizes = sizes.iter().map(|&d| Dim::Fixed(d));
        [self.batch].into_iter().chain(sizes).collect()
    }

    /// The sizes of a value behind its batch.
    fn own_sizes(&self, value: ValueId) -> Vec<usize> {
        let sizes = self.sizes(value);
        let lead = sizes.len() + 1 - self.graph.ty(value).shape.rank();
        sizes[usize::from(lead == 1)..].to_vec()
    }

    fn linear(&mut self, x: ValueId, columns: usize, with_bias: bool) -> ValueId {
        let rows = *self.sizes(x).last().expect("tokens have channels");
        let mut operands = vec![x, self.weight(&[columns, rows])];
        if with_bias {
            operands.push(self.weight(&[columns]));
        }
        self.add(Linear {}, &operands)
    }

    fn conv(&mut self, x: ValueId, channels: usize, size: usize, with_bias: bool) -> ValueId {
        let before = self.own_sizes(x)[0];
        let mut operands = vec![x, self.weight(&[channels, before, size, size])];
        if with_bias {
            operands.push(self.weight(&[channels]));
        }
        let op = Conv2d {
            strides: [1, 1],
            pads: [size / 2; 4],
            groups: 1,
        };
        self.add(op, &operands)
    }

    fn group_norm(&mut self, x: ValueId, groups: usize) -> ValueId {
        let channels = self.own_sizes(x)[0];
        let (scale, bias) = (self.weight(&[channels]), self.weight(&[channels]));
        let op = GroupNorm {
            groups,
            epsilon: 0.1,
        };
        self.add(op, &[x, scale, bias])
    }

    fn layer_norm(&mut self, x: ValueId) -> ValueId {
        let channels = *self.sizes(x).last().expect("tokens have channels");
        let (scale, bias) = (self.weight(&[channels]), self.weight(&[channels]));
        self.add(LayerNorm { epsilon: 0.1 }, &[x, scale, bias])
    }

    fn tokens_of(&mut self, image: ValueId) -> ValueId {
        let sizes = self.own_sizes(image);
        let shape = self.shape(&[sizes[0], sizes[1] * sizes[2]]);
        let flat = self.add(Reshape { shape }, &[image]);
        let perm = vec![0, 2, 1];
        self.add(Transpose { perm }, &[flat])
    }

    fn layer(&mut self, kind: usize, a: usize, b: usize) {
        let image = self.images[self.images.len() - 1 - a % self.images.len().min(3)];
        let token = self.tokens[self.tokens.len() - 1 - a % self.tokens.len().min(3)];
        let channels = [2, 4, 6][b % 3];
        let with_bias = b.is_multiple_of(2);
        let is_small = self.own_sizes(image)[1] < 8;
        match kind {
            0 => {
                let y = self.conv(image, channels, 3, with_bias);
                self.images.push(y);
            }
            1 => {
                let y = self.conv(image, channels, 1, with_bias);
                self.images.push(y);
            }
            2 => {
                let y = self.group_norm(image, 1 + b % 2);
                self.images.push(y);
            }
            3 => {
                let y = self.add(Silu {}, &[image]);
                self.images.push(y);
            }
            4 if is_small => {
                let y = self.add(UpsampleNearest { scale: 2 }, &[image]);
                let y = if b % 4 < 3 {
                    self.conv(y, channels, 3, with_bias)
                } else {
                    y
                };
                self.images.push(y);
            }
            5 | 6 => {
                let sizes = self.own_sizes(image);
                let fits = |&&v: &&ValueId| self.own_sizes(v)[1..] == sizes[1..];
                let others: Vec<ValueId> = self.images.iter().filter(fits).copied().collect();
                let other = others[b % others.len()];
                let mut y = self.add(Concat { axis: 1 }, &[image, other]);
                if kind == 6 {
                    y = self.group_norm(y, 1 + b % 2);
                    y = self.add(Silu {}, &[y]);
                    y = self.conv(y, channels, 3, with_bias);
                }
                // Concatenations of concatenations grow without end.
                if self.own_sizes(y)[0] <= 12 {
                    self.images.push(y);
                }
            }
            7 => {
                let width = self.own_sizes(image)[0];
                let shape = [vec![], vec![1], vec![width, 1, 1]][b % 3].clone();
                let factor = self.weight(&shape);
                let y = if b % 4 < 2 {
                    self.add(Mul {}, &[factor, image])
                } else {
                    let quotient = self.graph.constant("c", LazyTensor::from_f32(&[], &[1.7]));
                    self.add(Div {}, &[image, quotient])
                };
                let y = if b % 5 < 3 {
                    self.conv(y, channels, 3, with_bias)
                } else {
                    y
                };
                self.images.push(y);
            }
            8 => {
                let normed = self.group_norm(image, 1);
                let token = self.tokens_of(normed);
                let y = self.linear(token, channels, with_bias);
                self.tokens.push(y);
            }
            9 => {
                let y = self.layer_norm(token);
                self.tokens.push(y);
            }
            10 => {
                let y = self.linear(token, channels, with_bias);
                self.tokens.push(y);
            }
            11 => {
                let normed = self.layer_norm(token);
                let rows = if b.is_multiple_of(3) {
                    self.context
                } else {
                    normed
                };
                let q = self.linear(normed, channels, with_bias);
                let k = self.linear(rows, channels, with_bias);
                let v = self.linear(rows, channels, with_bias || b.is_multiple_of(5));
                let mut operands = vec![q, k, v];
                if b.is_multiple_of(7) {
                    let keys = self.own_sizes(rows)[0];
                    operands.push(self.weight(&[1, 1, 1, keys]));
                }
                let op = Attention {
                    heads: 1 + a % 2,
                    scale: 0.4,
                };
                let y = self.add(op, &operands);
                self.tokens.push(y);
            }
            _ => {
                let y = self.add(Add {}, &[token, token]);
                self.tokens.push(y);
            }
        }
    }

    fn finish(mut self, outputs: &[usize]) -> Graph {
        let (mut images, mut tokens) = (self.images.split_off(1), self.tokens.split_off(1));
        // The last of each kind, and any other: a value that is read on and given out.
        let mut given: Vec<ValueId> = images.pop().into_iter().chain(tokens.pop()).collect();
        images.append(&mut tokens);
        for &choice in outputs {
            if !images.is_empty() && choice.is_multiple_of(3) {
                given.push(images.swap_remove(choice / 3 % images.len()));
            }
        }
        if given.is_empty() {
            given.push(self.add(Silu {}, &[self.context]));
        }
        for (i, value) in given.into_iter().enumerate() {
            self.graph.output(format!("out{i}"), value);
        }
        self.graph
    }
}
