//! Every pass and every named pipeline on random small networks that the importer accepts: either nothing changes, or the
//! outputs are those of the imported network within what the pass promises (`random_networks/table.rs`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "random_networks/checkpoint.rs"]
mod checkpoint;
#[path = "random_networks/numbers.rs"]
mod numbers;
#[path = "random_networks/random_plan.rs"]
mod random_plan;
#[path = "random_networks/settings.rs"]
mod settings;
#[path = "random_networks/table.rs"]
mod table;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde_json::json;
use snapc_import::config::UnetConfig;
use snapc_import::{ShapeOnly, networks};
use snapc_ir::{BuildError, DType, Dim, Graph, Program, Tensor, eval, text};
use snapc_passes::{
    Calibration, NAMED_PIPELINES, Pass, PassContext, PassError, PassReport, Pipeline,
    RemoveIdentityBlocks, RunOptions,
};

use crate::numbers::Numbers;
use crate::random_plan::RandomPlan;
use crate::settings::{Settings, StockOrder, stock_unet};
use crate::table::{Bound, IDLE, ROWS, TIMESTEPS, bound_of};

/// Random pipelines.
const CASES: u64 = 30;

/// Random plans for random UNets.
const PLANS: u64 = 100;

/// Images or prompts per run.
const BATCH: usize = 2;

type Features = BTreeMap<String, Tensor>;

/// An imported pipeline, inputs for each graph, and what the graphs give.
struct Case {
    program: Program,
    calibration: Calibration,
    /// Everything that a graph may take, whatever its interface has become.
    features: Features,
    outputs: Vec<Features>,
}

impl Case {
    fn new(settings: &Settings, numbers: &mut Numbers) -> Self {
        let program = checkpoint::import(settings, numbers);
        let vocabulary = settings.text_encoder["vocab_size"].as_u64().unwrap() as usize;
        let mut features = Features::new();
        let mut calibration = Calibration::default();
        let mut outputs = Vec::new();
        for graph in &program.graphs {
            add_features(&mut features, graph, vocabulary, numbers);
            let inputs = given(graph, &features);
            let found = eval::run(graph, &inputs).unwrap();
            if let Some(text) = found.get("last_hidden_state") {
                features.insert("encoder_hidden_states".to_owned(), text.clone());
            }
            outputs.push(found);
            calibration.add(graph.name(), inputs);
        }
        Case {
            program,
            calibration,
            features,
            outputs,
        }
    }

    /// The program after a pipeline and what the last pass did to each graph; `None` when a pass refuses.
    fn run(&self, program: Program, pipeline: &Pipeline) -> Option<(Program, Vec<PassReport>)> {
        let context = PassContext {
            calibration: Some(&self.calibration),
            ..PassContext::default()
        };
        let options = RunOptions {
            context,
            ..RunOptions::default()
        };
        let graphs = program.graphs.len();
        match pipeline.run(program, &options) {
            Ok((program, mut reports)) => {
                let last = reports.split_off(reports.len().saturating_sub(graphs));
                Some((program, last))
            }
            Err(PassError::Refused { .. }) => None,
            Err(error) => panic!("{pipeline}: {error}"),
        }
    }

    /// Runs a pipeline twice and compares outputs. Gives whether its last pass changed anything.
    fn check(&self, pipeline: &Pipeline, bound: Bound) -> bool {
        let Some((once, reports)) = self.run(self.program.clone(), pipeline) else {
            assert_eq!(bound, Bound::OtherNetwork, "{pipeline}: refused");
            return false;
        };
        let mut features = self.features.clone();
        for (graph, expected) in once.graphs.iter().zip(&self.outputs) {
            let mut found = eval::run(graph, &given(graph, &features)).unwrap();
            for (name, expected) in expected {
                let found = found.remove(name).unwrap();
                assert_eq!(found.shape, expected.shape, "{pipeline}: '{name}'");
                check_values(expected.floats(), found.floats(), bound).unwrap_or_else(|what| {
                    panic!(
                        "{pipeline}: graph '{}', output '{name}': {what}",
                        graph.name()
                    )
                });
            }
            // What a graph gives besides is for the next.
            features.extend(found);
        }
        let (_, again) = self.run(once, pipeline).unwrap();
        let changed: Vec<&str> = again
            .iter()
            .filter(|r| r.changed)
            .map(|r| r.graph.as_str())
            .collect();
        assert!(
            changed.is_empty(),
            "{pipeline}: a second run changes {changed:?}"
        );
        reports.iter().any(|r| r.changed)
    }
}

