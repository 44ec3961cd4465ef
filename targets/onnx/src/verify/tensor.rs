//! Sizes of initializers, and the safety of their external data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use snapc_target::TargetError;

use super::Report;
use crate::proto::{EXTERNAL, INT4, TensorProto, UINT4, element_type};

/// Every offset in a data file is a multiple of this.
const ALIGNMENT: u64 = 64;

/// Checks the initializers of a model that lies in `folder`.
///
/// # Errors
/// When an existing data file cannot be inspected.
pub(super) fn check(
    tensors: &[TensorProto],
    folder: &Path,
    report: &mut Report<'_>,
) -> Result<(), TargetError> {
    let mut files = DataFiles {
        folder,
        lengths: BTreeMap::new(),
    };
    let mut ranges: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for tensor in tensors {
        let Some(expected) = byte_len(tensor) else {
            report.add(
                "tensor",
                place(tensor),
                "unknown element type or impossible dimensions",
            );
            continue;
        };
        if tensor.data_location.unwrap_or_default() != EXTERNAL {
            let found = tensor.raw_data.as_ref().map(|d| d.len() as u64);
            if found != Some(expected) {
                let message = format!(
                    "{} bytes of raw data, expected {expected}",
                    found.unwrap_or(0)
                );
                report.add("tensor", place(tensor), message);
            }
            continue;
        }
        let Some(range) = external_range(tensor, expected, &mut files, report)? else {
            continue;
        };
        let (location, offset, end) = range;
        let known = ranges.insert((location, offset), end);
        if known.is_some_and(|known| known != end) {
            report.add(
                "external-range",
                place(tensor),
                "it overlaps another tensor",
            );
        }
    }
    check_overlaps(&ranges, report);
    Ok(())
}

fn check_overlaps(ranges: &BTreeMap<(&str, u64), u64>, report: &mut Report<'_>) {
    let mut previous: Option<(&str, u64)> = None;
    for (&(location, offset), &end) in ranges {
        if previous.is_some_and(|(file, until)| file == location && offset < until) {
            let place = format!("'{location}' at {offset}");
            report.add("external-range", place, "the tensors here overlap");
        }
        previous = Some((location, end));
    }
}

/// Bytes that the dimensions and the element type ask for; `None` when there is no such number.
fn byte_len(tensor: &TensorProto) -> Option<u64> {
    let product = |first: u64| {
        tensor.dims.iter().try_fold(first, |product, &dim| {
            product.checked_mul(u64::try_from(dim).ok()?)
        })
    };
    match tensor.data_type? {
        INT4 | UINT4 => Some(product(1)?.div_ceil(2)),
        other => product(element_type(other)?.size() as u64),
    }
}

/// Where an external tensor lies: file, first byte, end. `None` and a finding when that is not a place.
fn external_range<'a>(
    tensor: &'a TensorProto,
    expected: u64,
    files: &mut DataFiles<'a>,
    report: &mut Report<'_>,
) -> Result<Option<(&'a str, u64, u64)>, TargetError> {
    if tensor.raw_data.is_some() {
        report.add("tensor", place(tensor), "it has inline data as well");
    }
    let location = value(tensor, "location").unwrap_or_default();
    let file_len = match files.length(location)? {
        Ok(len) => len,
        Err(problem) => {
            report.add(
                "external-path",
                place(tensor),
                format!("'{location}' {problem}"),
            );
            return Ok(None);
        }
    };
    let offset = value(tensor, "offset").map_or(Some(0), |v| v.parse::<u64>().ok());
    let length = value(tensor, "length").and_then(|v| v.parse::<u64>().ok());
    let (Some(offset), Some(length)) = (offset, length) else {
        report.add(
            "external-range",
            place(tensor),
            "offset or length is not a number",
        );
        return Ok(None);
    };
    if length != expected {
        report.add(
            "tensor",
            place(tensor),
            format!("{length} bytes, expected {expected}"),
        );
        return Ok(None);
    }
    if offset % ALIGNMENT != 0 {
        let message = format!("offset {offset} is not a multiple of {ALIGNMENT}");
        report.add("external-range", place(tensor), message);
    }
    match offset.checked_add(length).filter(|&end| end <= file_len) {
        Some(end) => Ok(Some((location, offset, end))),
        None => {
            let message =
                format!("{length} bytes at {offset} of '{location}', which has {file_len}");
            report.add("external-range", place(tensor), message);
            Ok(None)
        }
    }
}

fn value<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    let entry = tensor
        .external_data
        .iter()
        .find(|e| e.key.as_deref() == Some(key))?;
    entry.value.as_deref()
}

/// Sizes of data files, each looked up once.
struct DataFiles<'a> {
    folder: &'a Path,
    lengths: BTreeMap<&'a str, Result<u64, &'static str>>,
}

impl<'a> DataFiles<'a> {
    /// The size of a file, or why it may not be read.
    fn length(&mut self, location: &'a str) -> Result<Result<u64, &'static str>, TargetError> {
        if let Some(known) = self.lengths.get(location) {
            return Ok(*known);
        }
        let length = self.inspect(location)?;
        self.lengths.insert(location, length);
        Ok(length)
    }

    fn inspect(&self, location: &str) -> Result<Result<u64, &'static str>, TargetError> {
        let relative = Path::new(location);
        let plain = relative
            .components()
            .all(|c| matches!(c, Component::Normal(_)));
        if location.is_empty() || location.contains(['\0', '\\']) || !plain {
            return Ok(Err("does not stay in the folder of the model"));
        }
        let path = self.folder.join(relative);
        let Ok(resolved) = fs::canonicalize(&path) else {
            return Ok(Err("does not exist"));
        };
        let folder = fs::canonicalize(self.folder).map_err(TargetError::io(self.folder))?;
        if !resolved.starts_with(folder) {
            return Ok(Err("is a link that leaves the folder of the model"));
        }
        let metadata = fs::metadata(&resolved).map_err(TargetError::io(&path))?;
        if !metadata.is_file() {
            return Ok(Err("is not a regular file"));
        }
        Ok(Ok(metadata.len()))
    }
}

fn place(tensor: &TensorProto) -> String {
    format!(
        "initializer '{}'",
        tensor.name.as_deref().unwrap_or_default()
    )
}
