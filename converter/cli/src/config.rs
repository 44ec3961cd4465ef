//! The settings file of `convert`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::args::ConvertFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::suggest;

/// Reads a settings file. Paths in it are taken relative to its folder.
///
/// # Errors
/// When it cannot be read, is not TOML, or has an unknown key or a value of the wrong kind (a usage failure that names
/// the line).
pub fn read(path: &Path) -> Result<ConvertFlags, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| {
        let failure = Failure::read(path, source);
        Failure {
            exit: Exit::Usage,
            ..failure
        }
    })?;
    let mut flags = parse(&text).map_err(|failure| Failure {
        error: failure
            .error
            .context(format!("settings file '{}'", path.display())),
        ..failure
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let resolve = |p: PathBuf| folder.join(p);
    flags.checkpoint = flags.checkpoint.map(resolve);
    flags.output = flags.output.map(resolve);
    flags.component_config = flags.component_config.map(resolve);
    flags.depfile = flags.depfile.map(resolve);
    flags.calibration = flags.calibration.map(resolve);
    flags.export_checkpoint = flags.export_checkpoint.map(resolve);
    // A word names a plan, everything else a file.
    flags.plan = flags.plan.map(|plan| match plan.ends_with(".json") {
        true => resolve(plan.into()).to_string_lossy().into_owned(),
        false => plan,
    });
    Ok(flags)
}

fn parse(text: &str) -> Result<ConvertFlags, Failure> {
    let table: toml::Table = text
        .parse()
        .map_err(|e| Failure::new(Exit::Usage, anyhow::Error::new(e)))?;
    let known = keys();
    if let Some(key) = table.keys().find(|key| !known.contains(*key)) {
        let failure = Failure::usage(format!("unknown key '{key}'"));
        return Err(
            match suggest::nearest(key, known.iter().map(String::as_str)) {
                Some(near) => failure.help(format!("did you mean '{near}'?")),
                None => failure.help(format!("the keys are {}", known.join(", "))),
            },
        );
    }
    toml::from_str(text).map_err(|e| Failure::new(Exit::Usage, anyhow::Error::new(e)))
}

/// The keys: the long flags, and the checkpoint.
fn keys() -> Vec<String> {
    let command = ConvertFlags::augment_args(clap::Command::new("keys"));
    let key = |a: &clap::Arg| a.get_long().unwrap_or(a.get_id().as_str()).to_owned();
    command.get_arguments().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Size;

    #[test]
    fn every_flag_is_a_key() {
        let text = "checkpoint = 'c'\nif-changed = true\ntarget = 'onnx'\noutput = 'o'\nprecision = 'f32'\nsteps = 4\nguidance = 7\nsize = '64x128'\n\
            interface = 'apple'\nmin-ios = 18\nattention = 'sdpa'\npasses = 'a'\ncomponent-config = 'c'\n\
            prediction-type = 'v_prediction'\ndepfile = 'd'\nforce = true\nweights = 'mixed'\n\
            weight-budget = '600MB'\nplan = 'p'\nprune-vae = 0.5\ncalibration = 'r'\nexport-checkpoint = 'e'\noptimize = 1\nkeep-f32 = 'auto'\nchunk-unet = true\nimage-output = true\nsizes = '64,128'\n\
            author = 'a'\nlicense = 'l'\nmodel-version = '1'\ndescription = 'd'\n";
        let flags = parse(text).map_err(|f| f.messages()).unwrap();
        let size = Size {
            height: 64,
            width: 128,
        };
        assert_eq!(
            (flags.size, flags.min_ios, flags.force),
            (Some(size), Some(18), true)
        );
        assert_eq!(text.lines().count(), keys().len());
    }

    #[test]
    fn a_misspelt_key_is_an_error_with_a_suggestion() {
        let failure = parse("precison = 'f16'").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.help.as_deref(), Some("did you mean 'precision'?"));
    }

    #[test]
    fn a_wrong_value_is_a_usage_error() {
        for text in [
            "precision = 'f8'",
            "steps = 'many'",
            "size = 0",
            "min-ios = -1",
            "= 3",
        ] {
            assert_eq!(parse(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
