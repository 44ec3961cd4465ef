//! What runs the networks of an artifact, behind one type.

mod evaluator;
mod ort;
mod read_back;
pub mod snap;

use std::error::Error;

use snapc_ir::Graph;
use snapc_pipeline::{Data, InterfaceError, Network, NetworkEngine, Port};

use crate::args::{EngineArgs, EngineKind};
use crate::artifact::Artifact;
use crate::exit::Exit;
use crate::failure::Failure;

pub use evaluator::EvaluatorNetwork;
pub use read_back::{gives_picture, graphs};

/// A network of any engine.
pub type AnyNetwork = Box<dyn Network<Error = EngineError>>;

/// Three networks of any engine, as the pipeline runs them.
pub type AnyEngine = NetworkEngine<AnyNetwork>;

/// Why a network of some engine could not run: the engine's own error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(Box<dyn Error + Send + Sync>);

/// A network whose errors are those of any engine.
struct Erased<N>(N);

impl<N: Network> Network for Erased<N> {
    type Error = EngineError;

    fn inputs(&self) -> &[Port] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.0.outputs()
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), EngineError> {
        let ran = self.0.run(batch, inputs, outputs);
        ran.map_err(|e| EngineError(Box::new(e)))
    }
}

/// The engine of three networks. `timesteps` are those that an artifact was made for; a checkpoint's graphs take any.
///
/// # Errors
/// When they do not make a pipeline.
pub fn engine<N: Network + 'static>(
    networks: [N; 3],
    timesteps: &[usize],
) -> Result<AnyEngine, Failure> {
    let [text_encoder, unet, vae_decoder] = networks.map(|n| -> AnyNetwork { Box::new(Erased(n)) });
    NetworkEngine::with_timesteps(text_encoder, unet, vae_decoder, timesteps)
        .map_err(|e: InterfaceError| Failure::new(Exit::InvalidInput, e))
}

/// Opens the networks of an artifact with the engine that the flags ask for. `batch` is what the UNet will mostly be
/// asked for.
///
/// # Errors
/// When the engine does not run this kind of artifact, or a file of the artifact is missing or malformed.
pub fn open(artifact: &Artifact, args: EngineArgs, batch: usize) -> Result<AnyEngine, Failure> {
    let timesteps = &artifact.manifest.timesteps;
    match args.kind() {
        EngineKind::Snap => engine(snap::networks(artifact, args.threads, batch)?, timesteps),
        EngineKind::Ort => engine(ort::networks(artifact, args.threads)?, timesteps),
        EngineKind::Evaluator => {
            if let Some(threads) = args.threads {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let built = pool.build_global();
                built.map_err(|e| Failure::new(Exit::Internal, e))?;
            }
            let graphs = read_back::graphs(artifact, batch)?;
            engine(graphs.map(EvaluatorNetwork::new), timesteps)
        }
        EngineKind::Coreml => {
            let message = "Core ML makes whole runs only, which `snapc validate` compares";
            Err(Failure::usage(message).help("`snap-run generate` and `snap-run bench` run it"))
        }
    }
}

/// The evaluator's networks of a checkpoint's graphs, as the importer gives them.
///
/// # Panics
/// When they are not text encoder, UNet and VAE decoder.
pub fn evaluator(graphs: Vec<Graph>) -> [EvaluatorNetwork; 3] {
    let graphs: [Graph; 3] = graphs
        .try_into()
        .expect("the importer makes text encoder, UNet and VAE decoder");
    graphs.map(EvaluatorNetwork::new)
}
