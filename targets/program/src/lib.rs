//! The device program: what a `.snap` file's program section says.
//!
//! A [`Graph`] is a list of [`Instruction`]s over dense row-major tensors. Layouts are chosen when it is compiled: images
//! are channels last, weights are packed, and whatever has to be moved is an instruction. There is no other state, and
//! the type of every value is derived anew when a file is read.
//!
//! A [`Program`] has one graph per stage and is what a program section encodes; [`TokenizerData`] and [`ScheduleData`] are
//! the two sections beside it. [`plan`] gives every value of a graph its place in memory.

#![forbid(unsafe_code)]

mod codes;
mod decode;
mod encode;
mod graph;
mod infer;
mod op;
mod plan;
mod program;
mod sections;
mod types;

pub use decode::DecodeError;
pub use encode::EncodeError;
pub use graph::{Graph, GraphError, Instruction, Operand, Port};
pub use infer::InferError;
pub use op::{Activation, Binary, Op, Rounding, Unary};
pub use plan::{Plan, PlanError, plan};
pub use program::Program;
pub use sections::{KNOWN_PROMPT, ScheduleData, TokenizerData};
pub use types::{Codebook, Codes, Dim, Element, MAX_RANK, Storage, Type, Weight};
