//! Checks packages on disk, as the system would read them: [`RULES`] that coremltools' loader does not check, and the
//! ones it does, so that a package can be checked without it.
//!
//! Reads with code of its own and holds nothing the lowering has computed. Whatever the bytes are, the answer is a list
//! of findings, never a panic.

mod blobs;
mod constant;
mod constexpr;
mod description;
mod function;
mod manifest;
mod operation;
mod rules;
mod shape;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::Path;

use prost::Message;
use snapc_target::{Finding, TargetError};

use crate::level::Level;
use crate::names::is_identifier;
use crate::package::{DATA, MODEL};
use crate::proto::Model;
pub use rules::{RULES, Rule};

/// Larger model files are refused unread; weights are not in them.
const MAX_MODEL_BYTES: u64 = 1 << 28;

/// What has been found so far in one file.
struct Report {
    file: String,
    /// The function that is looked at, which places begin with; empty outside of functions.
    function: String,
    findings: Vec<Finding>,
}

impl Report {
    fn new(file: String) -> Self {
        Report {
            file,
            function: String::new(),
            findings: Vec::new(),
        }
    }

    /// A place with the function that it lies in.
    fn place(&self, place: &str) -> String {
        match (self.function.as_str(), place) {
            ("", place) => place.to_owned(),
            (function, "") => format!("function '{function}'"),
            (function, place) => format!("function '{function}', {place}"),
        }
    }

    fn add(&mut self, rule: &'static str, place: impl AsRef<str>, message: impl Into<String>) {
        self.findings.push(Finding {
            rule,
            file: self.file.clone(),
            place: self.place(place.as_ref()),
            message: message.into(),
        });
    }
}

/// Checks every package of an artifact and gives all findings, sorted.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn verify(dir: &Path) -> Result<Vec<Finding>, TargetError> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).map_err(TargetError::io(dir))? {
        let entry = entry.map_err(TargetError::io(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".mlpackage") {
            packages.push(name);
        }
    }
    packages.sort();
    let mut findings = Vec::new();
    if packages.is_empty() {
        let mut report = Report::new(".".to_owned());
        report.add(rules::PACKAGES, "", "no .mlpackage folder");
        findings.extend(report.findings);
    }
    for name in packages {
        findings.extend(package(dir, &name));
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// Checks one package, wherever it lies, and gives all findings, sorted. Their files begin with the name of its folder.
pub fn check(package_folder: &Path) -> Vec<Finding> {
    let name = package_folder.file_name().unwrap_or_default();
    let dir = match name.is_empty() {
        true => package_folder,
        false => package_folder.parent().unwrap_or(package_folder),
    };
    let mut findings = package(dir, &name.to_string_lossy());
    findings.sort();
    findings.dedup();
    findings
}

/// Checks one package.
fn package(dir: &Path, name: &str) -> Vec<Finding> {
    let root = dir.join(name);
    let mut findings = manifest::check(&root, name);
    let mut report = Report::new(format!("{name}/{DATA}/{MODEL}"));
    let references = decode(&root, &mut report).and_then(|model| check_model(&model, &mut report));
    if let Some(references) = references {
        findings.extend(blobs::check(&root, name, &references));
    }
    findings.extend(report.findings);
    findings
}

/// The bytes of a regular file of at most `max` bytes. Links, pipes and devices, which may lead elsewhere or never end,
/// are refused.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let len = regular_file_len(path)?;
    if len > max {
        return Err(format!("{len} bytes are too many; {max} at most"));
    }
    fs::read(path).map_err(cannot_be_read)
}

/// The size of a file that is a regular one.
fn regular_file_len(path: &Path) -> Result<u64, String> {
    let metadata = fs::symlink_metadata(path).map_err(cannot_be_read)?;
    match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err("is no regular file".to_owned()),
    }
}

fn cannot_be_read(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

fn decode(root: &Path, report: &mut Report) -> Option<Model> {
    let model = match read(&root.join(DATA).join(MODEL), MAX_MODEL_BYTES) {
        Ok(bytes) => Model::decode(bytes.as_slice()),
        Err(problem) => {
            report.add(rules::DECODE, "", problem);
            return None;
        }
    };
    match model {
        Ok(model) if model.ml_program.is_some() => Some(model),
        Ok(_) => {
            report.add(rules::DECODE, "", "holds no ML Program");
            None
        }
        Err(error) => {
            report.add(rules::DECODE, "", format!("is no Model message: {error}"));
            None
        }
    }
}

/// Checks a decoded model and gives the blobs it refers to, if its form allows to tell.
fn check_model(model: &Model, report: &mut Report) -> Option<Vec<blobs::Reference>> {
    let version = model.specification_version;
    let Some(level) = Level::of_specification(version) else {
        report.add(
            rules::SPECIFICATION,
            "",
            format!("specificationVersion is {version}"),
        );
        return None;
    };
    let program = model
        .ml_program
        .as_ref()
        .expect("decode gives models with a program");
    if program.version != 1 {
        report.add(
            rules::PROGRAM,
            "",
            format!("the program's version is {}", program.version),
        );
    }
    if let Some(name) = program.attributes.keys().find(|k| *k != "buildInfo") {
        report.add(
            rules::PROGRAM,
            "",
            format!("unknown program attribute '{name}'"),
        );
    }
    let described = description::functions(model.description.as_ref(), program, level, report)?;
    let mut references = Some(Vec::new());
    for (name, features) in described {
        report.function = name.to_owned();
        if !is_identifier(name) {
            report.add(rules::IDENTIFIER, "", "the name is no identifier");
        }
        let function = &program.functions[name];
        let of_function = function::check(function, level, report);
        references = references.zip(of_function).map(|(mut all, some)| {
            all.extend(some);
            all
        });
        if let Some(features) = features {
            description::check(features, function, report);
        }
        report.function.clear();
    }
    references
}
