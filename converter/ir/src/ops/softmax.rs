//! `yᵢ = e^(xᵢ - max x) / Σⱼ e^(xⱼ - max x)` along one axis (`torch.softmax`, ONNX `Softmax`).

use super::check::{InferError, arity, axis_size, float};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x` normalized to positive values that sum to 1 along `axis`; any float type.
    Softmax {
        /// The dimension that is normalized; not the batch.
        axis: usize,
    }

    const NAME: &'static str = "softmax";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        float(operands, 0)?;
        axis_size(operands, self.axis)?;
        Ok(operands[0].clone())
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let size = x.shape[self.axis];
        let inner: usize = x.shape[self.axis + 1..].iter().product();
        let mut y = x.floats().to_vec();
        let mut row = vec![0.0; size];
        for block in y.chunks_mut((size * inner).max(1)) {
            for i in 0..inner {
                row.iter_mut().enumerate().for_each(|(k, v)| *v = block[k * inner + i]);
                softmax(&mut row);
                row.iter().enumerate().for_each(|(k, &v)| block[k * inner + i] = v);
            }
        }
        Tensor::float(&x.shape, y)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Softmax { axis: 3 }, &[Shape::batched(&[2, 3, 5])]),
            Example::f32(Softmax { axis: 1 }, &[Shape::batched(&[4, 3])]),
            Example::f32(Softmax { axis: 0 }, &[Shape::fixed(&[6])]),
            Example::new(Softmax { axis: 1 }, vec![TensorType::new(DType::F16, Shape::batched(&[3]))]),
        ]
    }
}

/// Normalizes a row in place. The sum is taken in f64; the largest element is subtracted so that nothing overflows.
pub(super) fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f64;
    for v in row.iter_mut() {
        *v = (*v - largest).exp();
        sum += f64::from(*v);
    }
    for v in row {
        *v = (f64::from(*v) / sum) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    fn assert_near(y: &Tensor, expected: &[f32]) {
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-6, "{y} is not {e}");
        }
    }

    #[test]
    fn the_last_axis_sums_to_one() {
        // numpy: np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(); the second row is the first one moved by 1000
        let x = Tensor::float(&[2, 3], vec![1.0, 2.0, 3.0, 1001.0, 1002.0, 1003.0]);
        let row = [0.090_030_57, 0.244_728_48, 0.665_240_94];
        assert_near(&Softmax { axis: 1 }.eval(&[&x]), &[row, row].concat());
    }

    #[test]
    fn an_outer_axis_sums_to_one() {
        // e / (1 + e) = 0.73105858
        let x = Tensor::float(&[2, 2], vec![0.0, 5.0, 1.0, 5.0]);
        let y = Softmax { axis: 0 }.eval(&[&x]);
        assert_near(&y, &[0.268_941_42, 0.5, 0.731_058_6, 0.5]);
    }

    #[test]
    fn the_batch_is_refused() {
        let x = TensorType::new(DType::F32, Shape::batched(&[3]));
        let error = Softmax { axis: 0 }.infer(&[&x]).unwrap_err().to_string();
        assert_eq!(
            error,
            "operand 0 must have shape with a fixed size along axis 0, has [N,3]"
        );
    }
}
