//! Damaged checkpoints give an error that says where and what, and never a panic.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod checkpoint_copy;

use std::fs;

use checkpoint_copy::CheckpointCopy;
use safetensors::Dtype;
use serde_json::json;
use snapc_import::{ImportError, ImportOptions, WeightProblem, open};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";
const SHARDS: &str = "unet/diffusion_pytorch_model.safetensors.index.json";

fn assert_error(checkpoint: &CheckpointCopy, parts: &[&str]) {
    let error = checkpoint
        .import()
        .expect_err("the import of a damaged checkpoint fails")
        .to_string();
    for part in parts {
        assert!(error.contains(part), "'{part}' is not in: {error}");
    }
}

fn error_with(checkpoint: &CheckpointCopy, options: &ImportOptions) -> String {
    match open(&checkpoint.path, options) {
        Ok(_) => panic!("the checkpoint was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_path_that_is_no_checkpoint() {
    let lean = CheckpointCopy::of("variants/lean");
    fs::remove_file(lean.file("model_index.json")).unwrap();
    assert_error(&lean, &["the folder has no model_index.json"]);
    let path = lean.file("unet/config.json");
    let error = open(&path, &ImportOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("not a folder and not a .safetensors file"),
        "{error}"
    );
    let error = open(&lean.file("nothing"), &ImportOptions::default())
        .err()
        .unwrap();
    assert!(matches!(error, ImportError::Io { .. }), "{error}");
}

#[test]
fn missing_components() {
    for (file, parts) in [
        (
            "unet/config.json",
            ["unet/config.json is missing", "download"],
        ),
        (
            "scheduler/scheduler_config.json",
            ["scheduler_config.json is missing", "download"],
        ),
        (
            VAE,
            [
                "vae/diffusion_pytorch_model.safetensors is missing",
                "download",
            ],
        ),
    ] {
        let lean = CheckpointCopy::of("variants/lean");
        fs::remove_file(lean.file(file)).unwrap();
        assert_error(&lean, &parts);
    }
    let lean = CheckpointCopy::of("variants/lean");
    fs::rename(lean.file(TEXT), lean.file("text_encoder/pytorch_model.bin")).unwrap();
    assert_error(&lean, &["model.safetensors is missing", "not .bin"]);
    let lean = CheckpointCopy::of("variants/lean");
    lean.set(
        "model_index.json",
        "tokenizer",
        json!(["transformers", "CLIPTokenizer"]),
    );
    assert_error(&lean, &["tokenizer/vocab.json is missing"]);
}

#[test]
fn pipelines_of_another_architecture() {
    let lean = CheckpointCopy::of("variants/lean");
    lean.set(
        "model_index.json",
        "unet",
        json!(["diffusers", "UNet2DModel"]),
    );
    assert_error(
        &lean,
        &["model_index.json: 'unet' is", "UNet2DConditionModel"],
    );
    let lean = CheckpointCopy::of("variants/lean");
    lean.set(
        "model_index.json",
        "text_encoder_2",
        json!(["transformers", "CLIPTextModelWithProjection"]),
    );
    assert_error(&lean, &["'text_encoder_2'", "one text encoder"]);
}

#[test]
fn broken_json() {
    for file in [
        "model_index.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
    ] {
        let lean = CheckpointCopy::of("variants/lean");
        lean.edit_bytes(file, |bytes| bytes.truncate(bytes.len() / 2));
        assert_error(&lean, &[file, "invalid JSON", "line"]);
    }
}

#[test]
fn folders_in_the_place_of_small_files() {
    for file in ["vae/config.json", "tokenizer/merges.txt"] {
        let tiny = CheckpointCopy::of("tiny");
        fs::remove_file(tiny.file(file)).unwrap();
        fs::create_dir(tiny.file(file)).unwrap();
        assert_error(&tiny, &[file, "not a regular file"]);
    }
}

#[test]
fn configurations_that_are_not_supported() {
    for (file, key, value) in [
        ("unet/config.json", "class_embed_type", json!("timestep")),
        ("unet/config.json", "act_fn", json!("mish")),
        ("unet/config.json", "cross_attention_dim", json!(24)),
        ("unet/config.json", "in_channels", json!(9)),
        ("vae/config.json", "shift_factor", json!(0.1)),
        ("vae/config.json", "latent_channels", json!(16)),
        ("text_encoder/config.json", "hidden_act", json!("relu")),
        (
            "scheduler/scheduler_config.json",
            "prediction_type",
            json!("sample"),
        ),
        (
            "scheduler/scheduler_config.json",
            "timestep_spacing",
            json!("linspace"),
        ),
    ] {
        let lean = CheckpointCopy::of("variants/lean");
        lean.set(file, key, value.clone());
        let (named, key) = match key {
            "latent_channels" => ("unet/config.json", "in_channels"),
            _ => (file, key),
        };
        assert_error(&lean, &[named, &format!("'{key}'"), "supported: "]);
    }
}

#[test]
fn damaged_weight_files() {
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 5] = [
        ("truncated data", |b| b.truncate(b.len() - 100)),
        ("truncated header", |b| b.truncate(100)),
        ("empty", Vec::clear),
        ("header length too large", |b| {
            b[..8].copy_from_slice(&u64::MAX.to_le_bytes())
        }),
        ("header length too small", |b| {
            b[..8].copy_from_slice(&40u64.to_le_bytes())
        }),
    ];
    for (what, damage) in damage {
        for file in [UNET, TEXT] {
            let lean = CheckpointCopy::of("variants/lean");
            lean.edit_bytes(file, damage);
            let error = lean.import().err().unwrap();
            let expected = format!("{file}: not a valid safetensors file");
            assert!(error.to_string().starts_with(&expected), "{what}: {error}");
        }
    }
}

#[test]
fn hostile_headers_do_not_panic() {
    let lean = CheckpointCopy::of("variants/lean");
    let whole = fs::read(lean.file(UNET)).unwrap();
    // A change in each of the header's first bytes: offsets, shapes, types and the JSON itself.
    for i in 0..600 {
        lean.edit_bytes(UNET, |bytes| {
            bytes.clone_from(&whole);
            bytes[i] ^= 1 << (i % 7);
        });
        if let Err(error) = lean.import() {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn one_report_names_every_wrong_weight_of_every_graph() {
    let lean = CheckpointCopy::of("variants/lean");
    lean.edit_weights(UNET, |w| {
        w.remove("conv_in.bias");
        let conv_out = w.get_mut("conv_out.weight").unwrap();
        conv_out.1.swap(0, 1);
        let (.., data) = w.get_mut("down_blocks.0.resnets.0.conv1.bias").unwrap();
        data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        data[12..16].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let extra = w["conv_norm_out.bias"].clone();
        w.insert("controlnet.bias".to_owned(), extra);
    });
    lean.edit_weights(VAE, |w| {
        let bias = w.get_mut("decoder.conv_in.bias").unwrap();
        bias.0 = Dtype::U32;
        w.remove("encoder.conv_in.bias");
    });
    lean.edit_weights(TEXT, |w| {
        w.remove("text_model.final_layer_norm.weight");
        let ids = (Dtype::I64, vec![1, 1], vec![0; 8]);
        w.insert("text_model.embeddings.position_ids".to_owned(), ids);
    });
    let Err(ImportError::Weights(report)) = lean.import() else {
        panic!("no report");
    };
    let found: Vec<_> = report
        .issues()
        .iter()
        .map(|i| {
            (
                i.graph.as_str(),
                i.file.as_str(),
                i.weight.as_str(),
                &i.problem,
            )
        })
        .collect();
    let misshapen = WeightProblem::Misshapen {
        expected: conv_out_shape(&lean, false),
        found: conv_out_shape(&lean, true),
    };
    assert_eq!(
        found,
        [
            (
                "text_encoder",
                TEXT,
                "text_model.final_layer_norm.weight",
                &WeightProblem::Missing
            ),
            ("unet", UNET, "controlnet.bias", &WeightProblem::Extra),
            ("unet", UNET, "conv_in.bias", &WeightProblem::Missing),
            ("unet", UNET, "conv_out.weight", &misshapen),
            (
                "unet",
                UNET,
                "down_blocks.0.resnets.0.conv1.bias",
                &WeightProblem::NonFinite { count: 2, first: 1 },
            ),
            (
                "vae_decoder",
                VAE,
                "decoder.conv_in.bias",
                &WeightProblem::ElementType("U32".to_owned())
            ),
        ]
    );
    let summary = "2 missing, 1 extra, 1 misshapen, 1 of an unsupported element type, 1 not finite";
    assert!(report.to_string().contains(summary), "{report}");
}

/// The shape that the config asks of `conv_out.weight`, or the one with its first two sides swapped.
fn conv_out_shape(checkpoint: &CheckpointCopy, swapped: bool) -> Vec<usize> {
    let bytes = fs::read(checkpoint.file("unet/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let inner = config["block_out_channels"][0].as_u64().unwrap() as usize;
    if swapped {
        vec![inner, 4, 3, 3]
    } else {
        vec![4, inner, 3, 3]
    }
}

#[test]
fn wrong_shards() {
    let name = "diffusion_pytorch_model-00002-of-00003.safetensors";
    let sd2 = CheckpointCopy::of("variants/sd2");
    fs::remove_file(sd2.file("unet").join(name)).unwrap();
    assert_error(&sd2, &[SHARDS, name, "is missing"]);
    for shard in [
        "../vae/diffusion_pytorch_model.safetensors",
        "/etc/passwd",
        "weights.bin",
    ] {
        let sd2 = CheckpointCopy::of("variants/sd2");
        sd2.set(SHARDS, "weight_map", json!({ "conv_in.bias": shard }));
        assert_error(
            &sd2,
            &[SHARDS, shard, "is not a plain .safetensors file name"],
        );
    }
    let sd2 = CheckpointCopy::of("variants/sd2");
    sd2.set(SHARDS, "weight_map", json!([1]));
    assert_error(&sd2, &[SHARDS, "'weight_map'"]);
    let sd2 = CheckpointCopy::of("variants/sd2");
    sd2.set(SHARDS, "weight_map", json!({}));
    assert_error(&sd2, &[SHARDS, "'weight_map' is {}; supported: an object"]);
    let sd2 = CheckpointCopy::of("variants/sd2");
    sd2.edit_bytes(SHARDS, |bytes| *bytes = b"{}".to_vec());
    assert_error(
        &sd2,
        &[SHARDS, "'weight_map' is absent; supported: an object"],
    );
}

#[test]
fn a_missing_weight_is_reported_in_the_shard_that_the_index_names() {
    let sd2 = CheckpointCopy::of("variants/sd2");
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(sd2.file(SHARDS)).unwrap()).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let last = map.values().max_by_key(|shard| shard.as_str()).unwrap();
    let (key, shard) = map.iter().find(|(_, shard)| *shard == last).unwrap();
    let shard = format!("unet/{}", shard.as_str().unwrap());
    sd2.edit_weights(&shard, |w| {
        w.remove(key).unwrap();
    });
    assert_error(
        &sd2,
        &["1 missing", &format!("unet: {shard}: {key}: missing")],
    );
}

#[test]
fn image_sizes_that_do_not_fit() {
    let tiny = CheckpointCopy::of("tiny");
    // 8 pixels per cell, halved three times.
    for (size, fits) in [
        ((64, 128), true),
        ((96, 128), false),
        ((0, 64), false),
        ((64, 8256), false),
    ] {
        let options = ImportOptions {
            size: Some(size),
            ..ImportOptions::default()
        };
        match open(&tiny.path, &options) {
            Ok(checkpoint) => {
                let latent = checkpoint.import().unwrap().pipeline.latent;
                assert!(fits && (latent.height, latent.width) == (size.0 / 8, size.1 / 8));
            }
            Err(error) => {
                assert!(
                    !fits && error.to_string().contains("must be multiples of 64"),
                    "{error}"
                );
            }
        }
    }
    tiny.set("unet/config.json", "sample_size", json!(15));
    assert_error(&tiny, &["120x120", "must be multiples of 64"]);
}

#[test]
fn single_files_that_are_not_stable_diffusion() {
    let vae = CheckpointCopy::of(&format!("variants/lean/{VAE}"));
    assert_error(&vae, &["it has no 'model.diffusion_model.' weights"]);
    let sd1 = CheckpointCopy::of("variants/ldm_sd1.safetensors");
    sd1.edit_weights("", |w| {
        let any = w["betas"].clone();
        w.insert("conditioner.embedders.0.x".to_owned(), any);
    });
    assert_error(&sd1, &["Stable Diffusion XL"]);
    // Toy sizes under the configuration of the release.
    let sd1 = CheckpointCopy::of("variants/ldm_sd1.safetensors");
    assert_error(
        &sd1,
        &[
            "misshapen",
            "model.diffusion_model.input_blocks.0.0.weight",
            "[320, 4, 3, 3]",
        ],
    );
}

#[test]
fn wrong_weights_of_a_single_file() {
    let sd2 = CheckpointCopy::of("variants/ldm_sd2.safetensors");
    sd2.edit_weights("", |w| {
        let stray = w["betas"].clone();
        w.insert("control_model.x".to_owned(), stray);
        w.remove("first_stage_model.decoder.mid.attn_1.q.weight");
        let stacked = w.get_mut("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias");
        let (_, shape, data) = stacked.unwrap();
        shape[0] -= 1;
        data.truncate(2 * shape[0]);
    });
    let config = CheckpointCopy::of("variants/ldm_sd2.config.json");
    let options = ImportOptions {
        config: Some(config.path.clone()),
        ..ImportOptions::default()
    };
    let error = open(&sd2.path, &options)
        .unwrap()
        .import()
        .err()
        .unwrap()
        .to_string();
    for part in [
        "1 missing, 1 extra, 1 misshapen",
        "-: ldm_sd2.safetensors: control_model.x: not used",
        "first_stage_model.decoder.mid.attn_1.q.weight: missing",
        "resblocks.0.attn.in_proj_bias: shape [47], expected [16]",
    ] {
        assert!(error.contains(part), "'{part}' is not in: {error}");
    }
}

#[test]
fn wrong_configuration_files() {
    let lean = CheckpointCopy::of("variants/lean");
    let config = CheckpointCopy::of("variants/ldm_sd1.config.json");
    let options = ImportOptions {
        config: Some(config.path.clone()),
        ..ImportOptions::default()
    };
    assert!(error_with(&lean, &options).contains("a diffusers folder has its own"));
    let sd1 = CheckpointCopy::of("variants/ldm_sd1.safetensors");
    config.set("", "unett", json!({}));
    assert!(error_with(&sd1, &options).contains("'unett' is {}; supported: unet, vae"));
    let config = CheckpointCopy::of("variants/ldm_sd1.config.json");
    config.set("", "vae", json!("fast"));
    let options = ImportOptions {
        config: Some(config.path.clone()),
        ..ImportOptions::default()
    };
    assert!(error_with(&sd1, &options).contains(r#"'vae' is "fast"; supported: an object"#));
}
