//! The command line of snapc: arguments, reports, exit codes and the safe writing of artifacts. It wires the importer,
//! the passes and the targets and holds no rule of the compiler itself.
//!
//! Entry points are [`main`], which runs the process's own arguments, and [`command`], the description that help,
//! completions, man pages and `docs/cli` are made from.
//!
//! ```
//! let command = snapc_cli::command();
//! assert!(command.find_subcommand("convert").is_some());
//! ```

#![forbid(unsafe_code)]

mod accuracy;
mod args;
mod artifact;
mod calibration;
mod commands;
mod config;
mod depfile;
mod effects;
mod engines;
mod exit;
mod failure;
mod interrupt;
mod output;
mod progress;
mod recorder;
mod reference_file;
mod staged_file;
mod stages;
mod staging;
mod suggest;
mod table;
mod targets;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

pub use exit::Exit;

use args::Cli;
use output::Output;

/// The description of the command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the process's own arguments.
pub fn main() -> ExitCode {
    run(std::env::args_os()).into()
}

/// Runs one command line, the first word being the program's name; results go to stdout, all else to stderr.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    exit::install_panic_hook();
    let parsed = command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return exit::report_usage(&error),
    };
    let output = Output::new(&cli.global);
    let result = exit::catch_panic(|| commands::run(&cli.command, &output));
    match result {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => {
            output.failure(&failure);
            failure.exit
        }
        Err(()) => Exit::Internal,
    }
}
