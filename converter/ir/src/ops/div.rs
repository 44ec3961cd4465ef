//! `y = a / b`, broadcast as numpy does (`torch.div`, ONNX `Div`).
//!
//! Integers are truncated toward zero as ONNX `Div` does; division by zero, which ONNX leaves open, gives 0.

use super::elementwise::{eval_binary, infer_binary};
use super::{Example, InferError, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(a, b)` → `a / b`; two operands of one float or integer type, broadcast as in numpy.
    Div {}

    const NAME: &'static str = "div";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_binary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_binary(operands, |a, b| a / b, quotient)
    }

    fn examples() -> Vec<Example> {
        let int = |dtype, dims: &[usize]| TensorType::new(dtype, Shape::batched(dims));
        vec![
            Example::f32(Div {}, &[Shape::batched(&[3, 5]), Shape::batched(&[3, 5])]),
            Example::f32(Div {}, &[Shape::fixed(&[4, 1]), Shape::batched(&[1, 3])]),
            Example::f32(Div {}, &[Shape::fixed(&[]), Shape::fixed(&[2, 3])]),
            Example::new(Div {}, vec![int(DType::F16, &[2]), int(DType::F16, &[1])]),
            Example::new(Div {}, vec![int(DType::I32, &[3]), int(DType::I32, &[3])]),
        ]
    }
}

fn quotient(a: i64, b: i64) -> i64 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn floats_follow_ieee() {
        let a = Tensor::float(&[3], vec![1.0, -3.0, 1.0]);
        let b = Tensor::float(&[3], vec![4.0, 2.0, 0.0]);
        let y = Div {}.eval(&[&a, &b]);
        assert_eq!(y.floats(), [0.25, -1.5, f32::INFINITY]);
    }

    #[test]
    fn integers_are_truncated_toward_zero() {
        let a = Tensor::int(&[3], vec![7, -7, 5]);
        let b = Tensor::int(&[3], vec![2, 2, 0]);
        assert_eq!(Div {}.eval(&[&a, &b]).ints(), [3, -3, 0]);
    }
}
