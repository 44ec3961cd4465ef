//! What a conversion is asked to do, after flags, settings file and defaults have been put together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snapc_ir::{About, DType, Program};
use snapc_target::manifest::FILE_NAME;
use snapc_target::{EmitOptions, IOS_VERSIONS, Precision, Target, WeightForm, alternatives};

use crate::args::{CheckpointArgs, ConvertArgs, ConvertFlags, Sizes};
use crate::config;
use crate::depfile;
use crate::failure::Failure;
use crate::targets;

use super::recipe::{self, Recipe};

/// What a conversion is asked to do.
pub struct Settings {
    /// What to convert.
    pub input: PathBuf,
    /// What to write.
    pub target: &'static dyn Target,
    /// Where to; may be absent in a dry run.
    pub output: Option<PathBuf>,
    /// How it is written.
    pub emit: EmitOptions,
    /// What is done to the graphs.
    pub recipe: Recipe,
    /// The file that the plan is read from, when it is.
    pub plan_file: Option<PathBuf>,
    /// Reference file with inputs to run the graphs on.
    pub calibration: Option<PathBuf>,
    /// Where the changed checkpoint goes.
    pub export: Option<PathBuf>,
    /// What people are told about the model, in place of what the checkpoint says.
    pub about: About,
    /// How the checkpoint is read.
    pub checkpoint: CheckpointArgs,
    /// Where the Makefile rule goes.
    pub depfile: Option<PathBuf>,
    /// Whether an existing artifact is replaced.
    pub force: bool,
    /// Whether nothing is done when the artifact is up to date.
    pub if_changed: bool,
    /// The flags that decide what the artifact is, by name; files that they name count by their content.
    pub deciding: BTreeMap<String, String>,
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
        let Some(input) = flags.checkpoint.clone() else {
            return Err(Failure::usage("no checkpoint is given")
                .help("name a folder or file, or set `checkpoint` in the settings file"));
        };
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
            weights: stored_form(&flags)?,
            interface: flags.interface.unwrap_or(defaults.interface),
            min_ios: flags.min_ios.or(target.default_min_ios()),
            attention: flags.attention.unwrap_or(defaults.attention),
            steps: flags.steps.unwrap_or(defaults.steps),
            guidance: flags.guidance.unwrap_or(defaults.guidance),
            chunk_unet: flags.chunk_unet,
            image_output: flags.image_output,
            sizes: sizes(&flags)?,
            batch: defaults.batch,
        };
        // A settings file is not read by clap, whose choices hold for flags only.
        if let Some(version) = emit.min_ios.filter(|v| !IOS_VERSIONS.contains(v)) {
            let message = format!("min-ios {version} is not supported");
            let help = format!("choose {}", alternatives(&IOS_VERSIONS));
            return Err(Failure::usage(message).help(help));
        }
        if !emit.guidance.is_finite() {
            return Err(Failure::usage("the guidance scale is not a finite number"));
        }
        let recipe = Recipe {
            passes: flags.passes.clone(),
            plan: flags.plan.as_deref().map(recipe::plan).transpose()?,
            prune_vae: flags.prune_vae,
            level: flags.optimize.unwrap_or(DEFAULT_LEVEL),
            target: target.name(),
            precision: emit.precision,
            weights: emit.weights,
            keep_f32: flags.keep_f32.clone(),
            weight_budget: flags
                .weight_budget
                .as_deref()
                .map(recipe::weight_budget)
                .transpose()?,
            interface: emit.interface,
        };
        check_together(&flags)?;
        let settings = Settings {
            input,
            target,
            emit,
            recipe,
            plan_file: plan_file(&flags),
            calibration: flags.calibration.clone(),
            export: flags.export_checkpoint.clone(),
            about: about(&flags)?,
            checkpoint: flags.checkpoint_args(),
            deciding: deciding(&flags, args.pass_limit),
            output: flags.output,
            depfile: flags.depfile,
            force: flags.force || flags.if_changed,
            if_changed: flags.if_changed,
        };
        if !args.dry_run && !args.list_passes {
            settings.check_depfile(settings.required_output()?)?;
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

    /// Refuses a dependency file in the artifact, whose folder is replaced as a whole.
    fn check_depfile(&self, dir: &Path) -> Result<(), Failure> {
        let Some(path) = &self.depfile else {
            return Ok(());
        };
        let absolute = |path| std::path::absolute(path).map_err(|e| Failure::read(path, e));
        if absolute(path)?.starts_with(absolute(dir)?) {
            let message = format!("the depfile '{}' lies in the artifact", path.display());
            return Err(Failure::usage(message).help("write it elsewhere"));
        }
        Ok(())
    }

    /// Refuses a dependency file that would overwrite a file which it names.
    ///
    /// # Errors
    /// A usage failure.
    pub fn check_depfile_apart(&self, dependencies: &[PathBuf]) -> Result<(), Failure> {
        let existing = self.depfile.as_ref().and_then(|p| p.canonicalize().ok());
        let mut dependencies = dependencies.iter().filter_map(|p| p.canonicalize().ok());
        match existing.filter(|depfile| dependencies.any(|path| path == *depfile)) {
            None => Ok(()),
            Some(path) => {
                let shown = path.display();
                let message = format!("the artifact is made from '{shown}', which is the depfile");
                Err(Failure::usage(message).help("write it elsewhere"))
            }
        }
    }

    /// Writes the dependency file, if one is asked for; one that says the same stays as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_depfile(&self, dependencies: &[PathBuf]) -> Result<(), Failure> {
        let (Some(path), Some(dir)) = (&self.depfile, &self.output) else {
            return Ok(());
        };
        let rule = depfile::rule(&dir.join(FILE_NAME), dependencies);
        if std::fs::read(path).is_ok_and(|found| found == rule) {
            return Ok(());
        }
        std::fs::write(path, rule).map_err(|e| Failure::write(path, e))
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

/// The flags of [`Settings::deciding`] as words, which a record gives back as they were. One that is given counts as another
/// than none, even where it gives the default.
fn deciding(flags: &ConvertFlags, pass_limit: Option<usize>) -> BTreeMap<String, String> {
    // Those that do not decide, or name a file whose content does.
    let deciding = ConvertFlags {
        checkpoint: None,
        output: None,
        plan: flags.plan.clone().filter(|_| plan_file(flags).is_none()),
        calibration: None,
        export_checkpoint: None,
        component_config: None,
        depfile: None,
        force: false,
        if_changed: false,
        ..flags.clone()
    };
    let value = serde_json::to_value(deciding).expect("the flags but for paths are words");
    let Value::Object(given) = value else {
        unreachable!("flags are a struct");
    };
    let word = |value| match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(word) => Some(word),
        other => Some(other.to_string()),
    };
    let given = given.into_iter();
    let mut words: BTreeMap<_, _> = given
        .filter_map(|(name, value)| Some((name, word(value)?)))
        .collect();
    words.extend(pass_limit.map(|limit| ("pass-limit".to_owned(), limit.to_string())));
    words
}

