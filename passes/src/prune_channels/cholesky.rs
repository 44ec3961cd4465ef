//! Linear equations with a symmetric positive definite matrix, in f64 (Golub and Van Loan, *Matrix Computations*, 4.2).

use rayon::prelude::*;

/// Columns that are eliminated together.
const BLOCK: usize = 64;

/// The lower triangular factor of a matrix: `matrix = factor · factorᵀ`.
pub(super) struct Factor {
    size: usize,
    /// Row-major; what lies above the diagonal has no meaning.
    rows: Vec<f64>,
}

impl Factor {
    /// Factorizes the row-major matrix of which the lower triangle is given; `None` when it is not positive definite.
    ///
    /// # Panics
    /// When `matrix` is not square.
    pub(super) fn new(mut matrix: Vec<f64>, size: usize) -> Option<Factor> {
        assert_eq!(matrix.len(), size * size);
        for start in (0..size).step_by(BLOCK) {
            let end = (start + BLOCK).min(size);
            let (above, below) = matrix.split_at_mut(end * size);
            let corner = &mut above[start * size..];
            for i in start..end {
                for j in start..=i {
                    let row = |k: usize| &corner[(k - start) * size + start..][..j - start];
                    let sum = corner[(i - start) * size + j] - dot(row(i), row(j));
                    let pivot = corner[(j - start) * size + j];
                    corner[(i - start) * size + j] = match i == j {
                        // Also refuses what is not a number.
                        true if sum > 0.0 => sum.sqrt(),
                        true => return None,
                        false => sum / pivot,
                    };
                }
            }
            let corner = &*corner;
            below.par_chunks_mut(size).for_each(|row| {
                for j in start..end {
                    let factor = &corner[(j - start) * size..][..size];
                    let sum = row[j] - dot(&row[start..j], &factor[start..j]);
                    row[j] = sum / factor[j];
                }
            });
            let panel: Vec<f64> = below
                .chunks_exact(size)
                .flat_map(|row| &row[start..end])
                .copied()
                .collect();
            let width = end - start;
            below.par_chunks_mut(size).enumerate().for_each(|(i, row)| {
                let own = &panel[i * width..(i + 1) * width];
                for (other, at) in panel.chunks_exact(width).zip(&mut row[end..=end + i]) {
                    *at -= dot(own, other);
                }
            });
        }
        Some(Factor { size, rows: matrix })
    }

    /// Solves `matrix · x = b` for every row `b` of `right`, in place.
    ///
    /// # Panics
    /// When `right` does not consist of rows of the matrix's size.
    pub(super) fn solve(&self, right: &mut [f64]) {
        assert!(right.len().is_multiple_of(self.size.max(1)));
        right.par_chunks_mut(self.size).for_each(|x| {
            for i in 0..self.size {
                let row = &self.rows[i * self.size..][..=i];
                x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
            }
            for i in (0..self.size).rev() {
                let row = &self.rows[i * self.size..][..=i];
                x[i] /= row[i];
                let known = x[i];
                x.iter_mut().zip(&row[..i]).for_each(|(b, l)| *b -= l * known);
            }
        });
    }
}

/// The inner product, in eight partial sums.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_runs, b_runs) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_runs.remainder().iter().zip(b_runs.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_runs.zip(b_runs) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a · aᵀ` plus a multiple of the identity, for a matrix `a` of waves.
    fn positive_definite(size: usize, shift: f64) -> Vec<f64> {
        let a = |i: usize, k: usize| ((i * 31 + k * 17) as f64 * 0.37).sin();
        let element = |i: usize, j: usize| {
            let sum: f64 = (0..size).map(|k| a(i, k) * a(j, k)).sum();
            sum + if i == j { shift } else { 0.0 }
        };
        let index = (0..size).flat_map(|i| (0..size).map(move |j| (i, j)));
        index.map(|(i, j)| element(i, j)).collect()
    }

    #[test]
    fn solutions_solve_the_equations() {
        for size in [1, 2, 63, 64, 65, 150] {
            let matrix = positive_definite(size, 1.0);
            let expected: Vec<f64> = (0..2 * size).map(|i| (i as f64 * 0.7).cos()).collect();
            let mut right = vec![0.0; 2 * size];
            for (x, b) in expected.chunks_exact(size).zip(right.chunks_exact_mut(size)) {
                for (row, b) in matrix.chunks_exact(size).zip(b) {
                    *b = dot(row, x);
                }
            }
            let factor = Factor::new(matrix, size).unwrap();
            factor.solve(&mut right);
            for (found, expected) in right.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-9, "{size}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        let mut matrix = positive_definite(70, 1.0);
        matrix[69 * 70 + 69] = -1.0;
        assert!(Factor::new(matrix, 70).is_none());
        assert!(Factor::new(vec![f64::NAN], 1).is_none());
        assert!(Factor::new(vec![0.0], 1).is_none());
    }
}
