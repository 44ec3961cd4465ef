//! `y = cos(x)`, elementwise (`torch.cos`, ONNX `Cos`).

use super::elementwise::{eval_unary, infer_unary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `cos(x)`, radians; any float type.
    Cos {}

    const NAME: &'static str = "cos";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, f32::cos)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Cos {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Cos {}, &[Shape::fixed(&[])]),
            Example::new(Cos {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_angles() {
        // math.cos of Python
        let x = Tensor::float(&[5], vec![0.0, 0.5, -1.0, 2.0, 3.0]);
        let expected = [1.0, 0.87758256, 0.54030231, -0.41614684, -0.989_992_5];
        let y = Cos {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!(
                (y - e).abs() <= 1e-6 * f32::abs(e).max(1.0),
                "{y} is not {e}"
            );
        }
    }
}
