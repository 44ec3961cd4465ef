use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use snapc_ir::eval::run;
use snapc_ir::ops::{Add, Equal, Linear, Mul, Silu, Sub, TimestepEmbedding};
use snapc_ir::{LazyTensor, Op, Tensor, verify};

const TIMESTEPS: [usize; 3] = [876, 501, 1];

fn pass(other_steps: OtherSteps) -> SpecializeSchedule {
    SpecializeSchedule {
        timesteps: TIMESTEPS.to_vec(),
        other_steps,
    }
}

fn specialize(graph: &Graph, other_steps: OtherSteps) -> Option<Change> {
    let change = pass(other_steps).run(graph, &PassContext::default());
    let change = change.unwrap()?;
    verify::verify(&change.graph).unwrap();
    let again = pass(other_steps).run(&change.graph, &PassContext::default());
    assert!(again.unwrap().is_none());
    Some(change)
}

fn f32_input(graph: &mut Graph, name: &str, shape: Shape) -> ValueId {
    graph.input(name, TensorType::new(DType::F32, shape))
}

fn embed(graph: &mut Graph, timestep: ValueId) -> ValueId {
    let op = TimestepEmbedding {
        dim: 4,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        max_period: 10000.0,
    };
    graph.add(op, &[timestep], "time_proj").unwrap()
}

/// Two ResNets' worth of time: embedding, MLP, and a shift of 4 and of 2 channels, each added to an image.
fn unet() -> Graph {
    let mut g = Graph::new("unet");
    let sample = f32_input(&mut g, "sample", Shape::batched(&[4, 2, 2]));
    let timestep = f32_input(&mut g, "timestep", Shape::fixed(&[]));
    let narrow = f32_input(&mut g, "narrow", Shape::batched(&[2, 2, 2]));
    let weight =
        |rows: usize| -> Vec<f32> { (0..4 * rows).map(|i| (i as f32 * 0.37).sin()).collect() };
    let e = embed(&mut g, timestep);
    let w = g.parameter("mlp.weight", LazyTensor::from_f32(&[4, 4], &weight(4)));
    let b = g.parameter(
        "mlp.bias",
        LazyTensor::from_f32(&[4], &[0.1, -0.2, 0.3, 0.0]),
    );
    let h = g.add(Linear {}, &[e, w, b], "mlp").unwrap();
    let mut images = Vec::new();
    for (name, image, channels) in [("first", sample, 4), ("second", narrow, 2)] {
        let active = g.add(Silu {}, &[h], name).unwrap();
        let w = LazyTensor::from_f32(&[channels, 4], &weight(channels));
        let w = g.parameter(format!("{name}.weight"), w);
        let shift = g.add(Linear {}, &[active, w], name).unwrap();
        let shape = [1, channels, 1, 1].map(Dim::Fixed).to_vec();
        let shift = g.add(Reshape { shape }, &[shift], name).unwrap();
        images.push(g.add(Add {}, &[image, shift], name).unwrap());
    }
    g.output("first", images[0]);
    g.output("second", images[1]);
    g
}

fn images(batch: usize) -> BTreeMap<String, Tensor> {
    let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.7).cos()).collect();
    BTreeMap::from([
        (
            "sample".to_owned(),
            Tensor::float(&[batch, 4, 2, 2], numbers(16 * batch)),
        ),
        (
            "narrow".to_owned(),
            Tensor::float(&[batch, 2, 2, 2], numbers(8 * batch)),
        ),
    ])
}

fn with(
    mut inputs: BTreeMap<String, Tensor>,
    name: &str,
    value: Tensor,
) -> BTreeMap<String, Tensor> {
    inputs.insert(name.to_owned(), value);
    inputs
}

fn timestep(t: usize) -> Tensor {
    Tensor::float(&[], vec![t as f32])
}

fn step(k: usize) -> Tensor {
    Tensor::int(&[1], vec![k as i64])
}

