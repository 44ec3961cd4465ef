//! The `snapc` command, built by this package so that its tests are given the path of an up-to-date binary.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    snapc_cli::main()
}
