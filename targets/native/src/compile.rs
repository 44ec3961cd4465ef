//! Writing graphs and what goes with them as one `.snap` file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::Path;

use snapc_format::{Layout, Plan, Stage};
use snapc_ir::verify::verify;
use snapc_ir::{DType, Graph, LazyTensor, PipelineSpec, Verified};
use snapc_program::{KNOWN_PROMPT, Program, ScheduleData, Storage, TokenizerData, Weight};
use snapc_target::known_prompt::KnownPrompt;
use snapc_target::stream::{Blob, BlobFile};
use snapc_target::tokenizer::pad_token_id;
use snapc_target::{EmitOptions, Progress, Silent, TargetError, schedule};

use crate::lower::{Lowered, StoredWeight, lower};

/// The merges of the tokenizer among the files of a pipeline.
const MERGES: &str = "tokenizer/merges.txt";

/// What happens to results between instructions, which the device computes in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// They stay f32, whatever the graph states: better than the graph, and faster. Casts between floats vanish.
    #[default]
    F32,
    /// They are rounded to the element types that the graph states, so that what is computed is what the graph says.
    Declared,
}

impl Activations {
    /// Whether results of this element type are rounded.
    pub(crate) fn rounds(self, dtype: DType) -> bool {
        self == Activations::Declared && matches!(dtype, DType::F16 | DType::BF16)
    }
}

/// What stands beside the networks in a file; each part may be absent, as for a model that is only to be run by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companions {
    /// The tokenizer.
    pub tokenizer: Option<TokenizerData>,
    /// The schedule, with the steps and guidance of a run.
    pub schedule: Option<ScheduleData>,
    /// A prompt whose encoding is kept, in a file with a text encoder: the empty one.
    pub known_prompt: Option<KnownPrompt>,
    /// Facts for people and tools, by key.
    pub metadata: BTreeMap<String, String>,
}

impl Companions {
    /// Those of a pipeline. It has no tokenizer when the checkpoint has none, or one without the padding token.
    ///
    /// # Errors
    /// When there are more tokens or steps than the format counts.
    pub fn of(pipeline: &PipelineSpec, options: &EmitOptions) -> Result<Self, TargetError> {
        let count = |what: &str, n: usize| {
            u32::try_from(n).map_err(|_| TargetError::Capacity {
                reason: format!("{what} is {n}, more than 32 bits count"),
            })
        };
        let merges = pipeline.files.get(MERGES);
        let length = count("the number of prompt tokens", pipeline.tokens)?;
        let tokenizer = merges.zip(pad_token_id(&pipeline.files));
        Ok(Companions {
            tokenizer: tokenizer.map(|(merges, pad)| TokenizerData {
                pad,
                length,
                merges: merges.clone(),
            }),
            schedule: Some(ScheduleData {
                scheduler: schedule::config(&pipeline.scheduler),
                scaling_factor: pipeline.latent.scaling_factor as f32,
                steps: count("the number of steps", options.steps)?,
                guidance: options.guidance,
            }),
            known_prompt: None,
            metadata: BTreeMap::from([
                ("precision".to_owned(), options.precision.name().to_owned()),
                ("producer".to_owned(), producer()),
            ]),
        })
    }
}

fn producer() -> String {
    format!("snapc {}", env!("CARGO_PKG_VERSION"))
}

