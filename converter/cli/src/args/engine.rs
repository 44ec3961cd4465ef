//! What runs an artifact's networks; the same for every command that runs one.

use clap::{Args, ValueEnum};

use super::Size;

/// What runs an artifact's networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// snapc's own runtime, for every artifact
    #[default]
    Snap,
    /// ONNX Runtime, for ONNX artifacts; ORT_DYLIB_PATH names its library
    Ort,
    /// The reference evaluator: an artifact read back and computed operator by operator in f32, slowly
    Evaluator,
    /// Core ML itself, for Core ML artifacts and with `validate` only, through snap-run on PATH or as SNAP_RUN names it
    Coreml,
}

impl EngineKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Snap => "snap",
            EngineKind::Ort => "ort",
            EngineKind::Evaluator => "evaluator",
            EngineKind::Coreml => "coreml",
        }
    }
}

/// What runs an artifact's networks, and how.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct EngineArgs {
    /// What runs the networks [default: snap; coreml for `validate` on a Mac with snap-run]
    #[arg(long, value_enum)]
    pub engine: Option<EngineKind>,
    /// Size of the picture in pixels, N or HxW, of those that the artifact has [default: its first]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Threads that compute [default: one per processor]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,
}

impl EngineArgs {
    /// The engine asked for, or the default one.
    pub fn kind(self) -> EngineKind {
        self.engine.unwrap_or_default()
    }
}

/// A number of at least one.
pub fn positive(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("expected a whole number, 1 or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_called_as_on_the_command_line() {
        for kind in EngineKind::value_variants() {
            let shown = kind.to_possible_value().expect("none is hidden");
            assert_eq!(shown.get_name(), kind.name());
        }
    }

    #[test]
    fn no_threads_are_too_few() {
        assert_eq!(positive("2"), Ok(2));
        assert!(positive("0").is_err() && positive("-1").is_err());
    }
}
