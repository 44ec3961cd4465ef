//! `snapc convert`: checkpoint to artifact.

mod recipe;
mod report;
mod settings;
mod sizes;

use std::path::{Path, PathBuf};

use snapc_ir::Program;
use snapc_passes::Pipeline;
use snapc_target::manifest::{FILE_NAME, Manifest, PassEffect};
use snapc_target::{EmitOptions, Progress, VerifiedProgram, schedule};

use crate::args::ConvertArgs;
use crate::calibration;
use crate::commands::passes;
use crate::depfile;
use crate::effects;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Bar;
use crate::stages::{self, Clock, PassOptions};
use crate::staging::{Staging, check_output};

use report::{GraphReport, PassesShown, Report};
use settings::Settings;

/// Converts a checkpoint and reports what was made.
///
/// # Errors
/// When anything stands in the way; nothing is left behind then.
pub fn run(args: &ConvertArgs, output: &Output) -> Result<Exit, Failure> {
    let settings = Settings::resolve(args)?;
    if let Some(name) = &args.print_after {
        passes::find(name)?;
    }
    if let (Some(dir), false) = (&settings.output, args.dry_run || args.list_passes) {
        check_output(dir, settings.force)?;
    }
    if let (Some(dir), false) = (&settings.export, args.dry_run || args.list_passes) {
        check_export(dir)?;
    }
    // What can be wrong with the passes shows before anything is read; the schedule is known later.
    settings.recipe.pipeline(&[0])?;
    let interrupt = Interrupt::install();
    let mut clock = Clock::default();

    let checkpoint = clock.time("open", || {
        stages::open(&args.checkpoint, &settings.checkpoint)
    })?;
    for note in checkpoint.notes() {
        output.note(&format!("note: {note}"));
    }
    refuse_to_overwrite(settings.output.as_deref(), &args.checkpoint)?;
    let mut program = clock.time("import", || checkpoint.import())?;
    program.pipeline.about = settings.about.clone().or(program.pipeline.about);
    interrupt.check()?;
    let timesteps = schedule::timesteps(&program.pipeline.scheduler, settings.emit.steps)
        .map_err(|e| Failure::new(Exit::Usage, e).help("--steps sets the number of steps"))?;
    let pipeline = settings.recipe.pipeline(&timesteps)?;
    output.detail(&format!("passes: {pipeline}"));
    if args.list_passes {
        return report::list(&pipeline, output);
    }
    let calibration = settings.calibration.as_deref();
    let calibration = calibration
        .map(|path| calibration::read(path, &program))
        .transpose()?;

    let mut graphs = GraphReport::imported(&program);
    let options = PassOptions {
        print_after: args.print_after.as_deref(),
        limit: args.pass_limit,
        calibration: calibration.as_ref(),
    };
    let print = |text: &str| output.dump(text);
    let run = |program, pipeline: &Pipeline, options| {
        stages::optimize(program, pipeline, options, &interrupt, &print)
    };
    let recipe = &settings.recipe;
    let structural = clock.time("passes", || run(program, &recipe.structural()?, options));
    let (mut program, mut pass_reports) = structural?;
    snapc_import::describe(&mut program, &recipe.changed())?;
    if let (Some(dir), false) = (&settings.export, args.dry_run) {
        clock.time("export", || {
            snapc_import::export(&program, &args.checkpoint, &recipe.changed(), dir)
        })?;
    }
    let options = PassOptions {
        limit: options.limit.map(|n| n.saturating_sub(pass_reports.len())),
        ..options
    };
    let lowering = recipe.lowering(&timesteps)?;
    let (program, reports) = clock.time("passes", || run(program, &lowering, options))?;
    let before = pass_reports.len();
    pass_reports.extend(reports.into_iter().map(|mut report| {
        report.run += before;
        report
    }));
    GraphReport::add_optimized(&mut graphs, &program);
    let encoded = match args.explain {
        true => report::encoded_weights(&program)?,
        false => Vec::new(),
    };
    let emit = settings.emit_for(&program, args.pass_limit.is_some())?;
    let program = clock.time("legalize", || {
        stages::legalized(program, settings.target, &emit)
    })?;
    GraphReport::add_legalized(&mut graphs, &program);
    let others = match emit.sizes.len() {
        0 | 1 => Vec::new(),
        _ => clock.time("sizes", || {
            let options = PassOptions {
                limit: args.pass_limit,
                ..options
            };
            sizes::others(
                &checkpoint,
                &settings,
                &emit,
                &timesteps,
                options,
                &interrupt,
            )
        })?,
    };
    interrupt.check()?;

    let mut report = Report {
        target: settings.target.name(),
        precision: emit.precision.name(),
        passes: pipeline.to_string(),
        dry_run: args.dry_run,
        output: settings.output.clone(),
        graphs,
        passes_shown: PassesShown {
            times: args.time_passes,
            explain: args.explain,
        },
        pass_reports,
        encoded,
        stages: Vec::new(),
        files: 0,
        bytes: settings.target.artifact_bytes(&program, &emit),
    };
    if !args.dry_run {
        let bar = Bar::new(output.shows_progress(), interrupt);
        let job = Job {
            settings: &settings,
            emit: &emit,
            passes: &report.passes,
            effects: effects::of(&report.pass_reports),
            inputs: inputs(args, &settings)?,
        };
        let (staging, manifest) = clock.time("emit", || job.emit(&program, &others, &bar))?;
        for note in bar.notes() {
            output.note(&format!("note: {note}"));
        }
        clock.time("verify", || job.read_back(&staging))?;
        if bar.cancelled() {
            return Err(Failure::interrupted());
        }
        job.commit(staging)?;
        report.files = manifest.files.len() + 1;
        report.bytes = manifest.files.iter().map(|f| f.bytes).sum();
    }
    report.stages = clock.0;
    output.result(&report.document(), || report.text())?;
    Ok(Exit::Done)
}