/// Lowers graphs and writes them with their weights and companions to `path`, which must not exist. Weights are made and
/// written in parallel, in little memory. [`Progress::start`] is called with the bytes of the weights.
///
/// # Errors
/// When the device has no form for a node, the program exceeds a limit of the format, the data of a weight cannot be made, the
/// file cannot be written, or the run is cancelled. A part of the file may be left behind.
pub fn compile(
    graphs: &[(Stage, Verified<'_>)],
    companions: &Companions,
    activations: Activations,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(), TargetError> {
    let compiled = Compiled::new(graphs, companions, activations)?;
    compiled.write(path, progress)
}

/// Compiles graphs that were read back from the files of another target to a file of their own, for the engine to compute what
/// those files say: results are rounded to the element types that the graphs state, and nothing stands beside the networks.
///
/// # Errors
/// As [`compile`], and when a graph is malformed.
pub fn compile_as_stated(graphs: &[(Stage, &Graph)], path: &Path) -> Result<(), TargetError> {
    let verified = graphs.iter().map(|&(stage, graph)| {
        let verified = verify(graph).map_err(|violations| TargetError::Verify {
            graph: graph.name().to_owned(),
            violations,
        })?;
        Ok((stage, verified))
    });
    let verified = verified.collect::<Result<Vec<_>, TargetError>>()?;
    let companions = Companions::default();
    compile(&verified, &companions, Activations::Declared, path, &Silent)
}

/// The instructions of a graph, without its weights' data: what [`compile`] writes for it.
///
/// # Errors
/// When the device has no form for a node.
pub fn lowered(
    graph: &Verified<'_>,
    activations: Activations,
) -> Result<snapc_program::Graph, TargetError> {
    Ok(lower(graph, activations)?.program)
}

/// A file that is ready to be written.
pub(crate) struct Compiled {
    stages: BTreeMap<Stage, (String, Lowered)>,
    layout: Layout,
}

impl Compiled {
    pub(crate) fn new(
        graphs: &[(Stage, Verified<'_>)],
        companions: &Companions,
        activations: Activations,
    ) -> Result<Self, TargetError> {
        let mut stages = BTreeMap::new();
        let mut program = Program::new();
        for (stage, graph) in graphs {
            let mut lowered = lower(graph, activations)?;
            program.insert(*stage, lowered.program.clone());
            if let (Stage::TextEncoder, Some(prompt)) = (*stage, &companions.known_prompt) {
                lowered.weights.extend(stored(prompt));
            }
            stages.insert(*stage, (graph.name().to_owned(), lowered));
        }
        let mut plan = Plan::new();
        plan.set_program(program.encode().map_err(capacity)?);
        for (key, value) in &companions.metadata {
            plan.set_metadata(key, value);
        }
        if let Some(tokenizer) = &companions.tokenizer {
            plan.set_tokenizer(tokenizer.encode());
        }
        if let Some(schedule) = &companions.schedule {
            plan.set_schedule(schedule.encode());
        }
        for (stage, (_, lowered)) in &stages {
            for weight in &lowered.weights {
                plan.add_tensor(*stage, weight.plan());
            }
        }
        let layout = plan.layout().map_err(capacity)?;
        Ok(Compiled { stages, layout })
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.layout.len()
    }

    fn write(&self, path: &Path, progress: &dyn Progress) -> Result<(), TargetError> {
        let weights = self.layout.placements().iter().map(|p| p.length).sum();
        for (name, lowered) in self.stages.values() {
            for note in &lowered.notes {
                progress.note(&format!("graph '{name}': {note}"));
            }
        }
        progress.start("write", weights);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.map_err(TargetError::io(path))?;
        file.set_len(self.layout.len())
            .map_err(TargetError::io(path))?;
        // The prefix goes in with the first stage; it ends before any weight.
        let mut prefix = self.layout.prefix();
        for (&stage, (name, lowered)) in &self.stages {
            self.write_stage(stage, (name, lowered), prefix, (&file, path), progress)?;
            prefix = &[];
        }
        if progress.cancelled() {
            return Err(TargetError::Cancelled);
        }
        self.layout.seal(&file).map_err(TargetError::io(path))
    }

    fn write_stage(
        &self,
        stage: Stage,
        (name, lowered): (&str, &Lowered),
        prefix: &[u8],
        (file, path): (&File, &Path),
        progress: &dyn Progress,
    ) -> Result<(), TargetError> {
        let tensors = lowered.weights.iter();
        let tensors: BTreeMap<&str, &LazyTensor> = tensors
            .map(|w| (w.weight.name.as_str(), &w.tensor))
            .collect();
        let placements = self.layout.placements().iter();
        let blobs: Vec<Blob<'_>> = placements
            .filter(|p| p.stage == stage)
            .map(|p| Blob {
                name: &p.name,
                offset: p.offset,
                header: Vec::new(),
                tensor: tensors[p.name.as_str()],
            })
            .collect();
        let blob_file = BlobFile {
            graph: name,
            prefix,
            blobs: &blobs,
            len: self.layout.len(),
        };
        blob_file.write_into(file, path, progress)
    }
}

/// The tensors that keep a prompt beside the weights of the text encoder, under names that no weight has.
fn stored(prompt: &KnownPrompt) -> [StoredWeight; 2] {
    let ids: Vec<i32> = prompt.input_ids.iter().map(|id| id.cast_signed()).collect();
    let ids = LazyTensor::from_i32(&[ids.len()], &ids);
    let values = LazyTensor::from_f32(&[prompt.values.len()], &prompt.values);
    let weight = |name: &str, storage, tensor: LazyTensor| StoredWeight {
        weight: Weight {
            name: name.to_owned(),
            storage,
            // Prompts have fewer values than 32 bits count.
            dims: vec![tensor.elements() as u32],
        },
        tensor,
    };
    [
        weight(KNOWN_PROMPT[0], Storage::I32, ids),
        weight(KNOWN_PROMPT[1], Storage::F32, values),
    ]
}

fn capacity(error: impl ToString) -> TargetError {
    TargetError::Capacity {
        reason: error.to_string(),
    }
}
