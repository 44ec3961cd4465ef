//! `y = a - b`, broadcast as numpy does (`torch.sub`, ONNX `Sub`).

use super::elementwise::{eval_binary, infer_binary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(a, b)` → `a - b`; two operands of one float or integer type, broadcast as in numpy.
    Sub {}

    const NAME: &'static str = "sub";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_binary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_binary(operands, |a, b| a - b, i64::wrapping_sub)
    }

    fn examples() -> Vec<Example> {
        let int = |dtype, dims: &[usize]| TensorType::new(dtype, Shape::batched(dims));
        vec![
            Example::f32(Sub {}, &[Shape::batched(&[3, 5]), Shape::batched(&[3, 5])]),
            Example::f32(Sub {}, &[Shape::fixed(&[4, 1]), Shape::batched(&[1, 3])]),
            Example::f32(Sub {}, &[Shape::fixed(&[]), Shape::fixed(&[2, 3])]),
            Example::new(Sub {}, vec![int(DType::F16, &[2]), int(DType::F16, &[1])]),
            Example::new(Sub {}, vec![int(DType::I32, &[3]), int(DType::I32, &[3])]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn operands_keep_their_order() {
        let a = Tensor::float(&[2], vec![1.0, 5.0]);
        let b = Tensor::float(&[], vec![2.0]);
        assert_eq!(Sub {}.eval(&[&a, &b]), Tensor::float(&[2], vec![-1.0, 3.0]));
        assert_eq!(Sub {}.eval(&[&b, &a]), Tensor::float(&[2], vec![1.0, -3.0]));
    }
}
