//! The intermediate representation that every stage of snapc works on.
//!
//! A [`Program`] holds named [`Graph`]s (`text_encoder`, `unet`, `vae_decoder`) and the facts of the pipeline around
//! them. A graph is append-only: nodes stand in topological order by construction, passes build a new graph with
//! [`Graph::rebuild`]. Weights are lazy ([`LazyTensor`]): a slice of the mapped checkpoint and a chain of transforms,
//! made only when written.
//!
//! This crate does no IO and knows no file format, no pass and no target.

#![forbid(unsafe_code)]

mod about;
pub mod cost;
pub mod eval;
mod graph;
pub mod ops;
mod program;
pub mod tensor;
pub mod text;
mod types;
pub mod verify;
mod view;
mod weight;

pub use about::{About, StatementTooLong};
pub use graph::{
    BuildError, Graph, GraphInput, GraphOutput, Node, NodeId, Rebuild, Value, ValueDef, ValueId,
    Weight, WeightId,
};
pub use ops::{Op, Operator};
pub use program::{
    BetaSchedule, LatentSpec, PipelineSpec, PredictionType, Program, SchedulerSpec, TimestepSpacing,
};
pub use tensor::Tensor;
pub use types::{DType, Dim, Shape, TensorType, UnknownDType};
pub use verify::{Verified, Violation};
pub use weight::{
    ByteBuffer, Codebook, Encoding, EncodingError, LazyTensor, Transform, WeightError,
};
