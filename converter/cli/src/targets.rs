//! The list of targets. A new target is one line here.

use clap::builder::PossibleValuesParser;
use snapc_target::Target;

use crate::failure::Failure;
use crate::suggest;

/// Every target, in the order they are listed.
pub static TARGETS: &[&dyn Target] = &[
    &snapc_coreml::CoreMl,
    &snapc_native::Native,
    &snapc_onnx::OnnxTarget,
];

/// The names on the command line.
pub fn names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|t| t.name())
}

/// The target that is meant when none is named.
pub fn default_name() -> &'static str {
    TARGETS[0].name()
}

/// A parser of target names, so that help and completions list them.
pub fn parser() -> PossibleValuesParser {
    PossibleValuesParser::new(names())
}

/// The target of that name.
///
/// # Errors
/// A usage failure that names the targets there are.
pub fn find(name: &str) -> Result<&'static dyn Target, Failure> {
    let found = TARGETS.iter().copied().find(|t| t.name() == name);
    found.ok_or_else(|| {
        let failure = Failure::usage(format!("no target is called '{name}'"));
        match suggest::nearest(name, names()) {
            Some(near) => failure.help(format!("did you mean '{near}'?")),
            None => failure.help(format!(
                "the targets are {}",
                names().collect::<Vec<_>>().join(", ")
            )),
        }
    })
}
