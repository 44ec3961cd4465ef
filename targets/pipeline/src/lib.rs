//! Everything of a Stable Diffusion run that is not a network: tokenizer, DDIM schedule, noise, guidance, picture, and the
//! loop that puts them around an [`Engine`]. [`NetworkEngine`] makes one of three compiled graphs.
//!
//! The crate runs on the device. It uses no crate of the compiler, reads no files, has no threads and no unsafe code, and
//! gives the same bits on every machine for the same engine outputs. [`Pipeline::generate`] is the entry point.
//!
//! ```
//! use std::convert::Infallible;
//! use std::ops::ControlFlow;
//!
//! use snapc_pipeline::{
//!     BetaSchedule, Engine, Geometry, InitLatents, Pipeline, PredictionType, Request, SchedulerConfig,
//!     TimestepSpacing, Tokenizer, UnetInput,
//! };
//!
//! /// Predicts no noise and decodes to gray.
//! struct Gray;
//!
//! impl Engine for Gray {
//!     type Error = Infallible;
//!
//!     fn geometry(&self) -> Geometry {
//!         Geometry {
//!             text_length: 77,
//!             text_width: 8,
//!             latent_channels: 4,
//!             latent_height: 4,
//!             latent_width: 4,
//!             pixels_per_latent: 8,
//!         }
//!     }
//!
//!     fn encode_text(&mut self, _: &[u32], embeddings: &mut [f32]) -> Result<(), Infallible> {
//!         embeddings.fill(0.0);
//!         Ok(())
//!     }
//!
//!     fn denoise(&mut self, _: UnetInput<'_>, predictions: &mut [f32]) -> Result<(), Infallible> {
//!         predictions.fill(0.0);
//!         Ok(())
//!     }
//!
//!     fn decode(&mut self, _: &[f32], image: &mut [f32]) -> Result<(), Infallible> {
//!         image.fill(0.0);
//!         Ok(())
//!     }
//! }
//!
//! let tokenizer = Tokenizer::new(b"#version: 0.2\nc a\nca t</w>\n", 515, 77)?;
//! let scheduler = SchedulerConfig {
//!     train_steps: 1000,
//!     beta_start: 0.00085,
//!     beta_end: 0.012,
//!     beta_schedule: BetaSchedule::ScaledLinear,
//!     prediction_type: PredictionType::Epsilon,
//!     timestep_spacing: TimestepSpacing::Leading,
//!     steps_offset: 1,
//!     set_alpha_to_one: false,
//! };
//! let mut pipeline = Pipeline::new(Gray, tokenizer, scheduler, 0.18215)?;
//! let request = Request {
//!     prompt: "cat".to_owned(),
//!     negative_prompt: String::new(),
//!     steps: 8,
//!     guidance: 7.5,
//!     init_latents: InitLatents::Seed(0),
//! };
//! let generation = pipeline.generate(&request, |_| ControlFlow::Continue(()))?;
//! assert_eq!((generation.image.width(), generation.image.height()), (32, 32));
//! assert_eq!(generation.image.pixels()[0], 128);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Feature `png` (on by default) adds `Image::to_png`.

#![forbid(unsafe_code)]

mod engine;
mod guidance;
mod image;
mod network;
mod noise;
mod pipeline;
mod scheduler;
mod tokenizer;

pub use engine::{Engine, Geometry, UnetInput};
pub use guidance::{guide, is_guided};
pub use image::{Image, ImageError};
pub use network::{Data, InterfaceError, Network, NetworkEngine, NetworkKind, Port, PortType};
pub use noise::standard_normal;
pub use pipeline::{Generation, InitLatents, Pipeline, PipelineError, Progress, Request, Stage};
pub use scheduler::{
    BetaSchedule, PredictionType, ScheduleError, SchedulerConfig, Step, TimestepSpacing, schedule,
    timesteps,
};
pub use tokenizer::{Tokenizer, TokenizerError};
