//! The interface between the driver and a target.

use std::fmt;
use std::path::Path;

use snapc_ir::{Graph, Op, Program};

use crate::artifact::Emitted;
use crate::error::TargetError;
use crate::options::EmitOptions;
use crate::progress::Progress;
use crate::verified::VerifiedProgram;

/// What a target takes as it is.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Whether the target lowers this composite operator itself. Never asked about primitives, which every target
    /// lowers.
    pub native: fn(&Op) -> bool,
    /// Whether [`snapc_ir::Dim::Batch`] may stay open. If not, [`Target::prepare`] binds it.
    pub symbolic_batch: bool,
    /// Largest number of dimensions of a value.
    pub max_rank: usize,
}

/// A rule of the artifact's format that a file on disk breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Id of the rule, in kebab case; the target's documentation lists them.
    pub rule: &'static str,
    /// The file, relative to the artifact, with `/` between parts.
    pub file: String,
    /// Where in the file: a function, an operation, a byte offset; empty for the file as a whole.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{} [{}]", self.message, self.rule)
    }
}

/// A format that programs are written to.
pub trait Target: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// One line for the list of targets.
    fn describe(&self) -> &'static str;

    /// The lowest version of iOS that the target writes for when none is given; `None` when it does not depend on one.
    fn default_min_ios(&self) -> Option<u32> {
        None
    }

    /// What the target takes as it is under these options.
    fn capabilities(&self, options: &EmitOptions) -> Capabilities;

    /// Changes the program for the target before legalization: interface, batch binding.
    ///
    /// # Errors
    /// When an option cannot be honoured or the program does not have the graphs it takes.
    fn prepare(&self, program: Program, options: &EmitOptions) -> Result<Program, TargetError> {
        let _ = options;
        Ok(program)
    }

    /// Writes the artifact, without its manifest, into the existing empty directory `dir`. The graphs have passed
    /// [`Target::prepare`] and [`crate::legalize`]. Calls [`Progress::start`] before it writes.
    ///
    /// # Errors
    /// What cannot be written. Files may be left behind; the caller removes `dir`.
    fn emit(
        &self,
        program: &VerifiedProgram<'_>,
        options: &EmitOptions,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Emitted, TargetError>;

    /// Bytes that [`Target::emit`] will write, up to a few kilobytes per graph.
    fn artifact_bytes(&self, program: &Program, options: &EmitOptions) -> u64;

    /// Checks the structure of an artifact on disk, manifest excluded: every broken rule, sorted.
    ///
    /// # Errors
    /// Only when a file cannot be read; what is wrong inside a file is a finding.
    fn verify(&self, dir: &Path) -> Result<Vec<Finding>, TargetError>;

    /// Reads a graph back from the file or package that an artifact has it in: what the file says, by other code than
    /// wrote it. Composites that the format has no operator for are as they were decomposed; passes find them
    /// again. `batch` is the size of a batch that the file leaves open. `None` when this target's files hold no graph of the
    /// IR.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what has no form in the IR.
    fn read(&self, file: &Path, batch: usize) -> Result<Option<Graph>, TargetError> {
        let _ = (file, batch);
        Ok(None)
    }

    /// The same for one function of a graph that is written for several picture sizes
    /// ([`EmittedGraph::functions`](crate::EmittedGraph::functions)).
    ///
    /// # Errors
    /// As [`Target::read`], and when there is no such function.
    fn read_function(&self, file: &Path, function: &str) -> Result<Option<Graph>, TargetError> {
        let _ = (file, function);
        Ok(None)
    }
}
