//! The timesteps of a DDIM run, as diffusers' `DDIMScheduler.set_timesteps` gives them.

use snapc_ir::{SchedulerSpec, TimestepSpacing};

/// Why a schedule has no such steps.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
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
}

/// The timesteps of a run of `steps` steps, from noise to image.
///
/// # Errors
/// When the schedule has no such steps.
pub fn timesteps(scheduler: &SchedulerSpec, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    let train_steps = scheduler.train_steps;
    if steps == 0 || steps > train_steps {
        return Err(ScheduleError::Steps { steps, train_steps });
    }
    match scheduler.timestep_spacing {
        TimestepSpacing::Leading => leading(train_steps, steps, scheduler.steps_offset),
        TimestepSpacing::Trailing => Ok(trailing(train_steps, steps)),
    }
}

fn leading(train_steps: usize, steps: usize, offset: usize) -> Result<Vec<usize>, ScheduleError> {
    let ratio = train_steps / steps;
    let timestep = (steps - 1) * ratio + offset;
    let last = train_steps - 1;
    if timestep > last {
        return Err(ScheduleError::Offset {
            steps,
            offset,
            timestep,
            last,
        });
    }
    Ok((0..steps).rev().map(|i| i * ratio + offset).collect())
}

/// `round(arange(train_steps, 0, -train_steps / steps)) - 1`. The sum and difference are those of `numpy.arange`, which
/// takes its step from the first two elements; it matters where the quotient is not exact and a half has to be rounded. For some numbers of steps that do not divide
/// the schedule (61, say) `arange` gives one element too many by rounding and diffusers runs a step at -1; here the number
/// of steps is always the one asked for.
fn trailing(train_steps: usize, steps: usize) -> Vec<usize> {
    let start = train_steps as f64;
    let ratio = start / steps as f64;
    let delta = (start - ratio) - start;
    (0..steps)
        .map(|i| (start + i as f64 * delta).round_ties_even() as usize - 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::PredictionType;

    fn scheduler(timestep_spacing: TimestepSpacing) -> SchedulerSpec {
        SchedulerSpec {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: "scaled_linear".to_owned(),
            prediction_type: PredictionType::Epsilon,
            timestep_spacing,
            steps_offset: 1,
            set_alpha_to_one: false,
        }
    }

    // Timesteps of diffusers' DDIMScheduler with the configuration of SD v1.5.
    #[test]
    fn eight_steps_are_those_of_diffusers() {
        let leading = timesteps(&scheduler(TimestepSpacing::Leading), 8).unwrap();
        assert_eq!(leading, [876, 751, 626, 501, 376, 251, 126, 1]);
        let trailing = timesteps(&scheduler(TimestepSpacing::Trailing), 8).unwrap();
        assert_eq!(trailing, [999, 874, 749, 624, 499, 374, 249, 124]);
    }

    // numpy: (np.round(np.arange(1000, 0, -1000 / n)).astype(np.int64) - 1).
    #[test]
    fn trailing_steps_that_do_not_divide_are_those_of_numpy() {
        let spec = scheduler(TimestepSpacing::Trailing);
        assert_eq!(timesteps(&spec, 3).unwrap(), [999, 666, 332]);
        assert_eq!(
            timesteps(&spec, 7).unwrap(),
            [999, 856, 713, 570, 428, 285, 142]
        );
        let sixteen = timesteps(&spec, 16).unwrap();
        assert_eq!(sixteen[..8], [999, 937, 874, 811, 749, 687, 624, 561]);
        assert_eq!(sixteen[8..], [499, 437, 374, 311, 249, 187, 124, 61]);
    }

    // The checksum is numpy's over the first n elements of the same expression, for every n.
    #[test]
    fn every_number_of_trailing_steps_agrees_with_numpy() {
        let spec = scheduler(TimestepSpacing::Trailing);
        let mut sum: u128 = 0;
        for n in 1..=1000 {
            let steps = timesteps(&spec, n).unwrap();
            let weighted: usize = steps.iter().zip(1..).map(|(t, i)| t * i).sum();
            sum = (sum * 31 + weighted as u128) % ((1 << 61) - 1);
        }
        assert_eq!(sum, 2_294_107_808_996_661_065);
    }

    #[test]
    fn impossible_numbers_of_steps_are_refused() {
        let spec = scheduler(TimestepSpacing::Leading);
        assert!(matches!(
            timesteps(&spec, 0),
            Err(ScheduleError::Steps { .. })
        ));
        assert!(matches!(
            timesteps(&spec, 1001),
            Err(ScheduleError::Steps { .. })
        ));
        assert!(matches!(
            timesteps(&spec, 1000),
            Err(ScheduleError::Offset {
                timestep: 1000,
                last: 999,
                ..
            })
        ));
    }
}
