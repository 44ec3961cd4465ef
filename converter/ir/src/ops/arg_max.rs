//! `y = argmaxᵢ x[…, i, …]`, the first one (`torch.argmax`, ONNX `ArgMax` with `keepdims=0`).

use super::check::{InferError, arity, axis_size, shape_error};
use super::{Example, operator};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → i32, the index of the first maximum along `axis`, which the result lacks; `x` is float or integer.
    ArgMax {
        /// The dimension that is searched; not the batch, and not empty.
        axis: usize,
    }

    const NAME: &'static str = "arg_max";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        if operands[0].dtype == DType::Bool {
            return Err(InferError::DType {
                operand: 0,
                expected: "a float or an integer".to_owned(),
                found: DType::Bool,
            });
        }
        if axis_size(operands, self.axis)? == 0 {
            let expected = format!("with an element along axis {}", self.axis);
            return Err(shape_error(operands, 0, expected));
        }
        let mut shape = operands[0].shape.clone();
        shape.0.remove(self.axis);
        Ok(TensorType::new(DType::I32, shape))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let mut shape = x.shape.clone();
        let size = shape.remove(self.axis);
        let inner: usize = shape[self.axis..].iter().product();
        let found = match &x.elements {
            Elements::Float(v) => first_maxima(v, size, inner),
            Elements::Int(v) => first_maxima(v, size, inner),
        };
        Tensor::int(&shape, found)
    }

    fn examples() -> Vec<Example> {
        let ids = TensorType::new(DType::I32, Shape::batched(&[7]));
        vec![
            Example::new(ArgMax { axis: 1 }, vec![ids]).with_int_bound(100),
            Example::f32(ArgMax { axis: 1 }, &[Shape::batched(&[4, 3])]),
            Example::f32(ArgMax { axis: 0 }, &[Shape::fixed(&[5])]),
        ]
    }
}

fn first_maxima<T: Copy + PartialOrd>(x: &[T], size: usize, inner: usize) -> Vec<i64> {
    // An empty tensor has no block; the length 1 only keeps `chunks` defined.
    let blocks = x.chunks_exact((size * inner).max(1));
    let search = |block: &[T], i: usize| {
        let mut best = 0;
        for k in 1..size {
            if block[k * inner + i] > block[best * inner + i] {
                best = k;
            }
        }
        best as i64
    };
    blocks
        .flat_map(|b| (0..inner).map(move |i| search(b, i)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn the_first_of_equal_maxima_is_found() {
        // CLIP pads with its end token, the largest id: the first one ends the prompt.
        let ids = Tensor::int(
            &[2, 4],
            vec![49406, 320, 49407, 49407, 49406, 49407, 49407, 49407],
        );
        let y = ArgMax { axis: 1 }.eval(&[&ids]);
        assert_eq!(y, Tensor::int(&[2], vec![2, 1]));
    }

    #[test]
    fn an_outer_axis_is_searched_column_by_column() {
        // numpy: np.argmax([[1.0, 5.0], [3.0, -2.0]], axis=0)
        let x = Tensor::float(&[2, 2], vec![1.0, 5.0, 3.0, -2.0]);
        assert_eq!(ArgMax { axis: 0 }.eval(&[&x]).ints(), [1, 0]);
    }

    #[test]
    fn an_empty_axis_is_refused() {
        let x = TensorType::new(DType::F32, Shape::batched(&[0]));
        let error = ArgMax { axis: 1 }.infer(&[&x]).unwrap_err().to_string();
        assert_eq!(
            error,
            "operand 0 must have shape with an element along axis 1, has [N,0]"
        );
    }
}
