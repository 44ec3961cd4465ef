//! The networks of a pipeline as graphs.
//!
//! Node names are diffusers module paths and weight names diffusers keys. The graphs are f32; weights stored in 16
//! bits are widened lazily.

mod builder;
mod resnet;
mod text_encoder;
mod transformer;
mod unet;
mod vae_decoder;

use snapc_ir::Graph;

pub use text_encoder::text_encoder;
pub use unet::unet;
pub use vae_decoder::vae_decoder;

use crate::report::WeightIssue;

/// A graph, and what is wrong with its weights.
pub struct Network {
    /// The graph. A weight that does not fit stands in it with the shape asked for and no data.
    pub graph: Graph,
    /// The weights that do not fit, in the order they were asked for, then the unused ones.
    pub issues: Vec<WeightIssue>,
}