/// Whether two runs gave the same numbers; where one has no number, so has the other.
fn assert_same(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) {
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.shape, expected.shape, "{name}");
        let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
        let equal = found.floats().iter().zip(expected.floats()).all(same);
        assert!(
            equal,
            "{name}: {:?}, expected {:?}",
            found.floats(),
            expected.floats()
        );
    }
}

#[test]
fn every_step_gives_what_its_timestep_gave() {
    let before = unet();
    let change = specialize(&before, OtherSteps::Refuse).unwrap();
    let after = &change.graph;
    let inputs: Vec<&str> = after.inputs().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(inputs, ["sample", "step", "narrow"]);
    let ops: Vec<&str> = after.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, ["gather", "slice", "slice", "add", "add"]);
    for (k, t) in TIMESTEPS.into_iter().enumerate() {
        for batch in [1, 2] {
            let expected = run(&before, &with(images(batch), "timestep", timestep(t))).unwrap();
            let found = run(after, &with(images(batch), "step", step(k))).unwrap();
            assert_same(&found, &expected);
        }
    }
}

#[test]
fn the_report_counts_what_went_and_what_came() {
    let change = specialize(&unet(), OtherSteps::Refuse).unwrap();
    // 4*4 + 4 of the MLP, 4*4 and 2*4 of the shifts; 3 rows of 6 f32.
    let expected = [
        ("steps tabled", 3),
        ("values tabled", 2),
        ("parameters removed", 44),
        ("bytes of the table", 72),
    ];
    assert_eq!(change.counts, expected);
    let weights: Vec<_> = change.graph.weights().iter().collect();
    assert_eq!((weights.len(), weights[0].is_parameter), (1, false));
    assert_eq!(weights[0].tensor.shape(), [3, 6, 1, 1]);
    let kept = specialize(&unet(), OtherSteps::Keep).unwrap();
    assert_eq!(kept.counts[2], ("parameters removed", 0));
}

#[test]
fn sinusoids_of_the_table_are_those_of_the_definition() {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[4]));
    let t = f32_input(&mut g, "timestep", Shape::fixed(&[1]));
    let e = embed(&mut g, t);
    let y = g.add(Add {}, &[x, e], "y").unwrap();
    g.output("y", y);
    let change = specialize(&g, OtherSteps::Refuse).unwrap();
    let table = change.graph.weights()[0].tensor.to_f32().unwrap();
    // cos t, cos t/100, sin t, sin t/100; angles rounded to f32 are off by 3e-5 at most.
    for (row, t) in table.chunks_exact(4).zip(TIMESTEPS) {
        let t = t as f64;
        let exact = [t.cos(), (t / 100.0).cos(), t.sin(), (t / 100.0).sin()];
        for (found, exact) in row.iter().zip(exact) {
            assert!((f64::from(*found) - exact).abs() < 5e-5, "{found} {exact}");
        }
    }
}

#[test]
fn kept_timesteps_are_computed_behind_the_table() {
    let before = unet();
    let after = specialize(&before, OtherSteps::Keep).unwrap().graph;
    for (k, t) in [(0, 876), (2, 1), (3, 333), (3, 999)] {
        let expected = run(&before, &with(images(2), "timestep", timestep(t))).unwrap();
        // What the table has does not depend on the timestep given.
        let given = if k < 3 { 7 } else { t };
        let inputs = with(
            with(images(2), "step", step(k)),
            "timestep",
            timestep(given),
        );
        assert_same(&run(&after, &inputs).unwrap(), &expected);
    }
}

