//! Random weights for a configuration, written as a diffusers folder and imported again.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use snapc_import::config::{TextEncoderConfig, UnetConfig, VaeConfig};
use snapc_import::{ImportOptions, ShapeOnly, networks, open};
use snapc_ir::{Graph, Program};

use crate::numbers::Numbers;
use crate::settings::{Settings, Storage};

/// The last layers of residual branches: with zero weights such a branch adds nothing.
const LAST_PROJECTIONS: [&str; 8] = [
    ".conv2.",
    ".time_emb_proj.",
    ".proj_out.",
    ".to_out.0.",
    ".ff.net.2.",
    ".self_attn.out_proj.",
    ".mlp.fc2.",
    "conv_shortcut.",
];

/// Tokens and latent for which the shapes of weights are asked; they do not depend on it.
const TOKENS: usize = 77;
const LATENT: (usize, usize) = (64, 64);

/// Imports a pipeline of these settings with random weights.
pub fn import(settings: &Settings, numbers: &mut Numbers) -> Program {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path();
    write_json(&path.join("model_index.json"), &index());
    write_json(
        &path.join("scheduler/scheduler_config.json"),
        &settings.scheduler,
    );
    for (name, file, config, graph) in components(settings) {
        write_json(&path.join(name).join("config.json"), config);
        let bytes = weights(&graph, settings, numbers);
        fs::write(path.join(name).join(file), bytes).expect("a test file can be written");
    }
    let checkpoint = open(path, &ImportOptions::default());
    let program = checkpoint.and_then(|checkpoint| checkpoint.import());
    program.unwrap_or_else(|error| panic!("{error}\n{settings:#?}"))
}

fn index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": [null, null],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// Folder, file of the weights, configuration and graph without data of each network.
fn components(settings: &Settings) -> [(&'static str, &'static str, &Value, Graph); 3] {
    let Settings {
        text_encoder,
        unet,
        vae,
        ..
    } = settings;
    let accepted = "import accepts the settings";
    let config = TextEncoderConfig::from_json("text_encoder", &text_encoder.to_string());
    let text_graph = networks::text_encoder(&config.expect(accepted), &ShapeOnly)
        .expect(accepted)
        .graph;
    let config = UnetConfig::from_json("unet", &unet.to_string()).expect(accepted);
    let unet_graph = networks::unet(&config, LATENT, TOKENS, &ShapeOnly)
        .expect(accepted)
        .graph;
    let config = VaeConfig::from_json("vae", &vae.to_string()).expect(accepted);
    let vae_graph = networks::vae_decoder(&config, LATENT, &ShapeOnly)
        .expect(accepted)
        .graph;
    let diffusers = "diffusion_pytorch_model.safetensors";
    [
        (
            "text_encoder",
            "model.safetensors",
            text_encoder,
            text_graph,
        ),
        ("unet", diffusers, unet, unet_graph),
        ("vae", diffusers, vae, vae_graph),
    ]
}

fn write_json(path: &Path, value: &Value) {
    let folder = path.parent().expect("a file of the folder");
    fs::create_dir_all(folder).expect("a test folder can be made");
    fs::write(path, value.to_string()).expect("a test file can be written");
}

/// A safetensors file of the graph's parameters.
fn weights(graph: &Graph, settings: &Settings, numbers: &mut Numbers) -> Vec<u8> {
    let mut zeroed: Vec<&str> = Vec::new();
    let parameters: Vec<_> = graph.weights().iter().filter(|w| w.is_parameter).collect();
    for weight in &parameters {
        let layer = weight.name.strip_suffix(".weight");
        let is_last = LAST_PROJECTIONS
            .iter()
            .any(|part| weight.name.contains(part));
        if let Some(layer) = layer.filter(|_| is_last && numbers.chance(settings.zeros)) {
            zeroed.push(layer);
        }
    }
    let tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = parameters
        .iter()
        .map(|weight| {
            let shape = weight.tensor.shape().to_vec();
            let layer = weight.name.rsplit_once('.').map_or("", |(layer, _)| layer);
            let values = match zeroed.contains(&layer) {
                true => vec![0.0; shape.iter().product()],
                false => values(&weight.name, &shape, numbers),
            };
            (
                weight.name.as_str(),
                shape,
                stored(&values, settings.storage),
            )
        })
        .collect();
    let dtype = match settings.storage {
        Storage::F32 => Dtype::F32,
        Storage::F16 => Dtype::F16,
        Storage::Bf16 => Dtype::BF16,
    };
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            *name,
            TensorView::new(dtype, shape.clone(), bytes).expect("bytes of that shape"),
        )
    });
    serialize(views, None).expect("a file of these tensors")
}

/// Values that keep activations of order one and make every tensor count.
fn values(name: &str, shape: &[usize], numbers: &mut Numbers) -> Vec<f32> {
    let n = shape.iter().product();
    let (mean, deviation) = match shape {
        [_] if name.contains("norm") && name.ends_with("weight") => (1.0, 0.2),
        [_] => (0.0, 0.2),
        _ if name.contains("embedding.weight") => (0.0, 0.5),
        _ => (
            0.0,
            (shape[1..].iter().product::<usize>() as f32).sqrt().recip(),
        ),
    };
    numbers
        .normals(n)
        .into_iter()
        .map(|x| mean + deviation * x)
        .collect()
}

fn stored(values: &[f32], storage: Storage) -> Vec<u8> {
    match storage {
        Storage::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Storage::F16 => values
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect(),
        Storage::Bf16 => values
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
    }
}