/// The file that `--plan` names, if it is not a word.
fn plan_file(flags: &ConvertFlags) -> Option<PathBuf> {
    let plan = flags.plan.as_deref();
    plan.and_then(recipe::plan_file).map(Path::to_owned)
}

/// The optimization level when none is given.
const DEFAULT_LEVEL: u8 = 2;

/// The sizes of an artifact for several of them.
fn sizes(flags: &ConvertFlags) -> Result<Vec<[usize; 2]>, Failure> {
    let Some(Sizes(sizes)) = &flags.sizes else {
        return Ok(Vec::new());
    };
    if flags.size.is_some() {
        return Err(
            Failure::usage("--size and --sizes both say how large the pictures are")
                .help("give one or the other"),
        );
    }
    if flags.calibration.is_some() && sizes.len() > 1 {
        let message = "--calibration has inputs of one size, and --sizes asks for several";
        return Err(Failure::usage(message).help("convert once for each size"));
    }
    Ok(sizes.iter().map(|s| [s.height, s.width]).collect())
}

/// What the flags state about the model.
fn about(flags: &ConvertFlags) -> Result<About, Failure> {
    let statement = |flag: &str, text: &Option<String>| {
        let Some(text) = text else {
            return Ok(None);
        };
        match About::statement(text) {
            Ok(Some(statement)) => Ok(Some(statement)),
            Ok(None) => Err(Failure::usage(format!("{flag} is empty")).help("leave it out")),
            Err(error) => Err(Failure::usage(format!("{flag}: {error}"))),
        }
    };
    Ok(About {
        description: statement("--description", &flags.description)?,
        author: statement("--author", &flags.author)?,
        license: statement("--license", &flags.license)?,
        version: statement("--model-version", &flags.model_version)?,
    })
}

