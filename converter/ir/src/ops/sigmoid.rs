//! `y = 1 / (1 + e⁻ˣ)`, elementwise (`torch.sigmoid`, ONNX `Sigmoid`).

use super::elementwise::{eval_unary, infer_unary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `1 / (1 + e⁻ˣ)`; any float type.
    Sigmoid {}

    const NAME: &'static str = "sigmoid";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, sigmoid)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Sigmoid {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Sigmoid {}, &[Shape::fixed(&[])]),
            Example::new(Sigmoid {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

/// `1 / (1 + e⁻ˣ)`; 0 and 1 at the ends, where `e⁻ˣ` overflows or vanishes.
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_values() {
        // 1 / (1 + math.exp(-x)) of Python
        let x = Tensor::float(&[4], vec![0.0, 1.0, -2.0, 10.0]);
        let expected = [0.5, 0.731_058_6, 0.11920292, 0.9999546];
        let y = Sigmoid {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!(
                (y - e).abs() <= 1e-6 * f32::abs(e).max(1.0),
                "{y} is not {e}"
            );
        }
    }

    #[test]
    fn the_ends_saturate() {
        let x = Tensor::float(&[2], vec![-1000.0, 1000.0]);
        assert_eq!(Sigmoid {}.eval(&[&x]).floats(), [0.0, 1.0]);
    }
}
