//! What every target shares: the [`Target`] trait, capabilities, legalization, the manifest, and streamed weight files.
//!
//! A target is a crate of its own that implements [`Target`]; the command line holds the list of them. The driver calls
//! [`Target::prepare`], then [`legalize`] with the target's [`Capabilities`], verifies the result as a
//! [`VerifiedProgram`] and hands it to [`Target::emit`], which writes files and reports them as [`Emitted`]. The driver
//! adds `snap.json` ([`manifest::Manifest`]).
//!
//! This crate knows no file format of a target, no checkpoint format and no pass.

// Not `forbid`: mapping a file has no safe form, and `mapped.rs` lifts the lint for that one call.
#![deny(unsafe_code)]

mod artifact;
mod batch;
mod chunk;
mod error;
mod integrity;
mod interface;
pub mod known_prompt;
mod legalize;
pub mod manifest;
mod mapped;
mod options;
mod picture;
mod progress;
pub mod schedule;
pub mod stream;
mod target;
pub mod tokenizer;
mod verified;

pub use artifact::{
    ArtifactFile, Emitted, EmittedFunction, EmittedGraph, Feature, hash_file, write_file,
};
pub use batch::bind_batch;
pub use chunk::{ChunkError, chunk_names, cut, join};
pub use error::TargetError;
pub use integrity::check_files;
pub use interface::check_interface;
pub use legalize::legalize;
pub use mapped::MappedFile;
pub use options::{
    AttentionForm, EmitOptions, IOS_VERSIONS, Interface, Precision, UnknownChoice, WeightForm,
    alternatives,
};
pub use picture::{PICTURE_ROLE, from_picture_levels, picture_levels};
pub use progress::{Progress, Silent};
pub use target::{Capabilities, Finding, Target};
pub use verified::VerifiedProgram;
