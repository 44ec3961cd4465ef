//! Trained Stable Diffusion checkpoints into the intermediate representation.
//!
//! [`open`] reads configurations and weight headers, [`Checkpoint::import`] builds the graphs and checks every weight
//! they use. Weights stay in the mapped files until an artifact is written.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use snapc_import::{ImportError, ImportOptions, open};
//!
//! fn parameters(path: &Path) -> Result<usize, ImportError> {
//!     let checkpoint = open(path, &ImportOptions::default())?;
//!     for note in checkpoint.notes() {
//!         println!("{note}");
//!     }
//!     let program = checkpoint.import()?;
//!     let weights = program.graphs.iter().flat_map(|g| g.weights());
//!     Ok(weights.filter(|w| w.is_parameter).map(|w| w.tensor.elements()).sum())
//! }
//! ```

#![deny(unsafe_code)]

mod about;
mod checkpoint;
pub mod config;
mod error;
mod export;
mod layout;
mod lookup;
mod mmap;
pub mod networks;
mod report;
mod scan;
mod small_file;
mod tokenizer;
mod weight_file;

pub use checkpoint::{Checkpoint, ImportOptions, open};
pub use error::ImportError;
pub use export::{ExportError, describe, export};
pub use lookup::{ShapeOnly, StoredWeight, WeightContent, WeightLookup};
pub use report::{WeightIssue, WeightProblem, WeightReport};
