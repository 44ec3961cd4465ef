//! The change of a layer's matrix that brings its results nearest to given ones.

use snapc_ir::Tensor;
use snapc_ir::ops::{MatMul, Operator};

use super::cholesky::{Factor, dot};

/// The penalty on the change of a weight, relative to the mean square of what the layer reads.
const RIDGE: f64 = 1e-3;

/// Rows of the Gram matrix that are made at a time.
const ROWS: usize = 256;

/// The normal equations of `min Σ |residual - Δ · x|² + λ |Δ|²`, summed up band by band of positions.
pub(super) struct NormalEquations {
    /// Inputs of the layer, and one for the bias where it has one.
    inputs: usize,
    outputs: usize,
    /// Lower triangle of `Σ x xᵀ`.
    gram: Vec<f64>,
    /// `Σ residual xᵀ`, `[outputs][inputs]`.
    moments: Vec<f64>,
    /// `Σ |residual|²`.
    residual: f64,
}

/// A solution.
pub(super) struct Change {
    /// Δ, `[outputs][inputs]`.
    pub(super) matrix: Vec<f64>,
    /// `Σ |residual - Δ · x|²`.
    pub(super) residual: f64,
}

impl NormalEquations {
    /// Equations with nothing summed up.
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        NormalEquations {
            inputs,
            outputs,
            gram: vec![0.0; inputs * inputs],
            moments: vec![0.0; inputs * outputs],
            residual: 0.0,
        }
    }

    /// Adds a band: `x` is `[inputs][positions]`, `residual` `[outputs][positions]`.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub(super) fn add(&mut self, x: &Tensor, residual: &Tensor) {
        let positions = x.shape[1];
        assert_eq!(x.shape, [self.inputs, positions]);
        assert_eq!(residual.shape, [self.outputs, positions]);
        let rows = transposed(x.floats(), self.inputs, positions);
        for start in (0..self.inputs).step_by(ROWS) {
            let end = (start + ROWS).min(self.inputs);
            let part = x.floats()[start * positions..end * positions].to_vec();
            let part = Tensor::float(&[end - start, positions], part);
            // The triangle needs the columns up to the last row of the part only.
            let columns = rows.chunks_exact(self.inputs).flat_map(|row| &row[..end]);
            let columns = Tensor::float(&[positions, end], columns.copied().collect());
            let product = MatMul {}.eval(&[&part, &columns]);
            let gram = self.gram[start * self.inputs..].chunks_mut(self.inputs);
            for (sums, row) in gram.zip(product.floats().chunks_exact(end)) {
                add_to(&mut sums[..end], row);
            }
        }
        let rows = Tensor::float(&[positions, self.inputs], rows);
        add_to(&mut self.moments, MatMul {}.eval(&[residual, &rows]).floats());
        let squares = residual.floats().iter().map(|&r| f64::from(r).powi(2));
        self.residual += squares.sum::<f64>();
    }

    /// `Σ |residual|²`: what is wrong without a change.
    pub(super) fn residual(&self) -> f64 {
        self.residual
    }

    /// The best change; `None` when the layer reads nothing but zeros or the sums are not finite.
    pub(super) fn solve(mut self) -> Option<Change> {
        let trace: f64 = self.gram.iter().step_by(self.inputs + 1).sum();
        let ridge = RIDGE * trace / self.inputs as f64;
        if !(ridge > 0.0 && ridge.is_finite()) {
            return None;
        }
        let diagonal = self.gram.iter_mut().step_by(self.inputs + 1);
        diagonal.for_each(|d| *d += ridge);
        let factor = Factor::new(self.gram, self.inputs)?;
        let mut matrix = self.moments.clone();
        factor.solve(&mut matrix);
        // With Δ (G + λ) = M: |r - Δ x|² = |r|² - 2 Δ·M + Δ G·Δ = |r|² - Δ·M - λ |Δ|².
        let gain = dot(&matrix, &self.moments) + ridge * dot(&matrix, &matrix);
        let finite = gain.is_finite();
        finite.then(|| Change {
            matrix,
            residual: (self.residual - gain).max(0.0),
        })
    }
}

fn add_to(sums: &mut [f64], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(s, &v)| *s += f64::from(v));
}

/// `[rows][columns]` → `[columns][rows]`, in tiles that stay in the cache.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut y = vec![0.0; x.len()];
    for first_row in (0..rows).step_by(TILE) {
        for first_column in (0..columns).step_by(TILE) {
            for row in first_row..(first_row + TILE).min(rows) {
                for column in first_column..(first_column + TILE).min(columns) {
                    y[column * rows + row] = x[row * columns + column];
                }
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::float(shape, (0..n).map(|i| (i as f32 * step).sin()).collect())
    }

    #[test]
    fn a_change_that_explains_the_residual_is_found() {
        let (inputs, outputs, positions) = (300, 3, 1000);
        let change = wave(&[outputs, inputs], 1.7);
        let mut equations = NormalEquations::new(inputs, outputs);
        let mut energy = 0.0;
        for band in 0..2u64 {
            let mut state = 1 + band;
            let mut noise = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let x = (0..inputs * positions).map(|_| noise()).collect();
            let x = Tensor::float(&[inputs, positions], x);
            let residual = MatMul {}.eval(&[&change, &x]);
            energy += residual.floats().iter().map(|&r| f64::from(r).powi(2)).sum::<f64>();
            equations.add(&x, &residual);
        }
        assert!((equations.residual() - energy).abs() < 1e-9 * energy);
        let found = equations.solve().unwrap();
        for (found, expected) in found.matrix.iter().zip(change.floats()) {
            assert!((found - f64::from(*expected)).abs() < 1e-2, "{found} is not {expected}");
        }
        assert!(found.residual < 1e-5 * energy, "{} of {energy}", found.residual);
    }

    /// One input and one output: the solution of the scalar equation, by hand.
    #[test]
    fn the_penalty_is_relative_to_the_mean_square() {
        let mut equations = NormalEquations::new(1, 1);
        let x = Tensor::float(&[1, 2], vec![1.0, 2.0]);
        equations.add(&x, &Tensor::float(&[1, 2], vec![2.0, 5.0]));
        let found = equations.solve().unwrap();
        // gram 5, moment 12, ridge 5e-3
        let expected = 12.0 / (5.0 + 5.0 * RIDGE);
        assert!((found.matrix[0] - expected).abs() < 1e-12);
        let left = (2.0 - expected).powi(2) + (5.0 - 2.0 * expected).powi(2);
        assert!((found.residual - left).abs() < 1e-12);
    }

    #[test]
    fn nothing_read_is_no_equation() {
        let mut equations = NormalEquations::new(2, 1);
        equations.add(&Tensor::float(&[2, 1], vec![0.0; 2]), &wave(&[1, 1], 1.0));
        assert!(equations.solve().is_none());
    }
}
