//! Small graphs that together have most operators, with the features of their stage where they are whole networks.

use snapc_ir::ops::{
    Add, ArgMax, Attention, Cast, Concat, Conv2d, Div, Equal, Erf, Exp, Gather, Gelu, GroupNorm,
    LayerNorm, Linear, MatMul, Mul, QuickGelu, ReduceMean, Reshape, Sigmoid, Silu, Sin, Slice,
    Softmax, Sqrt, Sub, TimestepEmbedding, Transpose, UpsampleNearest,
};
use snapc_ir::{DType, Dim, Graph, LazyTensor, Op, Shape, TensorType, ValueId};

/// A graph under construction.
struct Draft {
    graph: Graph,
}

impl Draft {
    fn new(name: &str) -> Self {
        Draft {
            graph: Graph::new(name),
        }
    }

    fn input(&mut self, name: &str, dims: &[usize]) -> ValueId {
        let ty = TensorType::new(DType::F32, Shape::batched(dims));
        self.graph.input(name, ty)
    }

    fn tokens(&mut self) -> ValueId {
        let ty = TensorType::new(DType::I32, Shape::batched(&[77]));
        self.graph.input("input_ids", ty)
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let n: usize = shape.iter().product();
        let data: Vec<f32> = (0..n).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect();
        self.graph
            .parameter(name, LazyTensor::from_f32(shape, &data))
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> ValueId {
        let op = op.into();
        let name = op.name();
        self.graph
            .add(op, operands, name)
            .expect("the operands fit")
    }

    /// The graph with one output.
    fn ending(mut self, output: &str, value: ValueId) -> Graph {
        self.graph.output(output, value);
        self.graph
    }
}

/// The graphs, each with a name of its own.
pub(super) fn all() -> Vec<(&'static str, Graph)> {
    vec![
        ("text-encoder", text_encoder()),
        ("unet", unet()),
        ("vae-decoder", vae_decoder()),
        ("attention", attention()),
        ("elementwise", elementwise()),
        ("movement", movement()),
        ("norms", norms()),
        ("products", products()),
        ("stored-apart", stored_apart()),
    ]
}

fn text_encoder() -> Graph {
    let mut g = Draft::new("text_encoder");
    let ids = g.tokens();
    let table = g.weight("embeddings.weight", &[8, 4]);
    let [scale, bias] = ["ln.weight", "ln.bias"].map(|name| g.weight(name, &[4]));
    let (axis, batch_dims) = (0, 0);
    let x = g.add(Gather { axis, batch_dims }, &[table, ids]);
    let x = g.add(LayerNorm { epsilon: 1e-5 }, &[x, scale, bias]);
    let end = g.add(ArgMax { axis: 1 }, &[ids]);
    let (axis, batch_dims) = (1, 1);
    let pooled = g.add(Gather { axis, batch_dims }, &[x, end]);
    g.graph.output("last_hidden_state", x);
    g.ending("pooler_output", pooled)
}

fn unet() -> Graph {
    let mut g = Draft::new("unet");
    let sample = g.input("sample", &[4, 8, 8]);
    let ty = TensorType::new(DType::F32, Shape::fixed(&[]));
    let timestep = g.graph.input("timestep", ty);
    g.input("encoder_hidden_states", &[77, 4]);
    let weight = g.weight("time.weight", &[4, 4]);
    let embedding = TimestepEmbedding {
        dim: 4,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        max_period: 10000.0,
    };
    let time = g.add(embedding, &[timestep]);
    let time = g.add(Linear {}, &[time, weight]);
    let shape = [1, 4, 1, 1].map(Dim::Fixed).to_vec();
    let time = g.add(Reshape { shape }, &[time]);
    let x = g.add(Add {}, &[sample, time]);
    g.ending("out_sample", x)
}

fn vae_decoder() -> Graph {
    let mut g = Draft::new("vae_decoder");
    let latent = g.input("latent_sample", &[4, 8, 8]);
    let weight = g.weight("conv.weight", &[3, 4, 1, 1]);
    let bias = g.weight("conv.bias", &[3]);
    let conv = Conv2d {
        strides: [1, 1],
        pads: [0; 4],
        groups: 1,
    };
    let x = g.add(conv, &[latent, weight, bias]);
    let x = g.add(UpsampleNearest { scale: 8 }, &[x]);
    g.ending("sample", x)
}

fn attention() -> Graph {
    let mut g = Draft::new("unet");
    let x = g.input("sample", &[3, 4]);
    let scale = 0.5;
    let x = g.add(Attention { heads: 2, scale }, &[x, x, x]);
    g.ending("out_sample", x)
}

fn elementwise() -> Graph {
    let mut g = Draft::new("unet");
    let x = g.input("sample", &[2, 3]);
    let half = g.weight("half", &[1]);
    let mut y = x;
    for op in [
        Op::from(Silu {}),
        Gelu {}.into(),
        QuickGelu {}.into(),
        Sigmoid {}.into(),
        Exp {}.into(),
        Erf {}.into(),
        Sin {}.into(),
        Sqrt {}.into(),
        Cast { to: DType::F16 }.into(),
        Cast { to: DType::F32 }.into(),
    ] {
        y = g.add(op, &[y]);
    }
    y = g.add(Sub {}, &[y, half]);
    y = g.add(Mul {}, &[y, x]);
    y = g.add(Div {}, &[y, half]);
    g.ending("out_sample", y)
}

fn movement() -> Graph {
    let mut g = Draft::new("unet");
    let x = g.input("sample", &[4, 6]);
    let perm = vec![0, 2, 1];
    let y = g.add(Transpose { perm }, &[x]);
    let shape = vec![Dim::Batch, Dim::Fixed(4), Dim::Fixed(6)];
    let y = g.add(Reshape { shape }, &[y]);
    let y = g.add(Concat { axis: 1 }, &[x, y]);
    let (axis, start, end) = (1, 2, 6);
    let y = g.add(Slice { axis, start, end }, &[y]);
    let y = g.add(Softmax { axis: 2 }, &[y]);
    let y = g.add(ReduceMean { axes: vec![1] }, &[y]);
    g.ending("out_sample", y)
}

fn norms() -> Graph {
    let mut g = Draft::new("unet");
    let x = g.input("sample", &[4, 2, 2]);
    let [scale, shift] = ["norm.weight", "norm.bias"].map(|name| g.weight(name, &[4]));
    let (groups, epsilon) = (2, 1e-5);
    let x = g.add(GroupNorm { groups, epsilon }, &[x, scale, shift]);
    let x = g.add(Silu {}, &[x]);
    g.ending("out_sample", x)
}

fn products() -> Graph {
    let mut g = Draft::new("unet");
    let x = g.input("sample", &[2, 4]);
    let weight = g.weight("fc.weight", &[3, 4]);
    let bias = g.weight("fc.bias", &[3]);
    let y = g.add(Linear {}, &[x, weight, bias]);
    let right = g.weight("right", &[3, 2]);
    let y = g.add(MatMul {}, &[y, right]);
    let first = g.add(ArgMax { axis: 2 }, &[y]);
    let same = g.add(Equal {}, &[first, first]);
    let same = g.add(Cast { to: DType::F32 }, &[same]);
    g.ending("out_sample", same)
}

/// A weight that is large enough to lie in a file of its own.
fn stored_apart() -> Graph {
    let mut g = Draft::new("unet");
    let x = g.input("sample", &[1, 16]);
    let weight = g.weight("fc.weight", &[16, 16]);
    let x = g.add(Linear {}, &[x, weight]);
    g.ending("out_sample", x)
}
