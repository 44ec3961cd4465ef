//! What a conversion is asked to do, after flags, settings file and defaults have been put together.

use std::path::{Path, PathBuf};

use snapc_ir::{DType, Program};
use snapc_target::{EmitOptions, Precision, Target};

use crate::args::{CheckpointArgs, ConvertArgs};
use crate::config;
use crate::failure::Failure;
use crate::targets;

/// What a conversion is asked to do.
pub struct Settings {
    /// What to write.
    pub target: &'static dyn Target,
    /// Where to; may be absent in a dry run.
    pub output: Option<PathBuf>,
    /// How it is written.
    pub emit: EmitOptions,
    /// The passes, when not the default ones.
    pub passes: Option<String>,
    /// How the checkpoint is read.
    pub checkpoint: CheckpointArgs,
    /// Where the Makefile rule goes.
    pub depfile: Option<PathBuf>,
    /// Whether an existing artifact is replaced.
    pub force: bool,
}

impl Settings {
    /// Flags, then the settings file, then defaults.
    ///
    /// # Errors
    /// When the file is wrong, or what has no default is given nowhere.
    pub fn resolve(args: &ConvertArgs) -> Result<Self, Failure> {
        let mut flags = args.flags.clone();
        if let Some(path) = &args.config {
            flags = flags.or(config::read(path)?);
        }
        let Some(target) = flags.target.as_deref() else {
            let known = targets::names().collect::<Vec<_>>().join(", ");
            return Err(
                Failure::usage("no target is given").help(format!("--target takes one of {known}"))
            );
        };
        let target = targets::find(target)?;
        let defaults = EmitOptions::default();
        let emit = EmitOptions {
            precision: flags.precision.unwrap_or(defaults.precision),
            interface: flags.interface.unwrap_or(defaults.interface),
            min_ios: flags.min_ios.or(target.default_min_ios()),
            attention: flags.attention.unwrap_or(defaults.attention),
            steps: flags.steps.unwrap_or(defaults.steps),
            guidance: flags.guidance.unwrap_or(defaults.guidance),
            chunk_unet: defaults.chunk_unet,
            batch: defaults.batch,
        };
        // A settings file is not read by clap, whose ranges hold for flags only.
        if let Some(version) = emit.min_ios.filter(|v| !(16..=18).contains(v)) {
            let message = format!("min-ios {version} is not supported");
            return Err(Failure::usage(message).help("choose 16, 17 or 18"));
        }
        if !emit.guidance.is_finite() {
            return Err(Failure::usage("the guidance scale is not a finite number"));
        }
        let settings = Settings {
            target,
            emit,
            passes: flags.passes.clone(),
            checkpoint: flags.checkpoint(),
            output: flags.output,
            depfile: flags.depfile,
            force: flags.force,
        };
        if !args.dry_run {
            settings.required_output()?;
        }
        Ok(settings)
    }

    /// Where to write.
    ///
    /// # Errors
    /// When it is given nowhere.
    pub fn required_output(&self) -> Result<&Path, Failure> {
        let missing = || Failure::usage("no output is given").help("-o names the folder to write");
        self.output.as_deref().ok_or_else(missing)
    }

    /// The options for a program that has gone through the passes: their precision is what the passes made of it.
    ///
    /// # Errors
    /// When that is not the one asked for, unless the passes were cut short on purpose.
    pub fn emit_for(&self, program: &Program, cut_short: bool) -> Result<EmitOptions, Failure> {
        let precision = precision_of(program);
        let asked = self.emit.precision;
        if precision != asked && !cut_short {
            let message = format!(
                "the passes leave the weights in {precision}, but the precision is {asked}"
            );
            let help = format!(
                "put cast-precision{{to={asked}}} in --passes, or give --precision {precision}"
            );
            return Err(Failure::usage(message).help(help));
        }
        Ok(EmitOptions {
            precision,
            ..self.emit.clone()
        })
    }
}

/// f16 when all weights of the checkpoint are.
fn precision_of(program: &Program) -> Precision {
    let mut parameters = program
        .graphs
        .iter()
        .flat_map(|g| g.weights())
        .filter(|w| w.is_parameter);
    if parameters.all(|w| w.tensor.dtype() == DType::F16) {
        Precision::F16
    } else {
        Precision::F32
    }
}
