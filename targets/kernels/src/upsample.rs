//! Nearest-neighbor upsampling by whole factors.

use crate::Pool;
use crate::error::{KernelError, check_length, product};

/// Repeats each pixel `factor` times in both directions, as `torch.nn.functional.interpolate(mode="nearest")` with a whole
/// `scale_factor`: `[batch][height][width][channels]` to `[batch][height · factor][width · factor][channels]`.
///
/// # Errors
/// [`KernelError`] when `factor` is zero or a length does not fit the shape.
pub fn upsample_nearest(
    pool: &Pool,
    [batch, height, width, channels]: [usize; 4],
    factor: usize,
    input: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    const NAME: &str = "upsample_nearest";
    if factor == 0 {
        return Err(KernelError::Shape {
            kernel: NAME,
            reason: "the factor is zero",
        });
    }
    let elements = product(&[batch, height, width, channels]);
    check_length(NAME, "input", elements, input.len())?;
    let grown = product(&[input.len(), factor, factor]);
    check_length(NAME, "out", grown, out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let row = width * channels;
    pool.split_rows(out, batch * height * factor, |rows, own, _| {
        for (y, own) in rows.zip(own.chunks_exact_mut(row * factor)) {
            // Images follow each other without a gap, so the row number needs no image number.
            let source = &input[y / factor * row..][..row];
            let pixels = source.chunks_exact(channels);
            for (pixel, copies) in pixels.zip(own.chunks_exact_mut(channels * factor)) {
                for copy in copies.chunks_exact_mut(channels) {
                    copy.copy_from_slice(pixel);
                }
            }
        }
    });
    Ok(())
}
