//! The checkpoint's schedule in the terms of the device side, which computes it.

use snapc_ir::SchedulerSpec;
use snapc_pipeline::{BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing};

pub use snapc_pipeline::ScheduleError;

use crate::manifest::SchedulerRecord;

/// The schedule as the device side takes it.
pub fn config(spec: &SchedulerSpec) -> SchedulerConfig {
    SchedulerConfig {
        train_steps: spec.train_steps,
        beta_start: spec.beta_start,
        beta_end: spec.beta_end,
        beta_schedule: match spec.beta_schedule {
            snapc_ir::BetaSchedule::Linear => BetaSchedule::Linear,
            snapc_ir::BetaSchedule::ScaledLinear => BetaSchedule::ScaledLinear,
        },
        prediction_type: match spec.prediction_type {
            snapc_ir::PredictionType::Epsilon => PredictionType::Epsilon,
            snapc_ir::PredictionType::VPrediction => PredictionType::VPrediction,
        },
        timestep_spacing: match spec.timestep_spacing {
            snapc_ir::TimestepSpacing::Leading => TimestepSpacing::Leading,
            snapc_ir::TimestepSpacing::Trailing => TimestepSpacing::Trailing,
        },
        steps_offset: spec.steps_offset,
        set_alpha_to_one: spec.set_alpha_to_one,
    }
}

/// The schedule that a manifest records; `None` when it names something that no snapc writes.
pub fn recorded(record: &SchedulerRecord) -> Option<SchedulerConfig> {
    if record.kind != "ddim" {
        return None;
    }
    Some(SchedulerConfig {
        train_steps: record.num_train_timesteps,
        beta_start: record.beta_start,
        beta_end: record.beta_end,
        beta_schedule: match record.beta_schedule.as_str() {
            "linear" => BetaSchedule::Linear,
            "scaled_linear" => BetaSchedule::ScaledLinear,
            _ => return None,
        },
        prediction_type: match record.prediction_type.as_str() {
            "epsilon" => PredictionType::Epsilon,
            "v_prediction" => PredictionType::VPrediction,
            _ => return None,
        },
        timestep_spacing: match record.timestep_spacing.as_str() {
            "leading" => TimestepSpacing::Leading,
            "trailing" => TimestepSpacing::Trailing,
            _ => return None,
        },
        steps_offset: record.steps_offset,
        set_alpha_to_one: record.set_alpha_to_one,
    })
}

/// The timesteps of a run of `steps` steps, from noise to image (diffusers' `DDIMScheduler.set_timesteps`).
///
/// # Errors
/// When the schedule has no such steps.
pub fn timesteps(scheduler: &SchedulerSpec, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    snapc_pipeline::timesteps(&config(scheduler), steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Timesteps of diffusers' DDIMScheduler with the configuration of SD v1.5.
    #[test]
    fn eight_steps_are_those_of_diffusers() {
        let mut spec = SchedulerSpec {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: snapc_ir::BetaSchedule::ScaledLinear,
            prediction_type: snapc_ir::PredictionType::Epsilon,
            timestep_spacing: snapc_ir::TimestepSpacing::Leading,
            steps_offset: 1,
            set_alpha_to_one: false,
        };
        let leading = timesteps(&spec, 8).unwrap();
        assert_eq!(leading, [876, 751, 626, 501, 376, 251, 126, 1]);
        spec.timestep_spacing = snapc_ir::TimestepSpacing::Trailing;
        let trailing = timesteps(&spec, 8).unwrap();
        assert_eq!(trailing, [999, 874, 749, 624, 499, 374, 249, 124]);
    }

    #[test]
    fn a_recorded_schedule_is_the_one_that_was_recorded() {
        for beta in [
            snapc_ir::BetaSchedule::Linear,
            snapc_ir::BetaSchedule::ScaledLinear,
        ] {
            for prediction in [
                snapc_ir::PredictionType::Epsilon,
                snapc_ir::PredictionType::VPrediction,
            ] {
                for spacing in [
                    snapc_ir::TimestepSpacing::Leading,
                    snapc_ir::TimestepSpacing::Trailing,
                ] {
                    let spec = SchedulerSpec {
                        train_steps: 900,
                        beta_start: 0.001,
                        beta_end: 0.02,
                        beta_schedule: beta,
                        prediction_type: prediction,
                        timestep_spacing: spacing,
                        steps_offset: 1,
                        set_alpha_to_one: true,
                    };
                    assert_eq!(recorded(&SchedulerRecord::from(&spec)), Some(config(&spec)));
                }
            }
        }
    }
}
