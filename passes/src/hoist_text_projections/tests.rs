use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use snapc_ir::eval::run;
use snapc_ir::ops::{Add, Attention, Linear, MatMul, Mul, Reshape, Silu, Slice, Transpose};
use snapc_ir::{DType, LazyTensor, Shape, Tensor, verify};

const TOKENS: usize = 3;
const WIDTH: usize = 4;

fn f32_input(graph: &mut Graph, name: &str, shape: Shape) -> ValueId {
    graph.input(name, TensorType::new(DType::F32, shape))
}

fn weight(graph: &mut Graph, name: &str, shape: [usize; 2], seed: usize) -> ValueId {
    let numbers: Vec<f32> = (0..shape[0] * shape[1])
        .map(|i| ((i + seed % 89) as f32 * 0.37).sin())
        .collect();
    graph.parameter(name, LazyTensor::from_f32(&shape, &numbers))
}

/// Embeddings `[N,3,4]`, and pooled ones.
fn text_encoder() -> Graph {
    let mut g = Graph::new("text_encoder");
    let x = f32_input(&mut g, "tokens", Shape::batched(&[TOKENS, WIDTH]));
    let h = g.add(Silu {}, &[x], "norm").unwrap();
    let pooled = g
        .add(
            Slice {
                axis: 1,
                start: 0,
                end: 1,
            },
            &[h],
            "pool",
        )
        .unwrap();
    g.output("last_hidden_state", h);
    g.output("pooler_output", pooled);
    g
}

/// Cross-attention of `sample` `[N,2,4]` to the embeddings.
fn unet() -> Graph {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[2, WIDTH]));
    let states = f32_input(
        &mut g,
        "encoder_hidden_states",
        Shape::batched(&[TOKENS, WIDTH]),
    );
    let mut projected = Vec::new();
    for (i, name) in ["attn2.to_k", "attn2.to_v"].into_iter().enumerate() {
        let w = weight(&mut g, &format!("{name}.weight"), [6, WIDTH], i);
        projected.push(g.add(Linear {}, &[states, w], name).unwrap());
    }
    let w = weight(&mut g, "attn2.to_q.weight", [6, WIDTH], 7);
    let q = g.add(Linear {}, &[x, w], "attn2.to_q").unwrap();
    let op = Attention {
        heads: 2,
        scale: 0.5,
    };
    let y = g
        .add(op, &[q, projected[0], projected[1]], "attn2")
        .unwrap();
    g.output("out_sample", y);
    g
}

fn hoist_all(graphs: &[Graph]) -> Vec<Option<Change>> {
    let changes = HoistTextProjections {}.run_all(graphs, &PassContext::default());
    let changes = changes.unwrap();
    let after: Vec<Graph> = graphs
        .iter()
        .zip(&changes)
        .map(|(old, change)| change.as_ref().map_or(old, |c| &c.graph).clone())
        .collect();
    for graph in &after {
        verify::verify(graph).unwrap();
    }
    let again = HoistTextProjections {}.run_all(&after, &PassContext::default());
    assert!(again.unwrap().iter().all(Option::is_none));
    changes
}

fn tensor(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    Tensor::float(
        shape,
        (0..n).map(|i| ((i + seed) as f32 * 0.7).cos()).collect(),
    )
}

/// Runs both graphs one after the other, the UNet with what the text encoder gives under its names.
fn run_both(text_encoder: &Graph, unet: &Graph, sample: &[usize]) -> BTreeMap<String, Tensor> {
    let tokens = tensor(&[sample[0], TOKENS, WIDTH], 3);
    let mut texts = run(
        text_encoder,
        &BTreeMap::from([("tokens".to_owned(), tokens)]),
    )
    .unwrap();
    texts.insert(
        "encoder_hidden_states".to_owned(),
        texts["last_hidden_state"].clone(),
    );
    texts.insert("sample".to_owned(), tensor(sample, 0));
    run(unet, &texts).unwrap()
}

