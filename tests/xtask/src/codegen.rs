//! Documents generated from the source: the command reference and the pass reference; and the page of measured effects,
//! from its figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::effects;
use crate::process::say;

/// Writes the documents, or with `check` only compares them.
///
/// # Errors
/// When one cannot be written, or with `check` when one is out of date.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    let mut documents = documents();
    documents.insert(effects::PAGE.to_owned(), effects::page(root)?);
    for (path, text) in documents {
        let full = root.join(&path);
        if fs::read_to_string(&full).is_ok_and(|found| found == text) {
            continue;
        }
        if check {
            stale.push(path);
            continue;
        }
        let folder = full.parent().expect("every document lies in docs");
        fs::create_dir_all(folder).with_context(|| path.clone())?;
        fs::write(&full, text).with_context(|| path.clone())?;
        say(&format!("wrote {path}"));
    }
    if !stale.is_empty() {
        bail!(
            "out of date: {}; run `cargo xtask codegen`",
            stale.join(", ")
        );
    }
    Ok(())
}

/// Every generated document by path.
fn documents() -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    let mut command = snapc_cli::command().term_width(100);
    command.build();
    let mut index = format!("{NOTICE}# Commands\n\n{}\n\n", block(&mut command.clone()));
    for sub in command.get_subcommands() {
        let name = sub.get_name();
        let _ = writeln!(index, "* [`snapc {name}`]({name}.md): {}", about(sub));
        documents.insert(format!("docs/cli/{name}.md"), page(sub));
    }
    documents.insert("docs/cli/README.md".to_owned(), index);
    documents.insert("docs/passes.md".to_owned(), passes());
    documents
}

const NOTICE: &str = "<!-- Written by `cargo xtask codegen` from the source; do not edit. -->\n\n";

fn about(command: &clap::Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn page(command: &clap::Command) -> String {
    let mut text = format!(
        "{NOTICE}# snapc {}\n\n{}\n",
        command.get_name(),
        block(&mut command.clone())
    );
    for sub in command.get_subcommands() {
        let name = format!("snapc {} {}", command.get_name(), sub.get_name());
        let _ = write!(text, "\n## {name}\n\n{}\n", block(&mut sub.clone()));
    }
    text
}

fn block(command: &mut clap::Command) -> String {
    let help = command
        .clone()
        .term_width(100)
        .render_long_help()
        .to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    format!("```text\n{}\n```", lines.join("\n"))
}

fn passes() -> String {
    let mut text = format!(
        "{NOTICE}# Passes\n\nA pipeline is a list of passes, given to `snapc convert --passes` in full or by name.\n"
    );
    text.push_str("\n| Pipeline | For | Passes |\n|---|---|---|\n");
    for pipeline in snapc_passes::NAMED_PIPELINES {
        let passes: Vec<String> = pipeline
            .passes
            .split(',')
            .filter(|p| !p.is_empty())
            .map(|p| format!("`{p}`"))
            .collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            pipeline.name,
            pipeline.description,
            passes.join(", ")
        );
    }
    for info in snapc_passes::all() {
        let documentation = info.documentation();
        let _ = write!(text, "\n## {}\n\n{}\n", info.name, documentation.summary);
        for (role, properties) in [
            ("Requires", info.requires),
            ("Establishes", info.establishes),
            ("Invalidates", info.invalidates),
        ] {
            if !properties.is_empty() {
                let names: Vec<String> = properties.iter().map(|p| format!("`{p}`")).collect();
                let _ = write!(text, "\n{role}: {}\n", names.join(", "));
            }
        }
        for (heading, body) in &documentation.sections {
            let _ = write!(text, "\n### {heading}\n\n{body}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_documents_are_fresh() {
        run(&crate::workspace_root(), true).unwrap();
    }
}
