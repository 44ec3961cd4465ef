//! Rules about compressed constants (coremltools, `converters/mil/mil/ops/defs/iOS16/constexpr_ops.py` and
//! `iOS18/compression.py`). The forms are those that encoded weights are written in.

use std::collections::BTreeMap;

use super::blobs::Reference;
use super::constant::check_elements;
use super::function::{Type, check_type, check_type_of_rank};
use super::{Report, rules};
use crate::level::Level;
use crate::proto::{Bound, Content, DataType, Elements, Operation, Value};
use crate::signature::MAX_RANK;

/// A parameter with its type and its value.
struct Parameter<'a> {
    ty: Type,
    value: &'a Value,
}

type Parameters<'a> = BTreeMap<&'a str, Parameter<'a>>;

/// Checks a compressed constant and gives the blobs it refers to.
pub(super) fn check(
    op: &Operation,
    place: &str,
    level: Level,
    report: &mut Report,
) -> Vec<Reference> {
    let before = report.findings.len();
    check_place(op, place, level, report);
    let Some(output) = op.outputs.first().filter(|_| op.outputs.len() == 1) else {
        report.add(rules::OPERATION, place, "it has not one result");
        return Vec::new();
    };
    let mut references = Vec::new();
    let mut parameters = Parameters::new();
    for (name, value) in values(op) {
        let place = format!("{place}, parameter '{name}'");
        // A table has two dimensions more than the weight.
        let Some(ty) = check_type_of_rank(value.ty.as_ref(), &place, MAX_RANK + 2, report) else {
            continue;
        };
        match &value.content {
            Some(Content::BlobFile(blob)) => references.push(Reference {
                place: report.place(&place),
                file_name: blob.file_name.clone(),
                offset: blob.offset,
                ty: ty.clone(),
            }),
            Some(Content::Immediate(immediate)) => {
                let elements = immediate.tensor.as_ref().and_then(|t| t.elements.as_ref());
                if let Some(problem) = check_elements(&ty, elements) {
                    report.add(rules::CONSTANT, &place, problem);
                }
            }
            None => report.add(rules::CONSTANT, &place, "its value is empty"),
        }
        parameters.insert(name, Parameter { ty, value });
    }
    if report.findings.len() > before {
        return references;
    }
    let result = check_type(output.ty.as_ref(), place, report);
    let form = match (op.kind.as_str(), level >= Level::Ios18) {
        ("constexpr_affine_dequantize", false) => affine,
        ("constexpr_lut_to_dense", false) => packed_palette,
        ("constexpr_blockwise_shift_scale", true) => blockwise,
        ("constexpr_lut_to_dense", true) => palette,
        _ => {
            report.add(rules::OPERATION, place, format!("unknown at {level}"));
            return references;
        }
    };
    if let Some(result) = result
        && let Err(problem) = form(&parameters, &result)
    {
        report.add(rules::CONSTEXPR_PARAMETERS, place, problem);
    }
    references
}

/// Checks where the parameters stand.
fn check_place(op: &Operation, place: &str, level: Level, report: &mut Report) {
    let attributes = op.attributes.keys().filter(|name| *name != "name");
    let (wrong, expected): (Vec<&String>, &str) = match level < Level::Ios18 {
        true => (op.inputs.keys().collect(), "attributes"),
        false => (attributes.collect(), "inputs"),
    };
    let wrong: Vec<&str> = wrong.into_iter().map(String::as_str).collect();
    if !wrong.is_empty() {
        let message = format!(
            "parameters '{}' stand elsewhere; at {level} its parameters are {expected}",
            wrong.join("', '")
        );
        report.add(rules::CONSTEXPR, place, message);
    }
}

/// Parameters that are values, wherever they stand.
fn values(op: &Operation) -> impl Iterator<Item = (&str, &Value)> {
    let attributes = op.attributes.iter().filter(|(name, _)| *name != "name");
    let inputs = op.inputs.iter().flat_map(|(name, argument)| {
        argument
            .arguments
            .iter()
            .filter_map(move |b| match &b.bound {
                Some(Bound::Value(value)) => Some((name, value)),
                _ => None,
            })
    });
    attributes.chain(inputs).map(|(name, v)| (name.as_str(), v))
}

/// The types of exactly these parameters, of which those with a `?` may be absent.
fn types<'a, const N: usize>(
    parameters: &'a Parameters<'_>,
    names: [&str; N],
) -> Result<[Option<&'a Type>; N], String> {
    let plain = names.map(|name| name.trim_end_matches('?'));
    if let Some(unknown) = parameters.keys().find(|key| !plain.contains(key)) {
        return Err(format!("unknown parameter '{unknown}'"));
    }
    let found = plain.map(|name| parameters.get(name).map(|p| &p.ty));
    for (name, found) in names.iter().zip(&found) {
        if found.is_none() && !name.ends_with('?') {
            return Err(format!("parameter '{name}' is not written in place"));
        }
    }
    Ok(found)
}

/// The data has the result's shape, and what it is decoded with the result's element type.
fn check_ends(data: &Type, values: &Type, result: &Type) -> Result<(), String> {
    if data.shape != result.shape {
        return Err(format!(
            "the data has shape {:?}, the result {:?}",
            data.shape, result.shape
        ));
    }
    check_float(values, result)
}