#[test]
fn more_values_than_one_concat_joins() {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[4]));
    let t = f32_input(&mut g, "timestep", Shape::fixed(&[]));
    let e = embed(&mut g, t);
    let mut y = x;
    for i in 0..70 {
        let factor = g.constant("factor", LazyTensor::from_f32(&[], &[i as f32]));
        let part = g.add(Mul {}, &[e, factor], "part").unwrap();
        y = g.add(Add {}, &[y, part], "sum").unwrap();
    }
    g.output("y", y);
    let after = specialize(&g, OtherSteps::Keep).unwrap().graph;
    let most = after
        .nodes()
        .iter()
        .filter(|n| matches!(n.op, Op::Concat(_)));
    assert!(most.map(|n| n.operands.len()).max().unwrap() <= MAX_JOINED);
    let x = BTreeMap::from([("sample".to_owned(), Tensor::float(&[1, 4], vec![0.5; 4]))]);
    let expected = run(&g, &with(x.clone(), "timestep", timestep(42))).unwrap();
    let inputs = with(with(x, "step", step(3)), "timestep", timestep(42));
    assert_same(&run(&after, &inputs).unwrap(), &expected);
}

#[test]
fn an_output_may_depend_on_the_timestep_alone() {
    let mut g = Graph::new("unet");
    let t = f32_input(&mut g, "timestep", Shape::fixed(&[]));
    let e = embed(&mut g, t);
    g.output("e", e);
    let after = specialize(&g, OtherSteps::Refuse).unwrap().graph;
    let expected = run(
        &g,
        &BTreeMap::from([("timestep".to_owned(), timestep(501))]),
    )
    .unwrap();
    let found = run(&after, &BTreeMap::from([("step".to_owned(), step(1))])).unwrap();
    assert_same(&found, &expected);
}

#[test]
fn graphs_without_a_used_timestep_stay() {
    let mut g = Graph::new("vae_decoder");
    let x = f32_input(&mut g, "latent_sample", Shape::batched(&[4]));
    let y = g.add(Silu {}, &[x], "y").unwrap();
    g.output("sample", y);
    // Without timesteps, too.
    let empty = SpecializeSchedule::default();
    assert!(empty.run(&g, &PassContext::default()).unwrap().is_none());
    f32_input(&mut g, "timestep", Shape::fixed(&[]));
    assert!(specialize(&g, OtherSteps::Refuse).is_none());
}

fn error(graph: &Graph, pass: &SpecializeSchedule) -> String {
    let error = pass.run(graph, &PassContext::default()).unwrap_err();
    error.to_string()
}

#[test]
fn what_has_no_table_is_refused() {
    let none = error(&unet(), &SpecializeSchedule::default());
    assert!(none.contains("there are no timesteps"), "{none}");

    let mut g = Graph::new("unet");
    let t = f32_input(&mut g, "timestep", Shape::batched(&[]));
    let e = embed(&mut g, t);
    g.output("e", e);
    let rows = error(&g, &pass(OtherSteps::Refuse));
    assert!(
        rows.contains("'timestep' is f32[N], a number for every picture"),
        "{rows}"
    );

    let mut g = Graph::new("unet");
    let whole = |shape| TensorType::new(DType::I32, shape);
    let x = g.input("sample", whole(Shape::batched(&[4])));
    let t = g.input("timestep", whole(Shape::fixed(&[])));
    let y = g.add(Equal {}, &[x, t], "y").unwrap();
    g.output("y", y);
    let integer = error(&g, &pass(OtherSteps::Refuse));
    assert!(
        integer.contains("'timestep' is i32[] and leaves the time path"),
        "{integer}"
    );
}

#[test]
fn a_weight_without_data_is_named() {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[4]));
    let t = f32_input(&mut g, "timestep", Shape::fixed(&[]));
    let e = embed(&mut g, t);
    let w = g.parameter("mlp.weight", LazyTensor::absent(DType::F32, &[4, 4]));
    let h = g.add(Linear {}, &[e, w], "mlp").unwrap();
    let y = g.add(Add {}, &[x, h], "y").unwrap();
    g.output("y", y);
    let text = error(&g, &pass(OtherSteps::Refuse));
    assert!(text.contains("weight 'mlp.weight'"), "{text}");
}

