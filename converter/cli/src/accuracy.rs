//! How far values are from the expected ones.

use serde_json::{Value, json};

/// How far values are from the expected ones, over all elements, computed in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// `20 log10((max - min of the expected) / RMSE)` in dB; infinite when all values are equal, NaN when one is.
    pub psnr: f64,
    /// Cosine of the angle between the two as vectors.
    pub cosine: f64,
    /// Largest absolute difference.
    pub max_error: f64,
}

impl Accuracy {
    /// Compares values with the expected ones.
    ///
    /// # Panics
    /// When the two differ in length.
    pub fn of(found: &[f32], expected: &[f32]) -> Self {
        assert_eq!(found.len(), expected.len(), "two forms of the same tensor");
        let (mut squares, mut largest) = (0.0f64, 0.0f64);
        let (mut dot, mut found_norm, mut expected_norm) = (0.0f64, 0.0f64, 0.0f64);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (&f, &e) in found.iter().zip(expected) {
            let (f, e) = (f64::from(f), f64::from(e));
            squares += (f - e).powi(2);
            // `f64::max` would drop a NaN.
            let error = (f - e).abs();
            if error > largest || error.is_nan() {
                largest = error;
            }
            dot += f * e;
            found_norm += f * f;
            expected_norm += e * e;
            low = low.min(e);
            high = high.max(e);
        }
        let rmse = (squares / found.len() as f64).sqrt();
        let psnr = if rmse == 0.0 {
            f64::INFINITY
        } else {
            20.0 * ((high - low) / rmse).log10()
        };
        let norms = (found_norm * expected_norm).sqrt();
        let cosine = if squares == 0.0 { 1.0 } else { dot / norms };
        Accuracy {
            psnr,
            cosine,
            max_error: largest,
        }
    }

    /// Whether the PSNR reaches the bar; NaN reaches none.
    pub fn reaches(&self, bar: f64) -> bool {
        self.psnr >= bar
    }

    /// As JSON: a figure that is not finite is null, and `equal` tells what a null means.
    pub fn document(&self) -> Value {
        json!({
            "psnr_db": self.psnr,
            "cosine": self.cosine,
            "max_error": self.max_error,
            "equal": self.max_error == 0.0,
        })
    }

    /// PSNR, cosine and largest error as cells of a table.
    pub fn cells(&self) -> [String; 3] {
        [
            decibels(self.psnr),
            format!("{:.7}", self.cosine),
            format!("{:.2e}", self.max_error),
        ]
    }
}

/// A PSNR as text: 71.3 dB, `equal` when it is infinite.
pub fn decibels(psnr: f64) -> String {
    if psnr == f64::INFINITY {
        "equal".to_owned()
    } else {
        format!("{psnr:.1} dB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand: errors 0, 0.1, 0, -0.1 have an RMSE of sqrt(0.005); the range is 4: 20 log10(4 / 0.0707107) = 35.0515.
    #[test]
    fn figures_are_those_of_the_formulas() {
        let expected = [-1.0, 1.0, 2.0, 3.0];
        let found = Accuracy::of(&[-1.0, 1.1, 2.0, 2.9], &expected);
        assert!((found.psnr - 35.0515).abs() < 1e-3, "{found:?}");
        assert!((found.max_error - 0.1).abs() < 1e-6, "{found:?}");
        // (1 + 1.1 + 4 + 8.7) / sqrt(14.62 * 15)
        assert!((found.cosine - 0.999_407).abs() < 1e-6, "{found:?}");
        assert!(found.reaches(35.0) && !found.reaches(36.0));
        assert_eq!(found.cells()[0], "35.1 dB");
    }

    #[test]
    fn equal_values_are_infinitely_close() {
        let same = Accuracy::of(&[0.0, 0.0], &[0.0, 0.0]);
        assert_eq!((same.psnr, same.cosine), (f64::INFINITY, 1.0));
        assert!(same.reaches(1e9));
        assert_eq!(same.document()["psnr_db"], Value::Null);
        assert_eq!(same.document()["equal"], true);
    }

    #[test]
    fn values_that_are_not_finite_reach_no_bar() {
        let broken = Accuracy::of(&[f32::NAN, 1.0], &[0.0, 1.0]);
        assert!(!broken.reaches(f64::NEG_INFINITY), "{broken:?}");
        assert!(broken.max_error.is_nan());
        let infinite = Accuracy::of(&[f32::INFINITY, 1.0], &[0.0, 1.0]);
        assert!(!infinite.reaches(0.0), "{infinite:?}");
    }
}
