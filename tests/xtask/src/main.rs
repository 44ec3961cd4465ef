//! Chores of the workspace: Python environments for the foreign readers, Swift, the whole test run, fuzzing, generated
//! documents. Call it as `cargo xtask COMMAND`.

#![forbid(unsafe_code)]

mod codegen;
mod effects;
mod environment;
mod fuzz;
mod process;
mod steps;
mod swift;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the snapc workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the Python environments that the tests use, under .cache, and see that valgrind is there; nothing is installed
    /// elsewhere, except that root on Debian gets the packages that are missing
    Setup {
        /// Also the large environment with PyTorch and cargo-fuzz, for the checks of `test --all`
        #[arg(long)]
        all: bool,
    },
    /// Run all tests; makes the environments first
    Test {
        /// Also the checks that need PyTorch, and a short run of the fuzz targets
        #[arg(long)]
        all: bool,
    },
    /// Run the tests of the Swift package and its plugins, or a command of swift on the package; makes a Debian with Swift under
    /// .cache where root on Linux has none
    Swift {
        /// Subcommand and arguments, such as `build` or `test --filter SnapCoreTests`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run fuzz targets of tests/fuzz; what they learn is kept under .cache
    Fuzz {
        /// Which; all unless named
        targets: Vec<String>,
        /// Inputs that each target tries
        #[arg(long, default_value_t = 1_000_000)]
        runs: u64,
    },
    /// Write the documents that are generated from the source: docs/cli and docs/passes.md
    Codegen {
        /// Write nothing and fail when one is out of date
        #[arg(long)]
        check: bool,
    },
    /// Measure what every pass does for every target and write docs/pass-effects.md
    Effects {
        /// Cases whose names hold one of these words; all unless given
        only: Vec<String>,
        /// On the full-size checkpoint under .cache instead of the fixture
        #[arg(long)]
        full: bool,
        /// Only the conversions, on an idle machine: the times are new, the PSNRs stay
        #[arg(long)]
        times: bool,
    },
    /// All that has to pass before a change goes in
    Ci,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup { all } => environment::setup(&workspace_root(), all),
        Command::Test { all } => steps::test(&workspace_root(), all),
        Command::Swift { arguments } => match arguments.split_first() {
            Some((subcommand, rest)) => swift::swift(&workspace_root(), subcommand, rest),
            None => swift::test(&workspace_root()),
        },
        Command::Fuzz { targets, runs } => fuzz::fuzz(&workspace_root(), &targets, runs),
        Command::Codegen { check } => codegen::run(&workspace_root(), check),
        Command::Effects { only, full, times } => {
            effects::measure(&workspace_root(), full, times, &only)
        }
        Command::Ci => steps::ci(&workspace_root()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("the crate lies two folders deep")
        .to_owned()
}
