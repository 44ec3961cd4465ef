//! Running programs.

use std::io::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Says something on stderr.
pub fn say(text: &str) {
    // Nothing can be done about a stderr that cannot be written.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Shows and runs a program and waits for it.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    say(&format!("+ {shown}"));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
