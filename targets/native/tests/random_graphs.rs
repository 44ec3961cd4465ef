//! Random graphs in which orders of dimensions meet in ways that no network has, against the reference evaluator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use snapc_ir::ops::{
    Add, ArgMax, Cast, Concat, Conv2d, Gelu, GroupNorm, LayerNorm, Linear, MatMul, Mul, ReduceMean,
    Reshape, Silu, Slice, Softmax, Sub, Transpose, UpsampleNearest,
};
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Dim, Graph, LazyTensor, Op, Shape, Tensor, TensorType, ValueId, eval};
use snapc_native::Activations;
use support::Noise;
use support::engine::{network, run};

/// Graphs that are tried.
const GRAPHS: u64 = 400;
/// Nodes of each, as far as they fit.
const NODES: usize = 14;
/// Size of the open batch.
const BATCH: usize = 2;
/// Elements of a value per unit of batch, so that a graph takes milliseconds.
const MAX_ELEMENTS: usize = 3000;

struct Maker {
    noise: Noise,
    graph: Graph,
    values: Vec<ValueId>,
}

impl Maker {
    fn pick(&mut self, n: usize) -> usize {
        self.noise.ints(1, n as i64)[0] as usize
    }

    fn dims(&self, value: ValueId) -> Vec<Dim> {
        self.graph.ty(value).shape.0.clone()
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let data = self.noise.floats(shape.iter().product(), (-1.0, 1.0));
        let dtype = self.dtype();
        let tensor = LazyTensor::from_f32(shape, &data).cast(dtype);
        self.graph.parameter("w", tensor)
    }

    fn dtype(&self) -> DType {
        self.graph.ty(self.values[0]).dtype
    }

    /// Adds a node if its operands fit, and keeps its result for others.
    fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) {
        let op = op.into();
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let small = |ty: &TensorType| {
            ty.shape
                .elements_per_batch()
                .is_some_and(|n| n <= MAX_ELEMENTS)
        };
        if op
            .infer(&types)
            .is_ok_and(|ty| small(&ty) && ty.shape.rank() <= 6)
        {
            let name = format!("node{}", self.graph.nodes().len());
            let value = self.graph.add(op, operands, name).unwrap();
            self.values.push(value);
        }
    }

    /// Another value of the same type, or a constant that broadcasts.
    fn partner(&mut self, value: ValueId) -> ValueId {
        let ty = self.graph.ty(value).clone();
        let same = self.values.iter().copied();
        let same: Vec<ValueId> = same.filter(|&v| *self.graph.ty(v) == ty).collect();
        if self.pick(3) > 0 {
            let chosen = self.pick(same.len());
            return same[chosen];
        }
        let dims = self.dims(value);
        let mut shape: Vec<usize> = dims.iter().map(|d| d.fixed().unwrap_or(1)).collect();
        for size in &mut shape {
            if self.pick(2) == 0 {
                *size = 1;
            }
        }
        let dropped = self.pick(shape.len() + 1);
        self.constant(&shape[dropped..])
    }

    fn node(&mut self) {
        let chosen = self.pick(self.values.len());
        let x = self.values[chosen];
        let dims = self.dims(x);
        let rank = dims.len();
        match self.pick(16) {
            0 | 1 => {
                let perm = self.permutation(rank);
                self.add(Transpose { perm }, &[x]);
            }
            2 | 3 => {
                let shape = self.other_shape(&dims);
                self.add(Reshape { shape }, &[x]);
            }
            4 => self.add(Silu {}, &[x]),
            5 => self.add(Gelu {}, &[x]),
            6 => {
                let y = self.partner(x);
                let operands = if self.pick(2) == 0 { [x, y] } else { [y, x] };
                match self.pick(3) {
                    0 => self.add(Add {}, &operands),
                    1 => self.add(Mul {}, &operands),
                    _ => self.add(Sub {}, &operands),
                }
            }
            7 => {
                let axis = self.pick(rank);
                self.add(Softmax { axis }, &[x]);
            }
            8 => {
                let axis = self.pick(rank);
                let y = self.partner(x);
                self.add(Concat { axis }, &[x, y]);
            }
            9 => {
                let axis = self.pick(rank);
                let size = dims[axis].fixed().unwrap_or(1);
                let start = self.pick(size);
                let end = start + 1 + self.pick(size - start);
                self.add(Slice { axis, start, end }, &[x]);
            }
            10 => self.add(UpsampleNearest { scale: 2 }, &[x]),
            11 => {
                let axes = vec![self.pick(rank)];
                self.add(ReduceMean { axes }, &[x]);
            }
            12 => self.convolve(x, &dims),
            13 => self.project(x, &dims),
            14 => self.normalize(x, &dims),
            _ => {
                let perm: Vec<usize> = (0..rank)
                    .map(|d| if d + 2 < rank { d } else { 2 * rank - 3 - d })
                    .collect();
                let swapped = Transpose { perm };
                self.add(swapped, &[x]);
                let y = *self.values.last().unwrap();
                self.add(MatMul {}, &[x, y]);
            }
        }
    }

    fn convolve(&mut self, x: ValueId, dims: &[Dim]) {
        let &[_, Dim::Fixed(channels), _, _] = dims else {
            return;
        };
        let (out, kernel) = (1 + self.pick(5), 1 + 2 * self.pick(2));
        let groups = if channels % 2 == 0 && self.pick(3) == 0 {
            2
        } else {
            1
        };
        let weight = self.constant(&[out * groups, channels / groups, kernel, kernel]);
        let mut operands = vec![x, weight];
        if self.pick(2) == 0 {
            operands.push(self.constant(&[out * groups]));
        }
        let op = Conv2d {
            strides: [1 + self.pick(2); 2],
            pads: [kernel / 2; 4],
            groups,
        };
        self.add(op, &operands);
    }

    fn project(&mut self, x: ValueId, dims: &[Dim]) {
        let Some(Dim::Fixed(depth)) = dims.last() else {
            return;
        };
        let columns = 1 + self.pick(6);
        if self.pick(2) == 0 {
            let weight = self.constant(&[*depth, columns]);
            self.add(MatMul {}, &[x, weight]);
        } else {
            let operands = [
                x,
                self.constant(&[columns, *depth]),
                self.constant(&[columns]),
            ];
            self.add(Linear {}, &operands);
        }
    }

    fn normalize(&mut self, x: ValueId, dims: &[Dim]) {
        let channels = |axis: usize| dims.get(axis).and_then(|d| d.fixed());
        if let (4, Some(n)) = (dims.len(), channels(1)) {
            let groups = if n % 2 == 0 { 2 } else { 1 };
            let operands = [x, self.constant(&[n]), self.constant(&[n])];
            self.add(
                GroupNorm {
                    groups,
                    epsilon: 0.1,
                },
                &operands,
            );
        } else if let Some(n) = dims.last().and_then(|d| d.fixed()) {
            let operands = [x, self.constant(&[n]), self.constant(&[n])];
            self.add(LayerNorm { epsilon: 0.1 }, &operands);
        }
    }

    fn permutation(&mut self, rank: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..rank).collect();
        let mut perm = Vec::new();
        while !left.is_empty() {
            let chosen = self.pick(left.len());
            perm.push(left.remove(chosen));
        }
        perm
    }

    /// The dimensions with two neighbours merged, one split, or a 1 put in or taken out.
    fn other_shape(&mut self, dims: &[Dim]) -> Vec<Dim> {
        let mut shape = dims.to_vec();
        let at = self.pick(shape.len());
        match (self.pick(4), shape[at], shape.get(at + 1).copied()) {
            (0 | 1, Dim::Fixed(a), Some(Dim::Fixed(b))) => {
                shape[at] = Dim::Fixed(a * b);
                shape.remove(at + 1);
            }
            (2, _, _) => shape.insert(at, Dim::Fixed(1)),
            (_, Dim::Fixed(n), _) => {
                if let Some(factor) = (2..=n).find(|f| n % f == 0) {
                    shape[at] = Dim::Fixed(n / factor);
                    shape.insert(at, Dim::Fixed(factor));
                }
            }
            _ => {}
        }
        shape
    }
}

