//! Programs as text, one line for each instruction.

use snapc_program::{Graph, Instruction, Op, Operand};

/// The instructions whose name begins with `prefix`.
pub fn listing(graph: &Graph, prefix: &str) -> String {
    let first = graph.inputs().len();
    let lines = graph.instructions().iter().enumerate();
    lines
        .filter(|(_, i)| i.name.starts_with(prefix))
        .map(|(at, i)| line(graph, first + at, i, prefix))
        .collect()
}

fn line(graph: &Graph, value: usize, instruction: &Instruction, prefix: &str) -> String {
    let operands: Vec<String> = instruction
        .operands
        .iter()
        .map(|operand| match operand {
            Operand::Value(v) => format!("%{v}"),
            Operand::Weight(w) => {
                let name = &graph.weights()[*w as usize].name;
                name.strip_prefix(prefix).unwrap_or(name).to_owned()
            }
        })
        .collect();
    let (op, operands) = (op(&instruction.op), operands.join(", "));
    let name = &instruction.name[prefix.len()..];
    let rounding = match instruction.rounding {
        snapc_program::Rounding::None => String::new(),
        other => format!(" {other:?}"),
    };
    let ty = &graph.values()[value];
    format!("%{value} = {op}({operands}) : {ty}{rounding} \"{name}\"\n")
}

/// The operator with what distinguishes its forms.
fn op(op: &Op) -> String {
    let name = op.name();
    match op {
        Op::Linear {
            activation,
            residual,
            ..
        }
        | Op::Conv2d {
            activation,
            residual,
            ..
        } => {
            let residual = if *residual { "+residual" } else { "" };
            format!("{name}{}{residual}", suffix(*activation))
        }
        Op::GroupNorm { activation, .. } => format!("{name}{}", suffix(*activation)),
        Op::MatMul { transposed: true } => format!("{name}ᵀ"),
        Op::Permute { order } => format!("{name}{order:?}"),
        Op::Slice { axis, start, end } => format!("{name}[{axis}, {start}..{end}]"),
        Op::Concat { axis } => format!("{name}[{axis}]"),
        _ => name.to_owned(),
    }
}

fn suffix(activation: snapc_program::Activation) -> String {
    match activation {
        snapc_program::Activation::None => String::new(),
        other => format!("+{other:?}").to_lowercase(),
    }
}
