//! The target as the driver sees it.

use std::collections::BTreeMap;
use std::path::Path;

use snapc_ir::verify::verify;
use snapc_ir::{Graph, Program};
use snapc_target::{
    AttentionForm, Capabilities, EmitOptions, Emitted, Finding, Interface, Progress, Target,
    TargetError, VerifiedProgram, check_interface, legalize,
};

use crate::proto::BATCH_DIM;
use crate::{companion, emit, lower};

/// ONNX models with external data, as Optimum lays them out.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxTarget;

impl Target for OnnxTarget {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn describe(&self) -> &'static str {
        "ONNX models for Optimum and ONNX Runtime: opset 17, up to 21 where weights are int8, int4 or palettes"
    }

    fn capabilities(&self, _options: &EmitOptions) -> Capabilities {
        Capabilities {
            native: lower::is_native,
            symbolic_batch: true,
            max_rank: 8,
        }
    }

    /// Refuses the options that ONNX has no form for.
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
                reason: format!("{version} is for Core ML; an ONNX model does not depend on it"),
            });
        }
        options.refuse_core_ml_forms()?;
        if options.attention == AttentionForm::Sdpa {
            return Err(TargetError::Option {
                option: "--attention",
                reason:
                    "ONNX has an attention operator since opset 23 only; choose auto or decomposed"
                        .to_owned(),
            });
        }
        Ok(program)
    }

    fn emit(
        &self,
        program: &VerifiedProgram<'_>,
        options: &EmitOptions,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Emitted, TargetError> {
        let mut emitted = emit::emit(program, dir, progress)?;
        emitted.add_known_prompt(program, options, dir)?;
        Ok(emitted)
    }

    /// Exact for programs that can be emitted; the bytes of the weights for others.
    fn artifact_bytes(&self, program: &Program, options: &EmitOptions) -> u64 {
        let caps = self.capabilities(options);
        let graph_bytes = |graph: &Graph| {
            let legal = legalize(graph, &caps).ok()?;
            emit::graph_bytes(&verify(&legal).ok()?).ok()
        };
        let graphs = program.graphs.iter().map(|graph| {
            graph_bytes(graph).unwrap_or_else(|| {
                let weights = graph.weights().iter();
                weights.map(|w| w.tensor.stored_bytes_len() as u64).sum()
            })
        });
        let companions = companion::files(&program.pipeline).unwrap_or_default();
        graphs.sum::<u64>() + companions.values().map(|b| b.len() as u64).sum::<u64>()
    }

    fn verify(&self, dir: &Path) -> Result<Vec<Finding>, TargetError> {
        crate::verify::verify(dir)
    }

    fn read(&self, file: &Path, batch: usize) -> Result<Option<Graph>, TargetError> {
        let dims = BTreeMap::from([(BATCH_DIM.to_owned(), batch)]);
        let graph = crate::read(file, &dims).map_err(|source| TargetError::ReadBack {
            path: file.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Some(graph))
    }
}
