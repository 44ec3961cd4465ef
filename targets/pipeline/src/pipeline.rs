//! The guided loop from a prompt to a picture, over any engine.

use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;

use crate::engine::{Engine, Geometry, UnetInput};
use crate::guidance::{guide, is_guided};
use crate::image::{Image, ImageError};
use crate::noise::standard_normal;
use crate::scheduler::{ScheduleError, SchedulerConfig, Step, schedule};
use crate::tokenizer::Tokenizer;

/// Where a run starts.
#[derive(Clone, Debug, PartialEq)]
pub enum InitLatents {
    /// Noise of this seed, equal to PyTorch's ([`standard_normal`]).
    Seed(u64),
    /// These latents, `[1, latent_channels, latent_height, latent_width]`.
    Given(Vec<f32>),
}

/// What to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the picture should show.
    pub prompt: String,
    /// What it should not show; without guidance it plays no part.
    pub negative_prompt: String,
    /// Number of DDIM steps.
    pub steps: usize,
    /// Guidance scale; at 1 and below the UNet runs for the prompt alone.
    pub guidance: f32,
    /// Where the run starts.
    pub init_latents: InitLatents,
}

/// The result of a run, with what a reference file records besides the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Token ids `[batch, text_length]`, the negative prompt first when there is guidance.
    pub input_ids: Vec<u32>,
    /// Embeddings `[batch, text_length, text_width]`.
    pub text_embeddings: Vec<f32>,
    /// Latents before the first step.
    pub init_latents: Vec<f32>,
    /// Latents after the last step.
    pub latents: Vec<f32>,
    /// What the decoder gave, `[1, 3, height, width]`, not clamped.
    pub decoded: Vec<f32>,
    /// The picture.
    pub image: Image,
}

/// A network and, for the UNet, the step at which it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The text encoder.
    TextEncoder,
    /// The UNet.
    Unet {
        /// Number of the step, from 0.
        step: usize,
    },
    /// The VAE decoder.
    VaeDecoder,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TextEncoder => f.write_str("text_encoder"),
            Self::Unet { step } => write!(f, "unet, step {step}"),
            Self::VaeDecoder => f.write_str("vae_decoder"),
        }
    }
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError<E: Error + 'static> {
    /// Tokenizer and text encoder do not belong together.
    #[error(
        "the tokenizer makes {tokenizer} tokens, but the text encoder takes {engine}; set the tokenizer's length"
    )]
    TextLength {
        /// Length of the tokenizer's sequences.
        tokenizer: usize,
        /// Length that the text encoder takes.
        engine: usize,
    },
    /// The scaling factor cannot divide latents.
    #[error(
        "scaling factor {factor} is not a positive number; take the one of the VAE's configuration"
    )]
    ScalingFactor {
        /// The factor given.
        factor: f32,
    },
    /// The guidance scale is not a number.
    #[error("guidance {guidance} is not a finite number")]
    Guidance {
        /// The scale given.
        guidance: f32,
    },
    /// The latents given have another size.
    #[error("the initial latents have {found} values, but the unet takes {expected}")]
    InitLatents {
        /// Values that the UNet takes.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// The latents given hold an infinity or NaN.
    #[error("value {index} of the initial latents is not finite")]
    InitLatentsNotFinite {
        /// Index of the first such value.
        index: usize,
    },
    /// The scheduler has no such run.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The UNet was made for a run of other timesteps.
    #[error(
        "the model was converted for {} steps, at timesteps {converted:?}, and this run takes {} steps, at {asked:?}; convert again with --steps {} or with --interface plain",
        converted.len(), asked.len(), asked.len()
    )]
    Steps {
        /// The timesteps that the UNet was made for.
        converted: Vec<usize>,
        /// Those of the run.
        asked: Vec<usize>,
    },
    /// What is to stand for a prompt has not the sizes of the engine.
    #[error(
        "a prompt of {ids} tokens with {values} values does not fit the engine, which takes {expected_ids} and {expected_values}; convert the checkpoint again"
    )]
    KnownPrompt {
        /// Token ids given.
        ids: usize,
        /// Values given.
        values: usize,
        /// Token ids of a prompt.
        expected_ids: usize,
        /// Values of a prompt.
        expected_values: usize,
    },
    /// The engine could not run a network.
    #[error("{stage}: the engine failed")]
    Engine {
        /// What ran.
        stage: Stage,
        /// The engine's error.
        source: E,
    },
    /// A network gave an infinity or NaN.
    #[error("{stage}: output value {index} is not finite; the weights or the precision overflow")]
    NotFinite {
        /// What ran.
        stage: Stage,
        /// Index of the first such value.
        index: usize,
    },
    /// The observer stopped the run.
    #[error("cancelled after step {step}")]
    Cancelled {
        /// Number of the last step that ran, from 0.
        step: usize,
    },
    /// There is no picture in what the decoder gave.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A step that has run, as the observer sees it.
