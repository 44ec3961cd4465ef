//! Imported fixtures give diffusers' numbers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use snapc_import::{ImportOptions, open};
use snapc_ir::{
    BetaSchedule, Graph, PredictionType, Program, Tensor, TimestepSpacing, eval, text, verify,
};

/// PSNR that every graph must reach against diffusers in f32.
const MIN_PSNR: f64 = 100.0;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn reference(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| {
        let view = file.tensor(name).unwrap();
        let words = view
            .data()
            .chunks_exact(4)
            .map(|b| [b[0], b[1], b[2], b[3]]);
        match view.dtype() {
            Dtype::F32 => Tensor::float(view.shape(), words.map(f32::from_le_bytes).collect()),
            Dtype::I32 => Tensor::int(
                view.shape(),
                words.map(|w| i32::from_le_bytes(w).into()).collect(),
            ),
            other => panic!("{name} is {other:?}"),
        }
    };
    file.names()
        .into_iter()
        .map(|n| (n.to_owned(), tensor(n)))
        .collect()
}

/// 20 log10((max - min) / RMSE), over all elements.
fn psnr(reference: &[f32], found: &[f32]) -> f64 {
    assert_eq!(reference.len(), found.len());
    let fold = |f: fn(f32, f32) -> f32, start| reference.iter().copied().fold(start, f);
    let range = f64::from(fold(f32::max, f32::MIN)) - f64::from(fold(f32::min, f32::MAX));
    let squares = reference
        .iter()
        .zip(found)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let rmse = (squares.sum::<f64>() / reference.len() as f64).sqrt();
    20.0 * (range / rmse).log10()
}

fn check_graph(graph: &Graph, reference: &BTreeMap<String, Tensor>) {
    for batch in ["b1", "b2"] {
        let prefix = format!("{}.{batch}.", graph.name());
        let given = |name: &str| reference[&format!("{prefix}{name}")].clone();
        let inputs = graph
            .inputs()
            .iter()
            .map(|i| (i.name.clone(), given(&i.name)))
            .collect();
        let outputs = eval::run(graph, &inputs).unwrap();
        let names: BTreeSet<&str> = outputs.keys().map(String::as_str).collect();
        let features = graph
            .inputs()
            .iter()
            .map(|i| i.name.as_str())
            .chain(names.iter().copied());
        let stored = reference.keys().filter_map(|k| k.strip_prefix(&prefix));
        assert_eq!(
            features.collect::<BTreeSet<_>>(),
            stored.collect(),
            "{prefix}"
        );
        for (name, found) in outputs {
            let expected = given(&name);
            assert_eq!(expected.shape, found.shape, "{prefix}{name}");
            let db = psnr(expected.floats(), found.floats());
            assert!(db >= MIN_PSNR, "{prefix}{name}: {db:.1} dB");
        }
    }
}

fn check(checkpoint: &str, config: Option<&str>, graphs: &str) -> Program {
    let options = ImportOptions {
        config: config.map(|c| fixtures().join(c)),
        ..ImportOptions::default()
    };
    let program = open(&fixtures().join(checkpoint), &options)
        .unwrap()
        .import()
        .unwrap();
    let names: Vec<&str> = program.graphs.iter().map(Graph::name).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae_decoder"]);
    let reference = reference(&fixtures().join(graphs));
    for graph in &program.graphs {
        if let Err(violations) = verify::verify(graph) {
            panic!("{violations:?}");
        }
        let printed = text::print(graph);
        assert_eq!(text::print(&text::parse(&printed).unwrap()), printed);
        check_graph(graph, &reference);
    }
    program
}

#[test]
fn tiny_gives_the_numbers_of_diffusers() {
    let program = check("tiny", None, "tiny/graphs.safetensors");
    let pipeline = &program.pipeline;
    assert_eq!(pipeline.tokens, 77);
    assert_eq!(
        (pipeline.latent.height, pipeline.latent.pixels_per_cell),
        (16, 8)
    );
    assert_eq!(pipeline.latent.scaling_factor, 0.18215);
    assert_eq!(pipeline.scheduler.beta_schedule, BetaSchedule::ScaledLinear);
    assert_eq!(pipeline.scheduler.steps_offset, 1);
    let vocabulary = fs::read(fixtures().join("tiny/tokenizer/vocab.json")).unwrap();
    assert_eq!(pipeline.files["tokenizer/vocab.json"], vocabulary);
    for file in [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ] {
        assert!(pipeline.files.contains_key(file), "{file}");
    }
}

#[test]
fn every_weight_knows_its_largest_magnitude() {
    let program = open(&fixtures().join("tiny"), &ImportOptions::default())
        .unwrap()
        .import()
        .unwrap();
    for weight in program
        .graphs
        .iter()
        .flat_map(Graph::weights)
        .filter(|w| w.is_parameter)
    {
        let elements = weight.tensor.to_f32().unwrap();
        let largest = elements.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        assert_eq!(weight.tensor.max_abs(), Some(largest), "{}", weight.name);
    }
}

#[test]
fn sd2_shapes_in_bf16_shards() {
    let program = check("variants/sd2", None, "variants/sd2/graphs.safetensors");
    let scheduler = &program.pipeline.scheduler;
    assert_eq!(scheduler.prediction_type, PredictionType::VPrediction);
    assert_eq!(scheduler.timestep_spacing, TimestepSpacing::Trailing);
}

#[test]
fn one_layer_per_block_and_no_middle() {
    check("variants/lean", None, "variants/lean/graphs.safetensors");
}

#[test]
fn blocks_in_the_order_that_the_config_lists() {
    check(
        "variants/blocks",
        None,
        "variants/blocks/graphs.safetensors",
    );
}

#[test]
fn original_layout_of_sd1() {
    let config = Some("variants/ldm_sd1.config.json");
    let program = check(
        "variants/ldm_sd1.safetensors",
        config,
        "variants/ldm_sd1.graphs.safetensors",
    );
    assert!(program.pipeline.files.contains_key("tokenizer/merges.txt"));
    assert!(program.pipeline.files.contains_key("model_index.json"));
}

#[test]
fn original_layout_of_sd2() {
    let config = Some("variants/ldm_sd2.config.json");
    check(
        "variants/ldm_sd2.safetensors",
        config,
        "variants/ldm_sd2.graphs.safetensors",
    );
}
