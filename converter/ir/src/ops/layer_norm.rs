//! `y = (x - mean) / √(var + epsilon) · scale + bias` over the last axis, with the biased variance
//! (`torch.nn.LayerNorm`).

use super::check::{InferError, arity, float, same_dtype, shape_error, shape_is, size};
use super::elementwise::scalar_like;
use super::{Add, Div, Example, Mul, ReduceMean, Sqrt, Sub, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x[…,C], scale[C], bias[C])` → `x` normalized over its last axis; operands of one float type.
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
    }

    const NAME: &'static str = "layer_norm";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 3..=3, "3")?;
        float(operands, 0)?;
        same_dtype(operands)?;
        let Some(axis) = operands[0].shape.rank().checked_sub(1) else {
            return Err(shape_error(operands, 0, "of rank 1 or more"));
        };
        let channels = Dim::Fixed(size(operands, 0, axis)?);
        shape_is(operands, 1, &[channels])?;
        shape_is(operands, 2, &[channels])?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let (x, scale, bias) = (operands[0], operands[1].floats(), operands[2].floats());
        let mut y = Vec::with_capacity(x.len());
        for row in x.floats().chunks(scale.len().max(1)) {
            let (mean, factor) = moments(row, self.epsilon);
            for ((v, s), b) in row.iter().zip(scale).zip(bias) {
                let normal = (f64::from(*v) - mean) * factor;
                y.push((normal * f64::from(*s) + f64::from(*b)) as f32);
            }
        }
        Tensor::float(&x.shape, y)
    }

    /// Every step has the element type of `x`: in f16 squares beyond 65504 overflow, which a target that computes so
    /// must guard against.
    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let axis = graph.ty(operands[0]).shape.rank().saturating_sub(1);
        let normal = normalized(graph, operands[0], axis, self.epsilon, name)?;
        let scaled = graph.add(Mul {}, &[normal, operands[1]], name)?;
        Ok(Some(graph.add(Add {}, &[scaled, operands[2]], name)?))
    }

    fn examples() -> Vec<Example> {
        let norm = LayerNorm { epsilon: 1e-5 };
        let (row, half) = (Shape::fixed(&[6]), |s| TensorType::new(DType::F16, s));
        vec![
            Example::f32(norm.clone(), &[Shape::batched(&[3, 6]), row.clone(), row.clone()]),
            Example::f32(norm.clone(), &[row.clone(), row.clone(), row.clone()]),
            Example::f32(LayerNorm { epsilon: 0.1 }, &[Shape::fixed(&[2, 6]), row.clone(), row.clone()]),
            Example::new(norm, vec![half(Shape::batched(&[6])), half(row.clone()), half(row)]),
        ]
    }
}

/// The mean, and `1 / √(var + epsilon)` with the biased variance.
pub(super) fn moments(x: &[f32], epsilon: f32) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = x
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / n;
    (mean, 1.0 / (variance + f64::from(epsilon)).sqrt())
}

/// Adds `(x - mean) / √(var + epsilon)` over one axis.
pub(super) fn normalized(
    graph: &mut Graph,
    x: ValueId,
    axis: usize,
    epsilon: f32,
    name: &str,
) -> Result<ValueId, BuildError> {
    let over = ReduceMean { axes: vec![axis] };
    let epsilon = scalar_like(graph, x, epsilon, name);
    let mean = graph.add(over.clone(), &[x], name)?;
    let centered = graph.add(Sub {}, &[x, mean], name)?;
    let squares = graph.add(Mul {}, &[centered, centered], name)?;
    let variance = graph.add(over, &[squares], name)?;
    let positive = graph.add(Add {}, &[variance, epsilon], name)?;
    let deviation = graph.add(Sqrt {}, &[positive], name)?;
    graph.add(Div {}, &[centered, deviation], name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn rows_are_normalized_one_by_one() {
        // The formula in float64 numpy.
        let x = Tensor::float(&[2, 3], vec![1.0, 2.0, 4.0, -1.0, 0.0, 0.5]);
        let scale = Tensor::float(&[3], vec![1.0, 2.0, 0.5]);
        let bias = Tensor::float(&[3], vec![0.0, 1.0, -1.0]);
        let y = LayerNorm { epsilon: 1e-5 }.eval(&[&x, &scale, &bias]);
        let first = [-1.069_042, 0.465_479_2, -0.331_849];
        let second = [-1.336_289, 1.534_516, -0.465_484_4];
        for (y, e) in y.floats().iter().zip([first, second].concat()) {
            assert!((y - e).abs() < 1e-6, "{y} is not {e}");
        }
    }

    #[test]
    fn a_constant_row_gives_the_bias() {
        let x = Tensor::float(&[2], vec![7.0, 7.0]);
        let scale = Tensor::float(&[2], vec![3.0, 3.0]);
        let bias = Tensor::float(&[2], vec![0.25, -1.0]);
        let y = LayerNorm { epsilon: 1e-5 }.eval(&[&x, &scale, &bias]);
        assert_eq!(y.floats(), [0.25, -1.0]);
    }

    #[test]
    fn refused_operands_are_named() {
        let ty = |s| TensorType::new(DType::F32, Shape::fixed(s));
        let norm = LayerNorm { epsilon: 1e-5 };
        let message = |types: &[&TensorType]| norm.infer(types).unwrap_err().to_string();
        let (x, row) = (ty(&[2, 6]), ty(&[6]));
        assert_eq!(
            message(&[&x, &row, &ty(&[2])]),
            "operand 2 must have shape [6], has [2]"
        );
        assert_eq!(
            message(&[&ty(&[]), &row, &row]),
            "operand 0 must have shape of rank 1 or more, has []"
        );
        assert_eq!(message(&[&x, &row]), "operand count must be 3, is 2");
    }
}
