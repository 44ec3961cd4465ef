//! Tensors of fixtures and of what the command writes, and how far they are apart.

use crate::{SafetensorsFile, StoredTensor};

impl StoredTensor {
    /// The elements, widened to f32.
    ///
    /// # Panics
    /// When they are neither F32 nor F16.
    pub fn floats(&self) -> Vec<f32> {
        match self.dtype.as_str() {
            "F32" => {
                let (words, _) = self.bytes.as_chunks::<4>();
                words.iter().map(|w| f32::from_le_bytes(*w)).collect()
            }
            "F16" => {
                let (words, _) = self.bytes.as_chunks::<2>();
                words
                    .iter()
                    .map(|w| widen(u16::from_le_bytes(*w)))
                    .collect()
            }
            other => panic!("elements of type {other}"),
        }
    }
}

impl SafetensorsFile {
    /// The elements of a tensor.
    ///
    /// # Panics
    /// When it is missing or holds no floats.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensors.get(name);
        tensor
            .unwrap_or_else(|| panic!("no tensor '{name}'"))
            .floats()
    }
}

/// A finite f16 as f32.
fn widen(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    assert_ne!(exponent, 31, "weights are finite");
    if exponent == 0 {
        sign * fraction * 2f32.powi(-24)
    } else {
        sign * (1024.0 + fraction) * 2f32.powi(exponent - 25)
    }
}

/// `20 log10((max - min of the expected) / RMSE)`, infinite when all are equal.
///
/// # Panics
/// When the two differ in length.
pub fn psnr(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let squares: f64 = pairs
        .map(|(f, e)| (f64::from(*f) - f64::from(*e)).powi(2))
        .sum();
    let highest = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let lowest = expected.iter().copied().fold(f32::INFINITY, f32::min);
    let rmse = (squares / found.len() as f64).sqrt();
    20.0 * (f64::from(highest - lowest) / rmse).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    // From the definition of binary16.
    #[test]
    fn halves_are_widened() {
        let values = [0x3c00, 0xc000, 0x7bff, 0x0001, 0x3555, 0x8000].map(widen);
        assert_eq!(
            values,
            [1.0, -2.0, 65504.0, 5.960_464_5e-8, 0.333_251_95, -0.0]
        );
    }
}
