//! Versions, names, order and operators of a model.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use snapc_target::TargetError;

use super::{Report, codes, feature, tensor};
use crate::emit::VERSIONS;
use crate::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRING, GraphProto, ModelProto,
    NodeProto,
};

/// Operators that snapc writes, with the number of operands they take.
const OPERATORS: [(&str, RangeInclusive<usize>); 35] = [
    ("Add", 2..=2),
    ("ArgMax", 1..=1),
    ("BitShift", 2..=2),
    ("BitwiseAnd", 2..=2),
    ("BitwiseOr", 2..=2),
    ("Cast", 1..=1),
    ("Concat", 1..=usize::MAX),
    ("Conv", 2..=3),
    ("Cos", 1..=1),
    ("DequantizeLinear", 2..=3),
    ("Div", 2..=2),
    ("Equal", 2..=2),
    ("Erf", 1..=1),
    ("Exp", 1..=1),
    ("Gather", 2..=2),
    ("GatherElements", 2..=2),
    ("GatherND", 2..=2),
    ("Gemm", 2..=3),
    ("Identity", 1..=1),
    ("InstanceNormalization", 3..=3),
    ("LayerNormalization", 2..=3),
    ("MatMul", 2..=2),
    ("Mul", 2..=2),
    ("QuantizeLinear", 3..=3),
    ("ReduceMean", 1..=2),
    ("Reshape", 2..=2),
    ("Resize", 3..=3),
    ("Sigmoid", 1..=1),
    ("Sin", 1..=1),
    ("Slice", 4..=4),
    ("Softmax", 1..=1),
    ("Sqrt", 1..=1),
    ("Sub", 2..=2),
    ("Transpose", 1..=1),
    ("Unsqueeze", 2..=2),
];

/// Checks a model that lies in `folder` and holds `graph`.
///
/// # Errors
/// When an external data file cannot be read.
pub(super) fn check(
    model: &ModelProto,
    graph: &str,
    folder: &Path,
    report: &mut Report<'_>,
) -> Result<(), TargetError> {
    let opset = check_versions(model, report);
    let Some(proto) = &model.graph else {
        report.add("decode", "", "the model has no graph");
        return Ok(());
    };
    check_values(proto, report);
    for node in &proto.node {
        check_operator(node, report);
        check_attributes(node, report);
    }
    if let Some(opset) = opset {
        codes::check(proto, opset, report);
    }
    feature::check(proto, graph, report);
    tensor::check(&proto.initializer, folder, report)
}

/// The operator set of a model; `None` and a finding when snapc writes no such set.
fn check_versions(model: &ModelProto, report: &mut Report<'_>) -> Option<i64> {
    let imports = model.opset_import.iter();
    let imports: Vec<(&str, i64)> = imports
        .map(|o| {
            (
                o.domain.as_deref().unwrap_or_default(),
                o.version.unwrap_or_default(),
            )
        })
        .collect();
    let ir_version = model.ir_version.unwrap_or_default();
    let known = VERSIONS.map(|(opset, _)| opset);
    match imports.as_slice() {
        [("", opset)] if VERSIONS.contains(&(*opset, ir_version)) => Some(*opset),
        [("", opset)] if known.contains(opset) => {
            let message = format!("IR version {ir_version} with operator set {opset}");
            report.add("version", "", message);
            Some(*opset)
        }
        _ => {
            let message =
                format!("operator sets {imports:?}, expected one of {known:?} of the ONNX domain");
            report.add("version", "", message);
            None
        }
    }
}

/// Values in the order of their definition: inputs, initializers, results of nodes.
fn check_values(proto: &GraphProto, report: &mut Report<'_>) {
    let mut values = BTreeSet::new();
    let inputs = proto.input.iter().map(|i| &i.name);
    for name in inputs.chain(proto.initializer.iter().map(|t| &t.name)) {
        define(
            &mut values,
            name.as_deref().unwrap_or_default(),
            "value",
            report,
        );
    }
    let mut nodes = BTreeSet::new();
    for node in &proto.node {
        define(
            &mut nodes,
            node.name.as_deref().unwrap_or_default(),
            "node",
            report,
        );
        // An empty name leaves out an optional operand.
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            if !values.contains(input.as_str()) {
                report.add(
                    "order",
                    place(node),
                    format!("'{input}' is used before it is defined"),
                );
            }
        }
        for output in &node.output {
            define(&mut values, output, "value", report);
        }
    }
    for output in &proto.output {
        let name = output.name.as_deref().unwrap_or_default();
        if !values.contains(name) {
            report.add("order", format!("output '{name}'"), "nothing defines it");
        }
    }
}

fn define<'a>(names: &mut BTreeSet<&'a str>, name: &'a str, kind: &str, report: &mut Report<'_>) {
    if name.is_empty() {
        report.add("name", "", format!("a {kind} has no name"));
    } else if !names.insert(name) {
        report.add(
            "name",
            format!("{kind} '{name}'"),
            "the name is given twice",
        );
    }
}

fn check_operator(node: &NodeProto, report: &mut Report<'_>) {
    let op_type = node.op_type.as_deref().unwrap_or_default();
    let domain = node.domain.as_deref().unwrap_or_default();
    let known = OPERATORS
        .iter()
        .find(|(name, _)| *name == op_type && domain.is_empty());
    let Some((_, arity)) = known else {
        report.add(
            "operator",
            place(node),
            format!("unknown operator '{domain}:{op_type}'"),
        );
        return;
    };
    if !arity.contains(&node.input.len()) || node.output.len() != 1 {
        let (inputs, outputs) = (node.input.len(), node.output.len());
        let message = format!("{op_type} with {inputs} operands and {outputs} results");
        report.add("operator", place(node), message);
    }
}

fn check_attributes(node: &NodeProto, report: &mut Report<'_>) {
    let mut names = BTreeSet::new();
    for attribute in &node.attribute {
        let name = attribute.name.as_deref().unwrap_or_default();
        if name.is_empty() || !names.insert(name) {
            report.add(
                "attribute",
                place(node),
                format!("'{name}' is empty or given twice"),
            );
        }
        let holds_value = match attribute.kind.unwrap_or_default() {
            ATTRIBUTE_FLOAT => attribute.f.is_some(),
            ATTRIBUTE_INT => attribute.i.is_some(),
            ATTRIBUTE_STRING => attribute.s.is_some(),
            ATTRIBUTE_INTS => true,
            _ => false,
        };
        if !holds_value {
            report.add(
                "attribute",
                place(node),
                format!("'{name}' does not hold what its type says"),
            );
        }
    }
}

fn place(node: &NodeProto) -> String {
    format!("node '{}'", node.name.as_deref().unwrap_or_default())
}
