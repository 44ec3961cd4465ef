//! The native target: graphs become device programs, and a pipeline one `.snap` file.
//!
//! The IR is logical: images are `[N,C,H,W]`, and a transpose is an operator. Here every value gets a physical order of its
//! dimensions (`lower`), such that convolutions work channels last, transposes cost nothing, and data moves only
//! where an order has to change. What follows a product or norm becomes part of it. Weights are packed while they are
//! written ([`compile`]).
//!
//! [`compile`] takes any verified graph, so that also what was read back from another format can be run by the native engine.
//! [`Native`] is the target on the command line.
//!
//! This crate runs no program and knows no checkpoint; what runs on the device is in `snapc-runtime`.

#![forbid(unsafe_code)]

mod compile;
mod lower;
mod runtime;
mod target;
mod verify;

pub use compile::{Activations, Companions, compile, compile_as_stated, lowered};
pub use target::Native;
