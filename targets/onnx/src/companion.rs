//! The files of a pipeline beside its models, where Optimum's `ORTStableDiffusionPipeline.from_pretrained` looks for
//! them: the pipeline index, the configuration of each model, tokenizer and scheduler.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use snapc_ir::PipelineSpec;

/// Name of the pipeline index.
pub(crate) const INDEX: &str = "model_index.json";

/// Folders of the checkpoint that an artifact takes over unchanged.
const KEPT_FOLDERS: [&str; 2] = ["scheduler", "tokenizer"];

/// Models that snapc emits: the graph, which names the folder here, and its folder in the checkpoint.
const MODELS: [(&str, &str); 3] = [
    ("text_encoder", "text_encoder"),
    ("unet", "unet"),
    ("vae_decoder", "vae"),
];

/// Components that Optimum loads from their folder, or diffusers would, when the index names them.
const OPTIONAL_COMPONENTS: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];

/// The companion files by path in the artifact. Scheduler, tokenizer and configurations are the checkpoint's, byte by
/// byte.
pub(crate) fn files(pipeline: &PipelineSpec) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (path, bytes) in &pipeline.files {
        let folder = path.split('/').next().unwrap_or_default();
        if path != folder && KEPT_FOLDERS.contains(&folder) {
            files.insert(path.clone(), bytes.clone());
        }
    }
    for (graph, folder) in MODELS {
        if let Some(config) = pipeline.files.get(&format!("{folder}/config.json")) {
            files.insert(format!("{graph}/config.json"), config.clone());
        }
    }
    files.insert(INDEX.to_owned(), index(pipeline));
    files
}

/// The checkpoint's index without the components that are not in the artifact; a stock one when it has none.
fn index(pipeline: &PipelineSpec) -> Vec<u8> {
    let given = pipeline.files.get(INDEX);
    let parsed = given.and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(bytes).ok());
    let mut index = parsed.unwrap_or_else(|| stock_index(pipeline));
    for component in OPTIONAL_COMPONENTS {
        if index.contains_key(component) {
            index.insert(component.to_owned(), json!([null, null]));
        }
    }
    if index.contains_key("requires_safety_checker") {
        index.insert("requires_safety_checker".to_owned(), json!(false));
    }
    let text = serde_json::to_string_pretty(&index).expect("a map of JSON values is JSON");
    (text + "\n").into_bytes()
}

/// The index of a checkpoint that came as a single file.
fn stock_index(pipeline: &PipelineSpec) -> Map<String, Value> {
    let scheduler = pipeline
        .files
        .get("scheduler/scheduler_config.json")
        .and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok())
        .and_then(|config| config["_class_name"].as_str().map(str::to_owned));
    let entries = [
        ("_class_name", json!("StableDiffusionPipeline")),
        (
            "scheduler",
            json!(["diffusers", scheduler.as_deref().unwrap_or("DDIMScheduler")]),
        ),
        ("text_encoder", json!(["transformers", "CLIPTextModel"])),
        ("tokenizer", json!(["transformers", "CLIPTokenizer"])),
        ("unet", json!(["diffusers", "UNet2DConditionModel"])),
        ("vae", json!(["diffusers", "AutoencoderKL"])),
    ];
    entries
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}
