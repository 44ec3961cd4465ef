//! A graph with one instruction of every kind.

use snapc_program::{
    Activation, Binary, Codebook, Codes, Dim, Element, Graph, Instruction, Op, Operand, Rounding,
    Storage, Type, Unary, Weight,
};

/// Appends an instruction and gives its value.
pub fn push(graph: &mut Graph, op: Op, operands: &[Operand]) -> Operand {
    let instruction = Instruction {
        name: format!("block.{}", op.name()),
        op,
        operands: operands.to_vec(),
        rounding: Rounding::None,
    };
    graph.push(instruction).expect("the instruction fits")
}

/// Declares a weight.
pub fn weight(graph: &mut Graph, name: &str, storage: Storage, dims: &[u32]) -> Operand {
    let (name, dims) = (name.to_owned(), dims.to_vec());
    let weight = Weight {
        name,
        storage,
        dims,
    };
    graph.weight(weight).expect("the weight has a type")
}

/// Weights `[8, 8]` of codes: int8 with a scale per column, int4 with two blocks and zero points, and two palettes of 6 bits.
pub fn coded_weights(g: &mut Graph) -> [Operand; 3] {
    let number = |weight| match weight {
        Operand::Weight(number) => number,
        Operand::Value(_) => panic!("a weight was declared"),
    };
    let scale = number(weight(g, "int8.scale", Storage::Panels, &[8, 1]));
    let blocks = number(weight(g, "int4.scale", Storage::Panels, &[8, 2]));
    let zero_point = number(weight(g, "int4.zero_point", Storage::Panels, &[8, 2]));
    let table = number(weight(g, "palette", Storage::F32, &[2, 64]));
    let books = [
        (
            8,
            Codebook::Scales {
                scale,
                zero_point: None,
            },
        ),
        (
            4,
            Codebook::Scales {
                scale: blocks,
                zero_point: Some(zero_point),
            },
        ),
        (6, Codebook::Palette { table }),
    ];
    books.map(|(bits, book)| {
        weight(
            g,
            &format!("codes{bits}"),
            Storage::Codes(Codes { bits, book }),
            &[8, 8],
        )
    })
}

/// Inputs `image` `f32[N,4,4,8]`, `ids` `i32[N,3]` and `t` `f32[N]`, and every instruction once or more.
pub fn every_op() -> Graph {
    let fixed = Dim::Fixed;
    let mut graph = Graph::new();
    let g = &mut graph;
    let image = Type::f32([Dim::Batch, fixed(4), fixed(4), fixed(8)]);
    let image = g.input("image", image).expect("it fits the graph");
    let ids = g
        .input("ids", Type::i32([Dim::Batch, fixed(3)]))
        .expect("it fits the graph");
    let t = g
        .input("t", Type::f32([Dim::Batch]))
        .expect("it fits the graph");
    let kernel = weight(g, "conv.weight", Storage::Panels, &[8, 3, 3, 8]);
    let linear = weight(g, "linear.weight", Storage::Panels, &[16, 8]);
    let vector = weight(g, "vector", Storage::F32, &[8]);
    let rows = weight(g, "embedding.weight", Storage::Rows, &[10, 8]);
    let end = weight(g, "end", Storage::I32, &[]);
    let coded = coded_weights(g);
    let conv = Op::Conv2d {
        strides: [1, 2],
        pads: [1, 0, 1, 2],
        bias: true,
        activation: Activation::None,
        residual: false,
    };
    let conv = push(g, conv, &[image, kernel, vector]);
    let norm = Op::GroupNorm {
        groups: 2,
        epsilon: 1e-6,
        activation: Activation::Silu,
    };
    let norm = push(g, norm, &[conv, vector, vector]);
    push(g, Op::UpsampleNearest { scale: 2 }, &[norm]);
    let embedded = push(
        g,
        Op::Gather {
            axis: 0,
            batch_dims: 0,
        },
        &[rows, ids],
    );
    let layer_norm = push(
        g,
        Op::LayerNorm { epsilon: 1e-5 },
        &[embedded, vector, vector],
    );
    let wide = Op::Linear {
        bias: false,
        activation: Activation::QuickGelu,
        residual: false,
    };
    let wide = push(g, wide, &[layer_norm, linear]);
    let narrow = push(g, Op::Geglu, &[wide]);
    let attention = Op::Attention {
        heads: 2,
        scale: 0.5,
        mask: false,
    };
    let attention = push(g, attention, &[narrow, embedded, embedded]);
    push(g, Op::MatMul { transposed: true }, &[attention, narrow]);
    let add = push(g, Op::Binary(Binary::Add), &[attention, vector]);
    let unary = push(g, Op::Unary(Unary::Erf), &[add]);
    let softmax = push(g, Op::Softmax, &[unary]);
    push(g, Op::ReduceMean { axes: vec![1, 2] }, &[softmax]);
    let swapped = push(
        g,
        Op::Permute {
            order: vec![2, 0, 1],
        },
        &[softmax],
    );
    let slice = push(
        g,
        Op::Slice {
            axis: 2,
            start: 1,
            end: 3,
        },
        &[swapped],
    );
    push(g, Op::Concat { axis: 2 }, &[slice, swapped, slice]);
    push(
        g,
        Op::View {
            dims: vec![Dim::Batch, fixed(16)],
        },
        &[slice],
    );
    let equal = push(g, Op::Equal, &[ids, end]);
    push(g, Op::Cast { to: Element::F32 }, &[equal]);
    let last = push(g, Op::ArgMax { axis: 1 }, &[equal]);
    push(
        g,
        Op::Gather {
            axis: 1,
            batch_dims: 1,
        },
        &[softmax, last],
    );
    let time = Op::TimestepEmbedding {
        dim: 8,
        flip_sin_to_cos: true,
        freq_shift: 1.0,
        max_period: 10_000.0,
    };
    push(g, time, &[t]);
    let grid = Op::FakeQuantize {
        scale: 0.25,
        zero_point: 255,
    };
    let mut x = push(g, grid, &[layer_norm]);
    for weight in coded {
        let linear = Op::Linear {
            bias: false,
            activation: Activation::None,
            residual: false,
        };
        x = push(g, linear, &[x, weight]);
    }
    let Operand::Value(value) = add else {
        panic!("an instruction gives a value")
    };
    g.output("sum", value).expect("it fits the graph");
    g.output("end", value + 1).expect("it fits the graph");
    graph
}
