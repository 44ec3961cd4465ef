//! What elementwise operators share: numpy broadcasting, inference, evaluation.

use rayon::prelude::*;

use super::check::{InferError, arity, float, same_dtype, shape_error};
use crate::graph::{Graph, ValueId};
use crate::tensor::{Elements, Tensor, strides};
use crate::types::{DType, Shape, TensorType};
use crate::weight::LazyTensor;

/// The numpy broadcast of operands 0 and 1.
pub(super) fn broadcast(operands: &[&TensorType]) -> Result<Shape, InferError> {
    let first = &operands[0].shape;
    first
        .broadcast(&operands[1].shape)
        .ok_or_else(|| shape_error(operands, 1, format!("that broadcasts with {first}")))
}

/// Type of `a ∘ b` for two operands of one numeric type.
pub(super) fn infer_binary(operands: &[&TensorType]) -> Result<TensorType, InferError> {
    arity(operands, 2..=2, "2")?;
    let dtype = same_dtype(operands)?;
    if dtype == DType::Bool {
        return Err(InferError::DType {
            operand: 0,
            expected: "a float or an integer".to_owned(),
            found: dtype,
        });
    }
    Ok(TensorType::new(dtype, broadcast(operands)?))
}

/// Type of an operator that maps every element of one float tensor.
pub(super) fn infer_unary(operands: &[&TensorType]) -> Result<TensorType, InferError> {
    arity(operands, 1..=1, "1")?;
    float(operands, 0)?;
    Ok(operands[0].clone())
}

/// `f` of every element of the one float operand.
pub(super) fn eval_unary(operands: &[&Tensor], f: impl Fn(f32) -> f32 + Sync) -> Tensor {
    // Below this many elements a task costs more to start than to do.
    const TASK: usize = 1 << 12;
    let x = operands[0];
    let y = x.floats().par_iter().with_min_len(TASK).map(|&v| f(v));
    Tensor::float(&x.shape, y.collect())
}

/// `float` or `int` of every pair of elements of two broadcast operands.
pub(super) fn eval_binary(
    operands: &[&Tensor],
    float: impl Fn(f32, f32) -> f32,
    int: impl Fn(i64, i64) -> i64,
) -> Tensor {
    let (a, b) = (operands[0], operands[1]);
    let shape = broadcast_shape(&a.shape, &b.shape);
    match &a.elements {
        Elements::Float(v) => Tensor::float(&shape, zip(a, v, b, b.floats(), &shape, float)),
        Elements::Int(v) => Tensor::int(&shape, zip(a, v, b, b.ints(), &shape, int)),
    }
}

fn zip<T: Copy>(
    a: &Tensor,
    a_elements: &[T],
    b: &Tensor,
    b_elements: &[T],
    shape: &[usize],
    f: impl Fn(T, T) -> T,
) -> Vec<T> {
    if a.shape == b.shape {
        let pairs = a_elements.iter().zip(b_elements);
        return pairs.map(|(&x, &y)| f(x, y)).collect();
    }
    let a_strides = broadcast_strides(&a.shape, shape);
    let b_strides = broadcast_strides(&b.shape, shape);
    let (&columns, outer) = shape.split_last().unwrap_or((&1, &[]));
    let a_step = a_strides.last().copied().unwrap_or(0);
    let b_step = b_strides.last().copied().unwrap_or(0);
    let mut out = Vec::with_capacity(shape.iter().product());
    for [i, j] in offsets(outer, [&a_strides, &b_strides]) {
        out.extend((0..columns).map(|c| f(a_elements[i + c * a_step], b_elements[j + c * b_step])));
    }
    out
}

/// The numpy broadcast of two shapes that fit.
pub(super) fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| if at(a, i) == 1 { at(b, i) } else { at(a, i) })
        .collect()
}

