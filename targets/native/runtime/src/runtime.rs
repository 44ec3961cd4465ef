//! An open file, and what its networks share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use snapc_format::{Container, DType, LayoutId, Stage};
use snapc_kernels::{Kernels, Pool};
use snapc_pipeline::{Network, NetworkEngine, Pipeline, PipelineError, Tokenizer, timesteps};
use snapc_program::{Graph, KNOWN_PROMPT, Program, ScheduleData, TokenizerData};

use crate::arena::Arena;
use crate::error::RuntimeError;
use crate::grid::{Grid, grids};
use crate::network::RuntimeNetwork;
use crate::weights::{Location, locate};

/// The input of a UNet that has a table of the timesteps of a run.
const STEP: &str = "step";

/// How a file is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Threads that share an instruction; as many as the process may use at once when there is no number. 0 counts as 1.
    pub threads: Option<usize>,
}

impl Options {
    /// Options with this number of threads.
    pub fn with_threads(threads: usize) -> Self {
        Options {
            threads: Some(threads),
        }
    }
}

/// What the networks of a file have in common.
pub(crate) struct Shared {
    pub(crate) container: Container,
    pub(crate) kernels: Kernels,
    pub(crate) pool: Pool,
    /// Held while a network runs, so that networks take turns in the same memory.
    arena: Mutex<Arena>,
}

impl Shared {
    /// What an arena holds has no meaning between runs, so one that a panic left behind is as good as any.
    pub(crate) fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A graph with the places of its weights.
pub(crate) struct BoundGraph {
    pub(crate) stage: Stage,
    pub(crate) graph: Graph,
    pub(crate) weights: Vec<Location>,
    pub(crate) weight_dims: Vec<Vec<usize>>,
    /// By value, the grid that all of it is on.
    pub(crate) grids: Vec<Option<Grid>>,
    /// By weight, what products of integers need to know of it: made at the first use, since it takes a pass over the codes.
    pub(crate) column_sums: Vec<OnceLock<Option<Vec<i32>>>>,
}

/// An open `.snap` file, ready to run.
#[derive(Clone)]
pub struct Runtime {
    file: String,
    shared: Arc<Shared>,
    graphs: BTreeMap<Stage, Arc<BoundGraph>>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("file", &self.file)
            .field("graphs", &self.graphs.keys())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Maps a file and checks everything but the weights themselves, which stay on the disk until they are used. The file
    /// must not be changed or truncated while the runtime or a network of it lives.
    ///
    /// # Errors
    /// When the file cannot be mapped, is damaged, has no program or one that is not well typed, or lacks a weight that
    /// the program reads; and when the threads do not start.
    pub fn open(path: &Path, options: &Options) -> Result<Self, RuntimeError> {
        let container = Container::open(path)?;
        Self::from_container(path.display().to_string(), container, options)
    }

    /// As [`Runtime::open`] for a container that is open already; `file` stands for it in errors.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub fn from_container(
        file: impl Into<String>,
        container: Container,
        options: &Options,
    ) -> Result<Self, RuntimeError> {
        let file = file.into();
        let program = Program::decode(container.program()?);
        let program = program.map_err(|source| RuntimeError::Section {
            file: file.clone(),
            section: "program",
            source,
        })?;
        let mut graphs = BTreeMap::new();
        for (stage, graph) in program.into_graphs() {
            graphs.insert(stage, Arc::new(bind(&file, &container, stage, graph)?));
        }
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or_else(available);
        let pool = Pool::new(threads).map_err(RuntimeError::Threads)?;
        let shared = Shared {
            container,
            kernels: Kernels::detect(),
            pool,
            arena: Mutex::default(),
        };
        Ok(Runtime {
            file,
            shared: Arc::new(shared),
            graphs,
        })
    }

    /// The container.
    pub fn container(&self) -> &Container {
        &self.shared.container
    }

