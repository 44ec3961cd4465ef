//! The `snapc` binary; everything is in the library beside it, so that the generated documents and the tests see the
//! same command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    snapc_cli::main()
}
