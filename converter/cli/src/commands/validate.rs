//! `snapc validate`: what an artifact computes, against a reference file.
//!
//! Each graph is run on the inputs that the reference holds for it, so that a graph answers for itself alone; then the
//! whole run from the reference's initial latents, whose final latents carry the bar. A UNet that takes projections of the
//! text in place of the embeddings gets those of the artifact's own text encoder for the reference's token ids: no reference
//! holds them, and they are of the text encoder's graph, which answers for its embeddings before.
//!
//! Core ML itself makes the whole run only, through `snap-run` ([`core_ml`]).

mod comparison;
mod core_ml;
mod nodes;
mod per_node;
mod picture;

use serde_json::json;
use snapc_pipeline::{
    Engine, InitLatents, Pipeline, PipelineError, Request, Stage, UnetInput, is_guided, timesteps,
};

use crate::accuracy::Accuracy;
use crate::args::{EngineKind, ValidateArgs};
use crate::artifact::Artifact;
use crate::engines::{AnyEngine, EngineError, gives_picture};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::StepBar;
use crate::recorder;
use crate::reference_file::{self, Reference, StepRecord};

use comparison::{Bars, Comparison, Row, Subject};
use per_node::PerNode;

/// Compares an artifact with a reference and reports every figure.
///
/// # Errors
/// When artifact and reference do not belong together or a network cannot run; figures under their bars are no error
/// but [`Exit::CheckFailed`].
pub fn run(args: &ValidateArgs, output: &Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install();
    let reference = reference_file::read(&args.reference)?;
    let artifact = Artifact::open(&args.artifact)?.at_size(args.engine.size)?;
    let bars = Bars::of(
        &artifact.manifest.precision,
        artifact.manifest.weights.as_deref(),
        args.min_psnr,
    )?;
    check_schedule(&artifact, &reference)?;
    let engine = core_ml::engine(args, &artifact, output);
    if args.compute_units.is_some() && engine != EngineKind::Coreml {
        let message = "--compute-units chooses processors for Core ML, which is not asked";
        return Err(Failure::usage(message).help("give --engine coreml"));
    }
    let comparison = match engine {
        EngineKind::Coreml => core_ml::compare(args, &artifact, &reference, bars, &interrupt)?,
        _ => replay(args, &artifact, &reference, bars, &interrupt, output)?,
    };
    let per_node = match (&args.checkpoint, comparison.suspect()) {
        (Some(checkpoint), Some(stage)) => Some(PerNode::compare(
            &artifact, checkpoint, &reference, stage, bars,
        )?),
        _ => None,
    };
    let departure = comparison.first_departure();
    let mut document = json!({
        "command": "validate",
        "target": artifact.manifest.target,
        "precision": artifact.manifest.precision,
        "weights": artifact.manifest.weights,
        "engine": engine.name(),
        "made_by": reference.settings.made_by,
        "ok": departure.is_none(),
        "departs_first": departure.map(Row::subject_document),
        "rows": comparison.rows.iter().map(Row::document).collect::<Vec<_>>(),
    });
    if let Some(per_node) = &per_node {
        document["per_node"] = per_node.document();
    }
    output.result(&document, || {
        let nodes = per_node.as_ref().map(PerNode::text).unwrap_or_default();
        format!("{}{nodes}", comparison.text())
    })?;
    Ok(match departure {
        None => Exit::Done,
        Some(_) => Exit::CheckFailed,
    })
}

