//! A program all of whose graphs have been verified.

use snapc_ir::verify::verify;
use snapc_ir::{PipelineSpec, Program, Verified};

use crate::error::TargetError;

/// A program all of whose graphs have been verified; only [`VerifiedProgram::new`] makes one.
pub struct VerifiedProgram<'a> {
    graphs: Vec<Verified<'a>>,
    pipeline: &'a PipelineSpec,
    other_sizes: Vec<VerifiedProgram<'a>>,
}

impl<'a> VerifiedProgram<'a> {
    /// Verifies every graph.
    ///
    /// # Errors
    /// All violations of the first malformed graph.
    pub fn new(program: &'a Program) -> Result<Self, TargetError> {
        let graphs = program.graphs.iter().map(|graph| {
            verify(graph).map_err(|violations| TargetError::Verify {
                graph: graph.name().to_owned(),
                violations,
            })
        });
        Ok(VerifiedProgram {
            graphs: graphs.collect::<Result<_, _>>()?,
            pipeline: &program.pipeline,
            other_sizes: Vec::new(),
        })
    }

    /// The program with others that are the same but for the size of the pictures, in the order of
    /// [`EmitOptions::sizes`](crate::EmitOptions::sizes).
    #[must_use]
    pub fn with_other_sizes(self, other_sizes: Vec<VerifiedProgram<'a>>) -> Self {
        VerifiedProgram {
            other_sizes,
            ..self
        }
    }

    /// What [`VerifiedProgram::with_other_sizes`] has added.
    pub fn other_sizes(&self) -> &[VerifiedProgram<'a>] {
        &self.other_sizes
    }

    /// The graphs in the order they run.
    pub fn graphs(&self) -> &[Verified<'a>] {
        &self.graphs
    }

    /// The graph of that name.
    pub fn graph(&self, name: &str) -> Option<&Verified<'a>> {
        self.graphs.iter().find(|g| g.name() == name)
    }

    /// The facts outside the graphs.
    pub fn pipeline(&self) -> &'a PipelineSpec {
        self.pipeline
    }
}
