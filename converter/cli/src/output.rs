//! Where words go: results to stdout, everything else to stderr.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::args::GlobalArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Version of the JSON documents: raised when a key changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// The streams of one run.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Output {
    /// The streams as the flags want them.
    pub fn new(global: &GlobalArgs) -> Self {
        Output {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// The same with JSON results, when they are wanted or were before.
    pub fn with_json(&self, wanted: bool) -> Self {
        Output {
            json: self.json || wanted,
            ..self.clone()
        }
    }

    /// Whether bars may be drawn: on a terminal, in a run that talks.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }

    /// Prints a result as it is.
    ///
    /// # Errors
    /// When stdout cannot be written; a reader that closed the pipe is no error.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        match written {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Usage,
                anyhow::Error::new(e).context("cannot write to stdout"),
            )),
            _ => Ok(()),
        }
    }

    /// Prints a result: the document with `--json`, else the text.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn result(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.text(&text());
        }
        let document = serde_json::to_value(document)
            .map_err(|e| Failure::new(Exit::Internal, anyhow::Error::new(e)))?;
        self.text(&render(document))
    }

    /// Says something that is no result.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Says something for those who asked for more.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            say(text);
        }
    }

    /// Writes what was asked for beside the result, such as a dump of a graph, to stderr.
    pub fn dump(&self, text: &str) {
        say(text.trim_end());
    }

    /// Reports a failure: on stderr, and with `--json` as the document too.
    pub fn failure(&self, failure: &Failure) {
        let messages = failure.messages();
        for (i, message) in messages.iter().enumerate() {
            say(&format!(
                "{}: {message}",
                if i == 0 { "error" } else { "  because" }
            ));
        }
        if let Some(help) = &failure.help {
            say(&format!("help: {help}"));
        }
        if self.json {
            let error = json!({
                "message": messages.first(),
                "causes": messages.get(1..),
                "help": failure.help,
                "exit_code": failure.exit as u8,
            });
            // The failure's own exit code tells more than one for a closed stdout.
            let _ = self.text(&render(json!({ "error": error })));
        }
    }
}

/// The document with its version in front.
fn render(document: Value) -> String {
    let mut versioned = serde_json::Map::new();
    versioned.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
    match document {
        Value::Object(map) => versioned.extend(map),
        other => {
            versioned.insert("result".to_owned(), other);
        }
    }
    format!("{:#}\n", Value::Object(versioned))
}

fn say(text: &str) {
    // Nothing can be done about a stderr that cannot be written.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_start_with_their_version() {
        let text = render(json!({ "a": [] }));
        assert_eq!(text, "{\n  \"schema_version\": 1,\n  \"a\": []\n}\n");
    }
}
