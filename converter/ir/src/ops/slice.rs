//! `y = x[…, start:end, …]` along one axis (`torch.narrow`, ONNX `Slice` with step 1).

use super::check::{InferError, arity, attribute_error, axis_size};
use super::{Example, operator};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x)` → the indices `start..end` of `x` along `axis`, at least one; any element type.
    Slice {
        /// The dimension that is cut; not the batch.
        axis: usize,
        /// First index kept.
        start: usize,
        /// First index dropped after it.
        end: usize,
    }

    const NAME: &'static str = "slice";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        let size = axis_size(operands, self.axis)?;
        if self.end > size {
            let problem = format!("is {}, but axis {} has size {size}", self.end, self.axis);
            return Err(attribute_error("end", problem));
        }
        if self.start >= self.end {
            let problem = format!("is {}, not before the end {}", self.start, self.end);
            return Err(attribute_error("start", problem));
        }
        let mut ty = operands[0].clone();
        ty.shape.0[self.axis] = Dim::Fixed(self.end - self.start);
        Ok(ty)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let mut shape = x.shape.clone();
        shape[self.axis] = self.end - self.start;
        let inner: usize = shape[self.axis + 1..].iter().product();
        let (block, kept) = (x.shape[self.axis] * inner, self.start * inner..self.end * inner);
        match &x.elements {
            Elements::Float(v) => Tensor::float(&shape, cut(v, block, kept)),
            Elements::Int(v) => Tensor::int(&shape, cut(v, block, kept)),
        }
    }

    fn examples() -> Vec<Example> {
        let cut = |axis, start, end| Slice { axis, start, end };
        let ids = TensorType::new(DType::I32, Shape::batched(&[7]));
        vec![
            Example::f32(cut(2, 4, 8), &[Shape::batched(&[3, 8])]),
            Example::f32(cut(1, 0, 1), &[Shape::batched(&[3, 2, 2])]),
            Example::f32(cut(0, 1, 3), &[Shape::fixed(&[3, 5])]),
            Example::new(cut(1, 2, 7), vec![ids]),
        ]
    }
}

fn cut<T: Copy>(x: &[T], block: usize, kept: std::ops::Range<usize>) -> Vec<T> {
    // An empty tensor has no block; the length 1 only keeps `chunks` defined.
    let blocks = x.chunks_exact(block.max(1));
    blocks
        .flat_map(|b| b[kept.clone()].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn a_range_of_columns_is_kept() {
        // numpy: np.arange(8).reshape(2, 4)[:, 1:3]
        let x = Tensor::int(&[2, 4], (0..8).collect());
        let y = Slice {
            axis: 1,
            start: 1,
            end: 3,
        }
        .eval(&[&x]);
        assert_eq!(y, Tensor::int(&[2, 2], vec![1, 2, 5, 6]));
    }

    #[test]
    fn ranges_outside_are_refused() {
        let x = TensorType::new(DType::F32, Shape::batched(&[4]));
        let message = |axis, start, end| {
            Slice { axis, start, end }
                .infer(&[&x])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(1, 0, 5),
            "attribute end is 5, but axis 1 has size 4"
        );
        assert_eq!(
            message(1, 2, 2),
            "attribute start is 2, not before the end 2"
        );
        assert_eq!(
            message(2, 0, 1),
            "attribute axis is 2, but operand 0 has rank 2"
        );
    }
}
