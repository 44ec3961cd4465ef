//! `y = scale · (clip(round(x / scale) + zero_point, 0, 255) - zero_point)`, the round half to even
//! (`torch.fake_quantize_per_tensor_affine`; ONNX `QuantizeLinear` to uint8 and `DequantizeLinear` behind it).

use super::check::{InferError, attribute_error};
use super::elementwise::{eval_unary, infer_unary};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x` on a grid of 256 values; any float type. A target with arithmetic in 8 bits computes on the codes.
    FakeQuantize {
        /// Distance of two values of the grid; positive and finite.
        scale: f32,
        /// The code that stands for zero: at most 255.
        zero_point: usize,
    }

    const NAME: &'static str = "fake_quantize";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            let problem = format!("is {}, must be positive and finite", self.scale);
            return Err(attribute_error("scale", problem));
        }
        if self.zero_point > 255 {
            let problem = format!("is {}, must be at most 255", self.zero_point);
            return Err(attribute_error("zero_point", problem));
        }
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let zero = self.zero_point as f32;
        eval_unary(operands, |x| {
            let code = ((x / self.scale).round_ties_even() + zero).clamp(0.0, 255.0);
            (code - zero) * self.scale
        })
    }

    fn examples() -> Vec<Example> {
        let op = |scale, zero_point| FakeQuantize { scale, zero_point };
        vec![
            Example::f32(op(0.0625, 128), &[Shape::batched(&[3, 5])]),
            Example::f32(op(0.25, 3), &[Shape::fixed(&[])]),
            Example::new(
                op(0.5, 0),
                vec![TensorType::new(DType::F16, Shape::fixed(&[7]))],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn values_are_those_of_torch() {
        // torch.fake_quantize_per_tensor_affine(x, 0.5, 10, 0, 255)
        let x = Tensor::float(&[6], vec![0.25, 0.75, -1.1, -9.0, 200.0, 1.25]);
        let y = FakeQuantize { scale: 0.5, zero_point: 10 }.eval(&[&x]);
        assert_eq!(y.floats(), [0.0, 1.0, -1.0, -5.0, 122.5, 1.0]);
    }

    #[test]
    fn attributes_out_of_range_are_refused() {
        let x = TensorType::new(DType::F32, Shape::fixed(&[1]));
        let error = |scale, zero_point| {
            let op = FakeQuantize { scale, zero_point };
            op.infer(&[&x]).unwrap_err().to_string()
        };
        assert_eq!(error(0.0, 0), "attribute scale is 0, must be positive and finite");
        assert_eq!(error(1.0, 256), "attribute zero_point is 256, must be at most 255");
    }
}
