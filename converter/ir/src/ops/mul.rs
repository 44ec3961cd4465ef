//! `y = a * b`, broadcast as numpy does (`torch.mul`, ONNX `Mul`).

use super::elementwise::{eval_binary, infer_binary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(a, b)` → `a * b`, elementwise; two operands of one float or integer type, broadcast as in numpy.
    Mul {}

    const NAME: &'static str = "mul";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_binary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_binary(operands, |a, b| a * b, i64::wrapping_mul)
    }

    fn examples() -> Vec<Example> {
        let int = |dtype, dims: &[usize]| TensorType::new(dtype, Shape::batched(dims));
        vec![
            Example::f32(Mul {}, &[Shape::batched(&[3, 5]), Shape::batched(&[3, 5])]),
            Example::f32(Mul {}, &[Shape::fixed(&[4, 1]), Shape::batched(&[1, 3])]),
            Example::f32(Mul {}, &[Shape::fixed(&[]), Shape::fixed(&[2, 3])]),
            Example::new(Mul {}, vec![int(DType::F16, &[2]), int(DType::F16, &[1])]),
            Example::new(Mul {}, vec![int(DType::I32, &[3]), int(DType::I32, &[3])]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn channels_are_scaled() {
        // numpy: np.arange(4).reshape(1, 2, 2) * np.array([2, -1]).reshape(2, 1)
        let x = Tensor::float(&[1, 2, 2], vec![0.0, 1.0, 2.0, 3.0]);
        let scale = Tensor::float(&[2, 1], vec![2.0, -1.0]);
        let y = Mul {}.eval(&[&x, &scale]);
        assert_eq!(y, Tensor::float(&[1, 2, 2], vec![0.0, 2.0, -2.0, -3.0]));
    }
}
