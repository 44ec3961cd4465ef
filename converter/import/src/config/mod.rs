//! Configuration files of a pipeline: what they say, and a refusal of what snapc does not build.
//!
//! Keys that do not change the network are ignored. A key that does, with a value outside of what is supported, is an
//! error that names file, key, value and the supported values. A key that is absent has the default of the diffusers
//! or transformers class.

mod blocks;
mod reader;
mod scheduler;
mod text_encoder;
mod unet;
mod vae;

pub use blocks::{BlockEntry, BlockPlan};
pub(crate) use reader::{ConfigReader, parse_object};
pub(crate) use scheduler::read_scheduler;
pub use text_encoder::{Activation, TextEncoderConfig};
pub use unet::UnetConfig;
pub use vae::VaeConfig;
