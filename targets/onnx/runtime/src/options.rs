//! How models are run.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use ort::ep::coreml::{self, ModelFormat, SpecializationStrategy};
use ort::ep::{self, ExecutionProviderDispatch};
use snapc_pipeline::NetworkKind;

use crate::Error;

/// How models are run. The default is the CPU with a thread per core and the library that the environment names.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The library of ONNX Runtime; `None` takes [`crate::LIBRARY_VARIABLE`]. One process has one library.
    pub library: Option<PathBuf>,
    /// Threads of an operator; `None` leaves the number to ONNX Runtime.
    pub threads: Option<NonZeroUsize>,
    /// Execution providers in order of preference; the CPU runs what they leave. Each must be in the library.
    pub providers: Vec<Provider>,
    /// Binds open batches to 2 for the UNet, which is both halves of the guidance, and to 1 for the others. Providers that
    /// compile a graph, such as Core ML's, take more of a graph whose shapes are known.
    pub fixed_batch: bool,
    /// `timesteps` of the artifact's `snap.json`, for an artifact with `"interface": "snap"`; others need none.
    pub timesteps: Vec<usize>,
}

/// An execution provider besides the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// Core ML, in libraries built for Apple's systems.
    CoreMl(CoreMl),
}

impl Provider {
    /// The providers that this build's system is known to have: Core ML on Apple's, otherwise none.
    pub fn of_this_system() -> Vec<Self> {
        if cfg!(target_vendor = "apple") {
            vec![Self::CoreMl(CoreMl::default())]
        } else {
            Vec::new()
        }
    }

    /// Name by which ONNX Runtime knows the provider.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CoreMl(_) => "CoreMLExecutionProvider",
        }
    }

    /// The provider for a session whose shapes are all known, or not.
    pub(crate) fn dispatch(&self, fixed: bool) -> Result<ExecutionProviderDispatch, Error> {
        let Self::CoreMl(options) = self;
        let mut provider = ep::CoreML::default()
            .with_model_format(ModelFormat::MLProgram)
            .with_compute_units(options.compute_units.into())
            .with_static_input_shapes(fixed);
        if options.fast_prediction {
            provider =
                provider.with_specialization_strategy(SpecializationStrategy::FastPrediction);
        }
        if let Some(path) = &options.model_cache {
            let text = path.to_str().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| Error::ModelCache { path: path.clone() })?;
            provider = provider.with_model_cache_dir(text);
        }
        Ok(provider.build().error_on_failure())
    }
}

/// Options of the Core ML provider, which makes ML Programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreMl {
    /// Units that may run the model.
    pub compute_units: ComputeUnits,
    /// Spends more time when the model is loaded for shorter calls.
    pub fast_prediction: bool,
    /// Folder that keeps compiled models from one run to the next; the caller cleans it. `None` compiles at every start.
    pub model_cache: Option<PathBuf>,
}

/// Units of an Apple device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeUnits {
    /// Whatever Core ML chooses.
    #[default]
    All,
    /// Processor and Neural Engine.
    CpuAndNeuralEngine,
    /// Processor and GPU.
    CpuAndGpu,
    /// The processor alone.
    CpuOnly,
}

impl From<ComputeUnits> for coreml::ComputeUnits {
    fn from(units: ComputeUnits) -> Self {
        match units {
            ComputeUnits::All => Self::All,
            ComputeUnits::CpuAndNeuralEngine => Self::CPUAndNeuralEngine,
            ComputeUnits::CpuAndGpu => Self::CPUAndGPU,
            ComputeUnits::CpuOnly => Self::CPUOnly,
        }
    }
}

/// The batch that [`Options::fixed_batch`] binds.
pub(crate) fn fixed_batch(kind: NetworkKind) -> usize {
    match kind {
        NetworkKind::Unet => 2,
        NetworkKind::TextEncoder | NetworkKind::VaeDecoder => 1,
    }
}
