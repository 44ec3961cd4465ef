//! `snap.json`, the manifest of an artifact: what it was made of, what it takes and gives, how it is to be run, and the
//! hash of every file.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use snapc_ir::{About, LatentSpec, PipelineSpec, SchedulerSpec};

use crate::artifact::{ArtifactFile, Emitted, EmittedGraph, write_file};
use crate::error::TargetError;
use crate::interface::describe_roles;
use crate::options::{EmitOptions, Interface};
use crate::schedule::timesteps;
use crate::tokenizer::pad_token_id;

/// Name of the manifest in an artifact.
pub const FILE_NAME: &str = "snap.json";

/// The version of the manifest that this crate writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The manifest of an artifact. Lists stand in a fixed order, so equal artifacts have equal manifests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of snapc that wrote the artifact.
    pub snapc_version: String,
    /// Name of the target.
    pub target: String,
    /// Element type of weights and activations.
    pub precision: String,
    /// How the weights of products are stored, when it is not in the precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// What people are told about the model; absent when nobody has stated anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<AboutRecord>,
    /// Names and shapes of the features: `plain`, `apple` or `snap`.
    pub interface: String,
    /// Form of attention that was asked for.
    pub attention: String,
    /// Lowest major version of iOS; Core ML only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ios: Option<u32>,
    /// The passes that ran, as a pipeline that can be given to `--passes`.
    pub passes: String,
    /// What the passes changed in each graph, in the order they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<PassEffect>,
    /// The graphs in the order they run.
    pub graphs: Vec<EmittedGraph>,
    /// The schedule of the model.
    pub scheduler: SchedulerRecord,
    /// Number of denoising steps.
    pub steps: usize,
    /// The timestep of each step, first step first. With the interface `snap` they are those of the rows of the UNet's table.
    pub timesteps: Vec<usize>,
    /// Guidance scale.
    pub guidance: f32,
    /// Size and scale of the latents.
    pub latent: LatentRecord,
    /// The picture sizes that the artifact has functions for, that of `latent` first; empty when that is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SizeRecord>,
    /// Number of prompt tokens.
    pub tokens: usize,
    /// Id of the token that fills prompts up; absent when the artifact has no tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// Every file but the manifest, by path.
    pub files: Vec<ArtifactFile>,
}

/// A picture size of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeRecord {
    /// Rows in pixels.
    pub height: usize,
    /// Columns in pixels.
    pub width: usize,
    /// Name of the function for this size, in the files of the graphs that have one per size.
    pub function: String,
}

/// The function for a picture size: `size_512x384` for 512 rows and 384 columns.
pub fn function_name([height, width]: [usize; 2]) -> String {
    format!("size_{height}x{width}")
}

/// What a pass changed in a graph: figures before and after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassEffect {
    /// Name of the pass.
    pub pass: String,
    /// Name of the graph.
    pub graph: String,
    /// Trained elements; a weight used twice counts once.
    pub parameters: [u64; 2],
    /// Multiply-adds at batch 1.
    pub macs: [u64; 2],
    /// Bytes of weights and constants.
    pub weight_bytes: [u64; 2],
    /// Predicted peak of the values at batch 1, in bytes.
    pub peak_activation_bytes: [u64; 2],
}

/// [`About`] in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutRecord {
    /// What the model is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Under which licence it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl AboutRecord {
    /// The record of what is stated; `None` when nothing is.
    fn of(about: &About) -> Option<Self> {
        let About {
            description,
            author,
            license,
            version,
        } = about.clone();
        (*about != About::default()).then_some(AboutRecord {
            description,
            author,
            license,
            version,
        })
    }
}

/// [`SchedulerSpec`] in the manifest, with the keys of diffusers' scheduler configs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchedulerRecord {
    /// The integrator; `ddim`.
    pub kind: String,
    /// Number of training steps.
    pub num_train_timesteps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// Form of the beta schedule.
    pub beta_schedule: String,
    /// What the UNet predicts.
    pub prediction_type: String,
    /// Where the inference steps lie.
    pub timestep_spacing: String,
    /// Added to every leading timestep.
    pub steps_offset: usize,
    /// Whether the step before the first one has alpha 1.
    pub set_alpha_to_one: bool,
}

impl From<&SchedulerSpec> for SchedulerRecord {
    fn from(spec: &SchedulerSpec) -> Self {
        SchedulerRecord {
            kind: "ddim".to_owned(),
            num_train_timesteps: spec.train_steps,
            beta_start: spec.beta_start,
            beta_end: spec.beta_end,
            beta_schedule: spec.beta_schedule.name().to_owned(),
            prediction_type: spec.prediction_type.name().to_owned(),
            timestep_spacing: spec.timestep_spacing.name().to_owned(),
            steps_offset: spec.steps_offset,
            set_alpha_to_one: spec.set_alpha_to_one,
        }
    }
}

/// [`LatentSpec`] in the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatentRecord {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Image pixels per latent cell along each side.
    pub pixels_per_cell: usize,
    /// The decoder takes latents divided by this.
    pub scaling_factor: f64,
}

impl From<&LatentSpec> for LatentRecord {
    fn from(spec: &LatentSpec) -> Self {
        LatentRecord {
            channels: spec.channels,
            height: spec.height,
            width: spec.width,
            pixels_per_cell: spec.pixels_per_cell,
            scaling_factor: spec.scaling_factor,
        }
    }
}

