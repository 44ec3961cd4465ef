//! Giving the open batch a size, for targets with static shapes.

use snapc_ir::ops::{Attribute, AttributeMap};
use snapc_ir::{BuildError, Dim, Graph, Op, Rebuild, Shape, TensorType};

/// The graph with `batch` in place of [`Dim::Batch`] in inputs and attributes.
///
/// # Errors
/// When an operator does not accept the bound shapes.
pub fn bind_batch(graph: &Graph, batch: usize) -> Result<Graph, BuildError> {
    let mut rebuild = Rebuild::new(graph);
    for input in graph.inputs() {
        let ty = graph.ty(input.value);
        let ty = TensorType::new(ty.dtype, Shape::fixed(&ty.shape.bind(batch)));
        let value = rebuild.graph.input(input.name.clone(), ty);
        rebuild.bind(input.value, value);
    }
    for node in graph.nodes() {
        let operands = rebuild.operands(node)?;
        let op = bind_op(&node.op, batch);
        let value = rebuild.graph.add(op, &operands, node.name.clone())?;
        rebuild.bind(node.result, value);
    }
    rebuild.finish()
}

/// Works through the attributes, so that a new operator with a shape attribute needs no change here.
fn bind_op(op: &Op, batch: usize) -> Op {
    let mut attributes = AttributeMap::default();
    let mut bound = false;
    for (name, mut attribute) in op.attributes() {
        if let Attribute::Dims(dims) = &mut attribute {
            bound |= dims.contains(&Dim::Batch);
            *dims = dims
                .iter()
                .map(|d| Dim::Fixed(d.fixed().unwrap_or(batch)))
                .collect();
        }
        attributes.0.insert(name.to_owned(), attribute);
    }
    if !bound {
        return op.clone();
    }
    Op::from_parts(op.name(), attributes).expect("the attributes are the operator's own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::DType;
    use snapc_ir::ops::{Reshape, Silu};

    #[test]
    fn inputs_and_shape_attributes_are_bound() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[6])));
        let t = g.input("t", TensorType::new(DType::F32, Shape::default()));
        let shape = Shape::batched(&[2, 3]).0;
        let y = g.add(Reshape { shape }, &[x], "y").unwrap();
        let z = g.add(Silu {}, &[t], "z").unwrap();
        g.output("y", y);
        g.output("z", z);
        let bound = bind_batch(&g, 2).unwrap();
        assert!(bound.values().iter().all(|v| !v.ty.shape.has_batch()));
        let shape = |o: usize| bound.ty(bound.outputs()[o].value).shape.clone();
        assert_eq!(shape(0), Shape::fixed(&[2, 2, 3]));
        assert_eq!(shape(1), Shape::default());
    }
}