/// Refuses an exported checkpoint that exists; `--force` is about the artifact.
fn check_export(dir: &Path) -> Result<(), Failure> {
    if dir.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Failure::usage(format!("'{}' exists", dir.display()))
        .help("give --export-checkpoint the name of a new folder"))
}

/// What the writing of an artifact needs besides the program.
struct Job<'a> {
    settings: &'a Settings,
    emit: &'a EmitOptions,
    passes: &'a str,
    effects: Vec<PassEffect>,
    inputs: Vec<PathBuf>,
}

impl Job<'_> {
    /// Writes artifact and manifest beside the output.
    fn emit(
        &self,
        program: &Program,
        other_sizes: &[Program],
        progress: &dyn Progress,
    ) -> Result<(Staging, Manifest), Failure> {
        let target = self.settings.target;
        let others = other_sizes.iter().map(VerifiedProgram::new);
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let verified = VerifiedProgram::new(program)?.with_other_sizes(others);
        let staging = Staging::new(self.settings.required_output()?, self.settings.force)?;
        let emitted = target.emit(&verified, self.emit, staging.folder(), progress)?;
        let version = env!("CARGO_PKG_VERSION");
        let mut manifest = Manifest::new(
            version,
            target.name(),
            self.passes,
            self.emit,
            &program.pipeline,
            &emitted,
        )?;
        manifest.effects.clone_from(&self.effects);
        manifest.write(staging.folder())?;
        Ok((staging, manifest))
    }

    /// Checks what was written by the target's own rules. A finding is a defect of snapc.
    fn read_back(&self, staging: &Staging) -> Result<(), Failure> {
        let findings = self.settings.target.verify(staging.folder())?;
        if findings.is_empty() {
            return Ok(());
        }
        let lines: String = findings.iter().map(|f| format!("\n  {f}")).collect();
        let error = anyhow::anyhow!("the emitted files break rules of their format:{lines}");
        Err(Failure::new(Exit::Internal, error).help("please report this with the command line"))
    }

    /// Writes the dependency file and puts the artifact in its place.
    fn commit(&self, staging: Staging) -> Result<(), Failure> {
        let dir = self.settings.required_output()?;
        // Before the artifact is in place, so that a depfile that cannot be written leaves no artifact.
        let Some(path) = &self.settings.depfile else {
            return staging.commit();
        };
        let rule = depfile::rule(&dir.join(FILE_NAME), &self.inputs);
        std::fs::write(path, rule).map_err(|e| Failure::write(path, e))?;
        staging.commit().inspect_err(|_| {
            // The failure to commit is the one to report.
            let _ = std::fs::remove_file(path);
        })
    }
}

/// What the artifact is made from: the checkpoint and the files that the command line names.
fn inputs(args: &ConvertArgs, settings: &Settings) -> Result<Vec<PathBuf>, Failure> {
    let checkpoint = &args.checkpoint;
    let mut files = depfile::files_of(checkpoint).map_err(|e| Failure::read(checkpoint, e))?;
    files.extend(args.config.clone());
    files.extend(settings.calibration.clone());
    files.extend(settings.checkpoint.component_config.clone());
    Ok(files)
}

/// Refuses an output that is the checkpoint or a folder around it, which `--force` would remove.
fn refuse_to_overwrite(output: Option<&Path>, checkpoint: &Path) -> Result<(), Failure> {
    let Some(dir) = output.and_then(|dir| dir.canonicalize().ok()) else {
        return Ok(());
    };
    if checkpoint
        .canonicalize()
        .is_ok_and(|path| path.starts_with(&dir))
    {
        return Err(Failure::usage(format!(
            "the output folder '{}' holds the checkpoint",
            dir.display()
        ))
        .help("choose another -o"));
    }
    Ok(())
}
