//! `unet/config.json`: diffusers' `UNet2DConditionModel`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::blocks::BlockPlan;
use super::reader::{Allowed, ConfigReader, parse_object};
use crate::error::ImportError;

const RULES: &[(&str, Allowed)] = &[
    ("act_fn", Allowed::Word(&["silu", "swish"])),
    ("addition_embed_type", Allowed::Null),
    ("attention_type", Allowed::Word(&["default"])),
    ("class_embed_type", Allowed::Null),
    ("class_embeddings_concat", Allowed::Off),
    ("conv_in_kernel", Allowed::Number(3.0)),
    ("conv_out_kernel", Allowed::Number(3.0)),
    ("cross_attention_norm", Allowed::Null),
    ("downsample_padding", Allowed::Number(1.0)),
    ("dual_cross_attention", Allowed::Off),
    ("encoder_hid_dim", Allowed::Null),
    ("encoder_hid_dim_type", Allowed::Null),
    ("mid_block_only_cross_attention", Allowed::Off),
    ("mid_block_scale_factor", Allowed::Number(1.0)),
    ("num_attention_heads", Allowed::Null),
    ("num_class_embeds", Allowed::Null),
    ("only_cross_attention", Allowed::Off),
    ("resnet_out_scale_factor", Allowed::Number(1.0)),
    ("resnet_skip_time_act", Allowed::Off),
    ("resnet_time_scale_shift", Allowed::Word(&["default"])),
    ("reverse_transformer_layers_per_block", Allowed::Null),
    ("time_cond_proj_dim", Allowed::Null),
    ("time_embedding_act_fn", Allowed::Null),
    ("time_embedding_type", Allowed::Word(&["positional"])),
    ("timestep_post_act", Allowed::Null),
];

const DOWN: (&str, &str) = ("CrossAttnDownBlock2D", "DownBlock2D");
const UP: (&str, &str) = ("CrossAttnUpBlock2D", "UpBlock2D");
const MID: &str = "UNetMidBlock2DCrossAttn";

/// Latent side of every pipeline that diffusers saved before [`FIRST_RELIABLE_SAMPLE_SIZE`].
const EARLY_SAMPLE_SIZE: i64 = 64;

/// The first minor version of diffusers that writes the latent side the network was trained on.
const FIRST_RELIABLE_SAMPLE_SIZE: (u64, u64) = (0, 9);

/// Stages that a config may have.
const MAX_STAGES: usize = 8;

/// The network that diffusers' `UNet2DConditionModel` makes of its config.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Rows and columns of the latent it was trained on, when the config says so.
    pub sample_size: Option<(usize, usize)>,
    /// Channels of the latent.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether the sample is first mapped from [0, 1] to [-1, 1].
    pub center_input_sample: bool,
    /// Whether the cosines of the timestep embedding come first.
    pub flip_sin_to_cos: bool,
    /// `downscale_freq_shift` of the timestep embedding.
    pub freq_shift: f32,
    /// Channels per stage, from the outside inwards.
    pub block_out_channels: Vec<usize>,
    /// ResNets per down stage in the stock order; an up stage has one more.
    pub layers_per_block: Vec<usize>,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// Added to the variance in the GroupNorms of ResNets and of the output.
    pub norm_eps: f32,
    /// Channels of the text embedding.
    pub cross_attention_dim: usize,
    /// Attention heads per stage; the config calls them `attention_head_dim`.
    pub heads: Vec<usize>,
    /// Transformer blocks per attention and stage.
    pub transformer_layers_per_block: Vec<usize>,
    /// Whether attentions are entered and left by linear layers rather than 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Channels of the time embedding inside the network.
    pub time_embedding_dim: usize,
    /// What stands in each stage.
    pub blocks: BlockPlan,
}

/// A square size or rows and columns.
#[derive(Deserialize)]
#[serde(untagged)]
enum SampleSize {
    Square(usize),
    Sides([usize; 2]),
}

impl UnetConfig {
    /// Raises a `sample_size` below 64 to 64 when a diffusers version before 0.9 has written it, as diffusers'
    /// `StableDiffusionPipeline.__init__` does: the first Stable Diffusion folders say 32. Gives a note for the user
    /// when it did; `file` names the config there.
    pub(crate) fn correct_sample_size(file: &str, map: &mut Map<String, Value>) -> Option<String> {
        let version = map.get("_diffusers_version")?.as_str()?;
        let size = map.get("sample_size")?.as_i64()?;
        if size >= EARLY_SAMPLE_SIZE || minor_version(version)? >= FIRST_RELIABLE_SAMPLE_SIZE {
            return None;
        }
        let note = format!(
            "{file}: diffusers {version} wrote 'sample_size' {size} for networks trained on {EARLY_SAMPLE_SIZE}; \
             taking {EARLY_SAMPLE_SIZE} as diffusers does"
        );
        map.insert("sample_size".to_owned(), EARLY_SAMPLE_SIZE.into());
        Some(note)
    }

