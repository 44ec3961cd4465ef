//! A pipeline with the features of the contract and next to nothing behind them.

use snapc_ir::ops::{
    Add, ArgMax, Gather, LayerNorm, Linear, Mul, Reshape, TimestepEmbedding, UpsampleNearest,
};
use snapc_ir::{DType, Dim, Graph, LazyTensor, Program, Shape, TensorType, ValueId};

/// Width of the embeddings.
const WIDTH: usize = 16;

fn ramp(shape: &[usize]) -> LazyTensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|i| (i % 17) as f32 / 16.0 - 0.5).collect();
    LazyTensor::from_f32(shape, &data)
}

fn float(dims: &[usize]) -> TensorType {
    TensorType::new(DType::F32, Shape::batched(dims))
}

/// Text encoder, UNet and decoder in f32, with configurations and a tokenizer file.
pub fn program() -> Program {
    let mut pipeline = super::pipeline();
    for path in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
    ] {
        let text = format!("{{\"from\": \"{path}\", \"safety_checker\": [\"a\", \"b\"]}}\n");
        pipeline.files.insert(path.to_owned(), text.into_bytes());
    }
    Program {
        graphs: vec![text_encoder(), unet(), vae_decoder()],
        pipeline,
    }
}

fn text_encoder() -> Graph {
    let mut g = Graph::new("text_encoder");
    let ids = g.input(
        "input_ids",
        TensorType::new(DType::I32, Shape::batched(&[77])),
    );
    let table = g.parameter("embeddings.weight", ramp(&[100, WIDTH]));
    let scale = g.parameter("final_layer_norm.weight", ramp(&[WIDTH]));
    let bias = g.parameter("final_layer_norm.bias", ramp(&[WIDTH]));
    let mut add =
        |op: snapc_ir::Op, operands: &[ValueId], name: &str| g.add(op, operands, name).unwrap();
    let x = add(
        Gather {
            axis: 0,
            batch_dims: 0,
        }
        .into(),
        &[table, ids],
        "embeddings",
    );
    let x = add(
        LayerNorm { epsilon: 1e-5 }.into(),
        &[x, scale, bias],
        "final_layer_norm",
    );
    let end = add(ArgMax { axis: 1 }.into(), &[ids], "pooler");
    let pooled = add(
        Gather {
            axis: 1,
            batch_dims: 1,
        }
        .into(),
        &[x, end],
        "pooler",
    );
    g.output("last_hidden_state", x);
    g.output("pooler_output", pooled);
    g
}

fn unet() -> Graph {
    let mut g = Graph::new("unet");
    let sample = g.input("sample", float(&[4, 8, 8]));
    let timestep = g.input("timestep", TensorType::new(DType::F32, Shape::fixed(&[])));
    let text = g.input("encoder_hidden_states", float(&[77, WIDTH]));
    let time_weight = g.parameter("time.weight", ramp(&[4, WIDTH]));
    let text_weight = g.parameter("text.weight", ramp(&[4, WIDTH]));
    let token = g.constant("text", LazyTensor::from_i32(&[1], &[0]));
    let mut add =
        |op: snapc_ir::Op, operands: &[ValueId], name: &str| g.add(op, operands, name).unwrap();
    let embedding = TimestepEmbedding {
        dim: WIDTH,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        max_period: 10000.0,
    };
    let time = add(embedding.into(), &[timestep], "time_proj");
    let time = add(Linear {}.into(), &[time, time_weight], "time");
    let fixed = |dims: [usize; 4]| dims.map(Dim::Fixed).to_vec();
    let time = add(
        Reshape {
            shape: fixed([1, 4, 1, 1]),
        }
        .into(),
        &[time],
        "time",
    );
    let first = add(
        Gather {
            axis: 1,
            batch_dims: 0,
        }
        .into(),
        &[text, token],
        "text",
    );
    let text = add(Linear {}.into(), &[first, text_weight], "text");
    let per_channel = vec![Dim::Batch, Dim::Fixed(4), Dim::Fixed(1), Dim::Fixed(1)];
    let text = add(Reshape { shape: per_channel }.into(), &[text], "text");
    let x = add(Mul {}.into(), &[sample, time], "mix");
    let x = add(Add {}.into(), &[x, text], "mix");
    g.output("out_sample", x);
    g
}

fn vae_decoder() -> Graph {
    let mut g = Graph::new("vae_decoder");
    let latent = g.input("latent_sample", float(&[4, 8, 8]));
    let weight = g.parameter("conv.weight", ramp(&[3, 4, 1, 1]));
    let conv = snapc_ir::ops::Conv2d {
        strides: [1, 1],
        pads: [0; 4],
        groups: 1,
    };
    let x = g.add(conv, &[latent, weight], "conv").unwrap();
    let x = g.add(UpsampleNearest { scale: 8 }, &[x], "up").unwrap();
    g.output("sample", x);
    g
}
