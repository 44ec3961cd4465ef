//! The loop against diffusers' recorded run `fixtures/tiny/reference.safetensors`: an engine replays what the networks gave
//! and checks what it is handed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use snapc_pipeline::{
    BetaSchedule, Engine, Geometry, InitLatents, Pipeline, PipelineError, PredictionType, Request,
    SchedulerConfig, Stage, TimestepSpacing, Tokenizer, UnetInput, standard_normal,
};

/// Latents of an exact loop differ from the record by diffusers' f32 tables alone.
const BAR: f64 = 120.0;

const STEPS: usize = 8;
const SCALING_FACTOR: f32 = 0.18215;

/// `fixtures/tiny/scheduler/scheduler_config.json`.
const SCHEDULER: SchedulerConfig = SchedulerConfig {
    train_steps: 1000,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: BetaSchedule::ScaledLinear,
    prediction_type: PredictionType::Epsilon,
    timestep_spacing: TimestepSpacing::Leading,
    steps_offset: 1,
    set_alpha_to_one: false,
};

const GEOMETRY: Geometry = Geometry {
    text_length: 77,
    text_width: 32,
    latent_channels: 4,
    latent_height: 16,
    latent_width: 16,
    pixels_per_latent: 8,
};

/// Tensors of the reference file; the ids, which are integers, too.
#[derive(Clone)]
struct Record {
    tensors: BTreeMap<String, Vec<f32>>,
    input_ids: Vec<u32>,
}

impl Record {
    fn read() -> Self {
        let bytes = std::fs::read(fixture("tiny/reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            let data = file.tensor(name).unwrap().data();
            data.chunks_exact(4)
                .map(|w| w.try_into().unwrap())
                .collect()
        };
        let floats = |name: &&str| **name != *"input_ids";
        let names = file.names().into_iter().filter(floats);
        let values = |name: &str| words(name).into_iter().map(f32::from_le_bytes).collect();
        Self {
            tensors: names.map(|n| (n.to_owned(), values(n))).collect(),
            input_ids: words("input_ids")
                .into_iter()
                .map(u32::from_le_bytes)
                .collect(),
        }
    }

    fn tensor(&self, name: &str) -> &[f32] {
        &self.tensors[name]
    }

    fn noise_pred(&self, step: usize) -> &[f32] {
        self.tensor(&format!("step_{step}.noise_pred"))
    }

    /// Latents after a step.
    fn latents(&self, step: usize) -> &[f32] {
        self.tensor(&format!("step_{step}.latents"))
    }
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(path)
}

/// 20 log10((max - min of expected) / RMSE).
fn psnr(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = found
        .iter()
        .zip(expected)
        .map(|(f, e)| f64::from(f - e).powi(2));
    let rmse = (squares.sum::<f64>() / found.len() as f64).sqrt();
    let highest = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let lowest = expected.iter().copied().fold(f32::INFINITY, f32::min);
    20.0 * (f64::from(highest - lowest) / rmse).log10()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    let figure = psnr(found, expected);
    assert!(figure >= BAR, "{what}: {figure:.1} dB");
}

#[derive(Debug, thiserror::Error)]
#[error("no battery")]
struct NoBattery;

/// Hands back what the record holds for each call.
struct Replay {
    record: Record,
    /// Calls of the text encoder so far in this run.
    prompts: usize,
    /// Batch that the loop should ask for.
    batch: usize,
    /// What the decoder was given, call by call.
    decoded: Vec<Vec<f32>>,
    /// A stage that fails, and one that gives NaN.
    fails: Option<Stage>,
    overflows: Option<Stage>,
}

impl Replay {
    fn new(batch: usize) -> Self {
        Self {
            record: Record::read(),
            prompts: 0,
            batch,
            decoded: Vec::new(),
            fails: None,
            overflows: None,
        }
    }

    fn finish(&self, stage: Stage, output: &mut [f32]) -> Result<(), NoBattery> {
        if self.overflows == Some(stage) {
            output[1] = f32::NAN;
        }
        if self.fails == Some(stage) {
            Err(NoBattery)
        } else {
            Ok(())
        }
    }
}

impl Engine for Replay {
    type Error = NoBattery;

    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn encode_text(&mut self, input_ids: &[u32], embeddings: &mut [f32]) -> Result<(), NoBattery> {
        // Without guidance only the second row, the prompt, is asked for.
        let row = 2 - self.batch + self.prompts;
        assert_eq!(input_ids, &self.record.input_ids[77 * row..][..77]);
        let values = GEOMETRY.embedding_values();
        embeddings
            .copy_from_slice(&self.record.tensor("text_embeddings")[values * row..][..values]);
        self.prompts += 1;
        self.finish(Stage::TextEncoder, embeddings)
    }

