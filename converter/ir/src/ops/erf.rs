//! `y = 2/√π ∫₀ˣ e^(-t²) dt`, elementwise (`torch.erf`, ONNX `Erf`).

use super::elementwise::{eval_unary, infer_unary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → the error function of `x`; any float type.
    Erf {}

    const NAME: &'static str = "erf";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, |x| erf(f64::from(x)) as f32)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Erf {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Erf {}, &[Shape::fixed(&[])]),
            Example::new(Erf {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

/// The error function, to about 1e-15: the series `2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1))`, whose terms are all of
/// one sign so that nothing cancels. (Abramowitz and Stegun, 7.1.6.)
pub(super) fn erf(x: f64) -> f64 {
    // erfc(6) is below the resolution of f64 at 1.
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    let mut n = 1.0;
    while term.abs() > 1e-17 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_values() {
        // math.erf of Python
        let x = Tensor::float(&[7], vec![0.0, 0.1, -0.5, 1.0, 2.5, -3.5, 6.0]);
        let expected = [
            0.0,
            0.11246292,
            -0.520_499_9,
            0.842_700_8,
            0.999_593_1,
            -0.999_999_3,
            1.0,
        ];
        let y = Erf {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!(
                (y - e).abs() <= 1e-7 * f32::abs(e).max(1.0),
                "{y} is not {e}"
            );
        }
    }

    #[test]
    fn extremes_stay_defined() {
        let x = Tensor::float(&[3], vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
        let y = Erf {}.eval(&[&x]);
        assert_eq!(y.floats()[..2], [1.0, -1.0]);
        assert!(y.floats()[2].is_nan());
    }
}
