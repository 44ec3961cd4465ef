//! Rules about `const` operations.

use super::blobs::{Reference, bits};
use super::function::{Type, check_type};
use super::{Report, rules};
use crate::proto::{Content, DataType, Elements, Operation};

/// Checks a `const` and gives the blob it refers to, if it does.
pub(super) fn check(op: &Operation, place: &str, report: &mut Report) -> Option<Reference> {
    let Some(value) = op.attributes.get("val") else {
        report.add(rules::CONSTANT, place, "it has no value");
        return None;
    };
    if !op.inputs.is_empty() || op.outputs.len() != 1 || !op.blocks.is_empty() {
        report.add(
            rules::CONSTANT,
            place,
            "it has inputs or blocks, or not one result",
        );
    }
    let declared = op.outputs.first().and_then(|o| o.ty.as_ref());
    if declared != value.ty.as_ref() {
        report.add(
            rules::CONSTANT,
            place,
            "its value has another type than its result",
        );
    }
    let ty = check_type(value.ty.as_ref(), place, report)?;
    match &value.content {
        Some(Content::BlobFile(blob)) => Some(Reference {
            place: report.place(place),
            file_name: blob.file_name.clone(),
            offset: blob.offset,
            ty,
        }),
        Some(Content::Immediate(immediate)) => {
            let elements = immediate.tensor.as_ref().and_then(|t| t.elements.as_ref());
            if let Some(problem) = check_elements(&ty, elements) {
                report.add(rules::CONSTANT, place, problem);
            }
            None
        }
        None => {
            report.add(rules::CONSTANT, place, "its value is empty");
            None
        }
    }
}

/// What is wrong with elements in place.
pub(super) fn check_elements(ty: &Type, elements: Option<&Elements>) -> Option<String> {
    let (fits, found) = match (ty.dtype, elements) {
        (_, None) => return Some("its value is no tensor".to_owned()),
        (DataType::Float32, Some(Elements::Floats(v))) => (true, v.values.len()),
        (DataType::Float64, Some(Elements::Doubles(v))) => (true, v.values.len()),
        (DataType::Int32 | DataType::Int16 | DataType::UInt16, Some(Elements::Ints(v))) => {
            (true, v.values.len())
        }
        (DataType::Int64 | DataType::UInt64, Some(Elements::LongInts(v))) => (true, v.values.len()),
        (DataType::Bool, Some(Elements::Bools(v))) => (true, v.values.len()),
        (DataType::String, Some(Elements::Strings(v))) => (true, v.values.len()),
        (dtype, Some(Elements::Bytes(v))) => match size_in_bytes(dtype) {
            Some(size) if v.values.len().is_multiple_of(size) => (true, v.values.len() / size),
            _ => return check_packed(ty, v.values.len()),
        },
        _ => (false, 0),
    };
    if !fits {
        return Some(format!(
            "{:?} elements stand in the field of another type",
            ty.dtype
        ));
    }
    let expected = ty.elements();
    (expected != Some(found as u64))
        .then(|| format!("it has {found} elements, its type {:?}", ty.shape))
}

/// What is wrong with elements below a byte, packed into so many bytes.
fn check_packed(ty: &Type, bytes: usize) -> Option<String> {
    let Some(bits) = bits(ty.dtype).filter(|bits| *bits < 8) else {
        let dtype = ty.dtype;
        return Some(format!(
            "{dtype:?} elements stand in the field of another type"
        ));
    };
    let expected = ty.elements().and_then(|n| n.checked_mul(bits));
    (expected.map(|n| n.div_ceil(8)) != Some(bytes as u64))
        .then(|| format!("it has {bytes} bytes, its type {:?}", ty.shape))
}

/// Size of the elements that stand as raw bytes.
fn size_in_bytes(dtype: DataType) -> Option<usize> {
    match dtype {
        DataType::Float16 => Some(2),
        DataType::Int8 | DataType::UInt8 => Some(1),
        DataType::UInt32 => Some(4),
        _ => None,
    }
}
