//! Programs: a network with most instructions, and each instruction by itself.

use snapc_format::Stage;
use snapc_program::{
    Activation, Binary, Codebook, Codes, Dim, Element, Graph, Instruction, Op, Operand, Program,
    Rounding, Storage, Type, Unary, Weight,
};

use super::Seeds;

/// A graph under construction.
#[derive(Default)]
struct Draft {
    graph: Graph,
}

impl Draft {
    /// An input with a batch in front.
    fn input(&mut self, dims: &[u32]) -> Operand {
        let ty = Type::f32(batched(dims));
        self.graph.input("x", ty).expect("typed")
    }

    fn integers(&mut self, dims: &[u32]) -> Operand {
        let ty = Type::i32(batched(dims));
        self.graph.input("ids", ty).expect("typed")
    }

    fn weight(&mut self, name: &str, storage: Storage, dims: &[u32]) -> Operand {
        let weight = Weight {
            name: name.to_owned(),
            storage,
            dims: dims.to_vec(),
        };
        self.graph.weight(weight).expect("typed")
    }

    fn push(&mut self, op: Op, operands: &[Operand]) -> Operand {
        self.rounded(op, operands, Rounding::None)
    }

    fn rounded(&mut self, op: Op, operands: &[Operand], rounding: Rounding) -> Operand {
        let instruction = Instruction {
            name: op.name().to_owned(),
            op,
            operands: operands.to_vec(),
            rounding,
        };
        self.graph.push(instruction).expect("typed")
    }

    /// The bytes of a program whose UNet this is.
    fn ending(mut self, result: Operand) -> Vec<u8> {
        let Operand::Value(result) = result else {
            unreachable!("an instruction gives a value");
        };
        self.graph.output("y", result).expect("it exists");
        let mut program = Program::new();
        program.insert(Stage::Unet, self.graph);
        program.encode().expect("it is small")
    }
}

fn batched(dims: &[u32]) -> Vec<Dim> {
    let fixed = dims.iter().map(|&n| Dim::Fixed(n));
    std::iter::once(Dim::Batch).chain(fixed).collect()
}

/// A program with an instruction of most kinds.
pub(super) fn network() -> Vec<u8> {
    let mut g = Draft::default();
    let x = g.input(&[4, 4, 8]);
    let ids = g.integers(&[3]);
    let conv = g.weight("conv.weight", Storage::Panels, &[8, 3, 3, 8]);
    let vector = g.weight("vector", Storage::F32, &[8]);
    let table = g.weight("table", Storage::Rows, &[5, 8]);
    let linear = g.weight("fc.weight", Storage::Panels, &[16, 8]);
    let y = g.push(group_norm(), &[x, vector, vector]);
    let y = g.push(conv2d([1, 1], true), &[y, conv, vector, x]);
    let y = g.push(Op::UpsampleNearest { scale: 2 }, &[y]);
    let dims = batched(&[64, 8]);
    let y = g.push(Op::View { dims }, &[y]);
    let tokens = g.push(gather(0), &[table, ids]);
    let tokens = g.push(Op::LayerNorm { epsilon: 1e-5 }, &[tokens, vector, vector]);
    let y = g.push(attention(false), &[y, tokens, tokens]);
    let y = g.push(product(false, Activation::Gelu), &[y, linear]);
    let y = g.push(Op::Geglu, &[y]);
    let (axis, start, end) = (1, 0, 3);
    let y = g.push(Op::Slice { axis, start, end }, &[y]);
    let y = g.push(Op::Concat { axis: 1 }, &[y, tokens]);
    let order = vec![0, 2, 1];
    let y = g.push(Op::Permute { order }, &[y]);
    let y = g.push(Op::Softmax, &[y]);
    let y = g.push(Op::Unary(Unary::Exp), &[y]);
    g.ending(y)
}

