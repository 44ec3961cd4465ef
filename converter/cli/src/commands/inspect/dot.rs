//! Graphs in Graphviz's language.

use snapc_ir::{Graph, ValueDef, ValueId};

/// The graph with a box per node, an ellipse per input and output; weights are left out.
pub fn render(graph: &Graph) -> String {
    let mut text = format!("digraph {} {{\n  node [shape=box];\n", quote(graph.name()));
    for input in graph.inputs() {
        text.push_str(&format!(
            "  {} [shape=ellipse, label={}];\n",
            id(input.value),
            quote(&format!("{}\n{}", input.name, graph.ty(input.value)))
        ));
    }
    for node in graph.nodes() {
        let label = format!(
            "{}\n{}\n{}",
            node.op.name(),
            node.name,
            graph.ty(node.result)
        );
        text.push_str(&format!(
            "  {} [label={}];\n",
            id(node.result),
            quote(&label)
        ));
        for &operand in &node.operands {
            if !matches!(graph.value(operand).def, ValueDef::Weight(_)) {
                text.push_str(&format!("  {} -> {};\n", id(operand), id(node.result)));
            }
        }
    }
    for (i, output) in graph.outputs().iter().enumerate() {
        text.push_str(&format!(
            "  o{i} [shape=ellipse, label={}];\n",
            quote(&output.name)
        ));
        text.push_str(&format!("  {} -> o{i};\n", id(output.value)));
    }
    text.push_str("}\n");
    text
}

fn id(value: ValueId) -> String {
    format!("v{}", value.index())
}

/// A quoted string; line feeds become Graphviz's own.
fn quote(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::Silu;
    use snapc_ir::{DType, Shape, TensorType};

    #[test]
    fn nodes_and_edges_are_drawn() {
        let mut graph = Graph::new("g");
        let x = graph.input("x", TensorType::new(DType::F32, Shape::fixed(&[2])));
        let y = graph.add(Silu {}, &[x], "act").expect("silu takes floats");
        graph.output("y", y);
        let expected = "digraph \"g\" {\n  node [shape=box];\n  \
            v0 [shape=ellipse, label=\"x\\nf32[2]\"];\n  v1 [label=\"silu\\nact\\nf32[2]\"];\n  v0 -> v1;\n  \
            o0 [shape=ellipse, label=\"y\"];\n  v1 -> o0;\n}\n";
        assert_eq!(render(&graph), expected);
    }
}