#[test]
fn timesteps_are_read_as_they_are_written() {
    let read = |text: &str| {
        serde_json::from_value::<SpecializeSchedule>(serde_json::json!({ "timesteps": text }))
    };
    let text = SpecializeSchedule::timesteps_text(&TIMESTEPS);
    assert_eq!(text, "876/501/1");
    assert_eq!(read(&text).unwrap().timesteps, TIMESTEPS);
    let pipeline: crate::Pipeline = "specialize-schedule{timesteps=876/501/1,other_steps=keep}"
        .parse()
        .unwrap();
    assert_eq!(
        pipeline
            .to_string()
            .parse::<crate::Pipeline>()
            .unwrap()
            .steps(),
        pipeline.steps()
    );
    let one: crate::Pipeline = "specialize-schedule{timesteps=999}".parse().unwrap();
    assert_eq!(one.steps().len(), 1);
    for wrong in ["", "1/", "a", "-1", "99999999999999999999", "16777217"] {
        let message = read(wrong).unwrap_err().to_string();
        assert!(
            message.contains("numbers with '/' between them"),
            "{message}"
        );
    }
}

/// A graph of the embedding of `timestep` `[1,4]` and `sample` `[N,4]`, combined at random.
fn random(choices: &[(usize, usize, usize)]) -> Graph {
    let mut g = Graph::new("unet");
    let x = f32_input(&mut g, "sample", Shape::batched(&[4]));
    let t = f32_input(&mut g, "timestep", Shape::fixed(&[]));
    let mut values = vec![x, embed(&mut g, t)];
    for (i, &(kind, a, b)) in choices.iter().enumerate() {
        let (first, second) = (values[a % values.len()], values[b % values.len()]);
        let name = format!("node{i}");
        let numbers: Vec<f32> = (0..16)
            .map(|n| ((n + b % 97) as f32 * 0.31).sin())
            .collect();
        let added = match kind {
            0 => g.add(Silu {}, &[first], name),
            1 => g.add(Add {}, &[first, second], name),
            2 => g.add(Mul {}, &[first, second], name),
            3 => g.add(Sub {}, &[first, second], name),
            4 => g.add(
                Slice {
                    axis: 1,
                    start: 0,
                    end: 1 + b % 4,
                },
                &[first],
                name,
            ),
            _ => {
                let weight = g.parameter(
                    format!("weight{i}"),
                    LazyTensor::from_f32(&[4, 4], &numbers),
                );
                g.add(Linear {}, &[first, weight], name)
            }
        };
        // An operator that does not take these operands is left out.
        values.extend(added.ok());
    }
    for (i, &value) in values.iter().skip(2).rev().take(3).enumerate() {
        g.output(format!("out{i}"), value);
    }
    if g.outputs().is_empty() {
        g.output("out", values[1]);
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
    fn any_graph_keeps_every_value(
        choices in proptest::collection::vec((0..6usize, any::<usize>(), any::<usize>()), 1..20),
        keep in any::<bool>(),
    ) {
        let before = random(&choices);
        let other_steps = if keep { OtherSteps::Keep } else { OtherSteps::Refuse };
        let Some(change) = specialize(&before, other_steps) else {
            let live = before.live_values();
            prop_assert!(!live[before.inputs()[1].value.index()]);
            return Ok(());
        };
        let numbers = (0..8).map(|i| (i as f32 * 0.7).cos()).collect();
        let x = BTreeMap::from([("sample".to_owned(), Tensor::float(&[2, 4], numbers))]);
        for (k, t) in TIMESTEPS.into_iter().enumerate() {
            let inputs = with(x.clone(), "timestep", timestep(t));
            let expected = run(&before, &inputs).unwrap();
            assert_same(&run(&change.graph, &with(inputs, "step", step(k))).unwrap(), &expected);
        }
    }
}
