//! The whole run by Core ML itself, through `snap-run`: the command of the Swift package, which runs artifacts and records
//! runs as reference files. Core ML exists on Apple systems only; what is here runs wherever there is a `snap-run`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use snapc_pipeline::Stage;

use super::comparison::{Bars, Comparison, Row, Subject};
use super::{Recorded, expected, run_rows};
use crate::accuracy::Accuracy;
use crate::args::{EngineArgs, EngineKind, ValidateArgs};
use crate::artifact::Artifact;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::reference_file::{self, Reference};

/// The target whose artifacts Core ML runs.
const TARGET: &str = "coreml";

/// The program, looked for on `PATH`.
const PROGRAM: &str = "snap-run";

/// Environment variable with a path of the program, which counts before `PATH`.
const VARIABLE: &str = "SNAP_RUN";

/// What to do where there is no `snap-run`.
const HELP: &str = "build it on a Mac: `swift build -c release --product snap-run` in targets/coreml/runtime; put it on PATH \
    or name it with SNAP_RUN";

/// The engine of a validation: the one asked for; on a Mac Core ML, for its artifacts, when there is a `snap-run`; else the
/// default of all commands.
pub fn engine(args: &ValidateArgs, artifact: &Artifact, output: &Output) -> EngineKind {
    let asked = args.engine.kind();
    let EngineArgs {
        engine: named,
        threads,
        size: _,
    } = args.engine;
    let is_asked = named.is_some() || threads.is_some() || args.per_node;
    if !cfg!(target_os = "macos") || is_asked || artifact.manifest.target != TARGET {
        return asked;
    }
    if program().is_some() {
        return EngineKind::Coreml;
    }
    output.note("note: Core ML itself is not asked, because snap-run is not on PATH and SNAP_RUN is not set");
    asked
}

/// Compares what Core ML gives with the reference: the embeddings of the recorded tokens, and the run.
///
/// # Errors
/// When the artifact is another one, there is no `snap-run`, it fails, or what it recorded is no such run.
pub fn compare(
    args: &ValidateArgs,
    artifact: &Artifact,
    reference: &Reference,
    bars: Bars,
    interrupt: &Interrupt,
) -> Result<Comparison, Failure> {
    let target = &artifact.manifest.target;
    if target != TARGET {
        let message = format!("Core ML runs {TARGET} artifacts, and this is one of {target}");
        return Err(Failure::usage(message).help("use --engine snap"));
    }
    if args.per_node || args.engine.threads.is_some() {
        let message = "Core ML shows no values inside its networks, and chooses its threads itself";
        return Err(Failure::usage(message).help("use --engine snap for --per-node and --threads"));
    }
    let program =
        program().ok_or_else(|| Failure::usage("there is no snap-run on PATH").help(HELP))?;
    let found = record(&program, args, artifact, reference, interrupt)?;
    let mut rows = Vec::new();
    // With other tokens the embeddings are of another prompt; the row of the tokens tells.
    if !args.run_only && found.input_ids == reference.input_ids {
        rows.push(Row {
            subject: Subject::Call(Stage::TextEncoder),
            accuracy: Accuracy::of(
                &found.text_embeddings,
                expected(reference, Stage::TextEncoder),
            ),
            bar: bars.call,
        });
    }
    let recorded = Recorded {
        input_ids: &found.input_ids,
        steps: &found.steps,
        image: &found.image,
    };
    rows.extend(run_rows(recorded, reference, bars));
    Ok(Comparison { rows })
}

/// Where `snap-run` is.
fn program() -> Option<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    places.find(|place| place.is_file())
}

/// Has `snap-run` make the run of the reference and reads its record.
fn record(
    program: &Path,
    args: &ValidateArgs,
    artifact: &Artifact,
    reference: &Reference,
    interrupt: &Interrupt,
) -> Result<Reference, Failure> {
    let folder = tempfile::tempdir().map_err(|e| Failure::write(&env::temp_dir(), e))?;
    let (saved, picture) = (
        folder.path().join("run.safetensors"),
        folder.path().join("run.png"),
    );
    let settings = &reference.settings;
    let (steps, guidance) = (settings.steps.to_string(), settings.guidance.to_string());
    let mut command = Command::new(program);
    command.arg("generate").arg(&artifact.folder);
    let options: [(&str, OsString); 7] = [
        ("--prompt", settings.prompt.clone().into()),
        ("--negative", settings.negative.clone().into()),
        ("--steps", steps.into()),
        ("--guidance", guidance.into()),
        ("--init-latents", args.reference.clone().into()),
        ("--save", saved.clone().into()),
        ("--output", picture.into()),
    ];
    for (name, value) in options {
        command.arg(name).arg(value);
    }
    if let Some(units) = &args.compute_units {
        command.arg("--compute-units").arg(units);
    }
    if let Some(size) = args.engine.size {
        command.arg("--size").arg(size.to_string());
    }
    // Its results are not ours; what it says beside them goes where ours does.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|source| not_started(program, source))?;
    interrupt.check()?;
    if !status.success() {
        return Err(ended(program, status));
    }
    if fs::symlink_metadata(&saved).is_err() {
        return Err(misrecorded(program, "it left no record of the run"));
    }
    let found = reference_file::read(&saved)?;
    let (own, theirs) = (&found.settings.timesteps, &settings.timesteps);
    if own != theirs {
        let reason = format!("its steps are at {own:?}, those of the reference at {theirs:?}");
        return Err(misrecorded(program, &reason));
    }
    if (found.geometry, found.batch) != (reference.geometry, reference.batch) {
        let (own, theirs) = (found.geometry, reference.geometry);
        let reason = format!("its sizes are {own:?}, those of the reference {theirs:?}");
        return Err(misrecorded(program, &reason));
    }
    Ok(found)
}

fn not_started(program: &Path, source: std::io::Error) -> Failure {
    let is_missing = source.kind() == ErrorKind::NotFound;
    let reason = format!("cannot start '{}'", program.display());
    let failure = Failure::new(Exit::Usage, anyhow::Error::new(source).context(reason));
    match is_missing {
        true => failure.help(HELP),
        false => failure,
    }
}

/// The failure that `snap-run` ended with; its exit codes are ours.
fn ended(program: &Path, status: ExitStatus) -> Failure {
    let exit = match status.code() {
        Some(2) => Exit::Usage,
        Some(3) => Exit::InvalidInput,
        Some(4) => Exit::Unsupported,
        Some(130) => return Failure::interrupted(),
        _ => Exit::Internal,
    };
    let message = format!(
        "'{}' failed ({status}); it says above why",
        program.display()
    );
    Failure::new(exit, anyhow::Error::msg(message))
}

fn misrecorded(program: &Path, reason: &str) -> Failure {
    let message = format!(
        "'{}' did not make the run of the reference: {reason}",
        program.display()
    );
    Failure::new(Exit::InvalidInput, anyhow::Error::msg(message))
}
