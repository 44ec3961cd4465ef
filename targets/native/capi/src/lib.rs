//! The C ABI of the native engine.
//!
//! `include/snap.h` is the documentation: what the functions do, who owns what, units and errors. The functions are in `abi`
//! and `parts`, the structs in `types`; all are compared with the header by a test. Rust programs use `snapc-runtime`
//! instead.
//!
//! No panic leaves a function, and a model that runs refuses other calls rather than waiting: a progress function that
//! calls back would wait for itself.

mod abi;
mod failure;
mod model;
mod parts;
mod pointer;
mod types;

pub use abi::*;
pub use failure::Status;
pub use model::Model;
pub use parts::*;
pub use types::{Image, Info, Options, Progress, Request};
