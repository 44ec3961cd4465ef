//! Weight files of checkpoints: any bytes as a component's file, as an index with its shard, or as a single-file
//! checkpoint are opened and looked over, or refused.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use snapc_fuzz::{Folder, check_graph, split};
use snapc_import::{ImportOptions, open};

/// A safetensors file without tensors.
const EMPTY: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
/// Shard that `index` seeds name.
const SHARD: &str = "text_encoder/shard.safetensors";
const INDEX: &str = "text_encoder/model.safetensors.index.json";

/// The smallest networks, so that most of a run is spent on the input.
fn configuration() -> Value {
    json!({
        "scheduler": {"clip_sample": false, "steps_offset": 1},
        "text_encoder": {
            "hidden_size": 4, "intermediate_size": 4, "max_position_embeddings": 2,
            "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 3,
        },
        "unet": {
            "attention_head_dim": 2, "block_out_channels": [4], "cross_attention_dim": 4,
            "down_block_types": ["DownBlock2D"], "layers_per_block": 1, "mid_block_type": null,
            "norm_num_groups": 2, "sample_size": 8, "up_block_types": ["UpBlock2D"],
        },
        "vae": {"block_out_channels": [4], "norm_num_groups": 2},
    })
}

/// What the three kinds of checkpoints have around the input.
struct Checkpoints {
    one_file: Folder,
    shards: Folder,
    single: Folder,
    single_options: ImportOptions,
}

static CHECKPOINTS: LazyLock<Checkpoints> = LazyLock::new(|| {
    let pipeline = |name| {
        let folder = Folder::new(name);
        let index = json!({
            "text_encoder": ["transformers", "CLIPTextModel"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        let configuration = configuration();
        let write = |path: &str, value: &Value| folder.write(path, value.to_string().as_bytes());
        write("model_index.json", &index);
        for (component, file) in [
            ("scheduler", "scheduler_config.json"),
            ("text_encoder", "config.json"),
            ("unet", "config.json"),
            ("vae", "config.json"),
        ] {
            write(&format!("{component}/{file}"), &configuration[component]);
        }
        for component in ["unet", "vae"] {
            let name = "diffusion_pytorch_model.safetensors";
            folder.write(&format!("{component}/{name}"), EMPTY);
        }
        folder
    };
    let single = Folder::new("safetensors-single");
    let config = single.write("config.json", configuration().to_string().as_bytes());
    Checkpoints {
        one_file: pipeline("safetensors-file"),
        shards: pipeline("safetensors-shards"),
        single,
        single_options: ImportOptions {
            config: Some(config),
            ..ImportOptions::default()
        },
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((&kind, input)) = input.split_first() else {
        return;
    };
    let folder_options = ImportOptions::default();
    match kind % 3 {
        0 => {
            let folder = &CHECKPOINTS.one_file;
            replace(folder, "text_encoder/model.safetensors", input);
            look_over(folder.path().to_owned(), &folder_options);
        }
        1 => {
            let folder = &CHECKPOINTS.shards;
            let (index, shard) = split(input);
            folder.write(INDEX, index);
            replace(folder, SHARD, shard);
            look_over(folder.path().to_owned(), &folder_options);
        }
        _ => {
            let path = replace(&CHECKPOINTS.single, "checkpoint.safetensors", input);
            look_over(path, &CHECKPOINTS.single_options);
        }
    }
});

/// Writes a file that is going to be mapped: a new one, because one that is mapped must not be truncated.
fn replace(folder: &Folder, name: &str, bytes: &[u8]) -> PathBuf {
    // It is absent in the first run.
    let _ = fs::remove_file(folder.path().join(name));
    folder.write(name, bytes)
}

/// Opens and imports.
fn look_over(path: PathBuf, options: &ImportOptions) {
    let imported = open(&path, options).and_then(|checkpoint| checkpoint.import());
    match imported {
        Ok(program) => program.graphs.iter().for_each(check_graph),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
