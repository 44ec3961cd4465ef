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
    check_list("input", &proto.input, inputs, report);
    check_list("output", &proto.output, outputs, report);
}

fn check_list(kind: &str, found: &[ValueInfoProto], expected: &[Feature], report: &mut Report<'_>) {
    let names: Vec<&str> = found
        .iter()
        .map(|f| f.name.as_deref().unwrap_or_default())
        .collect();
    let wanted: Vec<&str> = expected.iter().map(|f| f.0).collect();
    if names != wanted {
        let message = format!("expected {}, found {}", wanted.join(", "), names.join(", "));
        report.add("feature", format!("{kind}s"), message);
        return;
    }
    for (info, Feature(name, types, rank)) in found.iter().zip(expected) {
        let tensor = info.ty.as_ref().and_then(|t| t.tensor_type.as_ref());
        if let Some(message) = problem(tensor, types, *rank) {
            report.add("feature", format!("{kind} '{name}'"), message);
        }
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
