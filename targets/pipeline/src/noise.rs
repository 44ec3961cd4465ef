//! Gaussian noise that means the same as in PyTorch: `torch.randn` of a CPU generator with the same seed.
//!
//! The generator is a 32-bit Mersenne Twister. Uniform numbers become normal ones by the Box-Muller transform, in blocks of 16.
//! PyTorch itself differs by up to 2e-6 between processors: x86 with AVX2 multiplies by 2 pi in f32 and has polynomials for
//! logarithm, sine and cosine; elsewhere 2 pi is f64 and the functions are the C library's. Here the angle is that of AVX2,
//! where most reference pictures are made, and the functions are computed in f64 from additions, multiplications and
//! divisions alone and rounded once: the same bits on every machine, within 1e-6 of PyTorch with AVX2.

mod elementary;
mod mersenne_twister;

use std::f64::consts::TAU;

use elementary::{ln, sin_cos};
use mersenne_twister::MersenneTwister;

/// PyTorch turns uniform numbers into normal ones in blocks of this many.
const BLOCK: usize = 16;

/// `count` normal numbers, as `torch.randn(count, generator=torch.Generator().manual_seed(seed))` gives them in f32. Of the
/// seed only the low 32 bits count.
///
/// ```
/// let noise = snapc_pipeline::standard_normal(0, 4 * 64 * 64);
/// assert!((noise[0] - -1.1258398).abs() < 1e-6);
/// ```
pub fn standard_normal(seed: u64, count: usize) -> Vec<f32> {
    let mut generator = MersenneTwister::new(seed as u32);
    if count < BLOCK {
        return few(&mut generator, count);
    }
    let mut values: Vec<f32> = (0..count).map(|_| uniform(&mut generator)).collect();
    for block in values.chunks_exact_mut(BLOCK) {
        transform(block);
    }
    if !count.is_multiple_of(BLOCK) {
        // The last block overlaps the one before and is drawn anew.
        let tail = &mut values[count - BLOCK..];
        tail.fill_with(|| uniform(&mut generator));
        transform(tail);
    }
    values
}

/// A uniform number in [0, 1) of 24 bits.
fn uniform(generator: &mut MersenneTwister) -> f32 {
    (generator.next() & 0x00ff_ffff) as f32 / (1 << 24) as f32
}

/// Turns 16 uniform numbers into normal ones, the j-th together with the one 8 behind it.
fn transform(block: &mut [f32]) {
    let (firsts, seconds) = block.split_at_mut(BLOCK / 2);
    for (first, second) in firsts.iter_mut().zip(seconds) {
        let radius = (-2.0 * ln(f64::from(1.0 - *first)) as f32).sqrt();
        let angle = TAU as f32 * *second;
        let (sin, cos) = sin_cos(f64::from(angle));
        *first = radius * cos as f32;
        *second = radius * sin as f32;
    }
}

/// Fewer than 16 numbers are drawn in f64 and in pairs, the cosine first.
fn few(generator: &mut MersenneTwister, count: usize) -> Vec<f32> {
    let mut uniform = || {
        let high = u64::from(generator.next()) << 32;
        let bits = (high | u64::from(generator.next())) & ((1 << 53) - 1);
        bits as f64 / (1_u64 << 53) as f64
    };
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (sin, cos) = sin_cos(TAU * uniform());
        let radius = (-2.0 * ln(1.0 - uniform())).sqrt();
        values.extend([cos, sin].map(|f| (radius * f) as f32));
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests;
