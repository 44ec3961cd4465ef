//! Sinusoids of timesteps (diffusers `get_timestep_embedding`).

use snapc_kernels::KernelError;

use super::Call;

/// Attributes of the instruction.
pub(super) struct Sinusoids {
    pub(super) dim: usize,
    pub(super) flip_sin_to_cos: bool,
    pub(super) freq_shift: f32,
    pub(super) max_period: f32,
}

pub(super) fn timestep_embedding(
    call: &Call<'_>,
    shape: &Sinusoids,
    out: &mut [f32],
) -> Result<(), KernelError> {
    for (&t, row) in call.words(0).iter().zip(out.chunks_exact_mut(shape.dim)) {
        shape.embed(t, row);
    }
    Ok(())
}

impl Sinusoids {
    /// Angles are rounded to f32 wherever diffusers rounds them: at late timesteps they show every rounding.
    fn embed(&self, t: f32, row: &mut [f32]) {
        let half = self.dim / 2;
        let slope = -f64::from(self.max_period).ln() as f32;
        let span = (half as f64 - f64::from(self.freq_shift)) as f32;
        let (first, second) = row.split_at_mut(half);
        let (sines, cosines) = match self.flip_sin_to_cos {
            true => (second, first),
            false => (first, second),
        };
        for (i, (sine, cosine)) in sines.iter_mut().zip(cosines).enumerate() {
            let frequency = f64::from(slope * i as f32 / span).exp() as f32;
            let angle = f64::from(t * frequency);
            (*sine, *cosine) = (angle.sin() as f32, angle.cos() as f32);
        }
    }
}
