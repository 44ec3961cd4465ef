//! Runs that are recorded step by step.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::json;
use snapc_pipeline::{Engine, Generation, InitLatents, Pipeline, PipelineError, Progress, Request};
use snapc_target::manifest::SchedulerRecord;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::reference_file::{Reference, Settings, StepRecord};

/// Runs a pipeline and records every step. `observe` is called after each; the run stops between steps when it is
/// interrupted.
///
/// # Errors
/// When the run fails, is interrupted, or `observe` fails.
pub fn record<E: Engine>(
    pipeline: &mut Pipeline<E>,
    request: &Request,
    interrupt: &Interrupt,
    mut observe: impl FnMut(&mut Progress<'_, E>) -> Result<(), Failure>,
) -> Result<(Generation, Vec<StepRecord>), Failure> {
    let mut steps = Vec::new();
    let mut failed = None;
    let generated = pipeline.generate(request, |progress| {
        steps.push(StepRecord {
            noise_pred: progress.predictions.to_vec(),
            latents: progress.latents.to_vec(),
        });
        let observed = interrupt.check().and_then(|()| observe(progress));
        match observed {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    });
    match (generated, failed) {
        (Err(PipelineError::Cancelled { .. }), Some(failure)) => Err(failure),
        (generated, _) => {
            let generation = generated?;
            interrupt.check()?;
            Ok((generation, steps))
        }
    }
}

/// What a reference file says about a run of snapc.
pub fn settings(
    request: &Request,
    scheduler: &SchedulerRecord,
    timesteps: Vec<usize>,
    engine: &str,
) -> Settings {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Settings {
        guidance: request.guidance,
        made_by: format!("snapc, engine {engine}"),
        negative: request.negative_prompt.clone(),
        prompt: request.prompt.clone(),
        scheduler: scheduler_config(scheduler),
        seed: match request.init_latents {
            InitLatents::Seed(seed) => Some(seed),
            InitLatents::Given(_) => None,
        },
        steps: request.steps,
        timesteps,
        versions: BTreeMap::from([("snapc".to_owned(), version)]),
    }
}

/// The schedule as diffusers' configuration has it, with what snapc never does switched off.
fn scheduler_config(record: &SchedulerRecord) -> serde_json::Value {
    json!({
        "_class_name": "DDIMScheduler",
        "beta_end": record.beta_end,
        "beta_schedule": record.beta_schedule,
        "beta_start": record.beta_start,
        "clip_sample": false,
        "num_train_timesteps": record.num_train_timesteps,
        "prediction_type": record.prediction_type,
        "rescale_betas_zero_snr": false,
        "set_alpha_to_one": record.set_alpha_to_one,
        "steps_offset": record.steps_offset,
        "thresholding": false,
        "timestep_spacing": record.timestep_spacing,
        "trained_betas": null,
    })
}

/// The record of a run as a reference.
pub fn reference<E: Engine>(
    pipeline: &Pipeline<E>,
    settings: Settings,
    generation: &Generation,
    steps: Vec<StepRecord>,
) -> Reference {
    let geometry = pipeline.engine().geometry();
    Reference {
        settings,
        geometry,
        batch: generation.input_ids.len() / geometry.text_length,
        input_ids: generation.input_ids.clone(),
        text_embeddings: generation.text_embeddings.clone(),
        init_latents: generation.init_latents.clone(),
        steps,
        image: generation
            .decoded
            .iter()
            .map(|v| v.clamp(-1.0, 1.0))
            .collect(),
    }
}