    fn denoise(&mut self, input: UnetInput<'_>, predictions: &mut [f32]) -> Result<(), NoBattery> {
        let values = GEOMETRY.latent_values();
        let skipped = 2 - self.batch;
        assert_eq!(input.batch, self.batch);
        assert_eq!(
            input.timestep,
            [876, 751, 626, 501, 376, 251, 126, 1][input.step]
        );
        let embeddings = self.record.tensor("text_embeddings");
        assert_eq!(
            input.text_embeddings,
            &embeddings[skipped * GEOMETRY.embedding_values()..]
        );
        if self.batch == 2 {
            let before = match input.step.checked_sub(1) {
                Some(previous) => self.record.latents(previous),
                None => self.record.tensor("init_latents"),
            };
            assert_close("latents given to the unet", input.latents, before);
        }
        predictions.copy_from_slice(&self.record.noise_pred(input.step)[skipped * values..]);
        self.finish(Stage::Unet { step: input.step }, predictions)
    }

    fn decode(&mut self, latents: &[f32], image: &mut [f32]) -> Result<(), NoBattery> {
        self.decoded.push(latents.to_vec());
        if self.batch == 2 {
            let last = self.record.latents(STEPS - 1);
            let scaled: Vec<f32> = last.iter().map(|x| x / SCALING_FACTOR).collect();
            assert_close("latents given to the decoder", latents, &scaled);
        }
        image.copy_from_slice(self.record.tensor("image"));
        self.finish(Stage::VaeDecoder, image)
    }
}

fn tokenizer() -> Tokenizer {
    let merges = std::fs::read(fixture("tiny/tokenizer/merges.txt")).unwrap();
    Tokenizer::new(&merges, 49407, 77).unwrap()
}

fn pipeline(engine: Replay) -> Pipeline<Replay> {
    Pipeline::new(engine, tokenizer(), SCHEDULER, SCALING_FACTOR).unwrap()
}

/// The recorded run, with guidance 7.5 of seed 0.
fn request() -> Request {
    Request {
        prompt: "a watercolour of a fox, 3 birds & it's raining".to_owned(),
        negative_prompt: "blurry".to_owned(),
        steps: STEPS,
        guidance: 7.5,
        init_latents: InitLatents::Given(Record::read().tensor("init_latents").to_vec()),
    }
}

#[test]
fn the_guided_run_is_that_of_diffusers() {
    let record = Record::read();
    let mut pipeline = pipeline(Replay::new(2));
    let mut seen = Vec::new();
    let generation = pipeline
        .generate(&request(), |progress| {
            assert_eq!(progress.steps, STEPS);
            assert_eq!(progress.predictions, record.noise_pred(progress.step));
            assert_close(
                "latents after a step",
                progress.latents,
                record.latents(progress.step),
            );
            seen.push((progress.step, progress.timestep()));
            ControlFlow::Continue(())
        })
        .unwrap();
    let timesteps = [876, 751, 626, 501, 376, 251, 126, 1];
    assert_eq!(seen, timesteps.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(generation.input_ids, record.input_ids);
    assert_eq!(generation.text_embeddings, record.tensor("text_embeddings"));
    assert_eq!(generation.init_latents, record.tensor("init_latents"));
    assert_close(
        "final latents",
        &generation.latents,
        record.latents(STEPS - 1),
    );
    assert_eq!(generation.decoded, record.tensor("image"));
    assert_eq!(
        (generation.image.width(), generation.image.height()),
        (128, 128)
    );
    // The record is clamped to [-1, 1], where a level is a 127.5th.
    let red = f32::from(generation.image.pixels()[0]) / 127.5 - 1.0;
    assert!((red - record.tensor("image")[0]).abs() <= 0.5 / 127.5 + 1e-6);
}

#[test]
fn seeds_give_the_noise_of_torch() {
    let expected = Record::read();
    let expected = expected.tensor("init_latents");
    let found = standard_normal(0, expected.len());
    let errors = found.iter().zip(expected).map(|(f, e)| (f - e).abs());
    let largest = errors.fold(0.0, f32::max);
    assert!(largest <= 1e-6, "{largest}");

    let mut pipeline = pipeline(Replay::new(2));
    let seeded = Request {
        init_latents: InitLatents::Seed(0),
        ..request()
    };
    let generation = pipeline
        .generate(&seeded, |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(generation.init_latents, found);
}

// By hand: the latents of one step from zero are the prediction's coefficient, -0.7683736 for 8 leading steps, times the
// prediction for the prompt.
#[test]
fn without_guidance_the_prompt_runs_alone() {
    let values = GEOMETRY.latent_values();
    let predictions = Record::read().noise_pred(0)[values..].to_vec();
    let mut pipeline = pipeline(Replay::new(1));
    let unguided = Request {
        guidance: 1.0,
        init_latents: InitLatents::Given(vec![0.0; values]),
        ..request()
    };
    let result = pipeline.generate(&unguided, |progress| {
        let expected: Vec<f32> = predictions.iter().map(|e| -0.768_373_6 * e).collect();
        assert_close("latents after the step", progress.latents, &expected);
        ControlFlow::Break(())
    });
    assert!(matches!(result, Err(PipelineError::Cancelled { step: 0 })));
    assert_eq!(pipeline.engine().prompts, 1);
}

// diffusers' `pred_original_sample` at the first of 8 leading steps is 7.439363 x - 7.371846 e; without guidance e is the
// prediction for the prompt.
#[test]
fn observers_see_previews_and_cancel() {
    let record = Record::read();
    let prediction = &record.noise_pred(0)[GEOMETRY.latent_values()..];
    let first: Vec<f32> = record
        .tensor("init_latents")
        .iter()
        .zip(prediction)
        .map(|(x, e)| (7.439_363 * x - 7.371_846 * e) / SCALING_FACTOR)
        .collect();
    let mut pipeline = pipeline(Replay::new(1));
    let unguided = Request {
        guidance: 0.0,
        ..request()
    };
    let result = pipeline.generate(&unguided, |progress| {
        assert_eq!(progress.preview().unwrap().width(), 128);
        if progress.step == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(result, Err(PipelineError::Cancelled { step: 2 })));
    let decoded = &pipeline.engine().decoded;
    assert_eq!(decoded.len(), 3);
    assert_close("preview", &decoded[0], &first);
}

#[test]
fn failures_of_the_engine_name_the_stage() {
    for stage in [
        Stage::TextEncoder,
        Stage::Unet { step: 3 },
        Stage::VaeDecoder,
    ] {
        let mut engine = Replay::new(2);
        engine.fails = Some(stage);
        let result = pipeline(engine).generate(&request(), |_| ControlFlow::Continue(()));
        match result.unwrap_err() {
            PipelineError::Engine {
                stage: found,
                source: NoBattery,
            } => assert_eq!(found, stage),
            other => panic!("{other}"),
        }

        let mut engine = Replay::new(2);
        engine.overflows = Some(stage);
        let result = pipeline(engine).generate(&request(), |_| ControlFlow::Continue(()));
        match result.unwrap_err() {
            PipelineError::NotFinite {
                stage: found,
                index: 1,
            } => assert_eq!(found, stage),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn impossible_requests_are_refused_before_anything_runs() {
    let mut pipeline = pipeline(Replay::new(2));
    let mut refuse = |change: &dyn Fn(&mut Request)| {
        let mut request = request();
        change(&mut request);
        let error = pipeline
            .generate(&request, |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert_eq!(pipeline.engine().prompts, 0);
        error
    };
    let error = refuse(&|r| r.guidance = f32::NAN);
    assert!(matches!(error, PipelineError::Guidance { .. }));
    let error = refuse(&|r| r.steps = 0);
    assert!(matches!(error, PipelineError::Schedule(_)));
    let error = refuse(&|r| r.init_latents = InitLatents::Given(vec![0.0; 3]));
    assert!(matches!(
        error,
        PipelineError::InitLatents {
            expected: 1024,
            found: 3
        }
    ));
    let error = refuse(&|r| {
        let mut latents = vec![0.0; 1024];
        latents[7] = f32::INFINITY;
        r.init_latents = InitLatents::Given(latents);
    });
    assert!(matches!(
        error,
        PipelineError::InitLatentsNotFinite { index: 7 }
    ));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let merges = std::fs::read(fixture("tiny/tokenizer/merges.txt")).unwrap();
    let short = Tokenizer::new(&merges, 49407, 64).unwrap();
    let result = Pipeline::new(Replay::new(2), short, SCHEDULER, SCALING_FACTOR).map(|_| ());
    assert!(matches!(
        result,
        Err(PipelineError::TextLength {
            tokenizer: 64,
            engine: 77
        })
    ));
    for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let result = Pipeline::new(Replay::new(2), tokenizer(), SCHEDULER, factor).map(|_| ());
        assert!(matches!(result, Err(PipelineError::ScalingFactor { .. })));
    }
}
