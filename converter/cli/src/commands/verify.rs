//! `snapc verify`: the manifest's hashes and the target's own rules, read back from disk.

use serde_json::json;
use snapc_target::manifest::Manifest;
use snapc_target::{Finding, check_files};

use crate::args::VerifyArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::targets;

/// Checks an artifact and reports every finding.
///
/// # Errors
/// When the folder is not an artifact or cannot be read.
pub fn run(args: &VerifyArgs, output: &Output) -> Result<Exit, Failure> {
    let dir = &args.artifact;
    let manifest = Manifest::read(dir).map_err(|e| {
        Failure::new(Exit::InvalidInput, e).help("give the folder that `snapc convert -o` wrote")
    })?;
    let target = targets::find(&manifest.target).map_err(|failure| Failure {
        exit: Exit::InvalidInput,
        error: failure.error.context("the manifest is of another snapc"),
        ..failure
    })?;
    let mut findings = check_files(dir, &manifest)?;
    findings.extend(target.verify(dir)?);
    findings.sort();
    findings.dedup();

    let document = json!({
        "command": "verify",
        "target": manifest.target,
        "files": manifest.files.len(),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    });
    output.result(&document, || text(&manifest, &findings))?;
    Ok(if findings.is_empty() {
        Exit::Done
    } else {
        Exit::CheckFailed
    })
}

fn finding(finding: &Finding) -> serde_json::Value {
    json!({
        "rule": finding.rule,
        "file": finding.file,
        "place": finding.place,
        "message": finding.message,
    })
}

fn text(manifest: &Manifest, findings: &[Finding]) -> String {
    let lines: String = findings.iter().map(|f| format!("{f}\n")).collect();
    let files = manifest.files.len();
    match findings.len() {
        0 => format!("{} artifact, {files} files: no findings\n", manifest.target),
        n => format!(
            "{lines}{} artifact, {files} files: {n} finding(s)\n",
            manifest.target
        ),
    }
}
