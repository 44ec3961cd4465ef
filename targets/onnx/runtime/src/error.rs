//! What can go wrong.

use std::path::PathBuf;

use snapc_pipeline::{InterfaceError, NetworkKind};

use crate::library::LIBRARY_VARIABLE;

/// Why ONNX Runtime does not run a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither the options nor the environment name a library.
    #[error(
        "no ONNX Runtime library is named; set {LIBRARY_VARIABLE} to one of version 1.17 or newer, for example \
         onnxruntime/capi/libonnxruntime.so.* of a recent Python package 'onnxruntime'"
    )]
    NoLibrary,
    /// The library named cannot be read.
    #[error("cannot open the ONNX Runtime library '{}'; see {LIBRARY_VARIABLE}", path.display())]
    OpenLibrary {
        /// Path as it was named.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no library of ONNX Runtime, or one too old.
    #[error("'{}' is no usable ONNX Runtime library; 1.17 or newer is needed", path.display())]
    LoadLibrary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ort::LoadDynamicError,
    },
    /// A process has one ONNX Runtime.
    #[error(
        "this process already runs the ONNX Runtime '{}' and cannot load '{}' as well",
        loaded.display(), wanted.display()
    )]
    OtherLibrary {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        wanted: PathBuf,
    },
    /// The library does not start.
    #[error("ONNX Runtime does not start")]
    Start(#[source] ort::Error),
    /// A model is absent.
    #[error("{kind}: there is no file '{}'; name the folder that holds the models of an ONNX artifact", path.display())]
    MissingModel {
        /// The network.
        kind: NetworkKind,
        /// Where it should be.
        path: PathBuf,
    },
    /// The Core ML provider takes paths in UTF-8 only.
    #[error("the model cache '{}' of the Core ML provider is not a path in UTF-8", path.display())]
    ModelCache {
        /// The path.
        path: PathBuf,
    },
    /// The library lacks a provider that was asked for.
    #[error(
        "{kind}: this ONNX Runtime has no {provider}; leave the provider out to run on the CPU"
    )]
    Provider {
        /// The network.
        kind: NetworkKind,
        /// The provider.
        provider: &'static str,
        /// ONNX Runtime's reason.
        source: ort::Error,
    },
    /// ONNX Runtime refuses the model.
    #[error("{kind}: ONNX Runtime does not load '{}'", path.display())]
    Load {
        /// The network.
        kind: NetworkKind,
        /// The model.
        path: PathBuf,
        /// ONNX Runtime's reason.
        source: ort::Error,
    },
    /// An input or output has a type that a pipeline has no use for.
    #[error("{kind}: '{port}' is {found}; expected a tensor of f32, f16, int32 or int64")]
    PortType {
        /// The network.
        kind: NetworkKind,
        /// Name of the input or output.
        port: String,
        /// Its type.
        found: String,
    },
    /// The size of an axis stands neither in the model nor in a configuration.
    #[error(
        "{kind}: axis {axis} of '{port}' is open; fix it in the model, or put the config.json of all networks beside the models"
    )]
    OpenAxis {
        /// The network.
        kind: NetworkKind,
        /// Name of the input or output.
        port: String,
        /// Number of the axis, from 0.
        axis: usize,
    },
    /// A configuration that is needed for open axes cannot be read.
    #[error("cannot read the configuration '{}'", path.display())]
    ReadConfiguration {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A configuration that is needed for open axes is not JSON.
    #[error("the configuration '{}' is not JSON", path.display())]
    ParseConfiguration {
        /// The file.
        path: PathBuf,
        /// Where it ends to be JSON.
        source: serde_json::Error,
    },
    /// The caller gives more or fewer tensors than the model takes.
    #[error("{kind}: {found} {side} given, but the model has {expected}")]
    Count {
        /// The network.
        kind: NetworkKind,
        /// `inputs` or `outputs`.
        side: &'static str,
        /// How many were given.
        found: usize,
        /// How many the model has.
        expected: usize,
    },
    /// The caller gives another tensor than the model takes.
    #[error("{kind}: {port}: {found} given, but {expected} expected at batch {batch}")]
    Argument {
        /// The network.
        kind: NetworkKind,
        /// The input or output.
        port: String,
        /// What was given.
        found: String,
        /// What the port takes.
        expected: String,
        /// The batch of the call.
        batch: usize,
    },
    /// The model gave a tensor of another size than it declares.
    #[error("{kind}: the model gave {found} values for '{port}', but declares {expected}")]
    Output {
        /// The network.
        kind: NetworkKind,
        /// Name of the output.
        port: String,
        /// Values that it declares.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// The model fails when it runs.
    #[error("{kind}: ONNX Runtime failed")]
    Run {
        /// The network.
        kind: NetworkKind,
        /// ONNX Runtime's reason.
        source: ort::Error,
    },
    /// The models do not make a pipeline.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}
