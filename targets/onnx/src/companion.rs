//! The files of a pipeline beside its models, where Optimum's `ORTStableDiffusionPipeline.from_pretrained` looks for
//! them: the pipeline index, the configuration of each model, tokenizer and scheduler.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use snapc_ir::PipelineSpec;
use snapc_target::TargetError;

/// Name of the pipeline index.
pub(crate) const INDEX: &str = "model_index.json";

/// How to run the artifact, for people.
const RUNTIME: (&str, &str) = ("runtime/README.md", include_str!("runtime/README.md"));

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
/// byte. With them goes a page on how to run the artifact.
///
/// # Errors
/// [`TargetError::Malformed`] when the checkpoint's index is absent or no JSON object.
pub(crate) fn files(pipeline: &PipelineSpec) -> Result<BTreeMap<String, Vec<u8>>, TargetError> {
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
    files.insert(INDEX.to_owned(), index(pipeline)?);
    files.insert(RUNTIME.0.to_owned(), RUNTIME.1.into());
    Ok(files)
}

/// The checkpoint's index without the components that are not in the artifact.
fn index(pipeline: &PipelineSpec) -> Result<Vec<u8>, TargetError> {
    let malformed = |reason: String| TargetError::Malformed {
        path: INDEX.into(),
        reason,
    };
    let given = pipeline.files.get(INDEX).ok_or_else(|| {
        malformed("the checkpoint has none, and Optimum loads nothing without it".to_owned())
    })?;
    let mut index: Map<String, Value> = serde_json::from_slice(given)
        .map_err(|e| malformed(format!("the checkpoint's is not a JSON object: {e}")))?;
    for component in OPTIONAL_COMPONENTS {
        if index.contains_key(component) {
            index.insert(component.to_owned(), json!([null, null]));
        }
    }
    if index.contains_key("requires_safety_checker") {
        index.insert("requires_safety_checker".to_owned(), json!(false));
    }
    let text = serde_json::to_string_pretty(&index).expect("a map of JSON values is JSON");
    Ok((text + "\n").into_bytes())
}
