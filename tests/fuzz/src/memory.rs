//! A bound on memory, so that an allocation by a count from the file ends the run.

use std::alloc::System;

use cap::Cap;

/// Bytes that a target may hold. Inputs are a few KiB, and the tables that stay are below 64 MiB.
pub const MEMORY_LIMIT: usize = 256 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY_LIMIT);