/// The inputs of a graph among the features.
fn given(graph: &Graph, features: &Features) -> Features {
    let names = graph.inputs().iter().map(|input| input.name.clone());
    names
        .map(|name| (name.clone(), features[&name].clone()))
        .collect()
}

/// Adds the inputs of a graph that are not there yet, for batch 2: token ids, a timestep with its number, else noise.
fn add_features(features: &mut Features, graph: &Graph, vocabulary: usize, numbers: &mut Numbers) {
    for input in graph.inputs() {
        if features.contains_key(&input.name) {
            continue;
        }
        let ty = graph.ty(input.value);
        let side = |d: &Dim| d.fixed().unwrap_or(BATCH);
        let shape: Vec<usize> = ty.shape.dims().iter().map(side).collect();
        let n = shape.iter().product();
        let tensor = match (input.name.as_str(), ty.dtype) {
            ("timestep", _) => {
                let step = numbers.below(TIMESTEPS.len());
                features.insert("step".to_owned(), Tensor::int(&[1], vec![step as i64]));
                Tensor::float(&shape, vec![f32::from(TIMESTEPS[step])])
            }
            (_, DType::F32) => Tensor::float(&shape, numbers.normals(n)),
            _ => Tensor::int(&shape, token_ids(n, vocabulary, numbers)),
        };
        features.insert(input.name.clone(), tensor);
    }
}

/// Prompts that begin and end with the last two ids of the vocabulary.
fn token_ids(n: usize, vocabulary: usize, numbers: &mut Numbers) -> Vec<i64> {
    let mut ids: Vec<i64> = (0..n)
        .map(|_| numbers.below(vocabulary - 2) as i64)
        .collect();
    let tokens = n / BATCH;
    for prompt in ids.chunks_exact_mut(tokens) {
        prompt[0] = vocabulary as i64 - 2;
        prompt[1 + numbers.below(tokens - 1)..].fill(vocabulary as i64 - 1);
    }
    ids
}

/// Whether values keep a bound; the error says by how much they do not.
fn check_values(expected: &[f32], found: &[f32], bound: Bound) -> Result<(), String> {
    assert_eq!(expected.len(), found.len());
    let pairs = || {
        expected
            .iter()
            .zip(found)
            .map(|(a, b)| (f64::from(*a), f64::from(*b)))
    };
    let largest = |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0, f64::max);
    if pairs().any(|(a, b)| !a.is_finite() || !b.is_finite()) {
        return Err("a value is not finite".to_owned());
    }
    match bound {
        Bound::OtherNetwork => Ok(()),
        Bound::Relative(limit) => {
            let error = largest(&mut pairs().map(|(a, b)| (a - b).abs()));
            let relative =
                error / largest(&mut pairs().map(|(a, _)| a.abs())).max(f64::MIN_POSITIVE);
            if relative <= limit {
                Ok(())
            } else {
                Err(format!("relative error {relative:.1e}, bound {limit:.1e}"))
            }
        }
        Bound::Psnr(limit) => {
            let fold = |f: fn(f64, f64) -> f64, start| pairs().map(|(a, _)| a).fold(start, f);
            let range = fold(f64::max, f64::MIN) - fold(f64::min, f64::MAX);
            let squares: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
            let db = 20.0 * (range / (squares / expected.len() as f64).sqrt()).log10();
            if db >= limit {
                Ok(())
            } else {
                Err(format!("{db:.1} dB, bound {limit} dB"))
            }
        }
    }
}

