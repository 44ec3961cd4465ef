//! Random configurations of small Stable Diffusion pipelines, as diffusers writes them.

use serde_json::{Value, json};

use crate::numbers::Numbers;

/// The configurations of one pipeline.
#[derive(Clone, Debug)]
pub struct Settings {
    pub text_encoder: Value,
    pub unet: Value,
    pub vae: Value,
    pub scheduler: Value,
    /// How weights are stored.
    pub storage: Storage,
    /// How many of the projections at the end of residual branches are zero, in percent.
    pub zeros: usize,
}

/// An element type of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    F32,
    F16,
    Bf16,
}

impl Settings {
    /// The settings of a seed.
    pub fn new(numbers: &mut Numbers) -> Self {
        let heads = numbers.one_of(&[1, 2, 4]);
        let hidden = heads * numbers.one_of(&[2, 4, 6]);
        let channels = numbers.one_of(&[3, 4]);
        let vocabulary = 20 + numbers.below(30);
        let text_encoder = json!({
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": numbers.one_of(&[4, 7, 16]),
            "num_hidden_layers": 1 + numbers.below(3),
            "num_attention_heads": heads,
            "max_position_embeddings": 3 + numbers.below(7),
            "hidden_act": numbers.one_of(&["gelu", "quick_gelu"]),
            "eos_token_id": numbers.one_of(&[2, vocabulary - 1]),
        });
        Settings {
            unet: unet(numbers, hidden, channels),
            vae: vae(numbers, channels),
            scheduler: json!({
                "_class_name": "DDIMScheduler",
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "prediction_type": numbers.one_of(&["epsilon", "v_prediction"]),
                "timestep_spacing": numbers.one_of(&["leading", "trailing"]),
            }),
            text_encoder,
            storage: numbers.one_of(&[Storage::F32, Storage::F16, Storage::F16, Storage::Bf16]),
            zeros: numbers.one_of(&[0, 0, 10, 50, 100]),
        }
    }
}

/// A UNet in the stock order or, sometimes, with blocks that stand twice or not at all.
fn unet(numbers: &mut Numbers, text: usize, channels: usize) -> Value {
    let stages = 1 + numbers.below(4);
    let mut config = stock_unet(numbers, stages, text, channels);
    let innermost = 1 << (stages - 1);
    let sides = [1, 2, 3].map(|n| n * innermost.max(2));
    let (height, width) = (numbers.one_of(&sides[..2]), numbers.one_of(&sides));
    config["sample_size"] = if height == width {
        json!(height)
    } else {
        json!([height, width])
    };
    if numbers.chance(25) {
        let blocks = StockOrder::of(&config).unusual(numbers);
        config["blocks"] = blocks;
    }
    config
}

/// A UNet's configuration without `blocks` or a size.
pub fn stock_unet(numbers: &mut Numbers, stages: usize, text: usize, channels: usize) -> Value {
    let groups = numbers.one_of(&[1, 2, 4]);
    let heads: Vec<usize> = (0..stages).map(|_| numbers.one_of(&[1, 2, 4])).collect();
    let widths: Vec<usize> = (0..stages)
        .map(|_| numbers.one_of(&[4, 8, 8, 12]))
        .collect();
    let per_stage = |numbers: &mut Numbers| -> Value {
        match numbers.chance(50) {
            true => json!(1 + numbers.below(2)),
            false => json!(
                (0..stages)
                    .map(|_| 1 + numbers.below(2))
                    .collect::<Vec<_>>()
            ),
        }
    };
    let kinds = |numbers: &mut Numbers, kinds: [&'static str; 2]| -> Value {
        json!(
            (0..stages)
                .map(|_| kinds[numbers.below(2)])
                .collect::<Vec<_>>()
        )
    };
    let mid = numbers.one_of(&[
        Some("UNetMidBlock2DCrossAttn"),
        Some("UNetMidBlock2DCrossAttn"),
        None,
    ]);
    json!({
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "norm_num_groups": groups,
        "norm_eps": numbers.one_of(&[1e-5, 1e-6]),
        "cross_attention_dim": text,
        "attention_head_dim": heads,
        "layers_per_block": per_stage(numbers),
        "transformer_layers_per_block": per_stage(numbers),
        "down_block_types": kinds(numbers, ["CrossAttnDownBlock2D", "DownBlock2D"]),
        "mid_block_type": mid,
        "up_block_types": kinds(numbers, ["CrossAttnUpBlock2D", "UpBlock2D"]),
        "use_linear_projection": numbers.chance(50),
        "center_input_sample": numbers.chance(20),
        "flip_sin_to_cos": numbers.chance(80),
        "freq_shift": numbers.below(2),
    })
}