#[derive(Debug)]
pub struct Progress<'a, E: Engine> {
    engine: &'a mut E,
    scaling_factor: f32,
    schedule: Step,
    before: &'a [f32],
    guided: &'a [f32],
    /// Number of the step, from 0.
    pub step: usize,
    /// Number of steps of the run.
    pub steps: usize,
    /// What the UNet gave, `[batch, latent_channels, latent_height, latent_width]`, before guidance.
    pub predictions: &'a [f32],
    /// Latents after the step.
    pub latents: &'a [f32],
}

impl<E: Engine> Progress<'_, E> {
    /// Timestep of the noise schedule.
    pub fn timestep(&self) -> usize {
        self.schedule.timestep
    }

    /// The picture as the model sees it at this step: one call of the decoder.
    ///
    /// # Errors
    /// When the decoder cannot run, or its output is not finite.
    pub fn preview(&mut self) -> Result<Image, PipelineError<E::Error>> {
        let mut denoised = vec![0.0; self.before.len()];
        self.schedule
            .denoise(self.before, self.guided, &mut denoised);
        let (_, image) = decode(self.engine, &denoised, self.scaling_factor)?;
        Ok(image)
    }
}

/// An engine with what the loop around it needs.
#[derive(Clone, Debug)]
pub struct Pipeline<E> {
    engine: E,
    tokenizer: Tokenizer,
    scheduler: SchedulerConfig,
    scaling_factor: f32,
    known: Vec<KnownPrompt>,
}

/// A prompt whose encoding is known.
#[derive(Clone, Debug)]
struct KnownPrompt {
    input_ids: Vec<u32>,
    values: Vec<f32>,
}

impl<E: Engine> Pipeline<E> {
    /// A pipeline; `scaling_factor` is that of the VAE's configuration (0.18215 for SD v1.x).
    ///
    /// # Errors
    /// When the tokenizer's length is not that of the text encoder, or the factor is not a positive number.
    pub fn new(
        engine: E,
        tokenizer: Tokenizer,
        scheduler: SchedulerConfig,
        scaling_factor: f32,
    ) -> Result<Self, PipelineError<E::Error>> {
        let (found, expected) = (tokenizer.length(), engine.geometry().text_length);
        if found != expected {
            return Err(PipelineError::TextLength {
                tokenizer: found,
                engine: expected,
            });
        }
        if !(scaling_factor > 0.0 && scaling_factor.is_finite()) {
            let factor = scaling_factor;
            return Err(PipelineError::ScalingFactor { factor });
        }
        Ok(Self {
            engine,
            tokenizer,
            scheduler,
            scaling_factor,
            known: Vec::new(),
        })
    }

