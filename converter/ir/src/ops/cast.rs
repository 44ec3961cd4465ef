//! `y = x` as another element type, rounded to nearest even where it is narrower (`torch.Tensor.to`, ONNX `Cast`).

use super::check::{arity, attribute_error};
use super::{Example, InferError, operator};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x` as `to`: float to float, integer or bool to integer or float. Integers wrap to the narrower type.
    Cast {
        /// Element type of the result: any but bool.
        to: DType,
    }

    const NAME: &'static str = "cast";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        if self.to == DType::Bool {
            return Err(attribute_error("to", "must be a float or an integer, is bool"));
        }
        if operands[0].dtype.is_float() && !self.to.is_float() {
            return Err(InferError::DType {
                operand: 0,
                expected: format!("an integer or bool to become {}", self.to),
                found: operands[0].dtype,
            });
        }
        Ok(TensorType::new(self.to, operands[0].shape.clone()))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        match &x.elements {
            Elements::Int(v) if self.to.is_float() => {
                Tensor::float(&x.shape, v.iter().map(|&i| i as f32).collect())
            }
            Elements::Int(v) if self.to == DType::I32 => {
                Tensor::int(&x.shape, v.iter().map(|&i| i64::from(i as i32)).collect())
            }
            Elements::Int(_) => x.clone(),
            Elements::Float(_) => {
                let mut y = x.clone();
                y.round_to(self.to);
                y
            }
        }
    }

    fn examples() -> Vec<Example> {
        let from = |dtype, to| {
            let x = TensorType::new(dtype, Shape::batched(&[3]));
            Example::new(Cast { to }, vec![x])
        };
        vec![
            from(DType::F32, DType::F16),
            from(DType::F32, DType::BF16),
            from(DType::F16, DType::F32),
            from(DType::BF16, DType::F16),
            from(DType::F32, DType::F32),
            from(DType::Bool, DType::I32),
            from(DType::Bool, DType::F16),
            from(DType::I32, DType::F32),
            from(DType::I64, DType::I32),
            from(DType::I32, DType::I64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn floats_are_rounded_to_nearest_even() {
        // numpy: np.float16([2049, 2051, 70000])
        let x = Tensor::float(&[3], vec![2049.0, 2051.0, 70000.0]);
        let y = Cast { to: DType::F16 }.eval(&[&x]);
        assert_eq!(y.floats(), [2048.0, 2052.0, f32::INFINITY]);
    }

    #[test]
    fn integers_become_floats_or_wrap() {
        let x = Tensor::int(&[2], vec![-3, (1 << 32) + 5]);
        let floats = Cast { to: DType::F32 }.eval(&[&x]);
        assert_eq!(floats.floats(), [-3.0, 4_294_967_296.0]);
        assert_eq!(Cast { to: DType::I32 }.eval(&[&x]).ints(), [-3, 5]);
    }

    #[test]
    fn other_conversions_are_refused() {
        let float = TensorType::new(DType::F32, Shape::fixed(&[2]));
        let error = Cast { to: DType::I32 }.infer(&[&float]).unwrap_err();
        let message = "operand 0 must be an integer or bool to become i32, is f32";
        assert_eq!(error.to_string(), message);
        let error = Cast { to: DType::Bool }.infer(&[&float]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "attribute to must be a float or an integer, is bool"
        );
    }
}
