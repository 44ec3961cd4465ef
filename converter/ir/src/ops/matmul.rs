//! `y = a · b` over the last two dimensions, the others broadcast (`torch.matmul`, ONNX `MatMul`).

use multiversion::multiversion;
use rayon::prelude::*;

use super::check::{InferError, arity, float, same_dtype, shape_error, size};
use super::elementwise::{broadcast_shape, broadcast_strides, offsets};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(a[…,M,K], b[…,K,P])` → `[…,M,P]`; two operands of one float type and rank 2 or more, the leading dimensions
    /// broadcast as in numpy.
    MatMul {}

    const NAME: &'static str = "matmul";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 2..=2, "2")?;
        let dtype = float(operands, 0)?;
        same_dtype(operands)?;
        let (a_lead, [rows, _]) = split(operands, 0)?;
        let (b_lead, [_, columns]) = split(operands, 1)?;
        let inner = size(operands, 0, a_lead.rank() + 1)?;
        if size(operands, 1, b_lead.rank())? != inner {
            return Err(shape_error(operands, 1, format!("[…,{inner},P]")));
        }
        let mut shape = a_lead.broadcast(&b_lead).ok_or_else(|| {
            shape_error(operands, 1, format!("whose leading dimensions broadcast with {a_lead}"))
        })?;
        shape.0.extend([rows, columns]);
        Ok(TensorType::new(dtype, shape))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let (a, b) = (operands[0], operands[1]);
        let (a_lead, b_lead) = (a.shape.len() - 2, b.shape.len() - 2);
        let (m, k, p) = (a.shape[a_lead], a.shape[a_lead + 1], b.shape[b_lead + 1]);
        let mut shape = broadcast_shape(&a.shape[..a_lead], &b.shape[..b_lead]);
        let a_strides = broadcast_strides(&a.shape[..a_lead], &shape);
        let b_strides = broadcast_strides(&b.shape[..b_lead], &shape);
        let matrices = offsets(&shape, [&a_strides, &b_strides]);
        shape.extend([m, p]);
        let mut y = vec![0.0; shape.iter().product()];
        if !y.is_empty() {
            for ([i, j], y) in matrices.into_iter().zip(y.chunks_exact_mut(m * p)) {
                let a = &a.floats()[i * m * k..(i + 1) * m * k];
                let b = &b.floats()[j * k * p..(j + 1) * k * p];
                multiply(a, b, y, [m, k, p]);
            }
        }
        Tensor::float(&shape, y)
    }

    fn macs(&self, operands: &[&TensorType], result: &TensorType) -> u64 {
        let inner = operands[0].shape.dims().last().and_then(|d| d.fixed());
        product(result, inner.unwrap_or(0))
    }

    fn examples() -> Vec<Example> {
        let half = |s| TensorType::new(DType::F16, s);
        vec![
            Example::f32(MatMul {}, &[Shape::batched(&[2, 3, 5]), Shape::batched(&[2, 5, 4])]),
            Example::f32(MatMul {}, &[Shape::batched(&[3, 5]), Shape::fixed(&[5, 2])]),
            Example::f32(MatMul {}, &[Shape::fixed(&[7, 9]), Shape::fixed(&[9, 1])]),
            Example::f32(MatMul {}, &[Shape::fixed(&[2, 1, 3, 4]), Shape::fixed(&[3, 4, 3])]),
            Example::f32(MatMul {}, &[Shape::batched(&[6]), Shape::fixed(&[6, 3])]),
            Example::new(MatMul {}, vec![half(Shape::fixed(&[2, 3])), half(Shape::fixed(&[3, 2]))]),
        ]
    }
}

/// The leading dimensions of a matrix operand, and its last two.
fn split(operands: &[&TensorType], operand: usize) -> Result<(Shape, [Dim; 2]), InferError> {
    match operands[operand].shape.dims() {
        [lead @ .., rows, columns] => Ok((Shape(lead.to_vec()), [*rows, *columns])),
        _ => Err(shape_error(operands, operand, "of rank 2 or more")),
    }
}

/// Multiply-adds of a result whose every element sums `inner` products, per unit of batch.
pub(super) fn product(result: &TensorType, inner: usize) -> u64 {
    let elements = result.shape.elements_per_batch();
    elements
        .and_then(|n| n.checked_mul(inner))
        .map_or(u64::MAX, |n| n as u64)
}

/// `y += a · b` for row-major `a[m,k]`, `b[k,p]`, `y[m,p]` with `[m, k, p]` in `size`; bands of rows in parallel.
pub(super) fn multiply(a: &[f32], b: &[f32], y: &mut [f32], size: [usize; 3]) {
    // Below this many multiply-adds a task costs more to start than to do.
    const TASK: usize = 1 << 20;
    // Every task reads all of `b`.
    const TASKS: usize = 16;
    let [m, k, p] = size;
    if m * k * p == 0 {
        return;
    }
    let rows = (TASK / (k * p)).max(m / TASKS);
    let rows = rows.max(1).next_multiple_of(TILE_ROWS).min(m);
    y.par_chunks_mut(rows * p)
        .zip(a.par_chunks(rows * k))
        .for_each(|(y, a)| multiply_rows(a, b, y, k, p));
}

/// Rows of `y` that are summed at once.
const TILE_ROWS: usize = 4;
/// Columns of `y` that are summed at once.
const TILE_COLUMNS: usize = 32;

/// As [`multiply`] in one thread, a tile of `y` in registers at a time. Every element is the sum of its products in their
/// order, each rounded, whatever the processor: wider vectors take more elements at once and nothing else.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub(super) fn multiply_rows(a: &[f32], b: &[f32], y: &mut [f32], k: usize, p: usize) {
    let whole = p - p % TILE_COLUMNS;
    for first in (0..whole).step_by(TILE_COLUMNS) {
        let mut bands = y.chunks_exact_mut(TILE_ROWS * p);
        let mut factors = a.chunks_exact(TILE_ROWS * k);
        for (y, a) in (&mut bands).zip(&mut factors) {
            add_tile::<TILE_ROWS>(a, b, y, [k, p, first]);
        }
        let rest = bands.into_remainder().chunks_exact_mut(p);
        for (y, a) in rest.zip(factors.remainder().chunks_exact(k)) {
            add_tile::<1>(a, b, y, [k, p, first]);
        }
    }
    if whole < p {
        for (y, a) in y.chunks_exact_mut(p).zip(a.chunks_exact(k)) {
            for (f, b) in a.iter().zip(b.chunks_exact(p)) {
                let pairs = y[whole..].iter_mut().zip(&b[whole..]);
                pairs.for_each(|(y, b)| *y += f * b);
            }
        }
    }
}

/// Adds `a · b` to [`TILE_COLUMNS`] columns of `y`, from `first` on.
#[inline(always)]
fn add_tile<const ROWS: usize>(
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
    [k, p, first]: [usize; 3],
) {
    let mut sums = [[0.0; TILE_COLUMNS]; ROWS];
    for (sums, y) in sums.iter_mut().zip(y.chunks_exact(p)) {
        sums.copy_from_slice(&y[first..first + TILE_COLUMNS]);
    }
    for (l, b) in b.chunks_exact(p).enumerate() {
        let b = &b[first..first + TILE_COLUMNS];
        for (row, sums) in sums.iter_mut().enumerate() {
            let factor = a[row * k + l];
            sums.iter_mut().zip(b).for_each(|(s, b)| *s += factor * b);
        }
    }
    for (sums, y) in sums.iter().zip(y.chunks_exact_mut(p)) {
        y[first..first + TILE_COLUMNS].copy_from_slice(sums);
    }
}

/// The rows of a row-major matrix as columns.
pub(super) fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut y = vec![0.0; rows * columns];
    // Some columns at a time, so that what is read of a row stays in the cache for the next of them.
    let band = rows.max(1) * 16;
    y.par_chunks_mut(band).enumerate().for_each(|(i, y)| {
        let columns = x.chunks_exact(columns.max(1)).map(|row| &row[i * 16..]);
        for (r, row) in columns.enumerate() {
            y[r..].iter_mut().step_by(rows).zip(row).for_each(|(y, x)| *y = *x);
        }
    });
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    fn counting(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::float(shape, (0..n).map(|i| i as f32).collect())
    }

    #[test]
    fn a_known_product() {
        // numpy: np.arange(15).reshape(3, 5) @ np.arange(10).reshape(5, 2)
        let y = MatMul {}.eval(&[&counting(&[3, 5]), &counting(&[5, 2])]);
        let expected = vec![60.0, 70.0, 160.0, 195.0, 260.0, 320.0];
        assert_eq!(y, Tensor::float(&[3, 2], expected));
    }

    #[test]
    fn leading_dimensions_are_broadcast() {
        // numpy: np.arange(4).reshape(2, 1, 1, 2) @ np.arange(4).reshape(2, 2, 1)
        let y = MatMul {}.eval(&[&counting(&[2, 1, 1, 2]), &counting(&[2, 2, 1])]);
        assert_eq!(y, Tensor::float(&[2, 2, 1, 1], vec![1.0, 3.0, 3.0, 13.0]));
    }

    #[test]
    fn large_products_in_bands_equal_the_plain_sum() {
        // Σₖ (i+k)(k-j) over small integers is exact in f32, whatever the order.
        let (m, k, p) = (135, 129, 65);
        let a: Vec<f32> = (0..m * k).map(|i| (i / k + i % k) as f32).collect();
        let b: Vec<f32> = (0..k * p)
            .map(|i| (i / p) as f32 - (i % p) as f32)
            .collect();
        let y = MatMul {}.eval(&[&Tensor::float(&[m, k], a), &Tensor::float(&[k, p], b)]);
        for i in 0..m {
            for j in 0..p {
                let sum: i64 = (0..k).map(|l| (i + l) as i64 * (l as i64 - j as i64)).sum();
                assert_eq!(y.floats()[i * p + j], sum as f32);
            }
        }
    }

    #[test]
    fn multiply_adds_are_counted() {
        let a = TensorType::new(DType::F32, Shape::batched(&[8, 77, 40]));
        let b = TensorType::new(DType::F32, Shape::batched(&[8, 40, 77]));
        let y = MatMul {}.infer(&[&a, &b]).unwrap();
        assert_eq!(MatMul {}.macs(&[&a, &b], &y), 8 * 77 * 77 * 40);
    }

    #[test]
    fn refused_operands_are_named() {
        let ty = |s| TensorType::new(DType::F32, s);
        let message =
            |a: Shape, b: Shape| MatMul {}.infer(&[&ty(a), &ty(b)]).unwrap_err().to_string();
        assert_eq!(
            message(Shape::fixed(&[2, 3]), Shape::fixed(&[4, 2])),
            "operand 1 must have shape […,3,P], has [4,2]"
        );
        assert_eq!(
            message(Shape::fixed(&[3]), Shape::fixed(&[3, 2])),
            "operand 0 must have shape of rank 2 or more, has [3]"
        );
        assert_eq!(
            message(Shape::fixed(&[2, 1, 3]), Shape::fixed(&[4, 3, 1])),
            "operand 1 must have shape whose leading dimensions broadcast with [2], has [4,3,1]"
        );
        assert_eq!(
            message(Shape(vec![Dim::Fixed(2), Dim::Batch]), Shape::batched(&[2])),
            "operand 0 must have shape with a fixed size along axis 1, has [2,N]"
        );
    }
}
