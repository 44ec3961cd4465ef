//! The native engine: opens a `.snap` file and runs its networks on the CPU.
//!
//! [`Runtime::open`] maps the file, decodes the programs and finds every weight; no weight is read before a network runs.
//! [`Runtime::network`] gives one network, [`Runtime::engine`] all three, [`Runtime::into_pipeline`] everything from a
//! prompt to a picture. Networks of one runtime share its threads and its memory for values, and take turns.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use snapc_pipeline::{InitLatents, Request};
//! use snapc_runtime::{Options, Runtime};
//!
//! let runtime = Runtime::open(Path::new("model.snap"), &Options::default())?;
//! let defaults = runtime.schedule()?;
//! let mut pipeline = runtime.into_pipeline()?;
//! let request = Request {
//!     prompt: "a lighthouse at dusk".to_owned(),
//!     negative_prompt: String::new(),
//!     steps: defaults.steps as usize,
//!     guidance: defaults.guidance,
//!     init_latents: InitLatents::Seed(1),
//! };
//! let picture = pipeline.generate(&request, |_| ControlFlow::Continue(()))?.image;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("weights are mapped as they are in the file, which is little-endian");

mod arena;
mod error;
mod exec;
mod grid;
mod network;
mod run;
mod runtime;
mod weights;

pub use error::{RuntimeError, WeightFault};
pub use network::RuntimeNetwork;
pub use run::Observation;
pub use runtime::{Options, Runtime};