fn vae(numbers: &mut Numbers, latent_channels: usize) -> Value {
    let stages = 1 + numbers.below(3);
    let groups = numbers.one_of(&[1, 2, 4]);
    let widths: Vec<usize> = (0..stages).map(|_| numbers.one_of(&[4, 8, 12])).collect();
    json!({
        "latent_channels": latent_channels,
        "out_channels": 3,
        "block_out_channels": widths,
        "up_block_types": vec!["UpDecoderBlock2D"; stages],
        "layers_per_block": 1 + numbers.below(2),
        "norm_num_groups": groups,
        "mid_block_add_attention": numbers.chance(75),
        "use_post_quant_conv": numbers.chance(75),
    })
}

/// The order in which diffusers runs the blocks of a UNet, as the `blocks` key lists them.
#[derive(Clone, Debug)]
pub struct StockOrder {
    pub down: Vec<Vec<String>>,
    pub mid: Vec<String>,
    pub up: Vec<Vec<String>>,
}

impl StockOrder {
    /// The order of a configuration made by [`stock_unet`].
    pub fn of(config: &Value) -> Self {
        let stages = config["block_out_channels"]
            .as_array()
            .expect("a list")
            .len();
        let layers = |stage: usize| {
            let layers = &config["layers_per_block"];
            let layers = layers.as_u64().or_else(|| layers[stage].as_u64());
            layers.expect("a number or a list") as usize
        };
        let attends = |key: &str, stage: usize| {
            config[key][stage]
                .as_str()
                .expect("a class")
                .starts_with("CrossAttn")
        };
        let stage = |layers: usize, attends: bool, skips: bool| -> Vec<String> {
            let layer = |i: usize| {
                let words = [
                    (true, format!("resnets.{i}")),
                    (attends, format!("attentions.{i}")),
                    (skips, "skip".to_owned()),
                ];
                words
                    .into_iter()
                    .filter(|(stands, _)| *stands)
                    .map(|(_, word)| word)
            };
            (0..layers).flat_map(layer).collect()
        };
        let mid = ["resnets.0", "attentions.0", "resnets.1"].map(str::to_owned);
        StockOrder {
            down: (0..stages)
                .map(|i| stage(layers(i), attends("down_block_types", i), true))
                .collect(),
            mid: if config["mid_block_type"].is_null() {
                Vec::new()
            } else {
                mid.to_vec()
            },
            up: (0..stages)
                .map(|i| {
                    stage(
                        layers(stages - 1 - i) + 1,
                        attends("up_block_types", i),
                        false,
                    )
                })
                .collect(),
        }
    }

    /// The `blocks` key.
    pub fn to_json(&self) -> Value {
        json!({ "down_blocks": self.down, "mid_block": self.mid, "up_blocks": self.up })
    }

    /// With another middle, in which a block may stand twice with the same weights, and an attention more in the last stage.
    fn unusual(mut self, numbers: &mut Numbers) -> Value {
        let mids: [&[&str]; 4] = [
            &["resnets.0", "resnets.0"],
            &["attentions.0", "resnets.0", "attentions.0"],
            &["resnets.1", "attentions.0"],
            &["attentions.3"],
        ];
        self.mid = numbers
            .one_of(&mids)
            .iter()
            .map(|&word| word.to_owned())
            .collect();
        self.up
            .last_mut()
            .expect("a stage")
            .push("attentions.7".to_owned());
        self.to_json()
    }
}
