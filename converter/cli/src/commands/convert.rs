//! `snapc convert`: checkpoint to artifact.

mod build_record;
mod recipe;
mod report;
mod settings;
mod sizes;
mod stamp;
mod up_to_date;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use snapc_import::Checkpoint;

use snapc_ir::Program;
use snapc_passes::Pipeline;
use snapc_target::manifest::{Manifest, PassEffect};
use snapc_target::{EmitOptions, Progress, VerifiedProgram, schedule};

use crate::args::ConvertArgs;
use crate::calibration;
use crate::commands::passes;
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
use up_to_date::{Build, Input, Recording, Verdict};

/// Converts a checkpoint and reports what was made.
///
/// # Errors
/// When anything stands in the way; nothing is left behind then.
pub fn run(args: &ConvertArgs, output: &Output) -> Result<Exit, Failure> {
    let started = SystemTime::now();
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
        stages::open(&settings.input, &settings.checkpoint)
    })?;
    refuse_to_overwrite(settings.output.as_deref(), &settings.input)?;
    settings.check_depfile_apart(&dependencies(&checkpoint, args, &settings))?;
    let recording = match look_for_changes(&checkpoint, args, &settings, started, output)? {
        Changes::UpToDate => return Ok(Exit::Done),
        Changes::Convert(recording) => Some(recording),
        Changes::NotAsked => None,
    };
    for note in checkpoint.notes() {
        output.note(&format!("note: {note}"));
    }
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
            snapc_import::export(&program, &settings.input, &recipe.changed(), dir)
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
            dependencies: dependencies(&checkpoint, args, &settings),
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
        let record = |r: Recording| r.finish(&manifest.files, &job.dependencies).err();
        if let Some(failure) = recording.and_then(record) {
            let reason = failure.messages().join(": ");
            output.note(&format!("note: the next run converts again: {reason}"));
        }
        report.files = manifest.files.len() + 1;
        report.bytes = manifest.files.iter().map(|f| f.bytes).sum();
    }
    report.stages = clock.0;
    output.result(&report.document(), || report.text())?;
    Ok(Exit::Done)
}

/// Whether there is something to do.
enum Changes {
    /// No: the artifact is up to date, and that has been told.
    UpToDate,
    /// Yes; the conversion will be recorded.
    Convert(Recording),
    /// Nobody asked (`--if-changed`).
    NotAsked,
}

/// Compares what is asked for with the conversion before, if that is asked for.
fn look_for_changes(
    checkpoint: &Checkpoint,
    args: &ConvertArgs,
    settings: &Settings,
    started: SystemTime,
    output: &Output,
) -> Result<Changes, Failure> {
    if !settings.if_changed || args.dry_run || args.list_passes {
        return Ok(Changes::NotAsked);
    }
    let dir = settings.required_output()?;
    let inputs = inputs(checkpoint, settings);
    let mut build = Build::new(dir, settings.deciding.clone(), inputs, started)?;
    match build.check()? {
        Verdict::Changed(reason) => {
            output.note(&format!("converting: {reason}"));
            Ok(Changes::Convert(build.record()))
        }
        Verdict::Unchanged(artifact) => {
            let dependencies = dependencies(checkpoint, args, settings);
            settings.write_depfile(&dependencies)?;
            report::unchanged(settings, &artifact, output)?;
            if let Err(failure) = artifact.refresh(&dependencies) {
                output.note(&format!("note: {}", failure.messages().join(": ")));
            }
            Ok(Changes::UpToDate)
        }
    }
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
    /// What the dependency file names.
    dependencies: Vec<PathBuf>,
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
        // Before the artifact is in place, so that a depfile that cannot be written leaves no artifact.
        self.settings.write_depfile(&self.dependencies)?;
        staging.commit().inspect_err(|_| {
            if let Some(path) = &self.settings.depfile {
                // The failure to commit is the one to report.
                let _ = std::fs::remove_file(path);
            }
        })
    }
}

/// The files whose content decides what the artifact is, named by what they are to the conversion.
fn inputs(checkpoint: &Checkpoint, settings: &Settings) -> Vec<Input> {
    let name = |path: &Path| match path.strip_prefix(&settings.input) {
        Ok(below) => {
            let parts = below.components().map(|c| c.as_os_str().to_string_lossy());
            let parts: Vec<_> = std::iter::once("checkpoint".into()).chain(parts).collect();
            parts.join("/")
        }
        Err(_) => "component-config".to_owned(),
    };
    let files = checkpoint.files().iter().map(|path| (name(path), path));
    let plan = settings
        .plan_file
        .iter()
        .map(|path| ("plan".to_owned(), path));
    let calibration = settings.calibration.iter();
    let calibration = calibration.map(|path| ("calibration".to_owned(), path));
    let inputs = files.chain(plan).chain(calibration);
    let input = |(name, path): (String, &PathBuf)| Input {
        name,
        path: path.clone(),
    };
    inputs.map(input).collect()
}

/// What the dependency file names: the same, and the settings file, which counts by what it says.
fn dependencies(checkpoint: &Checkpoint, args: &ConvertArgs, settings: &Settings) -> Vec<PathBuf> {
    let inputs = inputs(checkpoint, settings).into_iter().map(|i| i.path);
    let mut paths: Vec<PathBuf> = inputs.chain(args.config.clone()).collect();
    paths.sort();
    paths.dedup();
    paths
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