/// What is run, by name, and with which bound.
fn pipelines() -> Vec<(&'static str, Pipeline, Bound)> {
    let rows = ROWS.iter().map(|row| {
        let pipeline: Pipeline = row.pipeline.parse().unwrap();
        let last = &pipeline.steps().last().unwrap().pass;
        assert_eq!(
            last, row.pass,
            "'{}' ends in another pass than its row says",
            row.pipeline
        );
        (row.pass, pipeline, row.bound)
    });
    let named = NAMED_PIPELINES.iter().map(|named| {
        let pipeline: Pipeline = named.name.parse().unwrap();
        let bound = bound_of(&pipeline);
        (named.name, pipeline, bound)
    });
    rows.chain(named).collect()
}

#[test]
fn every_pass_has_a_row_and_every_row_a_pass() {
    let passes: BTreeSet<&str> = snapc_passes::all().iter().map(|info| info.name).collect();
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.pass).collect();
    assert_eq!(
        rows, passes,
        "left the rows of random_networks/table.rs, right the passes"
    );
}

#[test]
fn every_pass_is_correct_or_does_nothing_on_every_network() {
    let pipelines = pipelines();
    let effective: Vec<Vec<&str>> = (0..CASES)
        .into_par_iter()
        .map(|seed| {
            let mut numbers = Numbers::new(seed);
            let settings = Settings::new(&mut numbers);
            let case = Case::new(&settings, &mut numbers);
            let effective = pipelines.iter().filter(|(_, pipeline, bound)| {
                let run = || case.check(pipeline, *bound);
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
                    .unwrap_or_else(|_| panic!("seed {seed}, {pipeline}\n{settings:#?}"))
            });
            effective.map(|(name, ..)| *name).collect()
        })
        .collect();
    let effective: BTreeSet<&str> = effective.into_iter().flatten().collect();
    let passes = ROWS.iter().map(|row| row.pass);
    let idle: BTreeSet<&str> = passes.filter(|pass| !effective.contains(pass)).collect();
    let expected = IDLE.iter().copied().collect();
    assert_eq!(
        idle, expected,
        "left the passes that did nothing to any of the networks"
    );
}

#[test]
fn random_plans_give_the_networks_that_a_configuration_without_those_blocks_gives() {
    let mut planned = 0;
    for seed in 0..PLANS {
        let mut numbers = Numbers::new(seed);
        let stages = 1 + numbers.below(4);
        let mut config = stock_unet(&mut numbers, stages, 8, 4);
        let graph = |config: &serde_json::Value| {
            let config = UnetConfig::from_json("unet", &config.to_string()).unwrap();
            networks::unet(&config, (16, 16), 5, &ShapeOnly)
                .unwrap()
                .graph
        };
        let before = graph(&config);
        let RandomPlan {
            remove,
            duplicate,
            order,
        } = RandomPlan::new(&config, StockOrder::of(&config), &mut numbers);
        if remove.is_empty() && duplicate.is_empty() {
            continue;
        }
        planned += 1;
        config["blocks"] = order.to_json();
        let plan = json!({ "plan": { "remove": remove, "duplicate": duplicate } });
        let pass: RemoveIdentityBlocks = serde_json::from_value(plan.clone()).unwrap();
        let change = pass.run(&before, &PassContext::default());
        let change = change
            .unwrap_or_else(|e| panic!("seed {seed}: {e}\n{config:#}"))
            .unwrap();
        // As a rebuild writes it: constants stand where they are used first.
        let expected =
            graph(&config).rebuild::<BuildError>(|rebuild, node| rebuild.copy(node).map(Some));
        let same = text::print(&change.graph) == text::print(&expected.unwrap());
        assert!(same, "seed {seed}, plan {plan:#}, configuration {config:#}");
    }
    assert!(planned > PLANS / 2, "only {planned} plans had an entry");
}
