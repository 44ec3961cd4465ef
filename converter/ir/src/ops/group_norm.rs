//! `y = (x - mean) / √(var + epsilon) · scale[c] + bias[c]`, the mean and the biased variance over the channels of a
//! group and all positions (`torch.nn.GroupNorm`).

use super::check::{InferError, arity, attribute_error, dims, float, same_dtype, shape_error};
use super::check::{shape_is, size};
use super::layer_norm::{moments, normalized};
use super::{Add, Example, Mul, Reshape, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x[N,C,H,W], scale[C], bias[C])` → `x` normalized per image and group of `C/groups` channels; operands of one
    /// float type.
    GroupNorm {
        /// Number of groups; divides `C`.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
    }

    const NAME: &'static str = "group_norm";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 3..=3, "3")?;
        float(operands, 0)?;
        same_dtype(operands)?;
        dims::<4>(operands, 0, "[N,C,H,W]")?;
        let channels = size(operands, 0, 1)?;
        if self.groups == 0 || !channels.is_multiple_of(self.groups) {
            let problem = format!("is {}, which does not divide {channels} channels", self.groups);
            return Err(attribute_error("groups", problem));
        }
        let (height, width) = (size(operands, 0, 2)?, size(operands, 0, 3)?);
        let positions = channels.checked_mul(height).and_then(|n| n.checked_mul(width));
        if positions.is_none_or(|n| n == 0) {
            return Err(shape_error(operands, 0, "with elements in every group"));
        }
        shape_is(operands, 1, &[Dim::Fixed(channels)])?;
        shape_is(operands, 2, &[Dim::Fixed(channels)])?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let (x, scale, bias) = (operands[0], operands[1].floats(), operands[2].floats());
        let channels = x.shape[1];
        let plane = x.shape[2] * x.shape[3];
        let per_group = channels / self.groups;
        let mut y = Vec::with_capacity(x.len());
        for (i, group) in x.floats().chunks_exact(per_group * plane).enumerate() {
            let (mean, factor) = moments(group, self.epsilon);
            for (k, values) in group.chunks_exact(plane).enumerate() {
                let channel = i % self.groups * per_group + k;
                let factor = factor * f64::from(scale[channel]);
                let bias = f64::from(bias[channel]);
                let normal = |v: &f32| ((f64::from(*v) - mean) * factor + bias) as f32;
                y.extend(values.iter().map(normal));
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
        let image = graph.ty(operands[0]).shape.0.clone();
        let size = |axis: usize| image[axis].fixed().unwrap_or(0);
        let channels = size(1);
        let per_group = channels / self.groups.max(1) * size(2) * size(3);
        let grouped = vec![image[0], Dim::Fixed(self.groups), Dim::Fixed(per_group)];
        let per_channel = Reshape { shape: Shape::fixed(&[channels, 1, 1]).0 };
        let groups = graph.add(Reshape { shape: grouped }, &[operands[0]], name)?;
        let normal = normalized(graph, groups, 2, self.epsilon, name)?;
        let normal = graph.add(Reshape { shape: image }, &[normal], name)?;
        let scale = graph.add(per_channel.clone(), &[operands[1]], name)?;
        let bias = graph.add(per_channel, &[operands[2]], name)?;
        let scaled = graph.add(Mul {}, &[normal, scale], name)?;
        Ok(Some(graph.add(Add {}, &[scaled, bias], name)?))
    }

    fn examples() -> Vec<Example> {
        let norm = |groups| GroupNorm { groups, epsilon: 1e-5 };
        let (x, row) = (Shape::batched(&[6, 3, 5]), Shape::fixed(&[6]));
        let half = |s| TensorType::new(DType::F16, s);
        vec![
            Example::f32(norm(2), &[x.clone(), row.clone(), row.clone()]),
            Example::f32(norm(1), &[x.clone(), row.clone(), row.clone()]),
            Example::f32(norm(6), &[Shape::fixed(&[2, 6, 3, 3]), row.clone(), row.clone()]),
            Example::new(norm(3), vec![half(x), half(row.clone()), half(row)]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    /// The expected values are those of the formula in float64 numpy.
    fn check(groups: usize, expected: [f32; 8]) {
        let x = vec![1.0, 2.0, 3.0, 4.0, 0.0, -1.0, 2.0, 5.0];
        let x = Tensor::float(&[1, 2, 2, 2], x);
        let scale = Tensor::float(&[2], vec![1.0, 2.0]);
        let bias = Tensor::float(&[2], vec![0.0, -1.0]);
        let y = GroupNorm {
            groups,
            epsilon: 1e-5,
        }
        .eval(&[&x, &scale, &bias]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-5, "{y} is not {e}");
        }
    }

    #[test]
    fn one_group_shares_its_statistics() {
        let first = [-0.534_521_7, 0.0, 0.534_521_7, 1.069_043];
        let second = [-3.138_087, -4.207_13, -1.0, 2.207_13];
        check(1, [first, second].concat().try_into().unwrap());
    }

    #[test]
    fn groups_have_their_own_statistics() {
        let first = [-1.341_635, -0.447_211_8, 0.447_211_8, 1.341_635];
        let second = [-2.309_306, -3.182_177, -0.563_564_6, 2.055_048];
        check(2, [first, second].concat().try_into().unwrap());
    }

    #[test]
    fn refused_operands_are_named() {
        let ty = |s| TensorType::new(DType::F32, Shape::fixed(s));
        let message = |groups, types: &[&TensorType]| {
            GroupNorm {
                groups,
                epsilon: 1e-5,
            }
            .infer(types)
            .unwrap_err()
            .to_string()
        };
        let (x, row) = (ty(&[1, 6, 2, 2]), ty(&[6]));
        assert_eq!(
            message(4, &[&x, &row, &row]),
            "attribute groups is 4, which does not divide 6 channels"
        );
        assert_eq!(
            message(2, &[&x, &ty(&[3]), &row]),
            "operand 1 must have shape [6], has [3]"
        );
        assert_eq!(
            message(2, &[&row, &row, &row]),
            "operand 0 must have shape [N,C,H,W], has [6]"
        );
        assert_eq!(
            message(2, &[&ty(&[1, 6, 0, 2]), &row, &row]),
            "operand 0 must have shape with elements in every group, has [1,6,0,2]"
        );
    }
}
