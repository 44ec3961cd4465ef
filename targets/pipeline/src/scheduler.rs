//! DDIM without noise (eta 0): the timesteps of a run and each step as two constants.
//!
//! Formulas and rounding of timesteps are those of diffusers' `DDIMScheduler`. Its options that make a step depend on the
//! values of the latents (`clip_sample`, `thresholding`) and those that change the noise schedule
//! (`rescale_betas_zero_snr`, `trained_betas`) do not exist here; a checkpoint that asks for them has to be refused.
//!
//! With a = cumulative product of the alphas at the timestep and a' at the previous one, the image that the model sees
//! and the next latents are
//!
//! ```text
//! epsilon:  x0 = (x - sqrt(1-a) e) / sqrt(a)         noise = e
//! v:        x0 = sqrt(a) x - sqrt(1-a) v             noise = sqrt(a) v + sqrt(1-a) x
//! x' = sqrt(a') x0 + sqrt(1-a') noise
//! ```
//!
//! Both are linear in the latents x and the prediction, so the coefficients are computed once, in f64, and rounded to f32.

/// How beta grows over the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BetaSchedule {
    /// Linearly.
    Linear,
    /// Its square root linearly (Stable Diffusion).
    ScaledLinear,
}

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity, sqrt(a) noise - sqrt(1-a) image.
    VPrediction,
}

/// Where the steps of a run lie among the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// Multiples of the stride from 0, moved by the offset.
    Leading,
    /// The stride counted back from the last training step.
    Trailing,
}

/// The checkpoint's scheduler configuration; the fields are diffusers' keys of the same names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// Number of training steps (`num_train_timesteps`, 1000).
    pub train_steps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// How beta grows between the two.
    pub beta_schedule: BetaSchedule,
    /// What the UNet predicts.
    pub prediction_type: PredictionType,
    /// Where the steps lie.
    pub timestep_spacing: TimestepSpacing,
    /// Added to every leading timestep.
    pub steps_offset: usize,
    /// Whether the image itself stands before timestep 0, rather than the latents of timestep 0.
    pub set_alpha_to_one: bool,
}

/// Why a configuration has no such run.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// No steps, or more than the model was trained with.
    #[error("cannot take {steps} steps of a schedule of {train_steps}; choose 1 to {train_steps}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// Training steps of the schedule.
        train_steps: usize,
    },
    /// The offset moves a timestep beyond the schedule.
    #[error(
        "{steps} steps with offset {offset} reach timestep {timestep}, but the schedule ends at {last}; choose fewer steps"
    )]
    Offset {
        /// Steps asked for.
        steps: usize,
        /// The scheduler's `steps_offset`.
        offset: usize,
        /// The timestep reached.
        timestep: usize,
        /// The last timestep of the schedule.
        last: usize,
    },
    /// A beta is not a variance below one.
    #[error(
        "betas from {start} to {end} do not make a noise schedule; both lie between 0 and 1, neither included"
    )]
    Betas {
        /// First beta.
        start: f64,
        /// Last beta.
        end: f64,
    },
}

/// One DDIM step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The timestep that the UNet is given.
    pub timestep: usize,
    /// What the next latents take of the latents and of the prediction.
    pub next: [f32; 2],
    /// What the image that the model sees in the latents takes of the latents and of the prediction.
    pub denoised: [f32; 2],
}

impl Step {
    fn new(config: &SchedulerConfig, alphas: &[f64], timestep: usize, stride: usize) -> Self {
        let alpha = alphas[timestep];
        let before = match timestep.checked_sub(stride) {
            Some(previous) => alphas[previous],
            None if config.set_alpha_to_one => 1.0,
            None => alphas[0],
        };
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (denoised, epsilon) = match config.prediction_type {
            PredictionType::Epsilon => ([1.0 / signal, -noise / signal], [0.0, 1.0]),
            PredictionType::VPrediction => ([signal, -noise], [noise, signal]),
        };
        let next = [0, 1].map(|i| before.sqrt() * denoised[i] + (1.0 - before).sqrt() * epsilon[i]);
        Self {
            timestep,
            next: next.map(|c| c as f32),
            denoised: denoised.map(|c| c as f32),
        }
    }

    /// Writes the next latents.
    ///
    /// # Panics
    /// When the three differ in length.
    pub fn advance(&self, latents: &[f32], prediction: &[f32], next: &mut [f32]) {
        combine(self.next, latents, prediction, next);
    }

