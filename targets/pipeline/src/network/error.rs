//! The networks of a pipeline, and why they may not make an engine.

use std::fmt;

/// One of the three networks of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkKind {
    /// Token ids to embeddings.
    TextEncoder,
    /// Latents, timestep and embeddings to the predicted noise (or velocity).
    Unet,
    /// Latents to picture.
    VaeDecoder,
}

impl NetworkKind {
    /// All networks, in the order in which a run uses them.
    pub const ALL: [Self; 3] = [Self::TextEncoder, Self::Unet, Self::VaeDecoder];

    /// Name of the graph: `text_encoder`, `unet` or `vae_decoder`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::Unet => "unet",
            Self::VaeDecoder => "vae_decoder",
        }
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why networks do not make an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterfaceError {
    /// A feature is absent.
    #[error("{network}: no {side} is named {expected}; it has {found}")]
    Missing {
        /// The network.
        network: NetworkKind,
        /// `input` or `output`.
        side: &'static str,
        /// Names that would do.
        expected: String,
        /// The ports that are there.
        found: String,
    },
    /// There is no value to give to an input.
    #[error("{network}: a pipeline has no value for the input {port}; expected {expected}")]
    UnknownInput {
        /// The network.
        network: NetworkKind,
        /// The input.
        port: String,
        /// The inputs that a pipeline feeds.
        expected: String,
    },
    /// A feature has a shape or element type that a pipeline does not know.
    #[error("{network}: {port} does not fit; expected {expected}")]
    Port {
        /// The network.
        network: NetworkKind,
        /// The port.
        port: String,
        /// Shape or type expected.
        expected: String,
    },
    /// It is not known what the rows of the UNet's table are for.
    #[error(
        "unet: it takes the number of a step, and there is no list of the timesteps that it was converted for; convert the checkpoint again"
    )]
    NoTimesteps,
    /// Two networks are not of one pipeline.
    #[error(
        "{quantity}: {first} has {first_size}, but {second} has {second_size}; take the networks of one conversion"
    )]
    Mismatch {
        /// What is of two sizes.
        quantity: &'static str,
        /// A network.
        first: NetworkKind,
        /// Its size.
        first_size: String,
        /// Another network.
        second: NetworkKind,
        /// Its size.
        second_size: String,
    },
}