    /// Reads the text of a config file; `file` names it in errors.
    ///
    /// # Errors
    /// When it is not JSON or asks for something that is not supported.
    pub fn from_json(file: &str, text: &str) -> Result<Self, ImportError> {
        Self::read(file, &parse_object(file, text.as_bytes())?)
    }

    /// Reads the config; `file` names it in errors.
    ///
    /// # Errors
    /// When it asks for something that is not supported.
    pub(crate) fn read(file: &str, map: &Map<String, Value>) -> Result<Self, ImportError> {
        let r = ConfigReader::new(file, map);
        r.require(RULES)?;
        let channels = r.counts(
            "block_out_channels",
            &[320, 640, 1280, 1280],
            1 << 16,
            MAX_STAGES,
        )?;
        let stages = channels.len();
        let norm_num_groups = r.count("norm_num_groups", 32, 1 << 16)?;
        if channels.iter().any(|c| c % norm_num_groups != 0) {
            return Err(r.unsupported("norm_num_groups", "a divisor of every stage's channels"));
        }
        let heads = r.per_stage("attention_head_dim", 8, 1 << 10, stages)?;
        if channels.iter().zip(&heads).any(|(c, h)| c % h != 0) {
            let supported = "divisors of the stages' channels (they are numbers of heads)";
            return Err(r.unsupported("attention_head_dim", supported));
        }
        let layers_per_block = r.per_stage("layers_per_block", 2, 64, stages)?;
        let down = attention_stages(
            &r,
            "down_block_types",
            DOWN,
            &[true, true, true, false],
            stages,
        )?;
        let up = attention_stages(&r, "up_block_types", UP, &[false, true, true, true], stages)?;
        let blocks = match r.raw("blocks") {
            None | Some(Value::Null) => {
                BlockPlan::stock(&layers_per_block, &down, has_mid(&r)?, &up)
            }
            Some(_) => BlockPlan::read(&r, stages)?,
        };
        Ok(UnetConfig {
            sample_size: sample_size(&r)?,
            in_channels: r.count("in_channels", 4, 1 << 10)?,
            out_channels: r.count("out_channels", 4, 1 << 10)?,
            center_input_sample: r.flag("center_input_sample", false)?,
            flip_sin_to_cos: r.flag("flip_sin_to_cos", true)?,
            freq_shift: freq_shift(&r)?,
            layers_per_block,
            norm_num_groups,
            norm_eps: r.positive("norm_eps", 1e-5)? as f32,
            cross_attention_dim: cross_attention_dim(&r, stages)?,
            heads,
            transformer_layers_per_block: r.per_stage(
                "transformer_layers_per_block",
                1,
                64,
                stages,
            )?,
            use_linear_projection: r.flag("use_linear_projection", false)?,
            time_embedding_dim: time_embedding_dim(&r, channels[0])?,
            block_out_channels: channels,
            blocks,
        })
    }
}

/// Which stages have attentions, from the list of block types.
fn attention_stages(
    r: &ConfigReader<'_>,
    key: &str,
    (with, without): (&str, &str),
    default: &[bool],
    stages: usize,
) -> Result<Vec<bool>, ImportError> {
    let supported =
        format!("{with} or {without} for each of the {stages} stages of block_out_channels");
    let default = default
        .iter()
        .map(|&a| if a { with } else { without }.to_owned())
        .collect();
    let types: Vec<String> = r.get(key, default, &supported)?;
    let known = types.iter().all(|t| t == with || t == without);
    if types.len() != stages || !known {
        return Err(r.unsupported(key, supported));
    }
    Ok(types.iter().map(|t| t == with).collect())
}

fn has_mid(r: &ConfigReader<'_>) -> Result<bool, ImportError> {
    match r.raw("mid_block_type") {
        Some(Value::Null) => Ok(false),
        None => Ok(true),
        Some(v) if v == MID => Ok(true),
        Some(_) => Err(r.unsupported("mid_block_type", format!("{MID}, null"))),
    }
}

fn sample_size(r: &ConfigReader<'_>) -> Result<Option<(usize, usize)>, ImportError> {
    let expected = "a whole number, or rows and columns";
    let size: Option<SampleSize> = r.get("sample_size", None, expected)?;
    Ok(size.map(|size| match size {
        SampleSize::Square(n) => (n, n),
        SampleSize::Sides([rows, columns]) => (rows, columns),
    }))
}

/// The first two numbers of a Python version; what follows them (`.dev0`, `rc1`) does not change the minor version.
fn minor_version(version: &str) -> Option<(u64, u64)> {
    let number = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit());
        part[..end.unwrap_or(part.len())].parse().ok()
    };
    let mut parts = version.split('.');
    Some((
        number(parts.next()?)?,
        parts.next().map_or(Some(0), number)?,
    ))
}

/// The embedding divides by `dim / 2 - freq_shift`.
fn freq_shift(r: &ConfigReader<'_>) -> Result<f32, ImportError> {
    let shift: f32 = r.get("freq_shift", 0.0, "0 or 1")?;
    if shift == 0.0 || shift == 1.0 {
        return Ok(shift);
    }
    Err(r.unsupported("freq_shift", "0 or 1"))
}

