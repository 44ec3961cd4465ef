//! Other spellings of a checkpoint give the same program, and settings have the effect they have in diffusers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod checkpoint_copy;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use checkpoint_copy::CheckpointCopy;
use serde_json::json;
use snapc_import::{ImportOptions, open};
use snapc_ir::{Graph, PredictionType, Program, Tensor, eval, text};

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";

/// The text form of all graphs, and every weight's elements.
fn content(program: &Program) -> (Vec<String>, Vec<Vec<f32>>) {
    let weights = program.graphs.iter().flat_map(Graph::weights);
    let floats = weights
        .filter(|w| w.is_parameter)
        .map(|w| w.tensor.to_f32().unwrap());
    (
        program.graphs.iter().map(text::print).collect(),
        floats.collect(),
    )
}

/// A single file of SD 1.x in toy size, and the options that name its configuration.
fn sd1_with_config() -> (CheckpointCopy, ImportOptions) {
    let config =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/variants/ldm_sd1.config.json");
    let options = ImportOptions {
        config: Some(config),
        ..ImportOptions::default()
    };
    (CheckpointCopy::of("variants/ldm_sd1.safetensors"), options)
}

#[test]
fn older_keys_of_the_vae_attention_and_of_the_text_tower() {
    let lean = CheckpointCopy::of("variants/lean");
    let expected = content(&lean.import().unwrap());
    lean.edit_weights(VAE, |w| {
        for (new, old) in [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ] {
            for part in ["weight", "bias"] {
                let path = "decoder.mid_block.attentions.0";
                let mut tensor = w.remove(&format!("{path}.{new}.{part}")).unwrap();
                if part == "weight" {
                    tensor.1.extend([1, 1]);
                }
                w.insert(format!("{path}.{old}.{part}"), tensor);
            }
        }
    });
    lean.edit_weights(TEXT, |w| {
        let renamed = std::mem::take(w).into_iter();
        let inner = |key: String| key.strip_prefix("text_model.").unwrap().to_owned();
        *w = renamed.map(|(key, tensor)| (inner(key), tensor)).collect();
    });
    assert_eq!(content(&lean.import().unwrap()), expected);
}

#[test]
fn single_files_without_the_module_around_the_text_tower() {
    let (sd1, options) = sd1_with_config();
    let import = || content(&open(&sd1.path, &options).unwrap().import().unwrap());
    let expected = import();
    let tower = "cond_stage_model.transformer.";
    sd1.edit_weights("", |w| {
        let outer = format!("{tower}text_model.");
        let renamed = std::mem::take(w).into_iter();
        let inner = |key: String| match key.strip_prefix(&outer) {
            Some(rest) => format!("{tower}{rest}"),
            None => key,
        };
        *w = renamed.map(|(key, tensor)| (inner(key), tensor)).collect();
        assert!(w.contains_key(&format!("{tower}final_layer_norm.bias")));
    });
    assert_eq!(import(), expected);
}

#[test]
fn leftovers_in_single_files_are_passed_over() {
    let (sd1, options) = sd1_with_config();
    let import = || content(&open(&sd1.path, &options).unwrap().import().unwrap());
    let expected = import();
    sd1.edit_weights("", |w| {
        let any = w["betas"].clone();
        for key in [
            "cond_stage_model.text_projection",
            "cond_stage_model.logit_scale",
            "cond_stage_model.transformer.text_projection.weight",
            "cond_stage_model.transformer.embeddings.position_ids",
            "text_encoder.embeddings.position_ids",
            "embedding_manager.initial_embeddings.x",
        ] {
            w.insert(key.to_owned(), any.clone());
        }
    });
    assert_eq!(import(), expected);
}

#[test]
fn the_sample_size_that_early_diffusers_wrote_is_raised_with_a_note() {
    let tiny = CheckpointCopy::of("tiny");
    let unet = "unet/config.json";
    tiny.set(unet, "sample_size", json!(32));
    tiny.set(unet, "_diffusers_version", json!("0.6.0"));
    let checkpoint = open(&tiny.path, &ImportOptions::default()).unwrap();
    let notes = checkpoint.notes().concat();
    assert!(
        notes.contains("unet/config.json: diffusers 0.6.0 wrote"),
        "{notes}"
    );
    assert_eq!(checkpoint.unet_config().sample_size, Some((64, 64)));
    let pipeline = checkpoint.import().unwrap().pipeline;
    assert_eq!((pipeline.latent.height, pipeline.latent.width), (64, 64));
    let config: serde_json::Value = serde_json::from_slice(&pipeline.files[unet]).unwrap();
    assert_eq!(config["sample_size"], 64);
}

#[test]
fn the_fp16_variant_stands_in_with_a_note() {
    let tiny = CheckpointCopy::of("tiny");
    let expected = content(&tiny.import().unwrap());
    for component in ["unet/diffusion_pytorch_model", "text_encoder/model"] {
        let at = |ending: &str| tiny.file(&format!("{component}.{ending}"));
        fs::rename(at("safetensors"), at("fp16.safetensors")).unwrap();
    }
    let checkpoint = open(&tiny.path, &ImportOptions::default()).unwrap();
    assert_eq!(
        checkpoint.notes(),
        [
            "read the fp16 variant text_encoder/model.fp16.safetensors",
            "read the fp16 variant unet/diffusion_pytorch_model.fp16.safetensors",
        ]
    );
    assert_eq!(content(&checkpoint.import().unwrap()), expected);
}

