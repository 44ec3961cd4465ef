//! Weights as codes, made by hand.

use std::sync::Arc;

use snapc_ir::{BuildError, Encoding, Graph, LazyTensor, Op, ValueId};

/// The largest magnitude of each group of a row-major tensor, groups as [`Encoding`] numbers them.
fn largest(tensor: &LazyTensor, groups: &[usize]) -> Vec<f32> {
    let shape = tensor.shape();
    let mut largest = vec![0f32; groups.iter().product()];
    for (i, x) in tensor.to_f32().expect("has data").iter().enumerate() {
        let (mut rest, mut group, mut stride) = (i, 0, 1);
        for d in (0..shape.len()).rev() {
            group += rest % shape[d] / (shape[d] / groups[d]) * stride;
            rest /= shape[d];
            stride *= groups[d];
        }
        largest[group] = largest[group].max(x.abs());
    }
    largest
}

/// Codes with a scale per group, and zero points when there shall be some.
pub fn scales(tensor: &LazyTensor, bits: u32, groups: &[usize], zero_points: bool) -> LazyTensor {
    let largest = largest(tensor, groups);
    let end = ((1 << (bits - 1)) - 1) as f32;
    let scale: Vec<f32> = largest.iter().map(|m| m.max(1e-6) / end).collect();
    let zero = |i: usize| if i.is_multiple_of(2) { 1 } else { -2 };
    let zero = (0..scale.len() * usize::from(zero_points)).map(zero);
    let encoding = Encoding::affine(bits, groups, scale, zero.collect());
    tensor.clone().encode(Arc::new(encoding.expect("fits")))
}

/// Codes with an even palette per group.
pub fn palette(tensor: &LazyTensor, bits: u32, groups: &[usize]) -> LazyTensor {
    let steps = (1 << bits) - 1;
    let table = largest(tensor, groups).into_iter().flat_map(|m| {
        let entry = move |i: u32| m.max(1e-6) * (2.0 * i as f32 / steps as f32 - 1.0);
        (0..=steps).map(entry)
    });
    let encoding = Encoding::palette(bits, groups, table.collect());
    tensor.clone().encode(Arc::new(encoding.expect("fits")))
}

/// The graph with every weight of a product replaced, and with `before` in front of what the product reads.
pub fn with_products(
    graph: &Graph,
    encode: impl Fn(&LazyTensor) -> LazyTensor,
    before: Option<&Op>,
) -> Graph {
    let rebuilt = graph.rebuild::<BuildError>(|rebuild, node| {
        let product = matches!(node.op, Op::Conv2d(_) | Op::Linear(_));
        let weight = node.operands.get(1).and_then(|&v| graph.weight_of(v));
        let Some(weight) = weight.filter(|_| product) else {
            return rebuild.copy(node).map(Some);
        };
        let mut operands = rebuild.operands(node)?;
        operands[1] = rebuild
            .graph
            .parameter(weight.name.clone(), encode(&weight.tensor));
        if let Some(op) = before {
            let name = format!("{}.input", node.name);
            operands[0] = rebuild.graph.add(op.clone(), &operands[..1], name)?;
        }
        let result: ValueId = rebuild
            .graph
            .add(node.op.clone(), &operands, node.name.clone())?;
        Ok(Some(result))
    });
    rebuilt.expect("the graph is sound")
}
