//! Properties that hold of passes on any graph.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use snapc_ir::eval::run;
use snapc_ir::verify::verify;
use snapc_ir::{DType, Graph, Tensor};

use crate::pass::PassContext;
use crate::random_graph::graphs;

/// The passes that do not round. Only the sign of a zero may change, where one was added to it.
const EXACT: [&str; 5] = [
    "eliminate-common-subexpressions",
    "eliminate-dead-code",
    "fold-constants",
    "remove-identity-blocks",
    "remove-no-ops",
];

/// The graph after a pass, checked: verified, same features, and nothing left to do.
fn apply(pass: &str, graph: &Graph) -> Graph {
    let made = crate::by_name(pass, serde_json::Map::new()).unwrap();
    let context = PassContext::default();
    let Some(change) = made.run(graph, &context).unwrap() else {
        return graph.clone();
    };
    let new = change.graph;
    assert!(change.counts.iter().any(|(_, n)| *n > 0) || pass == "cast-precision");
    verify(&new).unwrap();
    assert_eq!(features(&new), features(graph));
    assert!(
        made.run(&new, &context).unwrap().is_none(),
        "{pass} finds work in its own result"
    );
    new
}

fn features(graph: &Graph) -> Vec<&str> {
    let inputs = graph.inputs().iter().map(|i| i.name.as_str());
    inputs
        .chain(graph.outputs().iter().map(|o| o.name.as_str()))
        .collect()
}

fn evaluate(graph: &Graph) -> BTreeMap<String, Tensor> {
    let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::float(&[2, 3, 4], numbers(24));
    let y = Tensor::float(&[2, 3, 4], numbers(24));
    run(
        graph,
        &BTreeMap::from([("x".to_owned(), x), ("y".to_owned(), y)]),
    )
    .unwrap()
}

fn same_values(before: &Graph, after: &Graph) {
    let (before, after) = (evaluate(before), evaluate(after));
    for (name, old) in &before {
        let new = &after[name];
        assert_eq!(old.shape, new.shape, "{name}");
        let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
        let equal = old.floats().iter().zip(new.floats()).all(same);
        assert!(
            equal,
            "{name}: {:?} became {:?}",
            old.floats(),
            new.floats()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    })]

    #[test]
    fn exact_passes_keep_every_value(graph in graphs()) {
        for pass in EXACT {
            same_values(&graph, &apply(pass, &graph));
        }
    }

    #[test]
    fn exact_passes_keep_every_value_one_after_the_other(
        graph in graphs(),
        order in proptest::collection::vec(0..EXACT.len(), 1..6),
    ) {
        let mut last = graph.clone();
        for i in order {
            last = apply(EXACT[i], &last);
        }
        same_values(&graph, &last);
    }

    #[test]
    fn casting_reaches_every_float(graph in graphs()) {
        let narrow = apply("cast-precision", &graph);
        prop_assert!(narrow.values().iter().all(|v| v.ty.dtype == DType::F16));
    }

    #[test]
    fn casting_leaves_kept_nodes_as_they_are(graph in graphs(), kept in 0..12usize) {
        let keep = format!("node{kept}+node{}", kept / 2);
        let options = serde_json::json!({ "keep": keep });
        let pass = crate::by_name("cast-precision", options.as_object().unwrap().clone()).unwrap();
        let Some(change) = pass.run(&graph, &PassContext::default()).unwrap() else {
            return Ok(());
        };
        verify(&change.graph).unwrap();
        prop_assert_eq!(features(&change.graph), features(&graph));
        prop_assert!(pass.run(&change.graph, &PassContext::default()).unwrap().is_none());
        let ops = |g: &Graph| -> Vec<(String, &str, DType)> {
            let kept = g.nodes().iter().filter(|n| keep.split('+').any(|name| name == n.name));
            let plain = kept.filter(|n| n.op.name() != "cast");
            plain.map(|n| (n.name.clone(), n.op.name(), g.ty(n.result).dtype)).collect()
        };
        prop_assert_eq!(ops(&change.graph), ops(&graph));
    }
}
