//! Pictures of 8 bits per channel against a reference in floats.

use crate::accuracy::Accuracy;

/// Levels from the middle to either end of the values from -1 to 1.
const HALF_RANGE: f32 = 127.5;

/// How far a picture of 8 bits is from the one that has the expected values rounded to 8 bits, and the least PSNR of one
/// that is nowhere more than a level away from it. A picture of one level has no range, and no PSNR but that of its equal.
pub fn compare(found: &[f32], expected: &[f32]) -> (Accuracy, f64) {
    let rounded = |v: &f32| {
        let level = (v * HALF_RANGE + HALF_RANGE).round_ties_even();
        level.clamp(0.0, 255.0) / HALF_RANGE - 1.0
    };
    let expected: Vec<f32> = expected.iter().map(rounded).collect();
    let highest = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let lowest = expected.iter().copied().fold(f32::INFINITY, f32::min);
    let levels = f64::from((highest - lowest) * HALF_RANGE).max(1.0);
    (Accuracy::of(found, &expected), 20.0 * levels.log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_level_everywhere_is_the_bar() {
        let level = |n: f32| n / 127.5 - 1.0;
        let expected = [level(0.2), level(99.6), level(255.0)];
        let (accuracy, bar) = compare(&[level(0.0), level(100.0), level(255.0)], &expected);
        assert!(accuracy.reaches(bar) && accuracy.max_error < 1e-6);
        // 20 log10(255) = 48.13
        assert!((bar - 48.13).abs() < 0.01, "{bar}");
        let (accuracy, bar) = compare(&[level(1.0), level(101.0), level(254.0)], &expected);
        assert!((accuracy.psnr - bar).abs() < 0.01, "{}", accuracy.psnr);
        let (accuracy, bar) = compare(&[level(9.0), level(91.0), level(250.0)], &expected);
        assert!(!accuracy.reaches(bar));
    }

    #[test]
    fn a_picture_of_one_level_is_reached_by_its_equal_only() {
        let (black, grey) = ([-1.0; 3], [0.0; 3]);
        let (accuracy, bar) = compare(&black, &black);
        assert!(accuracy.reaches(bar));
        let (accuracy, bar) = compare(&grey, &black);
        assert!(!accuracy.reaches(bar), "{accuracy:?} reaches {bar}");
    }
}
