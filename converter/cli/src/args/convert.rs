//! Arguments of `convert`, which a settings file may give as well.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use snapc_target::{AttentionForm, IOS_VERSIONS, Interface, Precision, WeightForm};

use super::{CheckpointArgs, Prediction, Size, Sizes};

const EXAMPLES: &str = "\
Examples:
  snapc convert stable-diffusion-v1-5 --target coreml -o out/coreml
  snapc convert model.safetensors --target onnx --precision f32 -o out/onnx
  snapc convert stable-diffusion-v1-5 --target coreml --dry-run
  snapc convert stable-diffusion-v1-5 --target native --plan snapfusion --prune-vae 0.5 --weights palette6 -o out/snap
  snapc convert --config snapc.toml --if-changed --depfile out/coreml.d

Settings file (--config): the long flags of this command as keys, for example
  checkpoint = \"stable-diffusion-v1-5\"
  target = \"coreml\"
  output = \"out/coreml\"
  min-ios = 17
A flag wins over the file, the file over the default. Paths in it are relative to its folder.

As a build step (--if-changed): the artifact is made when it is not there, when the content of a file that it is made from, a \
flag or snapc's version is another one than before, or when a file of it is missing or altered. A record beside it, \
.NAME.snapc-build.json, tells; without one the artifact is made anew.";

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// Take what is not given here from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What a settings file may give as well.
    #[command(flatten)]
    pub flags: ConvertFlags,
    /// Check everything and tell what would be written, without writing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the graphs after this pass, in the IR's text form, on stderr
    #[arg(long, value_name = "PASS")]
    pub print_after: Option<String>,
    /// Tell what every pass did, what it skipped and why, and its effect on parameters, MACs, bytes and peak
    #[arg(long)]
    pub explain: bool,
    /// Print the passes that the flags ask for, in order, and do nothing else
    #[arg(long)]
    pub list_passes: bool,
    /// Add the time of each pass to the report
    #[arg(long)]
    pub time_passes: bool,
    /// Stop after this many passes have run, to find the one that matters
    #[arg(long, value_name = "N")]
    pub pass_limit: Option<usize>,
}

