//! `y = x` at integer positions along one axis (`numpy.take`; `torch.nn.Embedding` with axis 0; ONNX `Gather`). With
//! `batch_dims` 1 every batch element has its own positions (Core ML `gather`, ONNX `GatherND`), as CLIP's pooling
//! needs.

use super::check::{InferError, arity, attribute_error, axis_size, shape_error};
use super::{Example, operator};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x, indices)` → `x` taken at `indices` along `axis`: shape `x[..axis] + indices[batch_dims..] + x[axis+1..]`.
    /// `x` has any element type, `indices` is i32 or i64.
    ///
    /// Negative indices count from the end. The value at an index outside is NaN, or 0 for integers.
    Gather {
        /// The dimension of `x` that is indexed; not the batch, and not one of the shared ones.
        axis: usize,
        /// How many leading dimensions `x` and `indices` share: 0 or 1.
        batch_dims: usize,
    }

    const NAME: &'static str = "gather";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 2..=2, "2")?;
        if !matches!(operands[1].dtype, DType::I32 | DType::I64) {
            return Err(InferError::DType {
                operand: 1,
                expected: "an integer".to_owned(),
                found: operands[1].dtype,
            });
        }
        let shared = self.batch_dims;
        if shared > 1 || shared > self.axis {
            let problem = format!("is {shared}, must be 0 or 1 and not above axis {}", self.axis);
            return Err(attribute_error("batch_dims", problem));
        }
        axis_size(operands, self.axis)?;
        let (x, indices) = (operands[0].shape.dims(), operands[1].shape.dims());
        if indices.get(..shared) != Some(&x[..shared]) {
            let expected = format!("with leading {} like operand 0", Shape(x[..shared].to_vec()));
            return Err(shape_error(operands, 1, expected));
        }
        let dims: Vec<Dim> = [&x[..self.axis], &indices[shared..], &x[self.axis + 1..]].concat();
        Ok(TensorType::new(operands[0].dtype, Shape(dims)))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let (x, indices) = (operands[0], operands[1]);
        let (axis, shared) = (self.axis, self.batch_dims);
        let shape = [&x.shape[..axis], &indices.shape[shared..], &x.shape[axis + 1..]].concat();
        match &x.elements {
            Elements::Float(v) => Tensor::float(&shape, self.take(x, v, indices, f32::NAN)),
            Elements::Int(v) => Tensor::int(&shape, self.take(x, v, indices, 0)),
        }
    }

    fn examples() -> Vec<Example> {
        let float = |shape| TensorType::new(DType::F32, shape);
        let ids = |dtype, shape| TensorType::new(dtype, shape);
        let pick = |axis, batch_dims| Gather { axis, batch_dims };
        let batch = Shape::batched(&[]);
        vec![
            Example::new(
                pick(0, 0),
                vec![float(Shape::fixed(&[9, 4])), ids(DType::I32, Shape::batched(&[7]))],
            )
            .with_int_bound(9),
            Example::new(
                pick(1, 1),
                vec![float(Shape::batched(&[7, 4])), ids(DType::I32, batch.clone())],
            )
            .with_int_bound(7),
            Example::new(
                pick(1, 0),
                vec![float(Shape::fixed(&[2, 5, 3])), ids(DType::I64, Shape::fixed(&[2]))],
            )
            .with_int_bound(5),
            Example::new(
                pick(1, 0),
                vec![float(Shape::batched(&[3])), ids(DType::I32, Shape::fixed(&[]))],
            ),
            Example::new(
                pick(2, 1),
                vec![float(Shape::fixed(&[2, 3, 4])), ids(DType::I32, Shape::fixed(&[2, 2]))],
            )
            .with_int_bound(4),
            Example::new(pick(0, 0), vec![ids(DType::I32, Shape::fixed(&[3])), ids(DType::I32, batch)])
                .with_int_bound(3),
        ]
    }
}

impl Gather {
    fn take<T: Copy>(&self, x: &Tensor, elements: &[T], indices: &Tensor, outside: T) -> Vec<T> {
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        let size = x.shape[self.axis];
        let block = product(&x.shape[self.axis + 1..]);
        let batches = product(&x.shape[..self.batch_dims]);
        let rows = product(&x.shape[self.batch_dims..self.axis]);
        let count = product(&indices.shape[self.batch_dims..]);
        let mut out = Vec::with_capacity(batches * rows * count * block);
        for row in 0..batches * rows {
            let batch = row / rows;
            for &index in &indices.ints()[batch * count..(batch + 1) * count] {
                match position(index, size) {
                    Some(i) => {
                        let start = (row * size + i) * block;
                        out.extend_from_slice(&elements[start..start + block]);
                    }
                    None => out.extend(std::iter::repeat_n(outside, block)),
                }
            }
        }
        out
    }
}

/// The position that an index means, if it is inside.
fn position(index: i64, size: usize) -> Option<usize> {
    let size = i64::try_from(size).ok()?;
    let position = if index < 0 { index + size } else { index };
    (0..size).contains(&position).then_some(position as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn tokens_look_up_their_rows() {
        // numpy: np.take([[0, 1], [10, 11], [20, 21]], [[2, 0], [1, -1]], axis=0)
        let table = Tensor::int(&[3, 2], vec![0, 1, 10, 11, 20, 21]);
        let ids = Tensor::int(&[2, 2], vec![2, 0, 1, -1]);
        let y = Gather {
            axis: 0,
            batch_dims: 0,
        }
        .eval(&[&table, &ids]);
        assert_eq!(
            y,
            Tensor::int(&[2, 2, 2], vec![20, 21, 0, 1, 10, 11, 20, 21])
        );
    }

    #[test]
    fn every_batch_element_has_its_own_position() {
        // torch: x[torch.arange(2), torch.tensor([1, 0])] for x = arange(8).view(2, 2, 2)
        let x = Tensor::int(&[2, 2, 2], (0..8).collect());
        let at = Tensor::int(&[2], vec![1, 0]);
        let y = Gather {
            axis: 1,
            batch_dims: 1,
        }
        .eval(&[&x, &at]);
        assert_eq!(y, Tensor::int(&[2, 2], vec![2, 3, 4, 5]));
    }

    #[test]
    fn an_inner_axis_is_taken_for_each_outer_row() {
        // numpy: np.take(np.arange(6).reshape(2, 3), [2, 0], axis=1)
        let x = Tensor::int(&[2, 3], (0..6).collect());
        let at = Tensor::int(&[2], vec![2, 0]);
        let y = Gather {
            axis: 1,
            batch_dims: 0,
        }
        .eval(&[&x, &at]);
        assert_eq!(y, Tensor::int(&[2, 2], vec![2, 0, 5, 3]));
    }

    #[test]
    fn an_index_outside_shows_in_the_result() {
        let x = Tensor::float(&[2], vec![1.0, 2.0]);
        let at = Tensor::int(&[3], vec![2, -3, 1]);
        let y = Gather {
            axis: 0,
            batch_dims: 0,
        }
        .eval(&[&x, &at]);
        assert!(y.floats()[0].is_nan() && y.floats()[1].is_nan());
        assert_eq!(y.floats()[2], 2.0);
    }

    #[test]
    fn refused_operands_are_named() {
        let x = TensorType::new(DType::F32, Shape::batched(&[7, 4]));
        let at = TensorType::new(DType::I32, Shape::fixed(&[2]));
        let message = |axis, batch_dims, types: &[&TensorType]| {
            Gather { axis, batch_dims }
                .infer(types)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(1, 0, &[&x, &x]),
            "operand 1 must be an integer, is f32"
        );
        assert_eq!(
            message(1, 1, &[&x, &at]),
            "operand 1 must have shape with leading [N] like operand 0, has [2]"
        );
        assert_eq!(
            message(0, 1, &[&x, &at]),
            "attribute batch_dims is 1, must be 0 or 1 and not above axis 0"
        );
        assert_eq!(
            message(3, 0, &[&x, &at]),
            "attribute axis is 3, but operand 0 has rank 3"
        );
    }
}
