//! The Core ML target: ML Program packages for iOS 16, 17, 18 and 26.
//!
//! [`CoreMl`] implements [`snapc_target::Target`]. Lowering turns a legalized graph into MIL; the package writer streams the
//! weights; the verifier reads packages back from disk and checks the rules of the format ([`verify::RULES`]), among them
//! those that no tool outside macOS checks. [`read`] takes packages, ours and those of coremltools, back into the IR.
//! Nothing here needs a Mac, and nothing here knows a checkpoint format or a pass.
//!
//! ```
//! use snapc_target::{EmitOptions, Target};
//!
//! let options = EmitOptions { min_ios: Some(18), ..EmitOptions::default() };
//! assert!(!snapc_coreml::CoreMl.capabilities(&options).symbolic_batch);
//! ```

#![forbid(unsafe_code)]

mod blob;
mod chunks;
mod compressed;
mod describe;
mod emit;
mod interface;
mod level;
mod lower;
mod model;
mod names;
mod package;
mod proto;
mod read;
mod runtime;
mod signature;
pub mod verify;

use std::path::Path;

use snapc_ir::{Graph, Op, Program, Weight};
use snapc_target::{
    AttentionForm, Capabilities, EmitOptions, Emitted, Finding, Progress, Target, TargetError,
    VerifiedProgram,
};

use compressed::Stored;
pub use level::Level;
pub use read::{
    ArrayFeature, Description, PackageMetadata, ReadError, describe, describe_function, read,
    read_function,
};

/// The target `coreml`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreMl;

/// Composites that Core ML has at every level.
fn is_native(op: &Op) -> bool {
    matches!(
        op,
        Op::Gelu(_)
            | Op::QuickGelu(_)
            | Op::Silu(_)
            | Op::GroupNorm(_)
            | Op::LayerNorm(_)
            | Op::Linear(_)
    )
}

/// The same with attention as one operation.
fn is_native_with_attention(op: &Op) -> bool {
    is_native(op) || matches!(op, Op::Attention(_))
}

/// Size of a graph's weight file, but for the few constants that lowering adds.
fn planned_weight_bytes(graph: &Graph, level: Level) -> u64 {
    let mut file = blob::WeightFile::default();
    for Weight { name, tensor, .. } in graph.weights() {
        // What the level has no form for is refused when it is written.
        if let Ok(Some(form)) = compressed::compressed(tensor, level) {
            let large = |s: &Stored| blob::code_and_bits(s.dtype).is_some();
            for (_, stored) in form.parameters.iter().filter(|(_, s)| large(s)) {
                file.add(name, stored);
            }
        } else if let Some(stored) = Stored::dense(tensor) {
            file.add(name, &stored);
        }
    }
    file.len()
}

/// Refuses attention as one operation at a level that lacks it, before the graphs are changed for it.
fn refuse_attention(program: &Program, level: Level) -> Result<(), TargetError> {
    for graph in &program.graphs {
        let mut nodes = graph.nodes().iter();
        if let Some(node) = nodes.find(|n| matches!(n.op, Op::Attention(_))) {
            return Err(TargetError::Unsupported {
                graph: graph.name().to_owned(),
                node: node.name.clone(),
                op: node.op.name(),
                reason: format!("--attention sdpa needs --min-ios 18, not {}", level.ios()),
            });
        }
    }
    Ok(())
}

/// Refuses several picture sizes where there are no functions for them.
fn refuse_sizes(level: Level, options: &EmitOptions) -> Result<(), TargetError> {
    if level < Level::Ios18 {
        return Err(TargetError::Unsupported {
            graph: "unet".to_owned(),
            node: "sample".to_owned(),
            op: "feature",
            reason: format!("several sizes need --min-ios 18, not {}", level.ios()),
        });
    }
    if options.chunk_unet {
        return Err(TargetError::Option {
            option: "--sizes",
            reason: "each size would have its own cut, so that --chunk-unet takes one size"
                .to_owned(),
        });
    }
    Ok(())
}

impl Target for CoreMl {
    fn name(&self) -> &'static str {
        "coreml"
    }

    fn describe(&self) -> &'static str {
        "Core ML packages (.mlpackage) for the Neural Engine, GPU and CPU of iOS 16 and later"
    }

    fn default_min_ios(&self) -> Option<u32> {
        Some(Level::DEFAULT.ios())
    }

    /// `auto` attention is decomposed: the one operation leaves the Neural Engine unless the tensors are large, and
    /// does not exist before iOS 18.
    fn capabilities(&self, options: &EmitOptions) -> Capabilities {
        let native = match options.attention {
            AttentionForm::Sdpa | AttentionForm::SplitEinsum | AttentionForm::SplitEinsumV2 => {
                is_native_with_attention
            }
            AttentionForm::Auto | AttentionForm::Decomposed => is_native,
        };
        Capabilities {
            native,
            symbolic_batch: false,
            max_rank: signature::MAX_RANK,
        }
    }

    fn prepare(&self, program: Program, options: &EmitOptions) -> Result<Program, TargetError> {
        let level = Level::of(options)?;
        if options.attention == AttentionForm::Sdpa && level < Level::Ios18 {
            refuse_attention(&program, level)?;
        }
        if options.sizes.len() > 1 {
            refuse_sizes(level, options)?;
        }
        let program = interface::apply(program, options)?;
        match options.chunk_unet {
            true => chunks::in_chunks(program, options.interface),
            false => Ok(program),
        }
    }

    fn emit(
        &self,
        program: &VerifiedProgram<'_>,
        options: &EmitOptions,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Emitted, TargetError> {
        let mut emitted = emit::emit(program, options, dir, progress)?;
        emitted.add_known_prompt(program, options, dir)?;
        emitted.files.extend(runtime::write(dir)?);
        Ok(emitted)
    }

    fn artifact_bytes(&self, program: &Program, options: &EmitOptions) -> u64 {
        let level = Level::of(options).unwrap_or(Level::DEFAULT);
        let graphs = program.graphs.iter();
        let bytes: u64 = graphs.map(|graph| planned_weight_bytes(graph, level)).sum();
        let tokenizer = |name: &str| {
            program
                .pipeline
                .files
                .get(name)
                .map_or(0, |f| f.len() as u64)
        };
        let tokenizer = tokenizer("tokenizer/vocab.json") + tokenizer("tokenizer/merges.txt");
        bytes + tokenizer + runtime::bytes()
    }

    fn verify(&self, dir: &Path) -> Result<Vec<Finding>, TargetError> {
        verify::verify(dir)
    }

    /// A package's shapes are fixed numbers, so that there is no batch to give a size to.
    fn read(&self, package: &Path, _batch: usize) -> Result<Option<Graph>, TargetError> {
        let graph = read(package).map_err(|source| TargetError::ReadBack {
            path: package.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Some(graph))
    }

    fn read_function(&self, package: &Path, function: &str) -> Result<Option<Graph>, TargetError> {
        let graph = read_function(package, function).map_err(|source| TargetError::ReadBack {
            path: package.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Some(graph))
    }
}