/// How weights are stored, when the precision does not say it.
fn stored_form(flags: &ConvertFlags) -> Result<Option<WeightForm>, Failure> {
    let precision = flags.precision.unwrap_or(EmitOptions::default().precision);
    match flags.weights {
        Some(WeightForm::F32) if precision != Precision::F32 => {
            Err(Failure::usage("weights in f32 need activations in f32")
                .help("give --precision f32"))
        }
        Some(WeightForm::F16) if precision != Precision::F16 => {
            Err(Failure::usage("weights in f16 need activations in f16")
                .help("give --precision f16, or leave --weights out"))
        }
        Some(WeightForm::F32 | WeightForm::F16) | None => Ok(None),
        other => Ok(other),
    }
}

/// Refuses flags of which one would be ignored.
fn check_together(flags: &ConvertFlags) -> Result<(), Failure> {
    let passes = [
        ("--plan", flags.plan.is_some()),
        ("--prune-vae", flags.prune_vae.is_some()),
        ("--optimize", flags.optimize.is_some()),
        ("--weights", flags.weights.is_some()),
        ("--keep-f32", flags.keep_f32.is_some()),
        ("--export-checkpoint", flags.export_checkpoint.is_some()),
    ];
    if let (Some(_), Some((flag, _))) = (&flags.passes, passes.iter().find(|(_, given)| *given)) {
        let message = format!("{flag} chooses passes, and --passes names them all");
        return Err(Failure::usage(message).help("give one or the other"));
    }
    if flags.weight_budget.is_some() != (flags.weights == Some(WeightForm::Mixed)) {
        return Err(Failure::usage(
            "--weights mixed and --weight-budget go together",
        ));
    }
    if flags.keep_f32.is_some() && flags.precision == Some(Precision::F32) {
        return Err(
            Failure::usage("--keep-f32 names layers, and --precision f32 keeps them all")
                .help("give one or the other"),
        );
    }
    if flags.export_checkpoint.is_some() && flags.if_changed {
        let message = "--export-checkpoint writes a new folder, and --if-changed may write nothing";
        return Err(Failure::usage(message).help("export in a run of its own"));
    }
    if flags.export_checkpoint.is_some() && flags.plan.is_none() && flags.prune_vae.is_none() {
        let message =
            "--export-checkpoint writes what --plan and --prune-vae make, and neither is given";
        return Err(Failure::usage(message));
    }
    Ok(())
}

/// f16 when weights of the checkpoint are; some may be kept in f32.
fn precision_of(program: &Program) -> Precision {
    let mut parameters = program
        .graphs
        .iter()
        .flat_map(|g| g.weights())
        .filter(|w| w.is_parameter);
    if parameters.any(|w| w.tensor.dtype() == DType::F16) {
        Precision::F16
    } else {
        Precision::F32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_name_places_do_not_decide() {
        let flags = ConvertFlags {
            checkpoint: Some("in".into()),
            output: Some("out".into()),
            depfile: Some("out.d".into()),
            steps: Some(4),
            precision: Some(Precision::F32),
            plan: Some("plan.json".to_owned()),
            calibration: Some("reference.safetensors".into()),
            export_checkpoint: Some("exported".into()),
            component_config: Some("parts.json".into()),
            force: true,
            if_changed: true,
            ..ConvertFlags::default()
        };
        let known = |flags: &ConvertFlags| {
            let names = deciding(flags, Some(3)).into_keys();
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(known(&flags), "pass-limit precision steps");
        let named = ConvertFlags {
            plan: Some("snapfusion".to_owned()),
            ..flags
        };
        assert_eq!(known(&named), "pass-limit plan precision steps");
        assert_eq!(deciding(&named, None)["precision"], "f32");
    }

    #[test]
    fn words_of_a_record_are_those_that_were_written() {
        // Numbers that a reader of JSON gives back only when it rounds once.
        let flags = ConvertFlags {
            guidance: Some(0.46),
            prune_vae: Some(0.1 + 0.2),
            ..ConvertFlags::default()
        };
        let words = deciding(&flags, None);
        assert_eq!(words["guidance"], "0.46000000834465027");
        let text = serde_json::to_string(&words).unwrap();
        let read: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, words);
    }

    #[cfg(unix)]
    #[test]
    fn paths_may_be_any_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let path = || Some(std::ffi::OsString::from_vec(vec![b'a', 0xff]).into());
        let flags = ConvertFlags {
            checkpoint: path(),
            output: path(),
            calibration: path(),
            export_checkpoint: path(),
            component_config: path(),
            depfile: path(),
            ..ConvertFlags::default()
        };
        assert!(deciding(&flags, None).is_empty());
    }
}
