//! `y = [x₀; x₁; …]` along one axis (`torch.cat`, ONNX `Concat`).

use super::check::{InferError, arity, attribute_error, axis_size, same_dtype, shape_error, size};
use super::{Example, operator};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x₀, x₁, …)` → the operands one after the other along `axis`; one or more tensors of one element type, whose
    /// other dimensions agree.
    Concat {
        /// The dimension that grows; not the batch.
        axis: usize,
    }

    const NAME: &'static str = "concat";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=usize::MAX, "1 or more")?;
        let dtype = same_dtype(operands)?;
        let mut total = axis_size(operands, self.axis)?;
        let mut shape = operands[0].shape.clone();
        for (i, operand) in operands.iter().enumerate().skip(1) {
            let dims = operand.shape.dims();
            let agrees = |(axis, d): (usize, &Dim)| axis == self.axis || *d == shape.0[axis];
            if dims.len() != shape.rank() || !dims.iter().enumerate().all(agrees) {
                let expected = format!("{shape} except along axis {}", self.axis);
                return Err(shape_error(operands, i, expected));
            }
            total = total
                .checked_add(size(operands, i, self.axis)?)
                .ok_or_else(|| attribute_error("axis", "makes a dimension that is too large"))?;
        }
        shape.0[self.axis] = Dim::Fixed(total);
        Ok(TensorType::new(dtype, shape))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let mut shape = operands[0].shape.clone();
        shape[self.axis] = operands.iter().map(|x| x.shape[self.axis]).sum();
        let outer: usize = shape[..self.axis].iter().product();
        match &operands[0].elements {
            Elements::Float(_) => {
                let parts: Vec<&[f32]> = operands.iter().map(|x| x.floats()).collect();
                Tensor::float(&shape, interleave(&parts, outer))
            }
            Elements::Int(_) => {
                let parts: Vec<&[i64]> = operands.iter().map(|x| x.ints()).collect();
                Tensor::int(&shape, interleave(&parts, outer))
            }
        }
    }

    fn examples() -> Vec<Example> {
        let ids = TensorType::new(DType::I32, Shape::batched(&[1]));
        vec![
            Example::f32(
                Concat { axis: 1 },
                &[Shape::batched(&[2, 3, 3]), Shape::batched(&[5, 3, 3])],
            ),
            Example::f32(
                Concat { axis: 1 },
                &[Shape::fixed(&[2, 1]), Shape::fixed(&[2, 4]), Shape::fixed(&[2, 2])],
            ),
            Example::f32(Concat { axis: 0 }, &[Shape::fixed(&[3])]),
            Example::new(Concat { axis: 1 }, vec![ids.clone(), ids]),
        ]
    }
}

/// The `i`th block of every part in turn, for each of `blocks` equal blocks per part.
fn interleave<T: Copy>(parts: &[&[T]], blocks: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    for i in 0..blocks {
        for part in parts {
            let block = part.len() / blocks;
            out.extend_from_slice(&part[i * block..(i + 1) * block]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn columns_are_joined_row_by_row() {
        // numpy: np.concatenate([[[1, 2], [3, 4]], [[5], [6]]], axis=1)
        let a = Tensor::int(&[2, 2], vec![1, 2, 3, 4]);
        let b = Tensor::int(&[2, 1], vec![5, 6]);
        let y = Concat { axis: 1 }.eval(&[&a, &b]);
        assert_eq!(y, Tensor::int(&[2, 3], vec![1, 2, 5, 3, 4, 6]));
    }

    #[test]
    fn refused_operands_are_named() {
        let a = TensorType::new(DType::F32, Shape::batched(&[2, 3]));
        let b = TensorType::new(DType::F32, Shape::batched(&[2, 4]));
        let message =
            |axis, types: &[&TensorType]| Concat { axis }.infer(types).unwrap_err().to_string();
        assert_eq!(
            message(1, &[&a, &b]),
            "operand 1 must have shape [N,2,3] except along axis 1, has [N,2,4]"
        );
        assert_eq!(
            message(3, &[&a, &a]),
            "attribute axis is 3, but operand 0 has rank 3"
        );
        assert_eq!(
            message(0, &[&a, &a]),
            "operand 0 must have shape with a fixed size along axis 0, has [N,2,3]"
        );
        assert_eq!(message(0, &[]), "operand count must be 1 or more, is 0");
    }
}
