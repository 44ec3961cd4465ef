//! `y = sin(x)`, elementwise (`torch.sin`, ONNX `Sin`).

use super::elementwise::{eval_unary, infer_unary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `sin(x)`, radians; any float type.
    Sin {}

    const NAME: &'static str = "sin";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, f32::sin)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Sin {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Sin {}, &[Shape::fixed(&[])]),
            Example::new(Sin {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_angles() {
        // math.sin of Python
        let x = Tensor::float(&[4], vec![0.0, 0.5, -1.0, 2.0]);
        let expected = [0.0, 0.47942554, -0.84147098, 0.909_297_4];
        let y = Sin {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!(
                (y - e).abs() <= 1e-6 * f32::abs(e).max(1.0),
                "{y} is not {e}"
            );
        }
    }
}
