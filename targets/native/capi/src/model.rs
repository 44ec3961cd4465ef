//! What the functions of the ABI do, without pointers.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, TryLockError};

use snapc_pipeline::{
    Engine, Generation, Geometry, Image, NetworkEngine, Pipeline, PipelineError, Request,
    SchedulerConfig, Stage, Step, Tokenizer, UnetInput, schedule,
};
use snapc_runtime::{Options, Runtime, RuntimeNetwork};

use crate::failure::Failure;

/// The engine of a model.
pub(crate) type ModelEngine = NetworkEngine<RuntimeNetwork>;

/// `snap_model`: an open file.
#[derive(Debug)]
pub struct Model {
    pipeline: Mutex<Pipeline<ModelEngine>>,
    tokenizer: Tokenizer,
    scheduler: SchedulerConfig,
    scaling_factor: f32,
    pub(crate) geometry: Geometry,
    /// Values that the text encoder gives for a prompt.
    pub(crate) text_values: usize,
    pub(crate) threads: usize,
    pub(crate) steps: u32,
    pub(crate) guidance: f32,
}

impl Model {
    pub(crate) fn open(path: &str, threads: usize) -> Result<Self, Failure> {
        let options = match threads {
            0 => Options::default(),
            n => Options::with_threads(n),
        };
        let runtime = Runtime::open(Path::new(path), &options)?;
        let schedule = runtime.schedule()?;
        let tokenizer = runtime.tokenizer()?;
        let threads = runtime.threads();
        let pipeline = runtime.into_pipeline()?;
        Ok(Model {
            geometry: pipeline.engine().geometry(),
            text_values: pipeline.engine().text_values(),
            pipeline: Mutex::new(pipeline),
            tokenizer,
            scheduler: schedule.scheduler,
            scaling_factor: schedule.scaling_factor,
            threads,
            steps: schedule.steps,
            guidance: schedule.guidance,
        })
    }

    /// The pipeline, unless another call has it. A pipeline keeps nothing between calls, so that one whose call panicked is
    /// as good as new.
    fn pipeline(&self) -> Result<MutexGuard<'_, Pipeline<ModelEngine>>, Failure> {
        match self.pipeline.try_lock() {
            Ok(pipeline) => Ok(pipeline),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
        }
    }

    pub(crate) fn generate(
        &self,
        request: &Request,
        observe: impl FnMut(&mut snapc_pipeline::Progress<'_, ModelEngine>) -> ControlFlow<()>,
    ) -> Result<Generation, Failure> {
        Ok(self.pipeline()?.generate(request, observe)?)
    }

    /// The steps of a run.
    pub(crate) fn schedule(&self, steps: usize) -> Result<Vec<Step>, Failure> {
        Ok(schedule(&self.scheduler, steps)?)
    }

    pub(crate) fn encode_text(&self, text: &str, embeddings: &mut [f32]) -> Result<(), Failure> {
        let ids = self.tokenizer.encode(text);
        let mut pipeline = self.pipeline()?;
        Ok(pipeline.engine_mut().encode_text(&ids, embeddings)?)
    }

    pub(crate) fn denoise(
        &self,
        input: UnetInput<'_>,
        predictions: &mut [f32],
    ) -> Result<(), Failure> {
        let mut pipeline = self.pipeline()?;
        let engine = pipeline.engine_mut();
        let converted = engine.timesteps();
        if converted.is_some_and(|list| !list.contains(&input.timestep)) {
            return Err(Failure::Number {
                name: "timestep",
                found: input.timestep,
                advice: "give one of the timesteps that the model was converted for",
            });
        }
        Ok(engine.denoise(input, predictions)?)
    }

    /// Takes latents as a run leaves them.
    pub(crate) fn decode(&self, latents: &[f32]) -> Result<Image, Failure> {
        if let Some(index) = latents.iter().position(|x| !x.is_finite()) {
            let name = "latents";
            return Err(Failure::NotFinite { name, index });
        }
        let scaled: Vec<f32> = latents.iter().map(|x| x / self.scaling_factor).collect();
        let mut decoded = vec![0.0; self.geometry.image_values()];
        self.pipeline()?
            .engine_mut()
            .decode(&scaled, &mut decoded)?;
        if let Some(index) = decoded.iter().position(|x| !x.is_finite()) {
            let stage = Stage::VaeDecoder;
            return Err(PipelineError::NotFinite { stage, index }.into());
        }
        let (width, height) = (self.geometry.image_width(), self.geometry.image_height());
        Ok(Image::from_decoded(&decoded, width, height)?)
    }
}