/// Strides that walk a tensor of `shape` as if it had been broadcast to `to`: 0 where it is repeated.
pub(super) fn broadcast_strides(shape: &[usize], to: &[usize]) -> Vec<usize> {
    let mut out = vec![0; to.len() - shape.len()];
    let own = strides(shape).into_iter().zip(shape);
    out.extend(own.map(|(stride, &size)| if size == 1 { 0 } else { stride }));
    out
}

/// For every index into `shape`, in row-major order, its offset under each set of strides. The strides may have more
/// dimensions than `shape`; those beyond it do not count.
pub(super) fn offsets<const N: usize>(shape: &[usize], strides: [&[usize]; N]) -> Vec<[usize; N]> {
    let mut all = vec![[0; N]];
    for (d, &size) in shape.iter().enumerate() {
        let along = |start: &[usize; N]| {
            let start = *start;
            (0..size).map(move |i| std::array::from_fn(|n| start[n] + i * strides[n][d]))
        };
        all = all.iter().flat_map(along).collect();
    }
    all
}

/// Adds a scalar constant of the element type of `like`.
pub(super) fn scalar_like(graph: &mut Graph, like: ValueId, value: f32, name: &str) -> ValueId {
    let tensor = LazyTensor::from_f32(&[], &[value]).cast(graph.ty(like).dtype);
    graph.constant(name, tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_operands_are_repeated() {
        // numpy: np.array([[1],[2],[3]]) * np.array([10, 20])
        let a = Tensor::float(&[3, 1], vec![1.0, 2.0, 3.0]);
        let b = Tensor::float(&[2], vec![10.0, 20.0]);
        let y = eval_binary(&[&a, &b], |x, y| x * y, |x, _| x);
        assert_eq!(y.shape, [3, 2]);
        assert_eq!(y.floats(), [10.0, 20.0, 20.0, 40.0, 30.0, 60.0]);
    }

    #[test]
    fn scalars_meet_tensors_and_scalars() {
        let a = Tensor::int(&[], vec![7]);
        let b = Tensor::int(&[2], vec![1, 2]);
        let sub = |x: &Tensor, y: &Tensor| eval_binary(&[x, y], |x, _| x, |x, y| x - y);
        assert_eq!(sub(&a, &b), Tensor::int(&[2], vec![6, 5]));
        assert_eq!(sub(&b, &a), Tensor::int(&[2], vec![-6, -5]));
        assert_eq!(sub(&a, &a), Tensor::int(&[], vec![0]));
    }

    #[test]
    fn an_empty_axis_gives_an_empty_result() {
        let a = Tensor::float(&[2, 0], vec![]);
        let b = Tensor::float(&[2, 1], vec![1.0, 2.0]);
        let y = eval_binary(&[&a, &b], |x, _| x, |x, _| x);
        assert_eq!(y, Tensor::float(&[2, 0], vec![]));
    }

    #[test]
    fn refused_operands_are_named() {
        let ty = |d, s: &[usize]| TensorType::new(d, Shape::fixed(s));
        let (a, b) = (ty(DType::F32, &[2, 3]), ty(DType::F32, &[2]));
        let error = infer_binary(&[&a, &b]).unwrap_err().to_string();
        assert_eq!(
            error,
            "operand 1 must have shape that broadcasts with [2,3], has [2]"
        );
        let half = ty(DType::F16, &[2, 3]);
        let error = infer_binary(&[&a, &half]).unwrap_err().to_string();
        assert_eq!(error, "operand 1 must be f32 like operand 0, is f16");
        let truth = ty(DType::Bool, &[2]);
        let error = infer_binary(&[&truth, &truth]).unwrap_err().to_string();
        assert_eq!(error, "operand 0 must be a float or an integer, is bool");
        let error = infer_unary(&[&truth]).unwrap_err().to_string();
        assert_eq!(error, "operand 0 must be a float, is bool");
        let error = infer_unary(&[]).unwrap_err().to_string();
        assert_eq!(error, "operand count must be 1, is 0");
    }
}
