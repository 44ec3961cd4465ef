//! `scheduler/scheduler_config.json`. The numbers are read whatever the class: the pipeline runs DDIM.

use serde_json::{Map, Value};
use snapc_ir::{BetaSchedule, PredictionType, SchedulerSpec, TimestepSpacing};

use super::reader::{Allowed, ConfigReader};
use crate::error::ImportError;

const RULES: &[(&str, Allowed)] = &[
    ("beta_schedule", Allowed::Word(&["scaled_linear", "linear"])),
    (
        "prediction_type",
        Allowed::Word(&["epsilon", "v_prediction"]),
    ),
    ("rescale_betas_zero_snr", Allowed::Off),
    ("thresholding", Allowed::Off),
    ("trained_betas", Allowed::Null),
];

/// The `steps_offset` that `StableDiffusionPipeline` puts in place of any other.
const STEPS_OFFSET: usize = 1;

/// Reads the schedule; `file` names the config in errors. `prediction_type` stands in place of the config's.
///
/// Absent keys have the defaults of diffusers' `DDIMScheduler`, but `set_alpha_to_one` is off in the config of another
/// class. As in the constructor of `StableDiffusionPipeline`, samples are never clipped and leading timesteps are
/// offset by 1, whatever the config says. `linspace` in the config of another class is that sampler's default, which
/// diffusers writes out; DDIM has `leading` instead. `notes` tells of each value that is not taken.
///
/// # Errors
/// When the schedule is not one that an affine DDIM step can follow.
pub(crate) fn read_scheduler(
    file: &str,
    map: &Map<String, Value>,
    prediction_type: Option<PredictionType>,
    notes: &mut Vec<String>,
) -> Result<SchedulerSpec, ImportError> {
    let r = ConfigReader::new(file, map);
    r.require(RULES)?;
    let class: String = r.get("_class_name", "DDIMScheduler".to_owned(), "a class name")?;
    let is_ddim = class == "DDIMScheduler";
    if r.flag("clip_sample", is_ddim)? {
        notes.push(format!(
            "{file}: 'clip_sample' is on; taking false, as diffusers' StableDiffusionPipeline does"
        ));
    }
    let word = |key: &str, default: &str| r.get(key, default.to_owned(), "a word");
    let configured = match word("prediction_type", "epsilon")?.as_str() {
        "v_prediction" => PredictionType::VPrediction,
        _ => PredictionType::Epsilon,
    };
    let beta = |key: &str, default: f64| {
        let beta = r.positive(key, default)?;
        if beta < 1.0 {
            return Ok(beta);
        }
        Err(r.unsupported(key, "a number between 0 and 1"))
    };
    let train_steps = r.count("num_train_timesteps", 1000, 1 << 20)?;
    let steps_offset: usize = r.get("steps_offset", 0, "a whole number")?;
    if steps_offset != STEPS_OFFSET {
        notes.push(format!(
            "{file}: 'steps_offset' is {steps_offset}; taking {STEPS_OFFSET}, as diffusers' StableDiffusionPipeline does"
        ));
    }
    Ok(SchedulerSpec {
        train_steps,
        beta_start: beta("beta_start", 0.0001)?,
        beta_end: beta("beta_end", 0.02)?,
        beta_schedule: match word("beta_schedule", "linear")?.as_str() {
            "scaled_linear" => BetaSchedule::ScaledLinear,
            "linear" => BetaSchedule::Linear,
            _ => return Err(r.unsupported("beta_schedule", "scaled_linear, linear")),
        },
        prediction_type: prediction_type.unwrap_or(configured),
        timestep_spacing: match word("timestep_spacing", "leading")?.as_str() {
            "leading" => TimestepSpacing::Leading,
            "trailing" => TimestepSpacing::Trailing,
            "linspace" if !is_ddim => {
                notes.push(format!(
                    "{file}: 'timestep_spacing' is \"linspace\", the default of {class}; taking leading for DDIM"
                ));
                TimestepSpacing::Leading
            }
            _ => return Err(r.unsupported("timestep_spacing", "leading, trailing")),
        },
        steps_offset: STEPS_OFFSET,
        set_alpha_to_one: r.flag("set_alpha_to_one", is_ddim)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_object;

    fn read_with_notes(json: &str) -> Result<(SchedulerSpec, Vec<String>), ImportError> {
        let map = parse_object("s.json", json.as_bytes()).unwrap();
        let mut notes = Vec::new();
        let spec = read_scheduler("s.json", &map, None, &mut notes)?;
        Ok((spec, notes))
    }

    fn read(json: &str) -> Result<SchedulerSpec, ImportError> {
        read_with_notes(json).map(|(spec, _)| spec)
    }

    #[test]
    fn defaults_follow_the_class() {
        let ddim = read(r#"{"_class_name": "DDIMScheduler", "clip_sample": false}"#).unwrap();
        assert!(ddim.set_alpha_to_one);
        assert_eq!(
            (ddim.beta_end, ddim.beta_schedule),
            (0.02, BetaSchedule::Linear)
        );
        let pndm =
            read(r#"{"_class_name": "PNDMScheduler", "prediction_type": "v_prediction"}"#).unwrap();
        assert!(!pndm.set_alpha_to_one);
        assert_eq!(pndm.prediction_type, PredictionType::VPrediction);
    }

    #[test]
    fn schedules_that_are_not_affine_or_unknown_are_refused() {
        for key in [
            r#""clip_sample": 1"#,
            r#""thresholding": true"#,
            r#""beta_schedule": "squaredcos_cap_v2""#,
            r#""prediction_type": "sample""#,
            r#""timestep_spacing": "karras""#,
            r#""rescale_betas_zero_snr": true"#,
            r#""trained_betas": [0.1]"#,
            r#""beta_start": 2"#,
            r#""steps_offset": -1"#,
        ] {
            assert!(
                read(&format!(r#"{{"_class_name": "PNDMScheduler", {key}}}"#)).is_err(),
                "{key}"
            );
        }
        let ddim = r#"{"_class_name": "DDIMScheduler", "timestep_spacing": "linspace"}"#;
        assert!(read(ddim).is_err(), "the spacing that DDIM was given");
    }

    #[test]
    fn configs_as_the_hub_has_them_are_read_as_in_diffusers() {
        // The values of `StableDiffusionPipeline(scheduler=DDIMScheduler(...))` in diffusers 0.37.1.
        let (ddim, notes) = read_with_notes("{}").unwrap();
        assert_eq!(ddim.steps_offset, 1);
        assert_eq!(
            notes,
            [
                "s.json: 'clip_sample' is on; taking false, as diffusers' StableDiffusionPipeline does",
                "s.json: 'steps_offset' is 0; taking 1, as diffusers' StableDiffusionPipeline does",
            ]
        );
        // As diffusers 0.37.1 saves these schedulers when they are made from the config of SD 1.5.
        for class in [
            "EulerDiscreteScheduler",
            "DPMSolverMultistepScheduler",
            "UniPCMultistepScheduler",
        ] {
            let json = format!(
                r#"{{"_class_name": "{class}", "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
                    "timestep_spacing": "linspace", "rescale_betas_zero_snr": false, "trained_betas": null}}"#
            );
            let (spec, notes) = read_with_notes(&json).unwrap();
            assert_eq!(spec.timestep_spacing, TimestepSpacing::Leading);
            assert_eq!(notes.len(), 1);
            assert!(notes[0].contains(class), "{}", notes[0]);
        }
        // SD 1.5's own, and SD 2.1's.
        for class in ["PNDMScheduler", "DDIMScheduler"] {
            let json = format!(
                r#"{{"_class_name": "{class}", "clip_sample": false, "set_alpha_to_one": false, "skip_prk_steps": true,
                    "steps_offset": 1, "trained_betas": null}}"#
            );
            assert_eq!(read_with_notes(&json).unwrap().1, [""; 0]);
        }
    }
}
