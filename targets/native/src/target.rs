//! The target as the driver sees it.

use std::path::Path;

use snapc_format::Stage;
use snapc_ir::verify::verify;
use snapc_ir::{DType, Graph, Op, Program, TensorType, Verified};
use snapc_target::known_prompt::KnownPrompt;
use snapc_target::{
    ArtifactFile, AttentionForm, Capabilities, EmitOptions, Emitted, EmittedGraph, Feature,
    Finding, Interface, Progress, Target, TargetError, VerifiedProgram, check_interface, hash_file,
    legalize,
};

use crate::compile::{Activations, Companions, Compiled, compile};
use crate::runtime;

/// Name of the file in an artifact.
pub(crate) const FILE_NAME: &str = "model.snap";

/// One `.snap` file, run by snapc's own engine, and what an app needs to link that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Target for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn describe(&self) -> &'static str {
        "one .snap file with packed weights, run by snapc's own engine"
    }

    fn capabilities(&self, options: &EmitOptions) -> Capabilities {
        let native: fn(&Op) -> bool = match options.attention {
            AttentionForm::Decomposed => |op| !matches!(op, Op::Attention(_)),
            _ => |_| true,
        };
        Capabilities {
            native,
            symbolic_batch: true,
            max_rank: snapc_program::MAX_RANK,
        }
    }

    /// Refuses the options that are for other formats.
    fn prepare(&self, program: Program, options: &EmitOptions) -> Result<Program, TargetError> {
        if options.interface == Interface::Apple {
            return Err(TargetError::Option {
                option: "--interface",
                reason: format!(
                    "'{}' is for Core ML; choose plain or snap",
                    options.interface
                ),
            });
        }
        check_interface(&program, options)?;
        if let Some(version) = options.min_ios {
            return Err(TargetError::Option {
                option: "--min-ios",
                reason: format!("{version} is for Core ML; a .snap file does not depend on it"),
            });
        }
        options.refuse_core_ml_forms()?;
        Ok(program)
    }

    fn emit(
        &self,
        program: &VerifiedProgram<'_>,
        options: &EmitOptions,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Emitted, TargetError> {
        let graphs = staged(program.graphs().iter().copied())?;
        let mut companions = Companions::of(program.pipeline(), options)?;
        if options.interface == Interface::Snap {
            let graphs: Vec<&Graph> = program.graphs().iter().map(|g| &**g).collect();
            companions.known_prompt = KnownPrompt::empty(&graphs, program.pipeline())?;
        }
        let path = dir.join(FILE_NAME);
        compile(&graphs, &companions, Activations::F32, &path, progress)?;
        let bytes = std::fs::metadata(&path).map_err(TargetError::io(&path))?;
        let mut files = vec![ArtifactFile {
            path: FILE_NAME.to_owned(),
            bytes: bytes.len(),
            sha256: hash_file(&path)?,
        }];
        files.extend(runtime::write(dir)?);
        Ok(Emitted {
            files,
            graphs: program.graphs().iter().map(|g| describe(g)).collect(),
        })
    }

    /// Exact for programs that can be emitted; the bytes of the weights for others.
    fn artifact_bytes(&self, program: &Program, options: &EmitOptions) -> u64 {
        self.exact_bytes(program, options).unwrap_or_else(|| {
            let weights = program.graphs.iter().flat_map(Graph::weights);
            weights.map(|w| w.tensor.byte_len() as u64).sum()
        })
    }

    fn verify(&self, dir: &Path) -> Result<Vec<Finding>, TargetError> {
        crate::verify::verify(dir)
    }
}

impl Native {
    fn exact_bytes(&self, program: &Program, options: &EmitOptions) -> Option<u64> {
        let caps = self.capabilities(options);
        let legal = program.graphs.iter().map(|g| legalize(g, &caps).ok());
        let legal = legal.collect::<Option<Vec<Graph>>>()?;
        let verified = legal.iter().map(|g| verify(g).ok());
        let graphs = staged(verified.collect::<Option<Vec<_>>>()?).ok()?;
        let mut companions = Companions::of(&program.pipeline, options).ok()?;
        if options.interface == Interface::Snap && companions.tokenizer.is_some() {
            let graphs: Vec<&Graph> = legal.iter().collect();
            companions.known_prompt = KnownPrompt::planned(&graphs);
        }
        let compiled = Compiled::new(&graphs, &companions, Activations::F32).ok()?;
        Some(compiled.len() + runtime::bytes())
    }
}

/// Graphs with the stages that they are, by name.
fn staged<'a>(
    graphs: impl IntoIterator<Item = Verified<'a>>,
) -> Result<Vec<(Stage, Verified<'a>)>, TargetError> {
    let stage = |graph: Verified<'a>| {
        let stage = Stage::ALL.into_iter().find(|s| s.name() == graph.name());
        let stage = stage.ok_or_else(|| TargetError::Capacity {
            reason: format!("graph '{}' is none of the three networks", graph.name()),
        })?;
        Ok((stage, graph))
    };
    graphs.into_iter().map(stage).collect()
}

/// A graph as the engine takes it: floats as f32, integers as i32.
fn describe(graph: &Graph) -> EmittedGraph {
    let feature = |name: &str, ty: &TensorType| {
        let dtype = if ty.dtype.is_float() {
            DType::F32
        } else {
            DType::I32
        };
        Feature::new(name, &TensorType::new(dtype, ty.shape.clone()))
    };
    let inputs = graph.inputs().iter();
    let outputs = graph.outputs().iter();
    EmittedGraph {
        functions: Vec::new(),
        name: graph.name().to_owned(),
        file: FILE_NAME.to_owned(),
        inputs: inputs
            .map(|i| feature(&i.name, graph.ty(i.value)))
            .collect(),
        outputs: outputs
            .map(|o| feature(&o.name, graph.ty(o.value)))
            .collect(),
    }
}