impl Manifest {
    /// The manifest of an emission. `version` is snapc's, `passes` the pipeline that ran.
    ///
    /// # Errors
    /// When the schedule does not have `options.steps` steps.
    pub fn new(
        version: &str,
        target: &str,
        passes: &str,
        options: &EmitOptions,
        pipeline: &PipelineSpec,
        emitted: &Emitted,
    ) -> Result<Self, TargetError> {
        let mut files = emitted.files.clone();
        files.sort();
        let mut graphs = emitted.graphs.clone();
        if options.interface == Interface::Snap {
            describe_roles(&mut graphs);
        }
        Ok(Manifest {
            schema_version: SCHEMA_VERSION,
            snapc_version: version.to_owned(),
            target: target.to_owned(),
            precision: options.precision.name().to_owned(),
            weights: options.weights.map(|form| form.name().to_owned()),
            about: AboutRecord::of(&pipeline.about),
            interface: options.interface.name().to_owned(),
            attention: options.attention.name().to_owned(),
            min_ios: options.min_ios,
            passes: passes.to_owned(),
            effects: Vec::new(),
            graphs,
            scheduler: (&pipeline.scheduler).into(),
            steps: options.steps,
            timesteps: timesteps(&pipeline.scheduler, options.steps)?,
            guidance: options.guidance,
            latent: (&pipeline.latent).into(),
            sizes: sizes(&options.sizes),
            tokens: pipeline.tokens,
            pad_token_id: pad_token_id(&pipeline.files),
            files,
        })
    }

    /// Writes `snap.json` into an artifact.
    ///
    /// # Errors
    /// When it exists or cannot be written.
    pub fn write(&self, dir: &Path) -> Result<ArtifactFile, TargetError> {
        let mut text =
            serde_json::to_string_pretty(self).expect("the manifest has string keys only");
        text.push('\n');
        write_file(dir, FILE_NAME, text.as_bytes())
    }

    /// Reads `snap.json` of an artifact.
    ///
    /// # Errors
    /// When it cannot be read, is not a manifest, or has another schema version.
    pub fn read(dir: &Path) -> Result<Self, TargetError> {
        let path = dir.join(FILE_NAME);
        let text = fs::read(&path).map_err(TargetError::io(&path))?;
        let malformed = |reason: String| TargetError::Malformed {
            path: path.clone(),
            reason,
        };
        let head: SchemaVersion =
            serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
        if head.schema_version != SCHEMA_VERSION {
            let found = head.schema_version;
            let reason = format!(
                "schema version {found}, this snapc reads version {SCHEMA_VERSION}; convert the checkpoint again"
            );
            return Err(malformed(reason));
        }
        serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))
    }
}

/// The records of several sizes.
fn sizes(sizes: &[[usize; 2]]) -> Vec<SizeRecord> {
    if sizes.len() < 2 {
        return Vec::new();
    }
    let record = |&[height, width]: &[usize; 2]| SizeRecord {
        height,
        width,
        function: function_name([height, width]),
    };
    sizes.iter().map(record).collect()
}

/// The one field that all schema versions have.
#[derive(Deserialize)]
struct SchemaVersion {
    schema_version: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::artifact::Feature;
    use snapc_ir::{DType, PredictionType, Shape, TensorType, TimestepSpacing};
    use std::collections::BTreeMap;

    pub(crate) fn example(files: Vec<ArtifactFile>) -> Manifest {
        let pipeline = PipelineSpec {
            scheduler: SchedulerSpec {
                train_steps: 1000,
                beta_start: 0.00085,
                beta_end: 0.012,
                beta_schedule: snapc_ir::BetaSchedule::ScaledLinear,
                prediction_type: PredictionType::VPrediction,
                timestep_spacing: TimestepSpacing::Trailing,
                steps_offset: 1,
                set_alpha_to_one: false,
            },
            latent: LatentSpec {
                channels: 4,
                height: 64,
                width: 64,
                pixels_per_cell: 8,
                scaling_factor: 0.18215,
            },
            tokens: 77,
            files: BTreeMap::new(),
            about: About {
                license: Some("MIT".to_owned()),
                ..About::default()
            },
        };
        let sample = TensorType::new(DType::F16, Shape::batched(&[4, 64, 64]));
        let graph = EmittedGraph {
            functions: Vec::new(),
            name: "unet".to_owned(),
            file: "unet/model.onnx".to_owned(),
            inputs: vec![Feature::new("sample", &sample)],
            outputs: vec![Feature::new("out_sample", &sample)],
        };
        let emitted = Emitted {
            files,
            graphs: vec![graph],
        };
        let options = EmitOptions {
            steps: 4,
            ..EmitOptions::default()
        };
        Manifest::new(
            "0.1.0",
            "onnx",
            "fold-constants",
            &options,
            &pipeline,
            &emitted,
        )
        .unwrap()
    }

    #[test]
    fn written_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str| ArtifactFile {
            path: path.to_owned(),
            bytes: 1,
            sha256: String::new(),
        };
        let manifest = example(vec![file("b"), file("a")]);
        manifest.write(dir.path()).unwrap();
        let read = Manifest::read(dir.path()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(read.files[0].path, "a");
        assert_eq!(read.timesteps, [999, 749, 499, 249]);
        assert_eq!(read.graphs[0].inputs[0].shape, ["N", "4", "64", "64"]);
        assert_eq!(read.min_ios, None);
        let license = read.about.and_then(|about| about.license);
        assert_eq!(license.as_deref(), Some("MIT"));
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert!(text.starts_with("{\n  \"schema_version\": 1,\n"), "{text}");
        assert!(text.contains("\"guidance\": 7.5,") && text.contains("\"beta_start\": 0.00085,"));
    }

    #[test]
    fn another_schema_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), r#"{"schema_version": 2}"#).unwrap();
        let error = Manifest::read(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("schema version 2, this snapc reads version 1"),
            "{error}"
        );
        fs::write(dir.path().join(FILE_NAME), "{}").unwrap();
        assert!(matches!(
            Manifest::read(dir.path()),
            Err(TargetError::Malformed { .. })
        ));
    }
}