    /// The stages that have a graph, in the order of a run.
    pub fn stages(&self) -> impl Iterator<Item = Stage> + '_ {
        self.graphs.keys().copied()
    }

    /// Threads that share an instruction.
    pub fn threads(&self) -> usize {
        self.shared.pool.threads()
    }

    /// Name of the instruction set that the kernels use, such as `avx512`.
    pub fn instruction_set(&self) -> &'static str {
        self.shared.kernels.name()
    }

    /// The network of a stage.
    ///
    /// # Errors
    /// When the program has no graph for it.
    pub fn network(&self, stage: Stage) -> Result<RuntimeNetwork, RuntimeError> {
        let graph = self
            .graphs
            .get(&stage)
            .ok_or_else(|| RuntimeError::NoGraph {
                file: self.file.clone(),
                stage,
            })?;
        Ok(RuntimeNetwork::new(
            Arc::clone(&self.shared),
            Arc::clone(graph),
        ))
    }

    /// The three networks as an engine.
    ///
    /// # Errors
    /// When one is missing, or they do not have the features of a pipeline.
    pub fn engine(&self) -> Result<NetworkEngine<RuntimeNetwork>, RuntimeError> {
        let text_encoder = self.network(Stage::TextEncoder)?;
        let unet = self.network(Stage::Unet)?;
        let vae_decoder = self.network(Stage::VaeDecoder)?;
        let timesteps = self.timesteps(&unet)?;
        let engine = NetworkEngine::with_timesteps(text_encoder, unet, vae_decoder, &timesteps);
        engine.map_err(|source| RuntimeError::Interface {
            file: self.file.clone(),
            source,
        })
    }

    /// The tokenizer of the file.
    ///
    /// # Errors
    /// When the file has none, or one that is not valid.
    pub fn tokenizer(&self) -> Result<Tokenizer, RuntimeError> {
        let data = TokenizerData::decode(self.container().tokenizer()?);
        let data = data.map_err(|source| self.section("tokenizer", source))?;
        data.tokenizer().map_err(|source| RuntimeError::Tokenizer {
            file: self.file.clone(),
            source,
        })
    }

    /// The noise schedule of the file, with steps and guidance that the model was made for.
    ///
    /// # Errors
    /// When the file has none, or one that is not valid.
    pub fn schedule(&self) -> Result<ScheduleData, RuntimeError> {
        let data = ScheduleData::decode(self.container().schedule()?);
        data.map_err(|source| self.section("schedule", source))
    }

    /// The timesteps of the schedule section, for a UNet that has a table of them; others need none.
    fn timesteps(&self, unet: &RuntimeNetwork) -> Result<Vec<usize>, RuntimeError> {
        if unet.inputs().iter().all(|port| port.name != STEP) {
            return Ok(Vec::new());
        }
        let schedule = self.schedule()?;
        let listed = timesteps(&schedule.scheduler, schedule.steps as usize);
        listed.map_err(|source| RuntimeError::Pipeline {
            file: self.file.clone(),
            source: Box::new(PipelineError::Schedule(source)),
        })
    }

    /// Everything from a prompt to a picture.
    ///
    /// # Errors
    /// When a network, the tokenizer or the schedule is missing or not valid, or they do not belong together.
    pub fn into_pipeline(self) -> Result<Pipeline<NetworkEngine<RuntimeNetwork>>, RuntimeError> {
        let (engine, tokenizer, schedule) = (self.engine()?, self.tokenizer()?, self.schedule()?);
        let scaling_factor = schedule.scaling_factor;
        let known = self.known_prompt();
        let refused = |source| RuntimeError::Pipeline {
            file: self.file.clone(),
            source: Box::new(source),
        };
        let pipeline = Pipeline::new(engine, tokenizer, schedule.scheduler, scaling_factor);
        let mut pipeline = pipeline.map_err(refused)?;
        if let Some((ids, values)) = known {
            pipeline.remember(ids, values).map_err(refused)?;
        }
        Ok(pipeline)
    }

    /// The prompt whose encoding the file keeps: its token ids, and what the text encoder gives for them, for
    /// [`Pipeline::remember`]. `None` when it keeps none, or in a form that this version does not know.
    pub fn known_prompt(&self) -> Option<(Vec<u32>, Vec<f32>)> {
        let words = |name: &str, wanted: DType| -> Option<Vec<[u8; 4]>> {
            let view = self.container().tensor(Stage::TextEncoder, name).ok()?;
            let (variant, data) = view.packed(LayoutId::CANONICAL)?;
            let (words, rest) = data.as_chunks::<4>();
            (variant.dtype == wanted && rest.is_empty()).then(|| words.to_vec())
        };
        let ids = words(KNOWN_PROMPT[0], DType::I32)?;
        let values = words(KNOWN_PROMPT[1], DType::F32)?;
        let ids = ids.into_iter().map(u32::from_le_bytes).collect();
        Some((ids, values.into_iter().map(f32::from_le_bytes).collect()))
    }

    fn section(&self, section: &'static str, source: snapc_program::DecodeError) -> RuntimeError {
        RuntimeError::Section {
            file: self.file.clone(),
            section,
            source,
        }
    }
}

fn bind(
    file: &str,
    container: &Container,
    stage: Stage,
    graph: Graph,
) -> Result<BoundGraph, RuntimeError> {
    let mut weights = Vec::with_capacity(graph.weights().len());
    let mut weight_dims = Vec::with_capacity(graph.weights().len());
    for weight in graph.weights() {
        let location = locate(container, stage, weight);
        weights.push(location.map_err(|fault| RuntimeError::Weight {
            file: file.to_owned(),
            stage,
            name: weight.name.clone(),
            fault,
        })?);
        weight_dims.push(weight.dims.iter().map(|&n| n as usize).collect());
    }
    Ok(BoundGraph {
        stage,
        grids: grids(&graph),
        column_sums: weights.iter().map(|_| OnceLock::new()).collect(),
        graph,
        weights,
        weight_dims,
    })
}
