//! Properties of the passes that change what is computed, but not its value beyond rounding, on random networks.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use snapc_ir::cost::graph_cost;
use snapc_ir::eval::run;
use snapc_ir::verify::verify;
use snapc_ir::{BuildError, Dim, Graph, Op, Tensor};

use crate::pass::PassContext;
use crate::random_graph::graphs;
use crate::random_layers::{networks, wave};

/// The passes under test with options that let them do all they can.
const PASSES: [(&str, &str); 5] = [
    ("fold-norm-affine", "{}"),
    ("fold-scaling", r#"{"attention": true}"#),
    ("merge-projections", "{}"),
    ("split-concat-convolution", "{}"),
    ("split-upsample-convolution", r#"{"min_gain": 0.0}"#),
];

/// The passes that find composites.
const FUSIONS: [&str; 5] = [
    "fuse-activations",
    "fuse-norms",
    "fuse-attention",
    "fuse-gathers",
    "fuse-linears",
];

/// Largest difference, relative to the largest result of a network. Its up to 14 layers each add a few roundings of
/// 2⁻²⁴, which norms with an epsilon of 0.1 enlarge by at most 3.
const BOUND: f32 = 1e-4;

/// The graph after a pass, and whether that did something. Checked: verified, same features, nothing left to do.
fn apply(pass: &str, options: &str, graph: &Graph) -> (Graph, bool) {
    let options = serde_json::from_str(options).unwrap();
    let made = crate::by_name(pass, options).unwrap();
    let context = PassContext::default();
    let Some(change) = made.run(graph, &context).unwrap() else {
        return (graph.clone(), false);
    };
    assert!(change.counts.iter().any(|(_, n)| *n > 0), "{pass}");
    verify(&change.graph).unwrap();
    assert_eq!(features(&change.graph), features(graph), "{pass}");
    let again = made.run(&change.graph, &context).unwrap();
    assert!(again.is_none(), "{pass} finds work in its own result");
    (change.graph, true)
}

fn features(graph: &Graph) -> Vec<&str> {
    let inputs = graph.inputs().iter().map(|i| i.name.as_str());
    inputs
        .chain(graph.outputs().iter().map(|o| o.name.as_str()))
        .collect()
}

fn evaluate(graph: &Graph) -> BTreeMap<String, Tensor> {
    let inputs = graph.inputs().iter().map(|input| {
        let shape = graph.ty(input.value).shape.bind(2);
        let numbers = wave(&shape, 0.3).to_f32().unwrap();
        (input.name.clone(), Tensor::float(&shape, numbers))
    });
    run(graph, &inputs.collect()).unwrap()
}

fn assert_same(pass: &str, before: &Graph, after: &Graph) {
    let (before, after) = (evaluate(before), evaluate(after));
    for (name, old) in &before {
        let new = &after[name];
        assert_eq!(old.shape, new.shape, "{pass}: {name}");
        let finite = old.floats().iter().filter(|v| v.is_finite());
        let largest = finite.fold(1.0, |a: f32, b| a.max(b.abs()));
        for (o, n) in old.floats().iter().zip(new.floats()) {
            let same = (o - n).abs() <= BOUND * largest || o == n || (o.is_nan() && n.is_nan());
            assert!(same, "{pass}: {name}: {o} became {n}");
        }
    }
}

/// The graph with every composite written as primitives.
fn decomposed(graph: &Graph) -> Graph {
    let mut latest = graph.clone();
    // What a composite decomposes to may be a composite itself.
    for _ in 0..3 {
        let rebuilt = latest.rebuild::<BuildError>(|rebuild, node| {
            let operands = rebuild.operands(node)?;
            match node
                .op
                .decompose(&mut rebuild.graph, &operands, &node.name)?
            {
                Some(value) => Ok(Some(value)),
                None => rebuild.copy(node).map(Some),
            }
        });
        latest = rebuilt.unwrap();
    }
    latest
}

/// How often live nodes have each composite.
fn composites(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let live = graph.live_values();
    let mut counts = BTreeMap::new();
    for node in graph.nodes().iter().filter(|n| live[n.result.index()]) {
        let is_composite = matches!(
            node.op,
            Op::Attention(_) | Op::GroupNorm(_) | Op::LayerNorm(_) | Op::Linear(_) | Op::Silu(_)
        );
        if is_composite {
            *counts.entry(node.op.name()).or_default() += 1;
        }
    }
    counts
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn passes_keep_values_up_to_rounding(graph in networks(Dim::Batch)) {
        for (pass, options) in PASSES {
            assert_same(pass, &graph, &apply(pass, options, &graph).0);
        }
    }

    #[test]
    fn passes_keep_values_one_after_the_other(
        graph in networks(Dim::Batch),
        order in proptest::collection::vec(0..PASSES.len(), 2..6),
    ) {
        let mut last = graph.clone();
        for i in order {
            let (pass, options) = PASSES[i];
            last = apply(pass, options, &last).0;
        }
        assert_same("all", &graph, &last);
    }

    #[test]
    fn splitting_upsamplings_never_adds_multiply_adds(graph in networks(Dim::Batch)) {
        let (after, _) = apply("split-upsample-convolution", r#"{"min_gain": 0.0}"#, &graph);
        prop_assert!(graph_cost(&after).macs <= graph_cost(&graph).macs);
    }

    #[test]
    fn any_graph_keeps_its_values_up_to_rounding(graph in graphs()) {
        for (pass, options) in PASSES.into_iter().chain(FUSIONS.map(|pass| (pass, "{}"))) {
            assert_same(pass, &graph, &apply(pass, options, &graph).0);
        }
    }

    #[test]
    fn composites_are_found_again_in_their_primitives(graph in networks(Dim::Fixed(2))) {
        // Scales and biases of norms are reshaped.
        let primitive = apply("fold-constants", "{}", &decomposed(&graph)).0;
        let mut found = primitive.clone();
        for pass in FUSIONS {
            found = apply(pass, "{}", &found).0;
        }
        assert_same("fusions", &graph, &found);
        prop_assert_eq!(composites(&found), composites(&graph));
        let all = crate::recognize(&primitive).unwrap();
        assert_same("recognize", &graph, &all);
    }
}

/// The random networks do have what each pass is for.
#[test]
fn every_pass_has_work() {
    let mut runner = proptest::test_runner::TestRunner::new(config(300));
    let mut worked = BTreeMap::new();
    for _ in 0..300 {
        let tree = networks(Dim::Batch).new_tree(&mut runner).unwrap();
        let graph = proptest::strategy::ValueTree::current(&tree);
        for (pass, options) in PASSES {
            *worked.entry(pass).or_insert(0) += usize::from(apply(pass, options, &graph).1);
        }
    }
    assert!(worked.values().all(|&n| n >= 20), "{worked:?}");
}
