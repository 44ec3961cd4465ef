//! Rules about the description: it says what the function has.

use std::collections::BTreeMap;

use super::function::check_type;
use super::{Report, rules};
use crate::level::Level;
use crate::model::MAIN;
use crate::names::{RESERVED, is_identifier};
use crate::proto::{
    ArrayDataType, Bound, ColorSpace, Content, DataType, Elements, FeatureDescription, Function,
    ImageFeatureType, ModelDescription, NamedValueType, Operation, Program, Value,
};

/// The features that are described for a function: inputs and outputs.
pub(super) type Features<'a> = (&'a [FeatureDescription], &'a [FeatureDescription]);

/// The functions of a program with the features that the description has for them; `None` when there is no function to look
/// at.
pub(super) fn functions<'a>(
    description: Option<&'a ModelDescription>,
    program: &'a Program,
    level: Level,
    report: &mut Report,
) -> Option<Vec<(&'a str, Option<Features<'a>>)>> {
    let names: Vec<&str> = program.functions.keys().map(String::as_str).collect();
    let is_known = match names[..] {
        [] => false,
        [one] => one == MAIN,
        _ => level >= Level::Ios18,
    };
    if !is_known {
        let message = format!("the functions are {names:?}, not {MAIN} alone, as {level} has it");
        report.add(rules::PROGRAM, "", message);
        return None;
    }
    let Some(description) = description else {
        report.add(rules::DESCRIPTION, "", "the model has no description");
        return Some(names.into_iter().map(|name| (name, None)).collect());
    };
    let default = description.default_function_name.as_str();
    let of_model: Features<'a> = (&description.input, &description.output);
    if names.len() == 1 {
        if !description.functions.is_empty() || !default.is_empty() {
            let message = "a single function is described by the model itself";
            report.add(rules::FUNCTIONS, "", message);
        }
        return Some(vec![(MAIN, Some(of_model))]);
    }
    let mut described: Vec<&str> = description
        .functions
        .iter()
        .map(|f| f.name.as_str())
        .collect();
    described.sort_unstable();
    if described != names || !names.contains(&default) || of_model != (&[], &[]) {
        let message = format!(
            "the program has the functions {names:?}, the description {described:?} with '{default}' as the default and {} features of its own",
            of_model.0.len() + of_model.1.len()
        );
        report.add(rules::FUNCTIONS, "", message);
    }
    let features = |name: &str| -> Option<Features<'a>> {
        let found = description.functions.iter().find(|f| f.name == name)?;
        Some((&found.input, &found.output))
    };
    Some(
        names
            .into_iter()
            .map(|name| (name, features(name)))
            .collect(),
    )
}

/// Checks the described features against the function.
pub(super) fn check((inputs, outputs): Features<'_>, function: &Function, report: &mut Report) {
    let values: Vec<&NamedValueType> = function.inputs.iter().collect();
    check_list("input", inputs, &values, function, report);
    check_list("output", outputs, &results(function), function, report);
}

/// Names and types of the function's outputs. What is not defined has a finding already.
fn results(main: &Function) -> Vec<&NamedValueType> {
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
    main: &Function,
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
        check_name(feature, &place, report);
        if let Some(image) = check_image(feature, &place, report) {
            let value = by_name.get(feature.name.as_str());
            if let Some(problem) = value.and_then(|v| not_the_image(image, v, main)) {
                report.add(rules::IMAGE, &place, problem);
            }
            continue;
        }
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

/// What holds for features of every type.
fn check_name(feature: &FeatureDescription, place: &str, report: &mut Report) {
    let name = feature.name.as_str();
    if !is_identifier(name) || RESERVED.contains(&name) {
        report.add(rules::IDENTIFIER, place, "the name is no identifier");
    }
    if feature.ty.as_ref().is_some_and(|t| t.is_optional) {
        report.add(rules::FEATURE, place, "it is optional");
    }
}

/// The image that a feature is; of those, only outputs in RGB are known here.
fn check_image<'a>(
    feature: &'a FeatureDescription,
    place: &str,
    report: &mut Report,
) -> Option<&'a ImageFeatureType> {
    let image = feature.ty.as_ref()?.image.as_ref()?;
    if image.color_space != ColorSpace::Rgb as i32 || place.starts_with("input") {
        report.add(
            rules::FEATURE,
            place,
            "it is an image, but no output in RGB",
        );
    }
    Some(image)
}

/// Why a value of the function does not make the image.
fn not_the_image(
    image: &ImageFeatureType,
    value: &NamedValueType,
    main: &Function,
) -> Option<String> {
    // A malformed type has its finding where the function is checked.
    let ty = check_type(value.ty.as_ref(), "", &mut Report::new(String::new()))?;
    let (height, width) = (image.height, image.width);
    let sizes: Vec<i64> = ty
        .shape
        .iter()
        .filter_map(|&n| i64::try_from(n).ok())
        .collect();
    let is_float = matches!(ty.dtype, DataType::Float16 | DataType::Float32);
    if !is_float || sizes != [1, 3, height, width] {
        let dtype = ty.dtype;
        return Some(format!(
            "the description says an image of {height} rows and {width} columns, the function {dtype:?} {sizes:?}"
        ));
    }
    let operations = || {
        let blocks = main.block_specializations.values();
        blocks.flat_map(|b| &b.operations)
    };
    let makes = |op: &&Operation, name: &str| op.outputs.iter().any(|o| o.name == name);
    let maker = operations().find(|op| makes(op, &value.name))?;
    let bound = |parameter: &str| {
        let argument = maker.inputs.get(parameter)?.arguments.first()?;
        let Some(Bound::Name(name)) = &argument.bound else {
            return None;
        };
        let constant = operations().find(|op| makes(op, name))?;
        constant.attributes.get("val").and_then(number)
    };
    let bounds = [bound("alpha"), bound("beta")];
    match maker.kind.as_str() {
        "clip" if bounds == [Some(0.0), Some(255.0)] => None,
        "clip" => Some("parameters 'alpha' and 'beta' of its clip are not 0 and 255".to_owned()),
        other => Some(format!("it is made by {other}, not by a clip to 0 and 255")),
    }
}

/// The float that a constant is.
fn number(value: &Value) -> Option<f32> {
    let Some(Content::Immediate(immediate)) = &value.content else {
        return None;
    };
    match immediate.tensor.as_ref()?.elements.as_ref()? {
        Elements::Floats(v) => v.values.first().copied(),
        Elements::Bytes(v) => match v.values[..] {
            [low, high] => Some(half::f16::from_le_bytes([low, high]).to_f32()),
            _ => None,
        },
        _ => None,
    }
}

/// The element type in MIL of a well-formed multi-array.
fn check_feature(
    feature: &FeatureDescription,
    place: &str,
    report: &mut Report,
) -> Option<DataType> {
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
