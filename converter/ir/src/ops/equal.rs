//! `y = (a = b)`, broadcast as numpy does (`torch.eq`, ONNX `Equal`).

use super::check::{arity, same_dtype};
use super::elementwise::{broadcast, eval_binary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(a, b)` → bool, whether elements are equal; two operands of one integer type, broadcast as in numpy.
    Equal {}

    const NAME: &'static str = "equal";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 2..=2, "2")?;
        let found = operands[0].dtype;
        if !matches!(found, DType::I32 | DType::I64) {
            let expected = "an integer".to_owned();
            return Err(InferError::DType { operand: 0, expected, found });
        }
        same_dtype(operands)?;
        Ok(TensorType::new(DType::Bool, broadcast(operands)?))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_binary(operands, |a, b| f32::from(a == b), |a, b| i64::from(a == b))
    }

    fn examples() -> Vec<Example> {
        let scalar = |dtype| TensorType::new(dtype, Shape::fixed(&[]));
        let i32s = TensorType::new(DType::I32, Shape::batched(&[7]));
        let i64s = TensorType::new(DType::I64, Shape::fixed(&[3]));
        vec![
            Example::new(Equal {}, vec![i32s.clone(), scalar(DType::I32)]),
            Example::new(Equal {}, vec![i32s.clone(), i32s]),
            Example::new(Equal {}, vec![i64s, scalar(DType::I64)]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn the_end_token_is_found() {
        let ids = Tensor::int(&[2, 3], vec![5, 49407, 1, 49407, 49407, 0]);
        let end = Tensor::int(&[], vec![49407]);
        let y = Equal {}.eval(&[&ids, &end]);
        assert_eq!(y, Tensor::int(&[2, 3], vec![0, 1, 0, 1, 1, 0]));
    }

    #[test]
    fn floats_are_refused() {
        let x = TensorType::new(DType::F32, Shape::fixed(&[2]));
        let error = Equal {}.infer(&[&x, &x]).unwrap_err().to_string();
        assert_eq!(error, "operand 0 must be an integer, is f32");
    }
}
