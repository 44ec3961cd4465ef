//! Graph to text.

use std::fmt::{self, Write};

use super::INLINE_ELEMENTS;
use crate::graph::{Graph, Node, ValueDef, Weight};
use crate::ops::Attribute;

/// The text form of a graph.
pub fn print(graph: &Graph) -> String {
    let mut out = String::new();
    write(graph, &mut out).expect("writing to a string cannot fail");
    out
}

fn write(graph: &Graph, out: &mut String) -> fmt::Result {
    writeln!(out, "graph {:?} {{", graph.name())?;
    for (i, value) in graph.values().iter().enumerate() {
        write!(out, "  %{i} = ")?;
        match value.def {
            ValueDef::Input(n) => {
                write!(out, "input {:?} : {}", graph.inputs()[n].name, value.ty)?;
            }
            ValueDef::Weight(w) => {
                let weight = &graph.weights()[w.index()];
                let kind = if weight.is_parameter {
                    "parameter"
                } else {
                    "constant"
                };
                write!(out, "{kind} {:?} : {}", weight.name, value.ty)?;
                write_data(weight, out)?;
            }
            ValueDef::Node(n) => {
                let node = &graph.nodes()[n.index()];
                write_application(node, out)?;
                write!(out, " : {} {:?}", value.ty, node.name)?;
            }
        }
        out.push('\n');
    }
    for output in graph.outputs() {
        writeln!(
            out,
            "  output {:?} = %{}",
            output.name,
            output.value.index()
        )?;
    }
    writeln!(out, "}}")
}

fn write_application(node: &Node, out: &mut String) -> fmt::Result {
    write!(out, "{}(", node.op.name())?;
    for (i, operand) in node.operands.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        write!(out, "{comma}%{}", operand.index())?;
    }
    out.push(')');
    let attributes = node.op.attributes();
    for (i, (name, value)) in attributes.iter().enumerate() {
        let before = if i == 0 { " {" } else { ", " };
        write!(out, "{before}{name}={value}")?;
    }
    if !attributes.is_empty() {
        out.push('}');
    }
    Ok(())
}

fn write_data(weight: &Weight, out: &mut String) -> fmt::Result {
    let tensor = &weight.tensor;
    if !tensor.is_present() || tensor.elements() > INLINE_ELEMENTS {
        return Ok(());
    }
    if tensor.dtype().is_float() {
        match tensor.to_f32() {
            Ok(data) => write_list(out, " = [", &data, "]"),
            Err(_) => Ok(()),
        }
    } else {
        match tensor.to_i64() {
            Ok(data) => write_list(out, " = [", &data, "]"),
            Err(_) => Ok(()),
        }
    }
}

fn write_list<T: fmt::Debug>(
    out: &mut impl Write,
    open: &str,
    items: &[T],
    close: &str,
) -> fmt::Result {
    out.write_str(open)?;
    for (i, item) in items.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(out, "{comma}{item:?}")?;
    }
    out.write_str(close)
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Int(v) => write!(f, "{v}"),
            Attribute::Ints(v) => write_list(f, "[", v, "]"),
            Attribute::Dims(v) => write!(f, "{}", crate::Shape(v.clone())),
            Attribute::Float(v) => write!(f, "{v:?}"),
            Attribute::Bool(v) => write!(f, "{v}"),
            Attribute::DType(v) => write!(f, "{v}"),
        }
    }
}