    /// Takes what [`Engine::encode_text`] gives for these token ids as known, so that no run asks for it: an artifact may
    /// have it for the empty negative prompt.
    ///
    /// # Errors
    /// When there are more or fewer ids or values than the engine has for a prompt.
    pub fn remember(
        &mut self,
        input_ids: Vec<u32>,
        values: Vec<f32>,
    ) -> Result<(), PipelineError<E::Error>> {
        let expected_ids = self.engine.geometry().text_length;
        let expected_values = self.engine.text_values();
        if (input_ids.len(), values.len()) != (expected_ids, expected_values) {
            return Err(PipelineError::KnownPrompt {
                ids: input_ids.len(),
                values: values.len(),
                expected_ids,
                expected_values,
            });
        }
        self.known.push(KnownPrompt { input_ids, values });
        Ok(())
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, to be changed between runs.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Makes a picture. `observe` is called after every step, may ask for a preview, and cancels the run by breaking.
    ///
    /// # Errors
    /// When the request is impossible, a network fails or gives values that are not finite, or the run is cancelled.
    pub fn generate(
        &mut self,
        request: &Request,
        mut observe: impl FnMut(&mut Progress<'_, E>) -> ControlFlow<()>,
    ) -> Result<Generation, PipelineError<E::Error>> {
        let guidance = request.guidance;
        if !guidance.is_finite() {
            return Err(PipelineError::Guidance { guidance });
        }
        let schedule = schedule(&self.scheduler, request.steps)?;
        self.check_steps(&schedule)?;
        let init_latents = self.init_latents(&request.init_latents)?;
        let prompts = self.encode(request)?;

        let batch = if is_guided(guidance) { 2 } else { 1 };
        let mut latents = init_latents.clone();
        let mut before = vec![0.0; latents.len()];
        let mut guided = vec![0.0; latents.len()];
        let mut predictions = vec![0.0; batch * latents.len()];
        for (step, constants) in schedule.iter().enumerate() {
            std::mem::swap(&mut before, &mut latents);
            let input = UnetInput {
                step,
                timestep: constants.timestep,
                batch,
                latents: &before,
                text_embeddings: &prompts.values,
            };
            let stage = Stage::Unet { step };
            let ran = self.engine.denoise(input, &mut predictions);
            ran.map_err(|source| PipelineError::Engine { stage, source })?;
            check_finite(stage, &predictions)?;
            if batch == 2 {
                guide(&predictions, guidance, &mut guided);
            } else {
                guided.copy_from_slice(&predictions);
            }
            constants.advance(&before, &guided, &mut latents);
            let mut progress = Progress {
                engine: &mut self.engine,
                scaling_factor: self.scaling_factor,
                schedule: *constants,
                before: &before,
                guided: &guided,
                step,
                steps: schedule.len(),
                predictions: &predictions,
                latents: &latents,
            };
            if observe(&mut progress).is_break() {
                return Err(PipelineError::Cancelled { step });
            }
        }

        let (decoded, image) = decode(&mut self.engine, &latents, self.scaling_factor)?;
        Ok(Generation {
            text_embeddings: prompts.embeddings(self.engine.geometry()),
            input_ids: prompts.input_ids,
            init_latents,
            latents,
            decoded,
            image,
        })
    }

    /// Refuses a schedule that the UNet was not made for.
    fn check_steps(&self, schedule: &[Step]) -> Result<(), PipelineError<E::Error>> {
        let Some(converted) = self.engine.timesteps() else {
            return Ok(());
        };
        let asked = schedule.iter().map(|step| step.timestep);
        if asked.clone().eq(converted.iter().copied()) {
            return Ok(());
        }
        Err(PipelineError::Steps {
            converted: converted.to_vec(),
            asked: asked.collect(),
        })
    }

    fn init_latents(&self, wanted: &InitLatents) -> Result<Vec<f32>, PipelineError<E::Error>> {
        let expected = self.engine.geometry().latent_values();
        let latents = match wanted {
            InitLatents::Seed(seed) => return Ok(standard_normal(*seed, expected)),
            InitLatents::Given(latents) => latents,
        };
        let found = latents.len();
        if found != expected {
            return Err(PipelineError::InitLatents { expected, found });
        }
        match first_not_finite(latents) {
            Some(index) => Err(PipelineError::InitLatentsNotFinite { index }),
            None => Ok(latents.clone()),
        }
    }

    /// Encodes the prompts that the run needs.
    fn encode(&mut self, request: &Request) -> Result<EncodedPrompts, PipelineError<E::Error>> {
        let both = [request.negative_prompt.as_str(), request.prompt.as_str()];
        let prompts = if is_guided(request.guidance) {
            &both[..]
        } else {
            &both[1..]
        };
        let size = self.engine.text_values();
        let mut input_ids = Vec::new();
        let mut values = vec![0.0; prompts.len() * size];
        let stage = Stage::TextEncoder;
        for (prompt, values) in prompts.iter().zip(values.chunks_exact_mut(size)) {
            let ids = self.tokenizer.encode(prompt);
            match self.known.iter().find(|known| known.input_ids == ids) {
                Some(known) => values.copy_from_slice(&known.values),
                None => {
                    let ran = self.engine.encode_text(&ids, values);
                    ran.map_err(|source| PipelineError::Engine { stage, source })?;
                }
            }
            input_ids.extend(ids);
        }
        check_finite(stage, &values)?;
        Ok(EncodedPrompts {
            input_ids,
            values,
            size,
        })
    }
}

/// The prompts of a run, the negative one first, as ids and as the text encoder's output.
struct EncodedPrompts {
    input_ids: Vec<u32>,
    /// `size` values per prompt, which begin with its embeddings.
    values: Vec<f32>,
    size: usize,
}

impl EncodedPrompts {
    /// The embeddings alone.
    fn embeddings(&self, geometry: Geometry) -> Vec<f32> {
        let prompts = self.values.chunks_exact(self.size);
        let embeddings = prompts.map(|values| &values[..geometry.embedding_values()]);
        embeddings.flatten().copied().collect()
    }
}

/// Decoder output and picture of latents that are not scaled yet.
fn decode<E: Engine>(
    engine: &mut E,
    latents: &[f32],
    scaling_factor: f32,
) -> Result<(Vec<f32>, Image), PipelineError<E::Error>> {
    let geometry = engine.geometry();
    let scaled: Vec<f32> = latents.iter().map(|x| x / scaling_factor).collect();
    let mut decoded = vec![0.0; geometry.image_values()];
    let stage = Stage::VaeDecoder;
    let ran = engine.decode(&scaled, &mut decoded);
    ran.map_err(|source| PipelineError::Engine { stage, source })?;
    check_finite(stage, &decoded)?;
    let image = Image::from_decoded(&decoded, geometry.image_width(), geometry.image_height())?;
    Ok((decoded, image))
}

fn check_finite<E: Error>(stage: Stage, values: &[f32]) -> Result<(), PipelineError<E>> {
    match first_not_finite(values) {
        Some(index) => Err(PipelineError::NotFinite { stage, index }),
        None => Ok(()),
    }
}

fn first_not_finite(values: &[f32]) -> Option<usize> {
    values.iter().position(|v| !v.is_finite())
}
