//! The stages from checkpoint to legalized program, timed, with a look at the interrupt between them.

use std::path::Path;
use std::time::{Duration, Instant};

use snapc_import::{Checkpoint, ImportOptions};
use snapc_ir::{PredictionType, Program};
use snapc_passes::{Calibration, PassContext, PassReport, Pipeline, RunOptions};
use snapc_target::{EmitOptions, Precision, Target, legalize};

use crate::args::{CheckpointArgs, Prediction};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Times of the stages that have run, in order.
#[derive(Debug, Default)]
pub struct Clock(pub Vec<(&'static str, Duration)>);

impl Clock {
    /// Runs a stage and notes its time; times of stages of one name are added.
    pub fn time<T>(&mut self, stage: &'static str, run: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = run();
        match self.0.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, time)) => *time += start.elapsed(),
            None => self.0.push((stage, start.elapsed())),
        }
        result
    }
}

/// Opens a checkpoint: configurations and headers, no weights.
///
/// # Errors
/// When it is not one that can be imported.
pub fn open(path: &Path, args: &CheckpointArgs) -> Result<Checkpoint, Failure> {
    let options = ImportOptions {
        size: args.size.map(|size| (size.height, size.width)),
        config: args.component_config.clone(),
        prediction_type: args.prediction_type.map(|p| match p {
            Prediction::Epsilon => PredictionType::Epsilon,
            Prediction::VPrediction => PredictionType::VPrediction,
        }),
    };
    Ok(snapc_import::open(path, &options)?)
}

/// The clean-up of a precision.
///
/// # Errors
/// Never, as tests hold: the pipelines of both precisions are possible.
pub fn pipeline(precision: Precision) -> Result<Pipeline, Failure> {
    Ok(precision.name().parse::<Pipeline>()?)
}

/// What a run of the passes is asked for besides its result.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassOptions<'a> {
    /// Print every graph after this pass.
    pub print_after: Option<&'a str>,
    /// Stop after that many runs.
    pub limit: Option<usize>,
    /// Inputs to run the graphs on.
    pub calibration: Option<&'a Calibration>,
}

/// Runs the passes; `print` gets the text of graphs that are to be printed.
///
/// # Errors
/// When a pass fails or the run is interrupted.
pub fn optimize(
    program: Program,
    pipeline: &Pipeline,
    options: PassOptions<'_>,
    interrupt: &Interrupt,
    print: &dyn Fn(&str),
) -> Result<(Program, Vec<PassReport>), Failure> {
    let cancelled = || interrupt.is_set();
    let show = |report: &PassReport, text: &str| print(&format!("; {report}\n{text}"));
    let run = RunOptions {
        context: PassContext {
            cancelled: &cancelled,
            calibration: options.calibration,
            ..PassContext::default()
        },
        pass_limit: options.limit,
        print_after: options.print_after,
        print: Some(&show),
    };
    Ok(pipeline.run(program, &run)?)
}

/// The program as the target takes it.
///
/// # Errors
/// When the target cannot honour an option or has no form for a node.
pub fn legalized(
    program: Program,
    target: &dyn Target,
    options: &EmitOptions,
) -> Result<Program, Failure> {
    let mut program = target.prepare(program, options)?;
    let capabilities = target.capabilities(options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &capabilities)?;
    }
    Ok(program)
}