/// A graph, and its inputs for the batch.
fn random_graph(seed: u64) -> (Graph, BTreeMap<String, Tensor>) {
    let mut noise = Noise::new(seed);
    let dtype = [DType::F32, DType::F32, DType::F16][noise.ints(1, 3)[0] as usize];
    let mut graph = Graph::new("g");
    let mut inputs = BTreeMap::new();
    let mut values = Vec::new();
    for (i, dims) in [[4, 3, 5], [4, 6, 2]].iter().enumerate() {
        let shape = match noise.ints(1, 3)[0] {
            0 => Shape::fixed(&[&[1], &dims[..]].concat()),
            1 => Shape::batched(&dims[..2]),
            _ => Shape::batched(dims),
        };
        let name = format!("x{i}");
        let sizes = shape.bind(BATCH);
        let data = noise.floats(sizes.iter().product(), (-2.0, 2.0));
        inputs.insert(name.clone(), Tensor::float(&sizes, data));
        values.push(graph.input(name, TensorType::new(dtype, shape)));
    }
    let mut maker = Maker {
        noise,
        graph,
        values,
    };
    for _ in 0..3 * NODES {
        if maker.graph.nodes().len() < NODES {
            maker.node();
        }
    }
    let last = *maker.values.last().unwrap();
    maker.add(Cast { to: DType::F32 }, &[last]);
    maker.add(ArgMax { axis: 1 }, &[last]);
    let mut graph = maker.graph;
    // Everything may be read from outside, so that fused and plain forms both occur.
    let picked = maker.values.iter().skip(2).step_by(1 + seed as usize % 4);
    for (i, &value) in picked.chain(maker.values.last()).enumerate() {
        graph.output(format!("y{i}"), value);
    }
    (graph, inputs)
}

#[test]
fn random_graphs_equal_the_evaluator() {
    let mut nodes = BTreeMap::new();
    for seed in 0..GRAPHS {
        let (graph, inputs) = random_graph(seed);
        for node in graph.nodes() {
            *nodes.entry(node.op.name()).or_insert(0) += 1;
        }
        let expected = eval::run(&graph, &inputs).unwrap();
        let mut network = network(&graph, Activations::Declared).unwrap();
        let found = run(&mut network, BATCH, &inputs);
        for output in graph.outputs() {
            let ty = graph.ty(output.value);
            // A rounding that goes the other way is carried on by what follows.
            let tolerance = if ty.dtype == DType::F16 { 2e-2 } else { 1e-4 };
            let Elements::Float(expected) = &expected[&output.name].elements else {
                continue;
            };
            let f16 = graph.ty(graph.inputs()[0].value).dtype == DType::F16;
            let tolerance = if f16 { 2e-2 } else { tolerance };
            let largest = expected.iter().fold(1f32, |a, x| a.max(x.abs()));
            for (e, f) in expected.iter().zip(&found[&output.name]) {
                let close = (e - f).abs() <= tolerance * largest;
                let text = || snapc_ir::text::print(&graph);
                assert!(
                    close,
                    "seed {seed}, {}: {e} expected, {f} found\n{}",
                    output.name,
                    text()
                );
            }
        }
    }
    assert!(nodes.len() >= 18, "{nodes:?}");
}