#[test]
fn the_pooled_state_is_that_of_the_first_end_of_text() {
    let lean = CheckpointCopy::of("variants/lean");
    lean.set("text_encoder/config.json", "eos_token_id", json!(7));
    let program = lean.import().unwrap();
    let mut ids = vec![9i64; 2 * 77];
    ids[10] = 7;
    ids[20] = 7;
    ids[77 + 30] = 7;
    let inputs = BTreeMap::from([("input_ids".to_owned(), Tensor::int(&[2, 77], ids))]);
    let outputs = eval::run(program.graph("text_encoder").unwrap(), &inputs).unwrap();
    let (hidden, pooled) = (&outputs["last_hidden_state"], &outputs["pooler_output"]);
    let width = hidden.shape[2];
    let row = |batch: usize, token: usize| {
        let start = (batch * 77 + token) * width;
        &hidden.floats()[start..start + width]
    };
    assert_eq!(pooled.floats(), [row(0, 10), row(1, 30)].concat());
}

#[test]
fn the_prediction_type_asked_for_stands_in_the_artifact_too() {
    let lean = CheckpointCopy::of("variants/lean");
    let options = ImportOptions {
        prediction_type: Some(PredictionType::VPrediction),
        ..ImportOptions::default()
    };
    let pipeline = open(&lean.path, &options)
        .unwrap()
        .import()
        .unwrap()
        .pipeline;
    assert_eq!(
        pipeline.scheduler.prediction_type,
        PredictionType::VPrediction
    );
    let config = &pipeline.files["scheduler/scheduler_config.json"];
    let config: serde_json::Value = serde_json::from_slice(config).unwrap();
    assert_eq!(config["prediction_type"], "v_prediction");
}

#[test]
fn what_a_2x_single_file_predicts_is_said() {
    let sd2 = CheckpointCopy::of("variants/ldm_sd2.safetensors");
    let notes = |prediction_type| {
        let options = ImportOptions {
            prediction_type,
            ..ImportOptions::default()
        };
        open(&sd2.path, &options).unwrap().notes().concat()
    };
    assert!(notes(None).contains("taking v_prediction at 768 px"));
    assert!(notes(Some(PredictionType::Epsilon)).contains("taking epsilon as asked at 512 px"));
}

#[test]
fn a_centred_sample_is_doubled_and_lowered_by_one() {
    let lean = CheckpointCopy::of("variants/lean");
    let run = |map: fn(f32) -> f32| {
        let program = lean.import().unwrap();
        let unet = program.graph("unet").unwrap();
        let inputs = unet.inputs().iter().map(|input| {
            let shape = unet.ty(input.value).shape.bind(1);
            let n = shape.iter().product::<usize>();
            let mut data: Vec<f32> = (0..n).map(|i| (i % 32) as f32 / 32.0).collect();
            if input.name == "sample" {
                data.iter_mut().for_each(|x| *x = map(*x));
            }
            (input.name.clone(), Tensor::float(&shape, data))
        });
        eval::run(unet, &inputs.collect()).unwrap()
    };
    let expected = run(|x| 2.0 * x - 1.0);
    lean.set("unet/config.json", "center_input_sample", json!(true));
    assert_eq!(run(|x| x), expected);
}

/// The names of the files that were read, relative to the checkpoint.
fn files_read(checkpoint: &CheckpointCopy, options: &ImportOptions) -> Vec<String> {
    let opened = open(&checkpoint.path, options).unwrap();
    let relative = |path: &std::path::PathBuf| {
        let below = path.strip_prefix(&checkpoint.path).unwrap_or(path);
        below.display().to_string()
    };
    let mut names: Vec<String> = opened.files().iter().map(relative).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_tells_which_files_it_was_read_from() {
    let tiny = CheckpointCopy::of("tiny");
    let defaults = ImportOptions::default();
    // Neither what other programs read nor what lies beside it.
    fs::write(tiny.file("unet/diffusion_pytorch_model.bin"), "").unwrap();
    fs::write(tiny.file("notes.txt"), "").unwrap();
    let mut expected = vec![
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(files_read(&tiny, &defaults), expected);
    fs::remove_file(tiny.file("tokenizer/special_tokens_map.json")).unwrap();
    expected.retain(|name| !name.contains("special_tokens"));
    assert_eq!(files_read(&tiny, &defaults), expected);

    // Shards and their index.
    let sharded: Vec<String> = files_read(&CheckpointCopy::of("variants/sd2"), &defaults);
    let of_unet = sharded.iter().filter(|name| name.starts_with("unet/"));
    let stem = "unet/diffusion_pytorch_model";
    let mut expected = vec!["unet/config.json".to_owned()];
    expected.extend((1..=3).map(|n| format!("{stem}-0000{n}-of-00003.safetensors")));
    expected.push(format!("{stem}.safetensors.index.json"));
    assert!(of_unet.eq(&expected), "{sharded:?}");

    let (sd1, options) = sd1_with_config();
    let opened = open(&sd1.path, &options).unwrap();
    assert_eq!(opened.files(), [sd1.path.clone(), options.config.unwrap()]);
}
