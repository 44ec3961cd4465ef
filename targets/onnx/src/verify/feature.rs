//! The inputs and outputs that the contract gives each graph.

use super::Report;
use crate::proto::{
    BATCH_DIM, BFLOAT16, Dimension, DimensionValue, FLOAT, FLOAT16, GraphProto, INT64,
    TensorTypeProto, ValueInfoProto,
};

/// The graphs of a pipeline, in the order they run.
pub(super) const GRAPHS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// A feature: its name, the element types it may have, its number of dimensions.
struct Feature(&'static str, &'static [i32], usize);

const REAL: &[i32] = &[FLOAT, FLOAT16, BFLOAT16];

fn expected(graph: &str) -> (&'static [Feature], &'static [Feature]) {
    match graph {
        "text_encoder" => (
            &[Feature("input_ids", &[INT64], 2)],
            &[
                Feature("last_hidden_state", REAL, 3),
                Feature("pooler_output", REAL, 2),
            ],
        ),
        "unet" => (
            &[
                Feature("sample", REAL, 4),
                Feature("timestep", &[FLOAT], 0),
                Feature("encoder_hidden_states", REAL, 3),
            ],
            &[Feature("out_sample", REAL, 4)],
        ),
        _ => (
            &[Feature("latent_sample", REAL, 4)],
            &[Feature("sample", REAL, 4)],
        ),
    }
}

/// Compares the features of a graph with the contract.
pub(super) fn check(proto: &GraphProto, graph: &str, report: &mut Report<'_>) {
    let (inputs, outputs) = expected(graph);
    match graph {
        "text_encoder" => {
            check_list("input", &proto.input, inputs, report);
            // What follows are projections for the UNet.
            let (first, more) = split(&proto.output, outputs.len());
            check_list("output", first, outputs, report);
            check_projections("output", more, report);
        }
        "unet" if proto.input.iter().any(|f| name(f) == STEP.0) => {
            check_specialized(&proto.input, inputs, report);
            check_list("output", &proto.output, outputs, report);
        }
        _ => {
            check_list("input", &proto.input, inputs, report);
            check_list("output", &proto.output, outputs, report);
        }
    }
}

/// The number of the step, in a UNet that is specialised to a run.
const STEP: Feature = Feature("step", &[INT64], 1);

/// The inputs of a specialised UNet: `step` beside or in place of the timestep, and projections in place of the text
/// embeddings, or behind what is left of the plain inputs.
fn check_specialized(found: &[ValueInfoProto], plain: &[Feature], report: &mut Report<'_>) {
    let by_name = |wanted: &str| found.iter().find(|f| name(f) == wanted);
    for feature in plain.iter().chain([&STEP]) {
        match by_name(feature.0) {
            Some(info) => check_feature("input", info, feature, report),
            None if feature.0 == "sample" => {
                report.add(
                    "feature",
                    "inputs".to_owned(),
                    "there is no 'sample'".to_owned(),
                );
            }
            None => {}
        }
    }
    let known = |f: &&ValueInfoProto| {
        let mut features = plain.iter().chain([&STEP]);
        features.any(|feature| feature.0 == name(f))
    };
    let more = found.iter().filter(|f| !known(f));
    check_projections("input", more, report);
}

/// Projections of the text: floats with the batch in front.
fn check_projections<'a>(
    kind: &str,
    found: impl IntoIterator<Item = &'a ValueInfoProto>,
    report: &mut Report<'_>,
) {
    for info in found {
        let tensor = info.ty.as_ref().and_then(|t| t.tensor_type.as_ref());
        let rank = tensor
            .and_then(|t| t.shape.as_ref())
            .map_or(0, |s| s.dim.len());
        let message = match problem(tensor, REAL, rank) {
            None if rank < 2 => Some("a projection has a batch and values".to_owned()),
            message => message,
        };
        if let Some(message) = message {
            report.add("feature", format!("{kind} '{}'", name(info)), message);
        }
    }
}

fn split(found: &[ValueInfoProto], at: usize) -> (&[ValueInfoProto], &[ValueInfoProto]) {
    found.split_at(at.min(found.len()))
}

fn name(info: &ValueInfoProto) -> &str {
    info.name.as_deref().unwrap_or_default()
}

fn check_list(kind: &str, found: &[ValueInfoProto], expected: &[Feature], report: &mut Report<'_>) {
    let names: Vec<&str> = found.iter().map(name).collect();
    let wanted: Vec<&str> = expected.iter().map(|f| f.0).collect();
    if names != wanted {
        let message = format!("expected {}, found {}", wanted.join(", "), names.join(", "));
        report.add("feature", format!("{kind}s"), message);
        return;
    }
    for (info, feature) in found.iter().zip(expected) {
        check_feature(kind, info, feature, report);
    }
}

fn check_feature(kind: &str, info: &ValueInfoProto, expected: &Feature, report: &mut Report<'_>) {
    let Feature(name, types, rank) = expected;
    let tensor = info.ty.as_ref().and_then(|t| t.tensor_type.as_ref());
    if let Some(message) = problem(tensor, types, *rank) {
        report.add("feature", format!("{kind} '{name}'"), message);
    }
}

fn problem(tensor: Option<&TensorTypeProto>, types: &[i32], rank: usize) -> Option<String> {
    let Some(tensor) = tensor else {
        return Some("it is not a tensor".to_owned());
    };
    let elem_type = tensor.elem_type.unwrap_or_default();
    if !types.contains(&elem_type) {
        return Some(format!(
            "element type {elem_type}, expected one of {types:?}"
        ));
    }
    let dims: &[Dimension] = tensor.shape.as_ref().map_or(&[], |s| &s.dim);
    if dims.len() != rank {
        return Some(format!("{} dimensions, expected {rank}", dims.len()));
    }
    let fits = |(i, dim): (usize, &Dimension)| match &dim.value {
        Some(DimensionValue::Size(n)) => *n > 0,
        Some(DimensionValue::Symbol(symbol)) => i == 0 && symbol == BATCH_DIM,
        None => false,
    };
    let wrong = dims.iter().enumerate().position(|d| !fits(d))?;
    Some(format!(
        "dimension {wrong} is neither a size nor the batch in front"
    ))
}