/// Inputs of the target `runtime`.
pub(super) fn seeds() -> Seeds {
    let functions = [
        Unary::Silu,
        Unary::Gelu,
        Unary::Sqrt,
        Unary::Sin,
        Unary::Erf,
    ];
    let pairs = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div];
    let seeds = [
        ("network", network()),
        ("argmax-gather", {
            let mut g = Draft::default();
            let x = g.input(&[5, 3]);
            let ids = g.integers(&[5]);
            let first = g.push(Op::ArgMax { axis: 1 }, &[ids]);
            let y = g.push(gather(1), &[x, first]);
            g.ending(y)
        }),
        ("attention-mask", {
            let mut g = Draft::default();
            let [x, mask] = [
                g.input(&[5, 4]),
                g.weight("mask", Storage::F32, &[1, 1, 5, 5]),
            ];
            let y = g.push(attention(true), &[x, x, x, mask]);
            g.ending(y)
        }),
        ("codes", {
            let mut g = Draft::default();
            let x = g.input(&[3, 8]);
            g.weight("scale", Storage::Panels, &[40, 2]);
            g.weight("zero", Storage::Panels, &[40, 2]);
            g.weight("palette", Storage::F32, &[2, 64]);
            let (scale, zero_point) = (0, Some(1));
            let book = Codebook::Scales { scale, zero_point };
            let blocks = g.weight("w4", Storage::Codes(Codes { bits: 4, book }), &[40, 8]);
            let book = Codebook::Palette { table: 2 };
            let palette = g.weight("w6", Storage::Codes(Codes { bits: 6, book }), &[8, 40]);
            let y = g.push(product(false, Activation::None), &[x, blocks]);
            let y = g.push(product(false, Activation::None), &[y, palette]);
            g.ending(y)
        }),
        ("codes-quantized", {
            let mut g = Draft::default();
            let x = g.input(&[4, 3, 68]);
            g.weight("scale", Storage::Panels, &[5, 1]);
            let (scale, zero_point) = (0, None);
            let book = Codebook::Scales { scale, zero_point };
            let codes = Storage::Codes(Codes { bits: 8, book });
            let weight = g.weight("w", codes, &[5, 3, 3, 68]);
            let bias = g.weight("b", Storage::F32, &[5]);
            let (scale, zero_point) = (0.5, 9);
            let y = g.push(Op::FakeQuantize { scale, zero_point }, &[x]);
            let y = g.push(conv2d([1, 1], false), &[y, weight, bias]);
            g.ending(y)
        }),
        ("convolution", {
            let mut g = Draft::default();
            let x = g.input(&[5, 4, 3]);
            let weight = g.weight("w", Storage::Panels, &[33, 3, 3, 3]);
            let bias = g.weight("b", Storage::F32, &[33]);
            let y = g.push(conv2d([2, 1], false), &[x, weight, bias]);
            g.ending(y)
        }),
        ("elementwise", {
            let mut g = Draft::default();
            let x = g.input(&[2, 3]);
            let row = g.weight("row", Storage::F32, &[3]);
            let y = functions
                .into_iter()
                .fold(x, |y, f| g.rounded(Op::Unary(f), &[y], Rounding::F16));
            let y = pairs.into_iter().fold(y, |y, f| {
                g.rounded(Op::Binary(f), &[y, row], Rounding::Bf16)
            });
            g.ending(y)
        }),
        ("equal-cast", {
            let mut g = Draft::default();
            let ids = g.integers(&[7]);
            let one = g.weight("one", Storage::I32, &[1]);
            let y = g.push(Op::Equal, &[ids, one]);
            let to = Element::F32;
            let y = g.push(Op::Cast { to }, &[y]);
            g.ending(y)
        }),
        ("linear-residual", {
            let mut g = Draft::default();
            let x = g.input(&[3, 40]);
            let weight = g.weight("w", Storage::Panels, &[40, 40]);
            let bias = g.weight("b", Storage::F32, &[40]);
            let y = g.push(product(true, Activation::Silu), &[x, weight, bias, x]);
            g.ending(y)
        }),
        ("matmul", {
            let mut g = Draft::default();
            let x = g.input(&[3, 4]);
            let y = g.push(Op::MatMul { transposed: true }, &[x, x]);
            let y = g.push(Op::MatMul { transposed: false }, &[y, x]);
            let y = g.push(Op::ReduceMean { axes: vec![1] }, &[y]);
            g.ending(y)
        }),
        ("timestep", {
            let mut g = Draft::default();
            let t = g.input(&[]);
            let embedding = Op::TimestepEmbedding {
                dim: 6,
                flip_sin_to_cos: true,
                freq_shift: 1.0,
                max_period: 10000.0,
            };
            let y = g.push(embedding, &[t]);
            g.ending(y)
        }),
    ];
    seeds
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

fn attention(mask: bool) -> Op {
    let (heads, scale) = (2, 0.5);
    Op::Attention { heads, scale, mask }
}

fn gather(batch_dims: u8) -> Op {
    let axis = batch_dims;
    Op::Gather { axis, batch_dims }
}

fn conv2d(strides: [u32; 2], residual: bool) -> Op {
    Op::Conv2d {
        strides,
        pads: [1, 1, 1, 1],
        bias: true,
        activation: Activation::None,
        residual,
    }
}

fn product(full: bool, activation: Activation) -> Op {
    Op::Linear {
        bias: full,
        activation,
        residual: full,
    }
}

fn group_norm() -> Op {
    Op::GroupNorm {
        groups: 2,
        epsilon: 1e-5,
        activation: Activation::Silu,
    }
}
