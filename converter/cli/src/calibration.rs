//! Calibration inputs of the graphs, from a reference file.

use std::collections::BTreeMap;
use std::path::Path;

use snapc_ir::{Dim, Graph, Program, Tensor};
use snapc_passes::Calibration;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::reference_file::{self, Reference};

/// UNet calls that are taken from a reference, spread over its steps, of one prompt and the other in turn.
const UNET_CALLS: usize = 4;
/// Latent cells of decoder inputs that are taken from a reference, latest steps first.
const DECODER_CELLS: usize = 4096;

/// What a reference file recorded, as inputs of a program's graphs: the tokens, some of the UNet calls, and latents of the last
/// steps for the decoder.
///
/// # Errors
/// When the file is no reference, or its sizes are not those of the graphs.
pub fn read(path: &Path, program: &Program) -> Result<Calibration, Failure> {
    let reference = reference_file::read(path)?;
    let scale = program.pipeline.latent.scaling_factor as f32;
    let mut calibration = Calibration::default();
    for graph in &program.graphs {
        for sample in samples(&reference, graph.name(), scale) {
            let inputs = bind(graph, &sample, path)?;
            calibration.add(graph.name(), inputs);
        }
    }
    Ok(calibration)
}

/// A recorded call.
struct Call {
    batch: usize,
    values: BTreeMap<&'static str, Vec<f32>>,
}

fn samples(reference: &Reference, graph: &str, scale: f32) -> Vec<Call> {
    let batch = reference.batch;
    let call = |batch, values: Vec<(&'static str, Vec<f32>)>| Call {
        batch,
        values: values.into_iter().collect(),
    };
    let steps = reference.steps.len();
    match graph {
        "text_encoder" => {
            let ids = reference.input_ids.iter().map(|&id| id as f32).collect();
            vec![call(batch, vec![("input_ids", ids)])]
        }
        "unet" => {
            let taken = UNET_CALLS.min(steps);
            let spread = (0..taken).map(|i| i * (steps - 1) / (taken - 1).max(1));
            let texts = &reference.text_embeddings;
            let values = texts.len() / batch;
            let at = |(position, step): (usize, usize)| {
                let text = texts[position % batch * values..][..values].to_vec();
                call(
                    1,
                    vec![
                        ("sample", reference.latents_before(step).to_vec()),
                        ("timestep", vec![reference.settings.timesteps[step] as f32]),
                        ("encoder_hidden_states", text),
                    ],
                )
            };
            spread.enumerate().map(at).collect()
        }
        "vae_decoder" => {
            let cells = reference.geometry.latent_height * reference.geometry.latent_width;
            let taken = (DECODER_CELLS / cells.max(1)).clamp(1, steps);
            let latents = (0..taken).map(|back| reference.latents_before(steps - back));
            let scaled = latents.map(|l| l.iter().map(|x| x / scale).collect());
            scaled
                .map(|l| call(1, vec![("latent_sample", l)]))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn bind(graph: &Graph, call: &Call, path: &Path) -> Result<BTreeMap<String, Tensor>, Failure> {
    let tensor = |input: &snapc_ir::GraphInput| {
        let ty = graph.ty(input.value);
        let shape = ty.shape.bind(call.batch);
        let values = call
            .values
            .get(input.name.as_str())
            .cloned()
            .unwrap_or_default();
        let elements: usize = shape.iter().product();
        // One timestep serves the whole batch.
        let values = match values.as_slice() {
            [one] if ty.shape.dims() == [Dim::Batch] => vec![*one; elements],
            _ => values,
        };
        if values.len() != elements {
            let error = anyhow::anyhow!(
                "'{}' does not fit the checkpoint: graph '{}' takes {elements} values as '{}', the file has {}",
                path.display(),
                graph.name(),
                input.name,
                values.len()
            );
            return Err(Failure::new(Exit::InvalidInput, error).help(
                "make the calibration file from the same checkpoint with `snapc reference`",
            ));
        }
        Ok(if ty.dtype.is_float() {
            Tensor::float(&shape, values)
        } else {
            Tensor::int(&shape, values.iter().map(|&x| x as i64).collect())
        })
    };
    let named = graph
        .inputs()
        .iter()
        .map(|input| Ok((input.name.clone(), tensor(input)?)));
    named.collect()
}
