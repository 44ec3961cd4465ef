//! Scales of symmetric integer codes.

use snapc_ir::{DType, Encoding, LazyTensor, Tensor, WeightError};

use super::EncodeError;

/// Signed codes of `bits` bits with a scale per group and no zero point: `scale = max |w| / (2^(bits-1) - 1)`, as
/// `linear_symmetric` of coremltools. The groups have to be runs of elements that follow each other. Scales have the
/// element type of the tensor, since that is how targets store them.
///
/// # Errors
/// When an element is not finite or cannot be made.
pub(super) fn symmetric(
    tensor: &LazyTensor,
    bits: u32,
    groups: &[usize],
) -> Result<Encoding, EncodeError> {
    let levels = ((1u32 << (bits - 1)) - 1) as f32;
    let largest = largest_magnitudes(tensor, groups.iter().product())?;
    let mut scale: Vec<f32> = largest.iter().map(|max| max / levels).collect();
    round_to(&mut scale, tensor.dtype());
    for (scale, &max) in scale.iter_mut().zip(&largest) {
        *scale = reaching(*scale, max, levels, tensor.dtype());
    }
    Ok(Encoding::affine(bits, groups, scale, Vec::new())?)
}

/// The largest magnitude in each of `count` runs of equal length.
fn largest_magnitudes(tensor: &LazyTensor, count: usize) -> Result<Vec<f32>, EncodeError> {
    let run = tensor.elements() / count;
    // Magnitudes as integers stand in the same order, and the largest also finds infinities and NaNs.
    let mut largest = vec![0u32; count];
    let mut position = 0;
    tensor.stream_f32::<WeightError>(|mut values| {
        while !values.is_empty() {
            let n = (run - position % run).min(values.len());
            let (now, later) = values.split_at(n);
            let magnitudes = now.iter().map(|x| x.to_bits() & 0x7fff_ffff);
            let group = &mut largest[position / run];
            *group = magnitudes.fold(*group, u32::max);
            position += n;
            values = later;
        }
        Ok(())
    })?;
    let largest: Vec<f32> = largest.into_iter().map(f32::from_bits).collect();
    match largest.iter().position(|max| !max.is_finite()) {
        Some(_) => Err(EncodeError::not_finite(tensor)),
        None => Ok(largest),
    }
}

/// A scale whose largest code reaches `max` within half a step: that given, or one a little larger where rounding made it
/// too small. A group of zeros has the scale 1.
fn reaching(scale: f32, max: f32, levels: f32, dtype: DType) -> f32 {
    if max == 0.0 {
        return 1.0;
    }
    let (relative, smallest) = match dtype {
        DType::F16 => (2f32.powi(-10), 2f32.powi(-24)),
        DType::BF16 => (2f32.powi(-7), f32::MIN_POSITIVE),
        _ => (f32::EPSILON, f32::MIN_POSITIVE),
    };
    let mut reaching = scale;
    while max > (levels + 0.5) * reaching {
        let mut next = vec![(reaching + reaching * relative).max(reaching + smallest)];
        round_to(&mut next, dtype);
        reaching = next[0];
    }
    reaching
}

/// Rounds to the grid of a float type.
pub(super) fn round_to(values: &mut Vec<f32>, dtype: DType) {
    let mut tensor = Tensor::float(&[values.len()], std::mem::take(values));
    tensor.round_to(dtype);
    values.extend_from_slice(tensor.floats());
}