/// The part of `convert`'s arguments that a settings file may give as well; the names are the same.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ConvertFlags {
    /// Diffusers folder (with model_index.json) or original single-file .safetensors
    pub checkpoint: Option<PathBuf>,
    /// What to write; `snapc targets list` tells more
    #[arg(long, value_parser = crate::targets::parser())]
    pub target: Option<String>,
    /// Folder to write; refused when it exists, unless --force is given
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Element type of weights and activations [default: f16]
    #[arg(long, value_parser = choice::<Precision>(Precision::ALL, Precision::name))]
    #[serde(deserialize_with = "word", serialize_with = "shown")]
    pub precision: Option<Precision>,
    /// Number of denoising steps that the manifest plans [default: 8]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Guidance scale that the manifest records [default: 7.5]
    #[arg(long, value_name = "SCALE")]
    pub guidance: Option<f32>,
    /// Image size in pixels, N or HxW [default: the checkpoint's]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// Several image sizes in one artifact, the first for programs that do not choose, e.g. `512,384x512` (Core ML only, from
    /// iOS 18 on)
    #[arg(long, value_name = "SIZES", conflicts_with = "size")]
    pub sizes: Option<Sizes>,
    /// Names and shapes of inputs and outputs: diffusers' or those of Apple's packages [default: plain]
    #[arg(long, value_parser = choice::<Interface>(Interface::ALL, Interface::name))]
    #[serde(deserialize_with = "word", serialize_with = "shown")]
    pub interface: Option<Interface>,
    /// Lowest iOS version that has to load the artifact [default: 17]
    #[arg(long, value_parser = ios_version())]
    pub min_ios: Option<u32>,
    /// How attention is written [default: auto]
    #[arg(long, value_parser = choice::<AttentionForm>(AttentionForm::ALL, AttentionForm::name))]
    #[serde(deserialize_with = "word", serialize_with = "shown")]
    pub attention: Option<AttentionForm>,
    /// How the weights of convolutions and linear layers are stored [default: as --precision]
    #[arg(long, value_parser = choice::<WeightForm>(WeightForm::ALL, WeightForm::name))]
    #[serde(deserialize_with = "word", serialize_with = "shown")]
    pub weights: Option<WeightForm>,
    /// With --weights mixed: the size of the UNet's weights, as `600MB`, or the least quality of its output, as `40dB`
    #[arg(long, value_name = "SIZE|PSNR")]
    pub weight_budget: Option<String>,
    /// Layers that compute in f32 whatever the precision: parts of their names joined by `+`, or `auto` for those whose weights
    /// overflow
    #[arg(long, value_name = "LAYERS")]
    pub keep_f32: Option<String>,
    /// Remove and repeat blocks: `snapfusion`, or a JSON file with `remove` and `duplicate`, lists of diffusers block names
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<String>,
    /// Share of the channels of the VAE decoder to remove, e.g. 0.5
    #[arg(long, value_name = "RATIO")]
    pub prune_vae: Option<f64>,
    /// Reference file whose inputs the graphs are run on to measure activations (see `snapc reference`)
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Write the checkpoint with blocks and channels removed as a diffusers folder, to be trained and converted again
    #[arg(long, value_name = "DIR")]
    pub export_checkpoint: Option<PathBuf>,
    /// Optimization level: 0 none, 1 clean-up, 2 fusions for the target [default: 2]
    #[arg(short = 'O', long = "optimize", value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub optimize: Option<u8>,
    /// Write the UNet as two packages, for phones that do not load it as one (Core ML only)
    #[arg(long)]
    pub chunk_unet: bool,
    /// Let the VAE decoder give an RGB picture in place of an array of numbers (Core ML only)
    #[arg(long)]
    pub image_output: bool,
    /// Who made the model, for those who look at the artifact [default: what the checkpoint says]
    #[arg(long, value_name = "TEXT")]
    pub author: Option<String>,
    /// Licence of the model, likewise
    #[arg(long, value_name = "TEXT")]
    pub license: Option<String>,
    /// Version of the model, likewise
    #[arg(long, value_name = "TEXT")]
    pub model_version: Option<String>,
    /// What the model is, in a sentence, likewise
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Passes to run instead of those that the other flags ask for, e.g. `O1,cast-precision{to=f16}`
    #[arg(long, value_name = "LIST")]
    pub passes: Option<String>,
    /// JSON file with the configurations (unet, vae, text_encoder, scheduler) of a single-file checkpoint
    #[arg(long, value_name = "FILE")]
    pub component_config: Option<PathBuf>,
    /// What the UNet predicts, when the checkpoint does not say or says it wrongly
    #[arg(long, value_enum, value_name = "TYPE")]
    pub prediction_type: Option<Prediction>,
    /// Write a Makefile rule that names the files which the artifact is made from
    #[arg(long, value_name = "FILE")]
    pub depfile: Option<PathBuf>,
    /// Replace an existing artifact
    #[arg(long)]
    pub force: bool,
    /// Do nothing when the artifact is what these inputs and flags give; otherwise make it, and replace one that is there
    #[arg(long)]
    pub if_changed: bool,
}

