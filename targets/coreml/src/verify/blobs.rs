//! Rules about the weight file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use snapc_target::Finding;

use super::function::Type;
use super::{Report, cannot_be_read, regular_file_len, rules};
use crate::blob::{ALIGNMENT, FILE_NAME, SENTINEL, VERSION};
use crate::package::{DATA, WEIGHT_FILE, WEIGHTS};
use crate::proto::DataType;
use crate::read::element;

/// A constant that refers to the weight file.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    /// The constant, for findings.
    pub place: String,
    /// The file it names.
    pub file_name: String,
    /// Where it says that the blob begins.
    pub offset: u64,
    /// Its type.
    pub ty: Type,
}

/// Checks the weight file of the package at `root` against what refers to it.
pub(super) fn check(root: &Path, name: &str, references: &[Reference]) -> Vec<Finding> {
    let mut report = Report::new(format!("{name}/{DATA}/{WEIGHTS}/{WEIGHT_FILE}"));
    let path = root.join(DATA).join(WEIGHTS).join(WEIGHT_FILE);
    if references.is_empty() && !path.exists() {
        return Vec::new();
    }
    let checked = regular_file_len(&path)
        .and_then(|len| check_file(&path, len, references, &mut report).map_err(cannot_be_read));
    if let Err(problem) = checked {
        report.add(rules::BLOB_FILE, "", problem);
    }
    report.findings
}

fn check_file(
    path: &Path,
    len: u64,
    references: &[Reference],
    report: &mut Report,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let header: [u8; 8] = read_at(&mut file, 0)?;
    let (count, version) = (u32_at(&header, 0), u32_at(&header, 4));
    if version != VERSION {
        report.add(
            rules::BLOB_FILE,
            "",
            format!("the version is {version}, not {VERSION}"),
        );
        return Ok(());
    }
    let offsets: BTreeSet<u64> = references.iter().map(|r| r.offset).collect();
    if u64::from(count) != offsets.len() as u64 {
        let message = format!(
            "the header counts {count} blobs, {} are referred to",
            offsets.len()
        );
        report.add(rules::BLOB_FILE, "", message);
    }
    for reference in references {
        check_blob(&mut file, len, reference, report)?;
    }
    Ok(())
}

fn check_blob(
    file: &mut File,
    len: u64,
    reference: &Reference,
    report: &mut Report,
) -> io::Result<()> {
    let Reference {
        place, offset, ty, ..
    } = reference;
    let offset = *offset;
    if reference.file_name != FILE_NAME {
        let message = format!(
            "the constant names '{}', not '{FILE_NAME}'",
            reference.file_name
        );
        report.add(rules::BLOB_FILE, place, message);
        return Ok(());
    }
    let data = offset.checked_add(ALIGNMENT);
    let inside = data.is_some_and(|data| data <= len);
    if !offset.is_multiple_of(ALIGNMENT) || offset == 0 || !inside {
        let message =
            format!("offset {offset} is no multiple of {ALIGNMENT} inside the {len} bytes");
        report.add(rules::BLOB_OFFSET, place, message);
        return Ok(());
    }
    let metadata: [u8; 32] = read_at(file, offset)?;
    if u32_at(&metadata, 0) != SENTINEL {
        let message = format!("no blob's metadata stands at offset {offset}");
        report.add(rules::BLOB_OFFSET, place, message);
        return Ok(());
    }
    let (code, size, at) = (
        u32_at(&metadata, 4),
        u64_at(&metadata, 8),
        u64_at(&metadata, 16),
    );
    let (Some(expected_code), Some(bits)) = (element::code(ty.dtype), bits(ty.dtype)) else {
        report.add(
            rules::BLOB_DATA,
            place,
            format!("{:?} has no code in the weight file", ty.dtype),
        );
        return Ok(());
    };
    let mut problems = Vec::new();
    if code != expected_code {
        problems.push(format!("element type code {code} is not {expected_code}"));
    }
    let used = ty.elements().and_then(|n| n.checked_mul(bits));
    let expected_size = used.map(|n| n.div_ceil(8));
    if expected_size != Some(size) {
        problems.push(format!(
            "{size} bytes are not those of shape {:?}",
            ty.shape
        ));
    }
    if Some(at) != data {
        problems.push(format!(
            "the data is said to be at {at}, not right behind the metadata"
        ));
    }
    if data
        .and_then(|d| d.checked_add(size))
        .is_none_or(|end| end > len)
    {
        problems.push(format!("{size} bytes end beyond the file's {len}"));
    }
    let padding = u64_at(&metadata, 24);
    if used.is_some_and(|n| (8 - n % 8) % 8 != padding) {
        problems.push(format!(
            "{padding} bits of padding are not those of its last byte"
        ));
    }
    if !problems.is_empty() {
        report.add(rules::BLOB_DATA, place, problems.join("; "));
    }
    Ok(())
}

/// Bits of an element of a type that blobs may have.
pub(super) fn bits(dtype: DataType) -> Option<u64> {
    match dtype {
        DataType::UInt1 => Some(1),
        DataType::UInt2 => Some(2),
        DataType::UInt3 => Some(3),
        DataType::Int4 | DataType::UInt4 => Some(4),
        DataType::UInt6 => Some(6),
        DataType::Int8 | DataType::UInt8 => Some(8),
        DataType::Float16 | DataType::BFloat16 | DataType::Int16 | DataType::UInt16 => Some(16),
        DataType::Float32 | DataType::Int32 | DataType::UInt32 => Some(32),
        _ => None,
    }
}

fn read_at<const N: usize>(file: &mut File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
