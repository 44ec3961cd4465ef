//! Weight files of checkpoints.

use crate::join;
use serde_json::{Map, json};

use super::Seeds;

/// A key and a shape.
type Entry = (&'static str, &'static [usize]);

/// The whole text encoder in the diffusers layout, with the sizes that the target configures.
const TEXT_ENCODER: [Entry; 20] = [
    ("text_model.embeddings.token_embedding.weight", &[3, 4]),
    ("text_model.embeddings.position_embedding.weight", &[2, 4]),
    ("text_model.encoder.layers.0.layer_norm1.weight", &[4]),
    ("text_model.encoder.layers.0.layer_norm1.bias", &[4]),
    ("text_model.encoder.layers.0.layer_norm2.weight", &[4]),
    ("text_model.encoder.layers.0.layer_norm2.bias", &[4]),
    ("text_model.encoder.layers.0.mlp.fc1.weight", &[4, 4]),
    ("text_model.encoder.layers.0.mlp.fc1.bias", &[4]),
    ("text_model.encoder.layers.0.mlp.fc2.weight", &[4, 4]),
    ("text_model.encoder.layers.0.mlp.fc2.bias", &[4]),
    (
        "text_model.encoder.layers.0.self_attn.k_proj.weight",
        &[4, 4],
    ),
    ("text_model.encoder.layers.0.self_attn.k_proj.bias", &[4]),
    (
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        &[4, 4],
    ),
    ("text_model.encoder.layers.0.self_attn.q_proj.bias", &[4]),
    (
        "text_model.encoder.layers.0.self_attn.v_proj.weight",
        &[4, 4],
    ),
    ("text_model.encoder.layers.0.self_attn.v_proj.bias", &[4]),
    (
        "text_model.encoder.layers.0.self_attn.out_proj.weight",
        &[4, 4],
    ),
    ("text_model.encoder.layers.0.self_attn.out_proj.bias", &[4]),
    ("text_model.final_layer_norm.weight", &[4]),
    ("text_model.final_layer_norm.bias", &[4]),
];

/// Keys of the original layout: each of the four naming schemes, and one that no network has.
const SINGLE_FILE: [Entry; 9] = [
    (
        "cond_stage_model.transformer.text_model.final_layer_norm.bias",
        &[4],
    ),
    (
        "first_stage_model.decoder.mid.attn_1.q.weight",
        &[4, 4, 1, 1],
    ),
    ("first_stage_model.encoder.conv_in.bias", &[4]),
    ("first_stage_model.post_quant_conv.weight", &[4, 4, 1, 1]),
    (
        "model.diffusion_model.input_blocks.0.0.weight",
        &[4, 4, 3, 3],
    ),
    (
        "model.diffusion_model.input_blocks.1.0.in_layers.0.weight",
        &[4],
    ),
    ("model.diffusion_model.out.2.bias", &[4]),
    ("model.diffusion_model.time_embed.0.bias", &[16]),
    ("alphas_cumprod", &[4]),
];

/// The text encoder of Stable Diffusion 2, whose attention stacks three weights.
const SINGLE_FILE_2: [Entry; 4] = [
    (
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
        &[12, 4],
    ),
    (
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias",
        &[12],
    ),
    ("cond_stage_model.model.ln_final.weight", &[4]),
    ("model.diffusion_model.out.0.weight", &[4]),
];

/// `[kind] [file]`, or `[1] [index, shard]`.
pub(super) fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, kind: u8, content: Vec<u8>| {
        let input = [&[kind], content.as_slice()].concat();
        seeds.insert(name.to_owned(), input);
    };
    for (dtype, size, name) in [("F32", 4, "f32"), ("F16", 2, "f16"), ("BF16", 2, "bf16")] {
        add(name, 0, file(&TEXT_ENCODER, dtype, size));
    }
    add("integers", 0, file(&TEXT_ENCODER[..2], "I64", 8));
    add("empty", 0, file(&[], "F32", 4));
    let entries = &TEXT_ENCODER[18..];
    let map: Map<_, _> = entries
        .iter()
        .map(|(key, _)| ((*key).to_owned(), "shard.safetensors".into()))
        .collect();
    let index = json!({"metadata": {"total_size": 32}, "weight_map": map}).to_string();
    add("shard", 1, join(index.as_bytes(), &file(entries, "F32", 4)));
    add("single-file-1", 2, file(&SINGLE_FILE, "F16", 2));
    add("single-file-2", 2, file(&SINGLE_FILE_2, "F16", 2));
    seeds
}

/// A safetensors file with these entries and ascending bytes.
fn file(entries: &[Entry], dtype: &str, size: usize) -> Vec<u8> {
    let mut header = Map::new();
    let mut end = 0;
    for (key, shape) in entries {
        let start = end;
        end += shape.iter().product::<usize>() * size;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert((*key).to_owned(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..end).map(|i| (i % 60) as u8));
    bytes
}