impl ConvertFlags {
    /// These flags, and for those not given the ones of `other`.
    pub fn or(self, other: ConvertFlags) -> ConvertFlags {
        // One size and several are two answers to one question.
        let names_size = self.size.is_some() || self.sizes.is_some();
        ConvertFlags {
            checkpoint: self.checkpoint.or(other.checkpoint),
            target: self.target.or(other.target),
            output: self.output.or(other.output),
            precision: self.precision.or(other.precision),
            steps: self.steps.or(other.steps),
            guidance: self.guidance.or(other.guidance),
            size: self.size.or(other.size.filter(|_| !names_size)),
            sizes: self.sizes.or(other.sizes.filter(|_| !names_size)),
            interface: self.interface.or(other.interface),
            min_ios: self.min_ios.or(other.min_ios),
            attention: self.attention.or(other.attention),
            weights: self.weights.or(other.weights),
            weight_budget: self.weight_budget.or(other.weight_budget),
            keep_f32: self.keep_f32.or(other.keep_f32),
            plan: self.plan.or(other.plan),
            prune_vae: self.prune_vae.or(other.prune_vae),
            calibration: self.calibration.or(other.calibration),
            export_checkpoint: self.export_checkpoint.or(other.export_checkpoint),
            optimize: self.optimize.or(other.optimize),
            chunk_unet: self.chunk_unet || other.chunk_unet,
            image_output: self.image_output || other.image_output,
            author: self.author.or(other.author),
            license: self.license.or(other.license),
            model_version: self.model_version.or(other.model_version),
            description: self.description.or(other.description),
            passes: self.passes.or(other.passes),
            component_config: self.component_config.or(other.component_config),
            prediction_type: self.prediction_type.or(other.prediction_type),
            depfile: self.depfile.or(other.depfile),
            force: self.force || other.force,
            if_changed: self.if_changed || other.if_changed,
        }
    }

    /// How the checkpoint is read.
    pub fn checkpoint_args(&self) -> CheckpointArgs {
        CheckpointArgs {
            size: self
                .sizes
                .as_ref()
                .and_then(|s| s.0.first().copied())
                .or(self.size),
            component_config: self.component_config.clone(),
            prediction_type: self.prediction_type,
        }
    }
}

/// The versions of iOS as words.
const IOS_VERSION_WORDS: [&str; IOS_VERSIONS.len()] = ["16", "17", "18", "26"];

/// A parser of the versions of iOS that there are packages for.
fn ios_version() -> impl clap::builder::TypedValueParser<Value = u32> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(IOS_VERSION_WORDS)
        .map(|word| word.parse().unwrap_or_else(|e| unreachable!("listed: {e}")))
}

/// A parser of the words of a choice, so that help and completions list them.
fn choice<T>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + std::str::FromStr + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(all.iter().map(|&v| name(v))).map(|word| {
        word.parse::<T>()
            .unwrap_or_else(|e| unreachable!("listed: {e}"))
    })
}

/// Reads a word of a choice.
fn word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let word = String::deserialize(deserializer)?;
    word.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Writes a word of a choice.
fn shown<S, T>(word: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
    T: std::fmt::Display,
{
    match word {
        Some(word) => serializer.collect_str(word),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_flag_wins_over_the_file() {
        let flags = ConvertFlags {
            steps: Some(4),
            ..ConvertFlags::default()
        };
        let file = ConvertFlags {
            steps: Some(20),
            guidance: Some(1.0),
            ..ConvertFlags::default()
        };
        let merged = flags.or(file);
        assert_eq!((merged.steps, merged.guidance), (Some(4), Some(1.0)));
    }

    #[test]
    fn a_size_wins_over_the_sizes_of_the_file_and_the_other_way_round() {
        let one = || ConvertFlags {
            size: Some("64".parse().unwrap()),
            ..ConvertFlags::default()
        };
        let several = || ConvertFlags {
            sizes: Some("64,128".parse().unwrap()),
            ..ConvertFlags::default()
        };
        let named = |flags: ConvertFlags| (flags.size.is_some(), flags.sizes.is_some());
        assert_eq!(named(one().or(several())), (true, false));
        assert_eq!(named(several().or(one())), (false, true));
        let file = ConvertFlags::default().or(one());
        assert_eq!(named(file), (true, false));
    }

    #[test]
    fn versions_of_ios_are_those_of_the_targets() {
        assert_eq!(IOS_VERSIONS.map(|v| v.to_string()), IOS_VERSION_WORDS);
    }

    #[test]
    fn value_enums_spell_as_in_files() {
        for value in Prediction::value_variants() {
            let shown = value.to_possible_value().expect("none is hidden");
            let read: Prediction =
                serde_json::from_value(serde_json::Value::from(shown.get_name())).unwrap();
            assert_eq!(read, *value);
        }
    }
}
