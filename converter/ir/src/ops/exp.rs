//! `y = eˣ`, elementwise (`torch.exp`, ONNX `Exp`).

use super::elementwise::{eval_unary, infer_unary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `eˣ`; any float type.
    Exp {}

    const NAME: &'static str = "exp";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, f32::exp)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Exp {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Exp {}, &[Shape::fixed(&[])]),
            Example::new(Exp {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_powers() {
        // math.exp of Python
        let x = Tensor::float(&[4], vec![0.0, 0.5, -2.5, 5.0]);
        let expected = [1.0, 1.648_721_3, 0.082_085, 148.41316];
        let y = Exp {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!(
                (y - e).abs() <= 1e-6 * f32::abs(e).max(1.0),
                "{y} is not {e}"
            );
        }
    }
}