fn check_float(values: &Type, result: &Type) -> Result<(), String> {
    let is_float = matches!(values.dtype, DataType::Float16 | DataType::Float32);
    match is_float && values.dtype == result.dtype {
        true => Ok(()),
        false => Err(format!(
            "{:?} values do not make a {:?} result",
            values.dtype, result.dtype
        )),
    }
}

fn affine(parameters: &Parameters<'_>, result: &Type) -> Result<(), String> {
    let names = ["quantized_data", "scale", "zero_point", "axis"];
    let [Some(data), Some(scale), Some(zero_point), Some(axis)] = types(parameters, names)? else {
        return Err("a parameter is missing".to_owned());
    };
    check_ends(data, scale, result)?;
    let is_byte = matches!(data.dtype, DataType::Int8 | DataType::UInt8);
    if !is_byte || zero_point.dtype != data.dtype {
        return Err(
            "parameters 'quantized_data' and 'zero_point' are not both int8 or both uint8"
                .to_owned(),
        );
    }
    let at = match (axis.dtype, parameters["axis"].value.content.as_ref()) {
        (DataType::Int32, Some(Content::Immediate(immediate))) if axis.shape.is_empty() => {
            match immediate.tensor.as_ref().and_then(|t| t.elements.as_ref()) {
                Some(Elements::Ints(v)) => v.values.first().copied(),
                _ => None,
            }
        }
        _ => None,
    };
    let size = at.and_then(|a| data.shape.get(usize::try_from(a).ok()?));
    let size = size.ok_or("parameter 'axis' is no dimension of the data")?;
    let fits = |ty: &Type| ty.shape.is_empty() || ty.shape == [*size];
    match fits(scale) && fits(zero_point) {
        true => Ok(()),
        false => Err(format!(
            "parameters 'scale' {:?} and 'zero_point' {:?} are no scalars or vectors of {size}",
            scale.shape, zero_point.shape
        )),
    }
}

fn packed_palette(parameters: &Parameters<'_>, result: &Type) -> Result<(), String> {
    let [Some(indices), Some(table), Some(shape)] = types(parameters, ["indices", "lut", "shape"])?
    else {
        return Err("a parameter is missing".to_owned());
    };
    check_float(table, result)?;
    let bits = match table.shape[..] {
        [2] => 1,
        [4] => 2,
        [16] => 4,
        [64] => 6,
        [256] => 8,
        _ => {
            return Err(format!(
                "parameter 'lut' of shape {:?} is no table",
                table.shape
            ));
        }
    };
    let elements = result.elements().and_then(|n| n.checked_mul(bits));
    let bytes = elements.map(|n| n.div_ceil(8));
    if indices.dtype != DataType::UInt8
        || Some(&indices.shape[..]) != bytes.as_ref().map(std::slice::from_ref)
    {
        return Err(format!(
            "parameter 'indices' is not the bytes that {:?} takes at {bits} bits",
            result.shape
        ));
    }
    let sizes: Vec<u8> = result
        .shape
        .iter()
        .flat_map(|&n| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes())
        .collect();
    let is_shape = match &parameters["shape"].value.content {
        Some(Content::Immediate(immediate)) => {
            match immediate.tensor.as_ref().and_then(|t| t.elements.as_ref()) {
                Some(Elements::Bytes(v)) => v.values == sizes,
                _ => false,
            }
        }
        _ => false,
    };
    match is_shape && shape.dtype == DataType::UInt32 {
        true => Ok(()),
        false => Err(format!(
            "parameter 'shape' is not {:?} in uint32, as bytes",
            result.shape
        )),
    }
}

fn blockwise(parameters: &Parameters<'_>, result: &Type) -> Result<(), String> {
    let [Some(data), Some(scale), offset] = types(parameters, ["data", "scale", "offset?"])? else {
        return Err("a parameter is missing".to_owned());
    };
    check_ends(data, scale, result)?;
    use DataType as D;
    if !matches!(data.dtype, D::Int4 | D::UInt4 | D::Int8 | D::UInt8) {
        return Err(format!("{:?} data is none of 4 or 8 bits", data.dtype));
    }
    check_groups(&scale.shape, &data.shape)?;
    match offset {
        Some(offset) if offset.dtype != data.dtype || offset.shape != scale.shape => Err(
            "parameter 'offset' has not the element type of the data and the shape of scale"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

fn palette(parameters: &Parameters<'_>, result: &Type) -> Result<(), String> {
    let [Some(indices), Some(table)] = types(parameters, ["indices", "lut"])? else {
        return Err("a parameter is missing".to_owned());
    };
    check_ends(indices, table, result)?;
    use DataType as D;
    let bits = match indices.dtype {
        D::UInt1 => 1,
        D::UInt2 => 2,
        D::UInt3 => 3,
        D::UInt4 => 4,
        D::UInt6 => 6,
        D::UInt8 => 8,
        other => return Err(format!("{other:?} indices are no indices")),
    };
    match table.shape.as_slice() {
        [groups @ .., entries, 1] if *entries == 1 << bits => check_groups(groups, &indices.shape),
        other => Err(format!(
            "a table of shape {other:?} does not go with {bits} bits"
        )),
    }
}

/// Whether groups cut a shape into equal parts.
fn check_groups(groups: &[u64], shape: &[u64]) -> Result<(), String> {
    let whole = |(&n, &size): (&u64, &u64)| n > 0 && size.is_multiple_of(n);
    match groups.len() == shape.len() && groups.iter().zip(shape).all(whole) {
        true => Ok(()),
        false => Err(format!("groups {groups:?} do not divide {shape:?}")),
    }
}
