//! `y = √x`, elementwise (`torch.sqrt`, ONNX `Sqrt`).

use super::elementwise::{eval_unary, infer_unary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `√x`; any float type. Negative elements give NaN.
    Sqrt {}

    const NAME: &'static str = "sqrt";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, f32::sqrt)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Sqrt {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Sqrt {}, &[Shape::fixed(&[])]),
            Example::new(Sqrt {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_roots() {
        // math.sqrt of Python
        let x = Tensor::float(&[4], vec![0.0, 4.0, 3.0, 1e-06]);
        let expected = [0.0, 2.0, 1.732_050_8, 0.001];
        let y = Sqrt {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!(
                (y - e).abs() <= 1e-7 * f32::abs(e).max(1.0),
                "{y} is not {e}"
            );
        }
    }

    #[test]
    fn a_negative_number_has_no_root() {
        let x = Tensor::float(&[1], vec![-1.0]);
        assert!(Sqrt {}.eval(&[&x]).floats()[0].is_nan());
    }
}
