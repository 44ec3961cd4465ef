//! `y[n, c, i, j] = x[n, c, ⌊i/scale⌋, ⌊j/scale⌋]` (diffusers `Upsample2D`: `torch.nn.functional.interpolate` with mode
//! `nearest`; ONNX `Resize` with `asymmetric` and `floor`).

use super::check::{InferError, arity, attribute_error, dims, float, size};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x[N,C,H,W])` → `[N, C, H·scale, W·scale]`, every element repeated; any float type.
    UpsampleNearest {
        /// Rows and columns made of each one; at least 1.
        scale: usize,
    }

    const NAME: &'static str = "upsample_nearest";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        let dtype = float(operands, 0)?;
        let &[n, c, _, _] = dims(operands, 0, "[N,C,H,W]")?;
        let scaled = |axis| match size(operands, 0, axis)?.checked_mul(self.scale) {
            Some(size) if self.scale > 0 => Ok(Dim::Fixed(size)),
            _ => {
                let problem = format!("is {}, which makes no valid size", self.scale);
                Err(attribute_error("scale", problem))
            }
        };
        Ok(TensorType::new(dtype, Shape(vec![n, c, scaled(2)?, scaled(3)?])))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let mut shape = x.shape.clone();
        shape[2] *= self.scale;
        shape[3] *= self.scale;
        let mut y = Vec::with_capacity(shape.iter().product());
        for row in x.floats().chunks(x.shape[3].max(1)) {
            let repeated = row.iter().flat_map(|&v| std::iter::repeat_n(v, self.scale));
            (0..self.scale).for_each(|_| y.extend(repeated.clone()));
        }
        Tensor::float(&shape, y)
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(UpsampleNearest { scale: 2 }, &[Shape::batched(&[3, 2, 5])]),
            Example::f32(UpsampleNearest { scale: 3 }, &[Shape::fixed(&[1, 2, 3, 3])]),
            Example::new(
                UpsampleNearest { scale: 1 },
                vec![TensorType::new(DType::F16, Shape::batched(&[2, 3, 3]))],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn rows_and_columns_are_doubled() {
        // numpy: np.array([[1, 2], [3, 4]]).repeat(2, axis=0).repeat(2, axis=1)
        let x = Tensor::float(&[1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let y = UpsampleNearest { scale: 2 }.eval(&[&x]);
        assert_eq!(y.shape, [1, 1, 4, 4]);
        let top = [1.0, 1.0, 2.0, 2.0];
        let bottom = [3.0, 3.0, 4.0, 4.0];
        assert_eq!(y.floats(), [top, top, bottom, bottom].concat());
    }

    #[test]
    fn no_scale_and_other_ranks_are_refused() {
        let x = TensorType::new(DType::F32, Shape::batched(&[3, 2, 2]));
        let flat = TensorType::new(DType::F32, Shape::batched(&[3]));
        let error = UpsampleNearest { scale: 0 }
            .infer(&[&x])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "attribute scale is 0, which makes no valid size");
        let error = UpsampleNearest { scale: 2 }
            .infer(&[&flat])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "operand 0 must have shape [N,C,H,W], has [N,3]");
    }
}
