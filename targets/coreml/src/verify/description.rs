//! Rules about the description: it says what the function has.

use std::collections::BTreeMap;

use super::function::check_type;
use super::{Report, rules};
use crate::names::{RESERVED, is_identifier};
use crate::proto::{
    ArrayDataType, DataType, FeatureDescription, Function, ModelDescription, NamedValueType,
};

/// Checks the description against the function.
pub(super) fn check(description: Option<&ModelDescription>, main: &Function, report: &mut Report) {
    let Some(description) = description else {
        report.add(rules::DESCRIPTION, "", "the model has no description");
        return;
    };
    let inputs: Vec<&NamedValueType> = main.inputs.iter().collect();
    check_list("input", &description.input, &inputs, report);
    check_list("output", &description.output, &outputs(main), report);
}

/// Names and types of the function's outputs. What is not defined has a finding already.
fn outputs(main: &Function) -> Vec<&NamedValueType> {
    let Some(block) = main.block_specializations.values().next() else {
        return Vec::new();
    };
    let results = main
        .inputs
        .iter()
        .chain(block.operations.iter().flat_map(|o| &o.outputs));
    let by_name: BTreeMap<&str, &NamedValueType> = results.map(|v| (v.name.as_str(), v)).collect();
    block
        .outputs
        .iter()
        .filter_map(|name| by_name.get(name.as_str()).copied())
        .collect()
}

fn check_list(
    what: &str,
    features: &[FeatureDescription],
    values: &[&NamedValueType],
    report: &mut Report,
) {
    let described: Vec<&str> = features.iter().map(|f| f.name.as_str()).collect();
    let defined: Vec<&str> = values.iter().map(|v| v.name.as_str()).collect();
    if described != defined {
        let message = format!("the description has {described:?}, the function {defined:?}");
        report.add(rules::DESCRIPTION, format!("{what}s"), message);
    }
    let by_name: BTreeMap<&str, &NamedValueType> =
        values.iter().map(|v| (v.name.as_str(), *v)).collect();
    for feature in features {
        let place = format!("{what} '{}'", feature.name);
        let Some(dtype) = check_feature(feature, &place, report) else {
            continue;
        };
        let Some(value) = by_name.get(feature.name.as_str()) else {
            continue;
        };
        // A malformed type has its finding where the function is checked.
        let Some(ty) = check_type(value.ty.as_ref(), &place, &mut Report::new(String::new()))
        else {
            continue;
        };
        if dtype != ty.dtype {
            let message = format!(
                "the description says {dtype:?}, the function {:?}",
                ty.dtype
            );
            report.add(rules::DESCRIPTION, &place, message);
        }
        let shape = feature
            .ty
            .as_ref()
            .and_then(|t| t.multi_array.as_ref())
            .map(|a| &a.shape);
        let sizes: Option<Vec<i64>> = ty.shape.iter().map(|&n| i64::try_from(n).ok()).collect();
        if shape != sizes.as_ref() {
            let message = format!(
                "the description has shape {:?}, the function {:?}",
                shape, ty.shape
            );
            report.add(rules::DESCRIPTION, &place, message);
        }
    }
}

/// The element type in MIL of a well-formed feature.
fn check_feature(
    feature: &FeatureDescription,
    place: &str,
    report: &mut Report,
) -> Option<DataType> {
    let name = feature.name.as_str();
    if !is_identifier(name) || RESERVED.contains(&name) {
        report.add(rules::IDENTIFIER, place, "the name is no identifier");
    }
    if feature.ty.as_ref().is_some_and(|t| t.is_optional) {
        report.add(rules::FEATURE, place, "it is optional");
    }
    let Some(array) = feature.ty.as_ref().and_then(|t| t.multi_array.as_ref()) else {
        report.add(rules::FEATURE, place, "it is no multi-array");
        return None;
    };
    if array.shape.is_empty() {
        report.add(rules::FEATURE, place, "it has no dimension");
        return None;
    }
    match ArrayDataType::try_from(array.data_type) {
        Ok(ArrayDataType::Float16) => Some(DataType::Float16),
        Ok(ArrayDataType::Float32) => Some(DataType::Float32),
        Ok(ArrayDataType::Int32) => Some(DataType::Int32),
        _ => {
            let message = format!(
                "element type {} is not fp16, fp32 or int32",
                array.data_type
            );
            report.add(rules::FEATURE, place, message);
            None
        }
    }
}
