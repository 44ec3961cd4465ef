//! `y = a + b`, broadcast as numpy does (`torch.add`, ONNX `Add`).

use super::elementwise::{eval_binary, infer_binary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(a, b)` → `a + b`; two operands of one float or integer type, broadcast as in numpy.
    Add {}

    const NAME: &'static str = "add";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_binary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_binary(operands, |a, b| a + b, i64::wrapping_add)
    }

    fn examples() -> Vec<Example> {
        let int = |dtype, dims: &[usize]| TensorType::new(dtype, Shape::batched(dims));
        vec![
            Example::f32(Add {}, &[Shape::batched(&[3, 5]), Shape::batched(&[3, 5])]),
            Example::f32(Add {}, &[Shape::fixed(&[4, 1]), Shape::batched(&[1, 3])]),
            Example::f32(Add {}, &[Shape::fixed(&[]), Shape::fixed(&[2, 3])]),
            Example::new(Add {}, vec![int(DType::F16, &[2]), int(DType::F16, &[1])]),
            Example::new(Add {}, vec![int(DType::I32, &[3]), int(DType::I32, &[3])]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn a_bias_is_added_to_every_row() {
        // numpy: np.array([[1, 2], [3, 4]]) + np.array([0.5, -1])
        let x = Tensor::float(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let bias = Tensor::float(&[2], vec![0.5, -1.0]);
        let y = Add {}.eval(&[&x, &bias]);
        assert_eq!(y, Tensor::float(&[2, 2], vec![1.5, 1.0, 3.5, 3.0]));
    }
}