fn names<'a>(features: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    features.map(String::as_str).collect()
}

#[test]
fn keys_and_values_move_to_the_text_encoder() {
    let before = [text_encoder(), unet()];
    let changes = hoist_all(&before);
    let [Some(first), Some(second)] = &changes[..] else {
        panic!("both graphs change");
    };
    let given = names(first.graph.outputs().iter().map(|o| &o.name));
    assert_eq!(
        given,
        [
            "last_hidden_state",
            "pooler_output",
            "attn2_to_k",
            "attn2_to_v"
        ]
    );
    let taken = names(second.graph.inputs().iter().map(|i| &i.name));
    assert_eq!(taken, ["sample", "attn2_to_k", "attn2_to_v"]);
    assert_eq!(
        second.counts,
        [("projections moved", 2), ("parameters moved", 48)]
    );
    assert!(second.notes.is_empty());
    let weights =
        |g: &Graph| -> Vec<String> { g.weights().iter().map(|w| w.name.clone()).collect() };
    assert_eq!(
        weights(&first.graph),
        ["attn2.to_k.weight", "attn2.to_v.weight"]
    );
    assert_eq!(weights(&second.graph), ["attn2.to_q.weight"]);
    for batch in [1, 2] {
        let expected = run_both(&before[0], &before[1], &[batch, 2, WIDTH]);
        assert_eq!(
            run_both(&first.graph, &second.graph, &[batch, 2, WIDTH]),
            expected
        );
    }
}

#[test]
fn a_text_encoder_or_a_unet_alone_stays() {
    assert!(hoist_all(&[text_encoder()])[0].is_none());
    assert!(hoist_all(&[unet()])[0].is_none());
    let run = HoistTextProjections {}.run(&unet(), &PassContext::default());
    assert!(run.unwrap().is_none());
}

/// A UNet whose attention takes the embeddings as keys, and one projection as values.
#[test]
fn embeddings_that_are_used_as_they_are_stay_an_input() {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[2, WIDTH]));
    let states = f32_input(
        &mut g,
        "encoder_hidden_states",
        Shape::batched(&[TOKENS, WIDTH]),
    );
    let w = weight(&mut g, "to_v.weight", [WIDTH, WIDTH], 1);
    let v = g.add(Linear {}, &[states, w], "0.to_v").unwrap();
    let op = Attention {
        heads: 1,
        scale: 1.0,
    };
    let y = g.add(op, &[x, states, v], "attn").unwrap();
    g.output("out_sample", y);
    let changes = hoist_all(&[text_encoder(), g.clone()]);
    let [Some(first), Some(second)] = &changes[..] else {
        panic!("both graphs change");
    };
    let taken = names(second.graph.inputs().iter().map(|i| &i.name));
    assert_eq!(taken, ["sample", "encoder_hidden_states", "_0_to_v"]);
    assert!(second.notes[0].contains("'encoder_hidden_states' stays"));
    let expected = run_both(&text_encoder(), &g, &[2, 2, WIDTH]);
    assert_eq!(
        run_both(&first.graph, &second.graph, &[2, 2, WIDTH]),
        expected
    );

    // With nothing but the embeddings there is nothing to move.
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[TOKENS, WIDTH]));
    let states = f32_input(
        &mut g,
        "encoder_hidden_states",
        Shape::batched(&[TOKENS, WIDTH]),
    );
    let y = g.add(Add {}, &[x, states], "y").unwrap();
    g.output("out_sample", y);
    assert!(hoist_all(&[text_encoder(), g])[1].is_none());
}

