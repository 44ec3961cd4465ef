//! Test equipment: a C ABI that runs Core ML packages on the CPU.
//!
//! The Swift package `targets/coreml/runtime` is tested on Linux against a module named `CoreML`, which stands in for Apple's
//! framework. That module calls this library, which checks a package with our verifier, reads it with our ML Program reader and
//! runs it with the native engine: as the package states it, f16 values rounded to f16. No app and no device gets it; on Apple
//! systems the same tests run the framework itself.
//!
//! `snap_coreml.h` in `targets/coreml/runtime/TestSupport/CSnapCoreML` is the documentation of the functions, and a test compares
//! it with them. No panic leaves a function.

mod abi;
mod failure;
mod features;
mod model;
mod pointer;

pub use abi::*;
pub use failure::Status;
pub use model::Model;