fn cross_attention_dim(r: &ConfigReader<'_>, stages: usize) -> Result<usize, ImportError> {
    let dims = r.per_stage("cross_attention_dim", 1280, 1 << 16, stages)?;
    if dims.iter().all(|d| *d == dims[0]) {
        return Ok(dims[0]);
    }
    Err(r.unsupported("cross_attention_dim", "the same number for all stages"))
}

fn time_embedding_dim(r: &ConfigReader<'_>, first: usize) -> Result<usize, ImportError> {
    match r.raw("time_embedding_dim") {
        None | Some(Value::Null) => Ok(4 * first),
        Some(_) => r.count("time_embedding_dim", 4 * first, 1 << 18),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &str) -> Result<UnetConfig, ImportError> {
        UnetConfig::from_json("unet/config.json", json)
    }

    #[test]
    fn absent_keys_have_the_defaults_of_the_diffusers_class() {
        let config = read("{}").unwrap();
        assert_eq!(config.block_out_channels, [320, 640, 1280, 1280]);
        assert_eq!(config.heads, [8; 4]);
        assert_eq!(
            (config.cross_attention_dim, config.time_embedding_dim),
            (1280, 1280)
        );
        assert_eq!(config.blocks.mid.len(), 3);
        assert_eq!(config.blocks.up[0].len(), 3);
    }

    #[test]
    fn what_changes_the_network_and_is_not_built_is_refused() {
        for (json, key) in [
            (r#"{"class_embed_type": "timestep"}"#, "class_embed_type"),
            (
                r#"{"addition_embed_type": "text_time"}"#,
                "addition_embed_type",
            ),
            (r#"{"time_cond_proj_dim": 256}"#, "time_cond_proj_dim"),
            (
                r#"{"resnet_time_scale_shift": "scale_shift"}"#,
                "resnet_time_scale_shift",
            ),
            (r#"{"dual_cross_attention": true}"#, "dual_cross_attention"),
            (
                r#"{"only_cross_attention": [true, false, false, false]}"#,
                "only_cross_attention",
            ),
            (r#"{"encoder_hid_dim": 768}"#, "encoder_hid_dim"),
            (r#"{"num_class_embeds": 10}"#, "num_class_embeds"),
            (r#"{"conv_in_kernel": 1}"#, "conv_in_kernel"),
            (r#"{"act_fn": "gelu"}"#, "act_fn"),
            (r#"{"mid_block_type": "UNetMidBlock2D"}"#, "mid_block_type"),
            (r#"{"downsample_padding": 0}"#, "downsample_padding"),
            (
                r#"{"transformer_layers_per_block": [[1], 2]}"#,
                "transformer_layers_per_block",
            ),
            (
                r#"{"down_block_types": ["DownBlock2D"]}"#,
                "down_block_types",
            ),
            (r#"{"norm_num_groups": null}"#, "norm_num_groups"),
            (r#"{"norm_num_groups": 48}"#, "norm_num_groups"),
            (r#"{"attention_head_dim": 7}"#, "attention_head_dim"),
            (r#"{"layers_per_block": 1000000000000}"#, "layers_per_block"),
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("unet/config.json: '{key}' is ")),
                "{message}"
            );
            assert!(message.contains("; supported: "), "{message}");
        }
    }

    #[test]
    fn sample_sizes_of_early_diffusers_are_those_of_its_pipeline() {
        // `pipeline.unet.config.sample_size` in diffusers 0.37.1, from folders with these two keys.
        for (version, size, expected) in [
            (json!("0.8.1.dev0"), json!(32), json!(64)),
            (json!("0.6.0"), json!(32), json!(64)),
            (json!("0.8"), json!(63), json!(64)),
            (json!("0.9.0.dev0"), json!(32), json!(32)),
            (json!("0.9.0rc1"), json!(32), json!(32)),
            (json!("0.10.2"), json!(32), json!(32)),
            (json!("0.6.0"), json!(96), json!(96)),
            (json!("0.6.0"), json!(64), json!(64)),
            (json!("0.6.0"), json!([32, 32]), json!([32, 32])),
            (json!("0.6.0"), json!(null), json!(null)),
            (json!(null), json!(32), json!(32)),
        ] {
            let mut map = Map::new();
            map.insert("sample_size".to_owned(), size.clone());
            map.insert("_diffusers_version".to_owned(), version.clone());
            let note = UnetConfig::correct_sample_size("unet/config.json", &mut map);
            assert_eq!(map["sample_size"], expected, "{version} {size}");
            assert_eq!(note.is_some(), size != expected, "{version} {size}");
        }
    }

    #[test]
    fn keys_that_only_inform_are_ignored() {
        assert!(
            read(r#"{"_diffusers_version": "9", "dropout": 0.5, "upcast_attention": true}"#)
                .is_ok()
        );
    }
}
