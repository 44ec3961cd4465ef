//! The rules of an artifact on disk.
//!
//! | Rule | What it asks for |
//! |---|---|
//! | `snap-container` | header, table of contents, tables and small sections are sound |
//! | `snap-hash` | weights have their hash, and zeros between them |
//! | `snap-program` | there is a program, and every instruction fits its operands |
//! | `snap-weight` | every weight of the program is in the tensor table, in its storage, shape and a type that the engine reads |
//! | `snap-unused` | every tensor of the table is a weight of the program, or of the prompt whose encoding is kept |
//! | `snap-tokenizer` | the tokenizer section, if there is one, makes a tokenizer |
//! | `snap-schedule` | the schedule section, if there is one, has possible numbers |

use std::collections::BTreeSet;
use std::path::Path;

use snapc_format::{Container, DType, Problem, SectionKind, Stage, TensorView};
use snapc_program::{KNOWN_PROMPT, Program, ScheduleData, Storage, TokenizerData, Weight};
use snapc_target::{Finding, TargetError};

use crate::lower::layout;
use crate::target::FILE_NAME;

/// All findings, sorted.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn verify(dir: &Path) -> Result<Vec<Finding>, TargetError> {
    let path = dir.join(FILE_NAME);
    let container = match Container::open(&path) {
        Ok(container) => container,
        Err(error) => {
            return match error.problem {
                Problem::Io(source) => Err(TargetError::Io { path, source }),
                problem => Ok(vec![finding("snap-container", "", problem)]),
            };
        }
    };
    let mut findings = Vec::new();
    if let Err(error) = container.verify() {
        findings.push(finding("snap-hash", "", error.problem));
    }
    check_program(&container, &mut findings);
    check_companions(&container, &mut findings);
    findings.sort();
    Ok(findings)
}

fn finding(rule: &'static str, place: impl Into<String>, message: impl ToString) -> Finding {
    Finding {
        rule,
        file: FILE_NAME.to_owned(),
        place: place.into(),
        message: message.to_string(),
    }
}

fn check_program(container: &Container, findings: &mut Vec<Finding>) {
    let bytes = match container.program() {
        Ok(bytes) => bytes,
        Err(error) => return findings.push(finding("snap-program", "", error.problem)),
    };
    let program = match Program::decode(bytes) {
        Ok(program) => program,
        Err(error) => return findings.push(finding("snap-program", "", error)),
    };
    for stage in Stage::ALL {
        let weights = program.graph(stage).map_or(&[][..], |g| g.weights());
        for weight in weights {
            if let Some(message) = weight_fault(container, stage, weight) {
                let place = format!("graph '{stage}', weight '{}'", weight.name);
                findings.push(finding("snap-weight", place, message));
            }
        }
        let used: BTreeSet<&str> = weights.iter().map(|w| w.name.as_str()).collect();
        for tensor in container.tensors(stage) {
            let is_prompt = stage == Stage::TextEncoder && KNOWN_PROMPT.contains(&tensor.name());
            if !used.contains(tensor.name()) && !is_prompt {
                let place = format!("graph '{stage}', weight '{}'", tensor.name());
                findings.push(finding(
                    "snap-unused",
                    place,
                    "the program does not read it",
                ));
            }
        }
    }
}

/// What is wrong with the tensor of a weight.
fn weight_fault(container: &Container, stage: Stage, weight: &Weight) -> Option<String> {
    let tensor: TensorView<'_> = match container.tensor(stage, &weight.name) {
        Ok(tensor) => tensor,
        Err(error) => return Some(error.problem.to_string()),
    };
    let expected: Vec<u64> = match weight.storage {
        Storage::Codes(codes) => codes.packed_dims(&weight.dims).to_vec(),
        _ => weight.dims.iter().map(|&n| n.into()).collect(),
    };
    if tensor.shape() != expected {
        let found = tensor.shape();
        return Some(format!("shape {found:?}, the program reads {expected:?}"));
    }
    let wanted = layout(weight.storage);
    let Some((variant, _)) = tensor.packed(wanted) else {
        return Some(format!(
            "layout {wanted} is not there, which the program reads"
        ));
    };
    let readable: &[DType] = match weight.storage {
        Storage::F32 => &[DType::F32],
        Storage::I32 => &[DType::I32],
        Storage::Rows | Storage::Panels => &[DType::F32, DType::F16, DType::Bf16],
        Storage::Codes(_) => &[DType::U8],
    };
    let found = variant.dtype;
    let fault = || format!("the type is {found}, which the program does not read there");
    (!readable.contains(&found)).then(fault)
}

fn check_companions(container: &Container, findings: &mut Vec<Finding>) {
    let has = |kind: SectionKind| {
        container
            .sections()
            .iter()
            .any(|s| s.id.known() == Some(kind))
    };
    let tokenizer = || -> Result<(), String> {
        let bytes = container.tokenizer().map_err(|e| e.to_string())?;
        let data = TokenizerData::decode(bytes).map_err(|e| e.to_string())?;
        data.tokenizer().map(|_| ()).map_err(|e| e.to_string())
    };
    let schedule = || -> Result<(), String> {
        let bytes = container.schedule().map_err(|e| e.to_string())?;
        let data = ScheduleData::decode(bytes);
        data.map(|_| ()).map_err(|e| e.to_string())
    };
    if let (true, Err(message)) = (has(SectionKind::Tokenizer), tokenizer()) {
        findings.push(finding("snap-tokenizer", "", message));
    }
    if let (true, Err(message)) = (has(SectionKind::Schedule), schedule()) {
        findings.push(finding("snap-schedule", "", message));
    }
}
