//! An encoded tensor beside what it was before.

use super::cast::widen;
use super::{LazyTensor, Transform, WeightError};

impl LazyTensor {
    /// The tensor without its encoding, when [`LazyTensor::encode`] was its last step.
    pub fn before_encoding(&self) -> Option<LazyTensor> {
        let (Transform::Dequantize(..), rest) = self.transforms.split_last()? else {
            return None;
        };
        let (Transform::Quantize(_), rest) = rest.split_last()? else {
            return None;
        };
        let mut before = self.clone();
        before.transforms = rest.to_vec();
        Some(before)
    }

    /// Shows the elements before and after the encoding as f32, piece by piece and in order; nothing when
    /// [`LazyTensor::encode`] was not the last step. Memory is needed as by [`LazyTensor::stream`].
    ///
    /// # Errors
    /// A [`WeightError`] as in [`LazyTensor::bytes`].
    pub fn stream_beside(&self, mut sink: impl FnMut(&[f32], &[f32])) -> Result<(), WeightError> {
        let Some(before) = self.before_encoding() else {
            return Ok(());
        };
        let rows = self.source_rows();
        let step = self.rows_at_once();
        for start in (0..rows).step_by(step) {
            let part = start..rows.min(start + step);
            let (old, new) = (before.rows(part.clone())?, self.rows(part)?);
            sink(&widen(&old, self.dtype)?, &widen(&new, self.dtype)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{DType, Encoding};

    #[test]
    fn pieces_are_the_whole_before_and_after() {
        let n = 900 * 700;
        let data: Vec<f32> = (0..n).map(|i| (i % 1777) as f32 - 800.0).collect();
        let plain = LazyTensor::from_f32(&[900, 700], &data).cast(DType::F16);
        let scale = (0..900).map(|i| 10.0 + i as f32).collect();
        let encoding = Encoding::affine(8, &[900, 1], scale, Vec::new()).unwrap();
        let encoded = plain.clone().encode(Arc::new(encoding));
        let (mut before, mut after, mut pieces) = (Vec::new(), Vec::new(), 0);
        encoded
            .stream_beside(|old, new| {
                before.extend_from_slice(old);
                after.extend_from_slice(new);
                pieces += 1;
            })
            .unwrap();
        assert!(pieces > 1);
        assert!(before == plain.to_f32().unwrap());
        assert!(after == encoded.to_f32().unwrap());
        assert!(plain.before_encoding().is_none());
    }
}
