//! `scheduler/scheduler_config.json`. The numbers are read whatever the class: the pipeline runs DDIM.

use serde_json::{Map, Value};
use snapc_ir::{PredictionType, SchedulerSpec, TimestepSpacing};

use super::reader::{Allowed, ConfigReader};
use crate::error::ImportError;

const RULES: &[(&str, Allowed)] = &[
    ("beta_schedule", Allowed::Word(&["scaled_linear", "linear"])),
    ("clip_sample", Allowed::Off),
    (
        "prediction_type",
        Allowed::Word(&["epsilon", "v_prediction"]),
    ),
    ("rescale_betas_zero_snr", Allowed::Off),
    ("thresholding", Allowed::Off),
    ("timestep_spacing", Allowed::Word(&["leading", "trailing"])),
    ("trained_betas", Allowed::Null),
];

/// Reads the schedule; `file` names the config in errors. `prediction_type` stands in place of the config's.
///
/// Absent keys have the defaults of diffusers' `DDIMScheduler`; in the config of another class, what only DDIM has by
/// default (`clip_sample`, `set_alpha_to_one`) is off.
///
/// # Errors
/// When the schedule is not one that an affine DDIM step can follow.
pub(crate) fn read_scheduler(
    file: &str,
    map: &Map<String, Value>,
    prediction_type: Option<PredictionType>,
) -> Result<SchedulerSpec, ImportError> {
    let r = ConfigReader::new(file, map);
    r.require(RULES)?;
    let class: String = r.get("_class_name", "DDIMScheduler".to_owned(), "a class name")?;
    let is_ddim = class == "DDIMScheduler";
    if is_ddim && r.raw("clip_sample").is_none() {
        // The default of the class clips, which SD checkpoints switch off.
        return Err(r.unsupported(
            "clip_sample",
            "false (a DDIMScheduler without the key clips)",
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
    let steps_offset = r.get(
        "steps_offset",
        0,
        "a whole number below num_train_timesteps",
    )?;
    if steps_offset >= train_steps {
        return Err(r.unsupported("steps_offset", "a whole number below num_train_timesteps"));
    }
    Ok(SchedulerSpec {
        train_steps,
        beta_start: beta("beta_start", 0.0001)?,
        beta_end: beta("beta_end", 0.02)?,
        beta_schedule: word("beta_schedule", "linear")?,
        prediction_type: prediction_type.unwrap_or(configured),
        timestep_spacing: match word("timestep_spacing", "leading")?.as_str() {
            "trailing" => TimestepSpacing::Trailing,
            _ => TimestepSpacing::Leading,
        },
        steps_offset,
        set_alpha_to_one: r.flag("set_alpha_to_one", is_ddim)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_object;

    fn read(json: &str) -> Result<SchedulerSpec, ImportError> {
        read_scheduler(
            "s.json",
            &parse_object("s.json", json.as_bytes()).unwrap(),
            None,
        )
    }

    #[test]
    fn defaults_follow_the_class() {
        let ddim = read(r#"{"_class_name": "DDIMScheduler", "clip_sample": false}"#).unwrap();
        assert!(ddim.set_alpha_to_one);
        assert_eq!(
            (ddim.beta_end, ddim.beta_schedule.as_str()),
            (0.02, "linear")
        );
        let pndm =
            read(r#"{"_class_name": "PNDMScheduler", "prediction_type": "v_prediction"}"#).unwrap();
        assert!(!pndm.set_alpha_to_one);
        assert_eq!(pndm.prediction_type, PredictionType::VPrediction);
    }

    #[test]
    fn schedules_that_are_not_affine_or_unknown_are_refused() {
        for key in [
            r#""clip_sample": true"#,
            r#""thresholding": true"#,
            r#""beta_schedule": "squaredcos_cap_v2""#,
            r#""prediction_type": "sample""#,
            r#""timestep_spacing": "linspace""#,
            r#""rescale_betas_zero_snr": true"#,
            r#""trained_betas": [0.1]"#,
            r#""beta_start": 2"#,
            r#""steps_offset": 1000"#,
        ] {
            assert!(
                read(&format!(r#"{{"_class_name": "PNDMScheduler", {key}}}"#)).is_err(),
                "{key}"
            );
        }
        assert!(read("{}").is_err(), "DDIMScheduler clips by default");
    }
}
