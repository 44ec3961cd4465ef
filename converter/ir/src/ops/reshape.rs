//! `y = x` with other dimensions over the same row-major elements (`torch.reshape`, ONNX `Reshape`).

use super::check::{InferError, arity, attribute_error};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x)` → `x` with dimensions `shape`; any element type. The result has the batch if and only if the operand has.
    Reshape {
        /// Dimensions of the result, with as many elements per unit of batch as the operand.
        shape: Vec<Dim>,
    }

    const NAME: &'static str = "reshape";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        let from = &operands[0].shape;
        let to = Shape(self.shape.clone());
        let count = |s: &Shape| s.dims().iter().filter(|d| **d == Dim::Batch).count();
        if count(&to) > 1 || count(&to) != count(from) {
            let problem = format!("is {to}, which must have the batch where {from} has it, once");
            return Err(attribute_error("shape", problem));
        }
        let elements = to.elements_per_batch();
        if elements.is_none() || elements != from.elements_per_batch() {
            let problem = format!("is {to}, which has not the elements of {from}");
            return Err(attribute_error("shape", problem));
        }
        if to.has_batch() && elements == Some(0) {
            let problem = format!("is {to}, which has no elements to tell the batch from");
            return Err(attribute_error("shape", problem));
        }
        Ok(TensorType::new(operands[0].dtype, to))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let fixed: usize = self.shape.iter().filter_map(|d| d.fixed()).product();
        let batch = x.len().checked_div(fixed).unwrap_or(0);
        Tensor {
            shape: Shape(self.shape.clone()).bind(batch),
            elements: x.elements.clone(),
        }
    }

    fn examples() -> Vec<Example> {
        let to = |shape: Shape| Reshape { shape: shape.0 };
        let ids = TensorType::new(DType::I32, Shape::batched(&[7]));
        vec![
            Example::f32(to(Shape::batched(&[6, 4])), &[Shape::batched(&[2, 3, 4])]),
            Example::f32(to(Shape::batched(&[5, 2, 4])), &[Shape::batched(&[5, 8])]),
            Example::f32(to(Shape::fixed(&[])), &[Shape::fixed(&[1, 1])]),
            Example::f32(to(Shape::fixed(&[3, 1])), &[Shape::fixed(&[3])]),
            Example::new(to(Shape::batched(&[1, 7])), vec![ids]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn the_batch_follows_from_the_elements() {
        let x = Tensor::int(&[3, 4], (0..12).collect());
        let y = Reshape {
            shape: Shape::batched(&[2, 2]).0,
        }
        .eval(&[&x]);
        assert_eq!(y, Tensor::int(&[3, 2, 2], (0..12).collect()));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let message = |from: Shape, to: Shape| {
            let x = TensorType::new(DType::F32, from);
            Reshape { shape: to.0 }
                .infer(&[&x])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(Shape::fixed(&[2, 3]), Shape::fixed(&[4])),
            "attribute shape is [4], which has not the elements of [2,3]"
        );
        assert_eq!(
            message(Shape::batched(&[3]), Shape::fixed(&[3])),
            "attribute shape is [3], which must have the batch where [N,3] has it, once"
        );
        assert_eq!(
            message(Shape::batched(&[0]), Shape::batched(&[0, 2])),
            "attribute shape is [N,0,2], which has no elements to tell the batch from"
        );
    }
}
