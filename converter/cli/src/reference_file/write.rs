//! Writing reference files.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensorError, TensorView};

use super::{METADATA_KEY, Reference};

/// The bytes of the file; equal runs give equal bytes.
///
/// # Errors
/// When a tensor does not have the number of values that the geometry gives it.
pub fn encode(reference: &Reference) -> Result<Vec<u8>, SafeTensorError> {
    let g = &reference.geometry;
    let latents = |rows| vec![rows, g.latent_channels, g.latent_height, g.latent_width];
    let batch = reference.batch;
    let mut tensors = vec![
        (
            "text_embeddings".to_owned(),
            vec![batch, g.text_length, g.text_width],
            bytes(&reference.text_embeddings),
        ),
        (
            "init_latents".to_owned(),
            latents(1),
            bytes(&reference.init_latents),
        ),
        (
            "image".to_owned(),
            vec![1, 3, g.image_height(), g.image_width()],
            bytes(&reference.image),
        ),
    ];
    for (k, step) in reference.steps.iter().enumerate() {
        tensors.push((
            format!("step_{k}.noise_pred"),
            latents(batch),
            bytes(&step.noise_pred),
        ));
        tensors.push((
            format!("step_{k}.latents"),
            latents(1),
            bytes(&step.latents),
        ));
    }
    let ids: Vec<u8> = reference
        .input_ids
        .iter()
        .flat_map(|id| id.to_le_bytes())
        .collect();
    let ids = TensorView::new(Dtype::I32, vec![batch, g.text_length], &ids)?;
    let mut views = vec![("input_ids", ids)];
    for (name, shape, data) in &tensors {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), data)?));
    }
    let settings =
        serde_json::to_string(&reference.settings).expect("the settings have string keys only");
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), settings)]);
    safetensors::serialize(views, Some(metadata))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
