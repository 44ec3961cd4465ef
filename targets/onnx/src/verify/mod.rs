//! The verifier of emitted folders: what ONNX's own checker tests, and the contract of the artifact.
//!
//! | Rule | What it asks |
//! |---|---|
//! | `file` | models, configurations and the pipeline index are regular files of at most 256 MiB |
//! | `decode` | a model is a protobuf message with a graph; the index is a JSON object |
//! | `version` | operator set 17, 18, 19 or 21 of the ONNX domain and no other, the IR version that came with it |
//! | `name` | nodes, values and initializers have non-empty names, each given once |
//! | `order` | a value is defined before it is used; outputs are defined |
//! | `operator` | only operators that snapc writes, with the number of operands they take |
//! | `attribute` | attributes are named once and hold a number, numbers or a string |
//! | `codes` | codes, scales and zero points fit each other, and the operator set has their form |
//! | `feature` | inputs and outputs are those of the contract |
//! | `tensor` | an initializer has a known element type and as many bytes as its dimensions ask for |
//! | `external-path` | external data lies beside its model: no absolute path, no `..`, no link that leaves the folder |
//! | `external-range` | external data lies inside its file, aligned to 64 bytes; two ranges are equal or disjoint |
//!
//! Files are not trusted: whatever they hold, the result is findings and not a panic.

mod codes;
mod feature;
mod model;
mod tensor;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use prost::Message;
use serde_json::{Map, Value};
use snapc_target::{Finding, TargetError};

use crate::companion::INDEX;
use crate::emit::MODEL_FILE;
use crate::proto::ModelProto;

/// Larger models and configurations are refused unread; weights are not in them.
const MAX_BYTES: u64 = 1 << 28;

/// The findings about one file.
struct Report<'a> {
    file: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, rule: &'static str, place: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding {
            rule,
            file: self.file.to_owned(),
            place: place.into(),
            message: message.into(),
        });
    }
}

/// Checks the folder of an artifact: every finding, sorted.
///
/// # Errors
/// When an existing file cannot be read.
pub(crate) fn verify(dir: &Path) -> Result<Vec<Finding>, TargetError> {
    let mut findings = Vec::new();
    check_json(dir, INDEX, &mut findings)?;
    for graph in feature::GRAPHS {
        check_json(dir, &format!("{graph}/config.json"), &mut findings)?;
        let file = format!("{graph}/{MODEL_FILE}");
        let mut report = Report {
            file: &file,
            findings: &mut findings,
        };
        let Some(bytes) = read(dir, &mut report)? else {
            continue;
        };
        match ModelProto::decode(bytes.as_slice()) {
            Ok(message) => model::check(&message, graph, &dir.join(graph), &mut report)?,
            Err(error) => report.add("decode", "", error.to_string()),
        }
    }
    findings.sort();
    Ok(findings)
}

fn check_json(dir: &Path, file: &str, findings: &mut Vec<Finding>) -> Result<(), TargetError> {
    let mut report = Report { file, findings };
    if let Some(bytes) = read(dir, &mut report)?
        && let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes)
    {
        report.add("decode", "", format!("not a JSON object: {error}"));
    }
    Ok(())
}

/// The bytes of the report's file; a finding and `None` when it is not a regular file of acceptable size.
fn read(dir: &Path, report: &mut Report<'_>) -> Result<Option<Vec<u8>>, TargetError> {
    let path = dir.join(report.file);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            report.add("file", "", "it does not exist");
            return Ok(None);
        }
        Err(error) => return Err(TargetError::io(&path)(error)),
    };
    if !metadata.is_file() {
        report.add("file", "", "it is not a regular file");
        return Ok(None);
    }
    if metadata.len() > MAX_BYTES {
        let message = format!("{} bytes are too many; {MAX_BYTES} at most", metadata.len());
        report.add("file", "", message);
        return Ok(None);
    }
    fs::read(&path).map(Some).map_err(TargetError::io(&path))
}
