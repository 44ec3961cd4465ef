//! What the fuzz targets share: how an input is split, how a container is assembled from it, how protobuf messages are
//! mutated, where files of an input stand, and what holds for a graph that was read.
//!
//! A target states properties with assertions: whatever the bytes are, a reader answers with an error or with something
//! that keeps its promises. `README.md` says how to run one.

#![forbid(unsafe_code)]

mod container;
mod folder;
mod graph;
mod input;
mod memory;
mod protobuf;
#[cfg(test)]
mod seeds;

pub use container::{assemble, take_apart};
pub use folder::Folder;
pub use graph::check_graph;
pub use input::{join, split};
pub use memory::MEMORY_LIMIT;
pub use protobuf::{Change, mutate};
