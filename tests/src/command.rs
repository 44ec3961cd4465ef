//! Running the command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command under test.
#[derive(Clone, Debug)]
pub struct Snapc {
    binary: PathBuf,
    folder: PathBuf,
}

/// What a run said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Exit code; `None` when a signal ended the process.
    pub exit: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Snapc {
    /// The command at `binary` (tests give `env!("CARGO_BIN_EXE_snapc-under-test")`), run in `folder`.
    pub fn new(binary: &str, folder: &Path) -> Self {
        Snapc {
            binary: binary.into(),
            folder: folder.to_owned(),
        }
    }

    /// The command with its arguments, separated by blanks, to be changed further.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments.split_whitespace())
            .current_dir(&self.folder);
        // The width that help is wrapped to must not depend on the terminal.
        command.env("COLUMNS", "100").env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the command with its arguments, separated by blanks.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run(&self, arguments: &str) -> Run {
        let output = self.command(arguments).output();
        output.expect("the binary under test starts").into()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            exit: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Run {
    /// Exit code, stdout and stderr as one text for snapshots, with `replacements` made.
    pub fn transcript(&self, replacements: &[(&str, &str)]) -> String {
        let exit = self
            .exit
            .map_or("signal".to_owned(), |code| code.to_string());
        let mut text = format!(
            "exit: {exit}\n--- stdout\n{}--- stderr\n{}",
            self.stdout, self.stderr
        );
        for (from, to) in replacements {
            text = text.replace(from, to);
        }
        text
    }
}
