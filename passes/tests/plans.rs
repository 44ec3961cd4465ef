//! `remove-identity-blocks` by plan, on imported networks: against diffusers, and against networks that are imported without
//! those blocks.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use snapc_import::config::UnetConfig;
use snapc_import::{ImportOptions, ShapeOnly, networks, open};
use snapc_ir::cost::graph_cost;
use snapc_ir::{Graph, Tensor, eval, text};
use snapc_passes::{NAMED_PLANS, Pass, PassContext, Plan, RemoveIdentityBlocks};

/// Decibels against diffusers in f32.
const MIN_PSNR: f64 = 120.0;

const SD1: &str = include_str!("../../converter/import/data/sd1.json");

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of_f32 = file
        .tensors()
        .into_iter()
        .filter(|(_, view)| view.dtype() == safetensors::Dtype::F32);
    of_f32
        .map(|(name, view)| {
            let (words, _) = view.data().as_chunks::<4>();
            let floats = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
            (name, Tensor::float(view.shape(), floats))
        })
        .collect()
}

/// 20 log10((max - min) / RMSE).
fn psnr(expected: &[f32], found: &[f32]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let fold = |f: fn(f32, f32) -> f32, start| expected.iter().copied().fold(start, f);
    let range = f64::from(fold(f32::max, f32::MIN)) - f64::from(fold(f32::min, f32::MAX));
    let squares = expected
        .iter()
        .zip(found)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    20.0 * (range / (squares.sum::<f64>() / expected.len() as f64).sqrt()).log10()
}

fn after(plan: Value, graph: &Graph) -> Graph {
    let pass: RemoveIdentityBlocks = serde_json::from_value(json!({ "plan": plan })).unwrap();
    pass.run(graph, &PassContext::default())
        .unwrap()
        .unwrap()
        .graph
}

fn plan_file(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(format!("plans/{name}.json"))).unwrap())
        .unwrap()
}

/// Imports a folder of the fixtures and compares its UNet after a plan with what diffusers gets from replaced modules.
fn check(folder: &str, plan: &str) {
    let options = ImportOptions::default();
    let program = open(&fixtures().join(folder), &options)
        .unwrap()
        .import()
        .unwrap();
    let graph = after(plan_file(plan), program.graph("unet").unwrap());
    let inputs = tensors(&fixtures().join(folder).join("graphs.safetensors"));
    let name = folder.rsplit('/').next().unwrap();
    let expected = tensors(&fixtures().join(format!("plans/{name}.{plan}.safetensors")));
    for batch in ["b1", "b2"] {
        let given = graph.inputs().iter().map(|input| {
            let tensor = inputs[&format!("unet.{batch}.{}", input.name)].clone();
            (input.name.clone(), tensor)
        });
        let found = eval::run(&graph, &given.collect()).unwrap();
        let expected = &expected[&format!("unet.{batch}.out_sample")];
        let db = psnr(expected.floats(), found["out_sample"].floats());
        assert!(db >= MIN_PSNR, "{folder} {plan} {batch}: {db:.1} dB");
    }
}

#[test]
fn the_plan_snapfusion_gives_the_numbers_of_diffusers_without_those_blocks() {
    check("tiny", "snapfusion");
    check("variants/sd2", "snapfusion");
}

#[test]
fn any_other_plan_gives_the_numbers_of_diffusers_too() {
    check("tiny", "mixed");
    check("variants/sd2", "mixed");
}

#[test]
fn the_named_plan_is_the_one_that_diffusers_was_given() {
    let lists: Plan = serde_json::from_value(plan_file("snapfusion")).unwrap();
    let named = Plan::named("snapfusion").unwrap();
    let sorted = |plan: &Plan| {
        let (mut remove, mut duplicate) = (plan.remove().to_vec(), plan.duplicate().to_vec());
        remove.sort();
        duplicate.sort();
        (remove, duplicate)
    };
    assert_eq!(sorted(&lists), sorted(&named));
    assert_eq!(NAMED_PLANS.len(), 1);
}

fn sd1_unet(blocks: Option<Value>) -> Graph {
    let mut config: Map<String, Value> = {
        let mut sections: Value = serde_json::from_str(SD1).unwrap();
        serde_json::from_value(sections["unet"].take()).unwrap()
    };
    config.extend(blocks.map(|b| ("blocks".to_owned(), b)));
    let config = UnetConfig::from_json("unet", &Value::Object(config).to_string()).unwrap();
    networks::unet(&config, (64, 64), 77, &ShapeOnly)
        .unwrap()
        .graph
}

#[test]
fn sd15_becomes_the_efficient_unet_of_759_million_parameters() {
    let graph = after(json!("snapfusion"), &sd1_unet(None));
    let cost = graph_cost(&graph);
    let (millions, giga) = (cost.parameters as f64 / 1e6, cost.macs as f64 / 1e9);
    assert!(
        (millions - 759.33).abs() <= 0.005,
        "{millions} M parameters"
    );
    assert!((giga - 304.5).abs() <= 0.05, "{giga} GMAC");
    // The same network as when the blocks are left out by the configuration, down to the names of the copies' weights.
    let blocks = json!({
        "down_blocks": [
            ["resnets.0", "skip", "resnets.1", "skip"],
            ["resnets.0", "attentions.0", "skip", "resnets.1", "attentions.1", "skip"],
            ["resnets.0", "attentions.0", "skip", "attentions.1"],
            ["resnets.0", "skip"],
        ],
        "mid_block": ["resnets.0", "attentions.0"],
        "up_blocks": [
            ["resnets.1", "resnets.2"],
            [
                "attentions.0", "attentions.3", "resnets.1", "attentions.1", "attentions.4",
                "resnets.2", "attentions.2", "attentions.5",
            ],
            ["resnets.0", "attentions.0", "resnets.1", "attentions.1", "resnets.2", "attentions.2"],
            ["resnets.0", "resnets.1", "resnets.2"],
        ],
    });
    assert!(
        text::print(&graph) == text::print(&sd1_unet(Some(blocks))),
        "the graphs differ"
    );
}

#[test]
fn a_plan_that_has_been_carried_out_is_recognised_and_other_networks_are_refused() {
    let pass: RemoveIdentityBlocks =
        serde_json::from_value(json!({ "plan": "snapfusion" })).unwrap();
    let context = PassContext::default();
    let options = ImportOptions::default();
    let tiny = open(&fixtures().join("tiny"), &options)
        .unwrap()
        .import()
        .unwrap();
    let graph = after(json!("snapfusion"), tiny.graph("unet").unwrap());
    assert!(pass.run(&graph, &context).unwrap().is_none());

    let lean = open(&fixtures().join("variants/lean"), &ImportOptions::default())
        .unwrap()
        .import()
        .unwrap();
    let message = pass
        .run(lean.graph("unet").unwrap(), &context)
        .unwrap_err()
        .to_string();
    for line in [
        "remove 'down_blocks.3.resnets.1': it is not in the network, which has down_blocks.0.*, down_blocks.1.*, \
         down_blocks.2.*, up_blocks.0.*, up_blocks.1.*, up_blocks.2.*",
        "remove 'down_blocks.0.attentions.1': it is not in the network, which has down_blocks.0.resnets.0, \
         down_blocks.0.attentions.0",
        "duplicate 'up_blocks.1.attentions.2': it is not in the network",
    ] {
        assert!(message.contains(line), "{message}");
    }
}
