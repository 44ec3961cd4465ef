//! The program once more for every further picture size: the same checkpoint, passes and legalization.

use snapc_import::Checkpoint;
use snapc_ir::Program;
use snapc_target::EmitOptions;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::stages::{self, PassOptions};

use super::settings::Settings;

/// The programs of all sizes but the first, in order.
///
/// # Errors
/// When a size does not fit the networks, or a pass or the target refuses a program.
pub fn others(
    checkpoint: &Checkpoint,
    settings: &Settings,
    emit: &EmitOptions,
    timesteps: &[usize],
    options: PassOptions<'_>,
    interrupt: &Interrupt,
) -> Result<Vec<Program>, Failure> {
    let recipe = &settings.recipe;
    let other = |&[height, width]: &[usize; 2]| {
        let mut program = checkpoint.import_at((height, width))?;
        program.pipeline.about = settings.about.clone().or(program.pipeline.about);
        let run = |program, pipeline: &_, options| {
            stages::optimize(program, pipeline, options, interrupt, &|_| ())
        };
        let (mut program, reports) = run(program, &recipe.structural()?, options)?;
        snapc_import::describe(&mut program, &recipe.changed())?;
        let options = PassOptions {
            limit: options.limit.map(|n| n.saturating_sub(reports.len())),
            ..options
        };
        let (program, _) = run(program, &recipe.lowering(timesteps)?, options)?;
        stages::legalized(program, settings.target, emit)
    };
    emit.sizes.iter().skip(1).map(other).collect()
}