#[test]
fn values_without_the_batch_in_front_stay() {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[TOKENS, WIDTH]));
    let states = f32_input(
        &mut g,
        "encoder_hidden_states",
        Shape::batched(&[TOKENS, WIDTH]),
    );
    let a = g.add(Silu {}, &[states], "act").unwrap();
    let turned = g
        .add(
            Transpose {
                perm: vec![1, 0, 2],
            },
            &[a],
            "turned",
        )
        .unwrap();
    let x = g
        .add(
            Transpose {
                perm: vec![1, 0, 2],
            },
            &[x],
            "x",
        )
        .unwrap();
    let y = g.add(Mul {}, &[x, turned], "y").unwrap();
    let y = g
        .add(
            Transpose {
                perm: vec![1, 0, 2],
            },
            &[y],
            "back",
        )
        .unwrap();
    g.output("out_sample", y);
    let changes = hoist_all(&[text_encoder(), g.clone()]);
    let second = &changes[1].as_ref().unwrap().graph;
    assert_eq!(
        names(second.inputs().iter().map(|i| &i.name)),
        ["sample", "act"]
    );
    let first = &changes[0].as_ref().unwrap().graph;
    let expected = run_both(&text_encoder(), &g, &[2, TOKENS, WIDTH]);
    assert_eq!(run_both(first, second, &[2, TOKENS, WIDTH]), expected);
}

#[test]
fn graphs_of_two_pipelines_are_refused() {
    let mut g = Graph::new("unet");
    let states = f32_input(
        &mut g,
        "encoder_hidden_states",
        Shape::batched(&[TOKENS, 9]),
    );
    let y = g.add(Silu {}, &[states], "y").unwrap();
    g.output("out_sample", y);
    let error = HoistTextProjections {}.run_all(&[text_encoder(), g], &PassContext::default());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("'encoder_hidden_states' is f32[N,3,9], but 'last_hidden_state' of graph 'text_encoder' is f32[N,3,4]"),
        "{error}"
    );
}

/// A graph of the embeddings and `sample`, both `[N,3,4]`, combined at random.
fn random(choices: &[(usize, usize, usize)]) -> Graph {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[TOKENS, WIDTH]));
    let states = f32_input(
        &mut g,
        "encoder_hidden_states",
        Shape::batched(&[TOKENS, WIDTH]),
    );
    let mut values = vec![x, states];
    for (i, &(kind, a, b)) in choices.iter().enumerate() {
        let (first, second) = (values[a % values.len()], values[b % values.len()]);
        // Names repeat, and are such as features must not have.
        let name = format!("node.{}", i % 3);
        let added = match kind {
            0 => g.add(Silu {}, &[first], name),
            1 => g.add(Add {}, &[first, second], name),
            2 => g.add(Mul {}, &[first, second], name),
            3 => g.add(MatMul {}, &[first, second], name),
            4 => g.add(
                Transpose {
                    perm: vec![0, 2, 1],
                },
                &[first],
                name,
            ),
            5 => g.add(
                Transpose {
                    perm: vec![1, 0, 2],
                },
                &[first],
                name,
            ),
            6 => {
                let shape = Shape::batched(&[TOKENS * WIDTH]).0;
                g.add(Reshape { shape }, &[first], name)
            }
            _ => {
                let w = weight(&mut g, &format!("weight{i}"), [WIDTH, WIDTH], b);
                g.add(Linear {}, &[first, w], name)
            }
        };
        // An operator that does not take these operands is left out.
        values.extend(added.ok());
    }
    for (i, &value) in values.iter().rev().take(3).enumerate() {
        g.output(format!("out{i}"), value);
    }
    g
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_pair_of_graphs_keeps_every_value(
        choices in proptest::collection::vec((0..8usize, any::<usize>(), any::<usize>()), 1..20),
    ) {
        let before = [text_encoder(), random(&choices)];
        let changes = hoist_all(&before);
        if let [Some(first), Some(second)] = &changes[..] {
            let expected = run_both(&before[0], &before[1], &[2, TOKENS, WIDTH]);
            let found = run_both(&first.graph, &second.graph, &[2, TOKENS, WIDTH]);
            for (name, expected) in &expected {
                let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
                let equal = found[name].floats().iter().zip(expected.floats()).all(same);
                prop_assert!(equal && found[name].shape == expected.shape, "{}", name);
            }
        }
    }
}
