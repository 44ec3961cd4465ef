//! Why a program cannot be exported.

use std::path::PathBuf;

use snapc_ir::WeightError;

use crate::error::ImportError;

/// Why a program cannot be written as a diffusers folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Something stands where the folder is to be.
    #[error("{}: exists already or names no folder; give the name of a new folder", .0.display())]
    Exists(PathBuf),
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The program does not have the file.
    #[error("the program has no {0}; import it from a checkpoint")]
    MissingConfig(String),
    /// No component of a pipeline is made of this graph.
    #[error(
        "there is no graph '{0}' in the program that a checkpoint has; use text_encoder, unet or vae_decoder"
    )]
    UnknownGraph(String),
    /// A configuration is wrong.
    #[error(transparent)]
    Config(#[from] ImportError),
    /// The graph is another network than its configuration says.
    #[error(
        "graph '{graph}' is not the network that {config} describes: {found}; export it before passes that change its operators or element types"
    )]
    NotDescribed {
        /// Graph name.
        graph: String,
        /// Name of the configuration.
        config: String,
        /// Where they depart.
        found: String,
    },
    /// The data of a weight cannot be made.
    #[error("graph '{graph}', weight '{weight}': {source}")]
    Weight {
        /// Graph name.
        graph: String,
        /// Weight name.
        weight: String,
        /// What is wrong.
        source: WeightError,
    },
}