    /// Writes the latents of the image that the model sees at this step; decoded, they are a preview.
    ///
    /// # Panics
    /// When the three differ in length.
    pub fn denoise(&self, latents: &[f32], prediction: &[f32], denoised: &mut [f32]) {
        combine(self.denoised, latents, prediction, denoised);
    }
}

fn combine(
    [of_latents, of_prediction]: [f32; 2],
    latents: &[f32],
    prediction: &[f32],
    sum: &mut [f32],
) {
    assert_eq!(latents.len(), prediction.len(), "one prediction per latent");
    assert_eq!(latents.len(), sum.len(), "one result per latent");
    for (sum, (x, e)) in sum.iter_mut().zip(latents.iter().zip(prediction)) {
        *sum = of_latents * x + of_prediction * e;
    }
}

/// The steps of a run, from noise to image.
///
/// ```
/// use snapc_pipeline::{BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing, schedule};
///
/// let config = SchedulerConfig {
///     train_steps: 1000,
///     beta_start: 0.00085,
///     beta_end: 0.012,
///     beta_schedule: BetaSchedule::ScaledLinear,
///     prediction_type: PredictionType::Epsilon,
///     timestep_spacing: TimestepSpacing::Leading,
///     steps_offset: 1,
///     set_alpha_to_one: false,
/// };
/// let timesteps: Vec<usize> = schedule(&config, 4)?.iter().map(|s| s.timestep).collect();
/// assert_eq!(timesteps, [751, 501, 251, 1]);
/// # Ok::<(), snapc_pipeline::ScheduleError>(())
/// ```
///
/// # Errors
/// When the configuration has no such run.
pub fn schedule(config: &SchedulerConfig, steps: usize) -> Result<Vec<Step>, ScheduleError> {
    let alphas = cumulative_alphas(config)?;
    // Rounded down also where the timesteps are not: diffusers' previous timestep does not always meet the next one.
    let stride = config.train_steps / steps.max(1);
    let timesteps = timesteps(config, steps)?;
    let step = |t| Step::new(config, &alphas, t, stride);
    Ok(timesteps.into_iter().map(step).collect())
}

/// `alphas_cumprod` of diffusers: the share of the image in the latents' variance, by training step.
fn cumulative_alphas(config: &SchedulerConfig) -> Result<Vec<f64>, ScheduleError> {
    let (start, end) = (config.beta_start, config.beta_end);
    let possible = |beta: f64| beta > 0.0 && beta < 1.0;
    if !possible(start) || !possible(end) {
        return Err(ScheduleError::Betas { start, end });
    }
    let last = config.train_steps.saturating_sub(1).max(1) as f64;
    let mut product = 1.0;
    let alphas = (0..config.train_steps).map(|i| {
        let position = i as f64 / last;
        let beta = match config.beta_schedule {
            BetaSchedule::Linear => start + (end - start) * position,
            BetaSchedule::ScaledLinear => {
                (start.sqrt() + (end.sqrt() - start.sqrt()) * position).powi(2)
            }
        };
        product *= 1.0 - beta;
        product
    });
    Ok(alphas.collect())
}

/// The timesteps of a run, from noise to image (`DDIMScheduler.set_timesteps`).
///
/// # Errors
/// When the schedule has no such steps.
pub fn timesteps(config: &SchedulerConfig, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    let train_steps = config.train_steps;
    if steps == 0 || steps > train_steps {
        return Err(ScheduleError::Steps { steps, train_steps });
    }
    if config.timestep_spacing == TimestepSpacing::Trailing {
        return Ok(trailing(train_steps, steps));
    }
    let (stride, offset, last) = (train_steps / steps, config.steps_offset, train_steps - 1);
    let timestep = ((steps - 1) * stride).saturating_add(offset);
    if timestep > last {
        return Err(ScheduleError::Offset {
            steps,
            offset,
            timestep,
            last,
        });
    }
    Ok((0..steps).rev().map(|i| i * stride + offset).collect())
}

/// `round(arange(train_steps, 0, -train_steps / steps)) - 1`, with the additions of `numpy.arange`, which takes its
/// stride from the first two elements: the rounding shows where a quotient ends in a half. Where `arange` gives one element
/// too many by rounding (61 steps of 1000, say), diffusers runs a step at -1; here it is always the steps asked for.
fn trailing(train_steps: usize, steps: usize) -> Vec<usize> {
    let first = train_steps as f64;
    let stride = (first - first / steps as f64) - first;
    let timestep = |i| (first + i as f64 * stride).round_ties_even() as usize - 1;
    (0..steps).map(timestep).collect()
}

#[cfg(test)]
mod tests;
