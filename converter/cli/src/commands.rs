//! The commands, one file each.

mod bench;
mod bundle;
mod convert;
mod generate;
mod inspect;
mod passes;
mod reference;
mod run;
mod targets;
mod validate;
mod verify;

use crate::args::Command;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Runs a command and gives what the process ends with.
///
/// # Errors
/// When the command could not do what it is for; a check that fails is no error but [`Exit::CheckFailed`].
pub fn run(command: &Command, output: &Output) -> Result<Exit, Failure> {
    match command {
        Command::Convert(args) => convert::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Run(args) => run::run(args, output),
        Command::Validate(args) => validate::run(args, output),
        Command::Reference(args) => reference::run(args, output),
        Command::Bench(args) => bench::run(args, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Bundle(args) => bundle::run(args, output),
        Command::Passes { command } => passes::run(command, output),
        Command::Targets { command } => targets::run(command, output),
        Command::Generate { command } => generate::run(command, output),
    }
}
