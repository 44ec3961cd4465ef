//! The pipeline that the flags of a conversion ask for.

use std::path::Path;

use serde_json::{Value, json};
use snapc_passes::{Pipeline, Step};
use snapc_target::{Interface, Precision, WeightForm};

use crate::failure::Failure;

/// What a conversion does to the graphs.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The list that stands in place of everything below, when one is given.
    pub passes: Option<String>,
    /// Which blocks go and which are repeated, as the option of the pass.
    pub plan: Option<Value>,
    /// Share of the channels of the VAE decoder that go.
    pub prune_vae: Option<f64>,
    /// Optimization level.
    pub level: u8,
    /// Name of the target.
    pub target: &'static str,
    /// Element type of activations.
    pub precision: Precision,
    /// How weights are stored, when not as the precision says.
    pub weights: Option<WeightForm>,
    /// Layers that stay in f32, or `auto`.
    pub keep_f32: Option<String>,
    /// Option and value that bound the mixed form.
    pub weight_budget: Option<(&'static str, f64)>,
    /// Names and shapes of the features.
    pub interface: Interface,
}

impl Recipe {
    /// Names of the graphs that [`Recipe::structural`] changes.
    pub fn changed(&self) -> Vec<&'static str> {
        let changed = [
            ("unet", self.plan.is_some()),
            ("vae_decoder", self.prune_vae.is_some()),
        ];
        let asked = changed.into_iter().filter(|(_, asked)| *asked);
        asked.map(|(graph, _)| graph).collect()
    }

    /// The steps that change the networks themselves, which can be exported and trained.
    ///
    /// # Errors
    /// When a pass does not take its option.
    pub fn structural(&self) -> Result<Pipeline, Failure> {
        Ok(Pipeline::new(self.structural_steps())?)
    }

    /// The whole pipeline. `timesteps` are those of the schedule, first step first.
    ///
    /// # Errors
    /// When the list names what does not exist, or its order is impossible.
    pub fn pipeline(&self, timesteps: &[usize]) -> Result<Pipeline, Failure> {
        match &self.passes {
            Some(list) => Ok(list.parse()?),
            None => {
                let mut steps = self.structural_steps();
                steps.extend(self.lowering_steps(timesteps)?);
                Ok(Pipeline::new(steps)?)
            }
        }
    }

    /// What comes behind [`Recipe::structural`]; the given list, when there is one.
    ///
    /// # Errors
    /// As [`Recipe::pipeline`].
    pub fn lowering(&self, timesteps: &[usize]) -> Result<Pipeline, Failure> {
        match &self.passes {
            Some(list) => Ok(list.parse()?),
            None => Ok(Pipeline::new(self.lowering_steps(timesteps)?)?),
        }
    }

    fn structural_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(plan) = &self.plan {
            steps.push(step("remove-identity-blocks", json!({ "plan": plan })));
        }
        if let Some(ratio) = self.prune_vae {
            steps.push(step("prune-channels", json!({ "ratio": ratio })));
        }
        steps
    }

    fn lowering_steps(&self, timesteps: &[usize]) -> Result<Vec<Step>, Failure> {
        let level = snapc_passes::level(self.level, self.target).ok_or_else(|| {
            Failure::usage(format!("there is no optimization level {}", self.level))
                .help("choose 0, 1 or 2")
        })?;
        let mut steps = level.passes.parse::<Pipeline>()?.steps().to_vec();
        if self.interface == Interface::Snap {
            steps.push(step(
                "specialize-schedule",
                json!({ "timesteps": timesteps }),
            ));
            steps.push(step("hoist-text-projections", json!({})));
            steps.push(step("eliminate-dead-code", json!({})));
        }
        if self.precision != Precision::F32 {
            let mut options = json!({ "to": self.precision.name() });
            match self.keep_f32.as_deref() {
                Some("auto") => options["overflow"] = json!("keep"),
                Some(layers) => options["keep"] = json!(layers),
                None => {}
            }
            steps.push(step("cast-precision", options));
        }
        steps.extend(self.quantization());
        Ok(steps)
    }

    fn quantization(&self) -> Vec<Step> {
        let weights = |form: WeightForm| {
            let mut options = json!({ "form": form.name() });
            if let (WeightForm::Mixed, Some((name, value))) = (form, self.weight_budget) {
                options[name] = json!(value);
            }
            step("quantize-weights", options)
        };
        match self.weights {
            None | Some(WeightForm::F32 | WeightForm::F16) => Vec::new(),
            Some(WeightForm::W8a8) => vec![
                weights(WeightForm::Int8),
                step("quantize-activations", json!({})),
            ],
            Some(form) => vec![weights(form)],
        }
    }
}

fn step(pass: &str, options: Value) -> Step {
    let options = match options {
        Value::Object(options) => options,
        _ => serde_json::Map::new(),
    };
    Step {
        pass: pass.to_owned(),
        options,
    }
}

/// The plan of `--plan`: a name, or the content of a JSON file.
///
/// # Errors
/// When the file cannot be read or is not JSON.
pub fn plan(word: &str) -> Result<Value, Failure> {
    let Some(path) = plan_file(word) else {
        return Ok(Value::from(word));
    };
    let text = std::fs::read_to_string(path).map_err(|e| Failure::read(path, e))?;
    serde_json::from_str(&text).map_err(|e| Failure::usage(format!("plan '{word}': {e}")))
}

/// The file that `--plan` names, if it is not the name of a plan.
pub fn plan_file(word: &str) -> Option<&Path> {
    word.ends_with(".json").then(|| Path::new(word))
}

/// The bound of `--weight-budget`: megabytes or decibels.
///
/// # Errors
/// When it is neither.
pub fn weight_budget(text: &str) -> Result<(&'static str, f64), Failure> {
    let number = |unit: &str| text.strip_suffix(unit)?.trim().parse::<f64>().ok();
    let units = [("MB", "budget_mb"), ("dB", "min_psnr")];
    let found = units
        .iter()
        .find_map(|(unit, option)| Some((*option, number(unit)?)));
    found
        .filter(|(_, value)| *value > 0.0 && value.is_finite())
        .ok_or_else(|| {
            Failure::usage(format!(
                "the weight budget '{text}' is neither a size nor a quality"
            ))
            .help("write it as 600MB or as 40dB")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_a_unit() {
        assert_eq!(weight_budget("600MB").unwrap(), ("budget_mb", 600.0));
        assert_eq!(weight_budget("42.5 dB").unwrap(), ("min_psnr", 42.5));
        for wrong in ["600", "MB", "-1MB", "infdB", ""] {
            assert!(weight_budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plan_is_a_name_or_a_file() {
        assert_eq!(plan("snapfusion").unwrap(), "snapfusion");
        assert!(plan("absent/plan.json").is_err());
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), r#"{"remove":["mid_block.resnets.1"]}"#).unwrap();
        let read = plan(file.path().to_str().unwrap()).unwrap();
        assert_eq!(read["remove"][0], "mid_block.resnets.1");
        std::fs::write(file.path(), "{").unwrap();
        assert!(plan(file.path().to_str().unwrap()).is_err());
    }
}