/// Runs the artifact as the reference ran and compares every call and the whole run.
fn replay(
    args: &ValidateArgs,
    artifact: &Artifact,
    reference: &Reference,
    bars: Bars,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<Comparison, Failure> {
    let mut pipeline = artifact.pipeline(args.engine, reference.batch)?;
    check_timesteps(pipeline.engine(), reference)?;
    check_geometry(artifact, &pipeline, reference)?;

    let mut replay = Replay {
        reference,
        scaling_factor: artifact.manifest.latent.scaling_factor as f32,
        bars,
        gives_picture: gives_picture(artifact),
        bar: StepBar::new(
            output.shows_progress(),
            "call",
            match args.run_only {
                true => reference.steps.len(),
                false => 2 * reference.steps.len() + 2,
            },
        ),
        interrupt,
    };
    let mut comparison = Comparison {
        rows: match args.run_only {
            true => Vec::new(),
            false => replay.calls(pipeline.engine_mut())?,
        },
    };
    let departed = comparison.first_departure().is_some();
    match replay.run(&mut pipeline) {
        Ok(rows) => comparison.rows.extend(rows),
        // A graph that is wrong may well give values that are not finite; its row tells more.
        Err(failure) if departed && failure.exit != Exit::Interrupted => {
            output.note(&format!(
                "the whole run fails: {}",
                failure.messages().join(": ")
            ));
        }
        Err(failure) => return Err(failure),
    }
    Ok(comparison)
}

/// Refuses a reference whose steps are not those of the artifact's schedule.
fn check_schedule(artifact: &Artifact, reference: &Reference) -> Result<(), Failure> {
    let settings = &reference.settings;
    let own = timesteps(&artifact.scheduler()?, settings.steps)?;
    if own != settings.timesteps {
        let error = anyhow::anyhow!(
            "the schedules differ: {} steps are at {own:?} in the artifact, at {:?} in the reference",
            settings.steps,
            settings.timesteps
        );
        return Err(Failure::new(Exit::CheckFailed, error).help(
            "both take the scheduler from the checkpoint; make the reference from the same one",
        ));
    }
    if is_guided(settings.guidance) != (reference.batch == 2) {
        let error = anyhow::anyhow!(
            "the reference has {} row(s) of tokens, which does not fit its guidance {}",
            reference.batch,
            settings.guidance
        );
        return Err(Failure::new(Exit::InvalidInput, error));
    }
    Ok(())
}

/// Refuses a reference with other steps than the UNet has a table of.
fn check_timesteps(engine: &AnyEngine, reference: &Reference) -> Result<(), Failure> {
    let asked = &reference.settings.timesteps;
    match engine.timesteps() {
        Some(converted) if converted != asked.as_slice() => {
            let error = PipelineError::<EngineError>::Steps {
                converted: converted.to_vec(),
                asked: asked.clone(),
            };
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// Refuses a reference of other sizes.
fn check_geometry(
    artifact: &Artifact,
    pipeline: &Pipeline<AnyEngine>,
    reference: &Reference,
) -> Result<(), Failure> {
    let (own, theirs) = (pipeline.engine().geometry(), reference.geometry);
    if own == theirs {
        return Ok(());
    }
    let error = anyhow::anyhow!(
        "artifact '{}' and reference are of different sizes: {own:?} and {theirs:?}",
        artifact.folder.display()
    );
    Err(Failure::new(Exit::InvalidInput, error).help("make the reference from the same checkpoint"))
}

/// Runs an engine as the reference ran.
struct Replay<'a> {
    reference: &'a Reference,
    scaling_factor: f32,
    bars: Bars,
    /// Whether the decoder gives a picture of 8 bits, which has no bar of a call but its own.
    gives_picture: bool,
    bar: StepBar,
    interrupt: &'a Interrupt,
}

impl Replay<'_> {
    /// Every call of a graph, on the reference's own inputs.
    fn calls(&mut self, engine: &mut AnyEngine) -> Result<Vec<Row>, Failure> {
        let reference = self.reference;
        let mut rows = Vec::new();
        let mut stages = vec![Stage::TextEncoder];
        stages.extend((0..reference.steps.len()).map(|step| Stage::Unet { step }));
        stages.push(Stage::VaeDecoder);
        let mut texts = Vec::new();
        for stage in stages {
            self.interrupt.check()?;
            if texts.is_empty() && matches!(stage, Stage::Unet { .. }) {
                texts = texts_for_unet(engine, reference)?;
            }
            let found = call(engine, reference, &texts, self.scaling_factor, stage)
                .map_err(|e| failed(stage, e))?;
            let expected = expected(reference, stage);
            let (accuracy, bar) = match self.gives_picture && stage == Stage::VaeDecoder {
                true => {
                    let (accuracy, one_level) = picture::compare(&found, expected);
                    (accuracy, self.bars.call.map(|bar| bar.min(one_level)))
                }
                false => (Accuracy::of(&found, expected), self.bars.call),
            };
            rows.push(Row {
                subject: Subject::Call(stage),
                accuracy,
                bar,
            });
            self.bar.advance();
        }
        Ok(rows)
    }

    /// The whole run from the prompt and the reference's initial latents.
    fn run(&mut self, pipeline: &mut Pipeline<AnyEngine>) -> Result<Vec<Row>, Failure> {
        let reference = self.reference;
        let settings = &reference.settings;
        let request = Request {
            prompt: settings.prompt.clone(),
            negative_prompt: settings.negative.clone(),
            steps: settings.steps,
            guidance: settings.guidance,
            init_latents: InitLatents::Given(reference.init_latents.clone()),
        };
        let bar = &self.bar;
        let (generation, steps) = recorder::record(pipeline, &request, self.interrupt, |_| {
            bar.advance();
            Ok(())
        })?;
        let image: Vec<f32> = generation
            .decoded
            .iter()
            .map(|v| v.clamp(-1.0, 1.0))
            .collect();
        let recorded = Recorded {
            input_ids: &generation.input_ids,
            steps: &steps,
            image: &image,
        };
        Ok(run_rows(recorded, reference, self.bars))
    }
}

/// A whole run, as it is compared.
struct Recorded<'a> {
    /// Token ids `[batch, text_length]`.
    input_ids: &'a [u32],
    /// The steps in order.
    steps: &'a [StepRecord],
    /// The picture, clamped to [-1, 1].
    image: &'a [f32],
}

/// The rows of a whole run.
fn run_rows(found: Recorded<'_>, reference: &Reference, bars: Bars) -> Vec<Row> {
    let ids = |ids: &[u32]| ids.iter().map(|&id| id as f32).collect::<Vec<f32>>();
    let mut rows = vec![Row {
        subject: Subject::Tokens,
        accuracy: Accuracy::of(&ids(found.input_ids), &ids(&reference.input_ids)),
        // One wrong token is another prompt.
        bar: Some(f64::INFINITY),
    }];
    let last = found.steps.len().saturating_sub(1);
    for (step, (found, expected)) in found.steps.iter().zip(&reference.steps).enumerate() {
        rows.push(Row {
            subject: Subject::Latents {
                step,
                last: step == last,
            },
            accuracy: Accuracy::of(&found.latents, &expected.latents),
            bar: (step == last).then_some(bars.final_latents),
        });
    }
    rows.push(Row {
        subject: Subject::Picture,
        accuracy: Accuracy::of(found.image, &reference.image),
        bar: None,
    });
    rows
}

/// What a UNet takes of the reference's prompts: the recorded embeddings, or where it takes more than those, what the text
/// encoder gives for the recorded token ids.
///
/// # Errors
/// When the text encoder cannot run.
fn texts_for_unet(engine: &mut AnyEngine, reference: &Reference) -> Result<Vec<f32>, Failure> {
    let (geometry, size) = (engine.geometry(), engine.text_values());
    if size == geometry.embedding_values() {
        return Ok(reference.text_embeddings.clone());
    }
    let mut texts = vec![0.0; reference.batch * size];
    let ids = reference.input_ids.chunks_exact(geometry.text_length);
    for (ids, values) in ids.zip(texts.chunks_exact_mut(size)) {
        let ran = engine.encode_text(ids, values);
        ran.map_err(|e| failed(Stage::TextEncoder, e))?;
    }
    Ok(texts)
}

/// What a graph gives for the inputs that the reference holds for it, in the form of [`expected`]. `texts` are those of
/// [`texts_for_unet`].
fn call<E: Engine>(
    engine: &mut E,
    reference: &Reference,
    texts: &[f32],
    scaling_factor: f32,
    stage: Stage,
) -> Result<Vec<f32>, E::Error> {
    let geometry = engine.geometry();
    let mut found = vec![0.0; expected(reference, stage).len()];
    match stage {
        Stage::Unet { step } => {
            let input = UnetInput {
                step,
                timestep: reference.settings.timesteps[step],
                batch: reference.batch,
                latents: reference.latents_before(step),
                text_embeddings: texts,
            };
            engine.denoise(input, &mut found)?;
        }
        Stage::VaeDecoder => {
            let latents = reference.final_latents().iter();
            let scaled: Vec<f32> = latents.map(|x| x / scaling_factor).collect();
            engine.decode(&scaled, &mut found)?;
            found.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        }
        _ => {
            let ids = reference.input_ids.chunks_exact(geometry.text_length);
            let rows = found.chunks_exact_mut(geometry.embedding_values());
            let mut values = vec![0.0; engine.text_values()];
            for (ids, row) in ids.zip(rows) {
                engine.encode_text(ids, &mut values)?;
                row.copy_from_slice(&values[..row.len()]);
            }
        }
    }
    Ok(found)
}

/// What the reference holds for a call.
fn expected(reference: &Reference, stage: Stage) -> &[f32] {
    match stage {
        Stage::Unet { step } => &reference.steps[step].noise_pred,
        Stage::VaeDecoder => &reference.image,
        _ => &reference.text_embeddings,
    }
}

fn failed(stage: Stage, error: EngineError) -> Failure {
    let error = anyhow::Error::new(error).context(format!("{stage}: the engine failed"));
    Failure::new(Exit::Internal, error)
}
