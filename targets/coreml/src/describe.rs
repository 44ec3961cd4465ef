//! What packages tell people, in Xcode and by `MLModelDescription`: author, licence, version and a sentence about the model,
//! and for every feature what it is, its axes and its range.

use std::collections::BTreeMap;

use snapc_ir::{Graph, Op, PipelineSpec, PredictionType, TensorType};
use snapc_target::{EmitOptions, Interface};

use crate::interface::is_image;
use crate::proto::Metadata;

/// What is told about the package of a graph.
pub(crate) struct Description<'a> {
    graph: &'a Graph,
    /// Names of the text encoder's outputs.
    texts: Vec<&'a str>,
    options: &'a EmitOptions,
    pipeline: &'a PipelineSpec,
}

/// What a feature is.
struct Feature {
    /// A sentence without its full stop.
    what: String,
    /// Names of the dimensions, separated by commas.
    axes: &'static str,
    /// What its elements may be.
    range: String,
}

impl Feature {
    fn new(what: impl Into<String>, axes: &'static str, range: impl Into<String>) -> Self {
        Feature {
            what: what.into(),
            axes,
            range: range.into(),
        }
    }

    /// The text about a feature of a type.
    fn text(&self, ty: &TensorType) -> String {
        let Feature { what, axes, range } = self;
        let range = match range.as_str() {
            "" => String::new(),
            range => format!("; {range}"),
        };
        format!("{what}. {ty}: {axes}{range}")
    }
}

impl<'a> Description<'a> {
    /// `graph` is one of `graphs`.
    pub(crate) fn new(
        graph: &'a Graph,
        graphs: &[&'a Graph],
        options: &'a EmitOptions,
        pipeline: &'a PipelineSpec,
    ) -> Self {
        let encoders = graphs.iter().filter(|g| g.name() == "text_encoder");
        let texts = encoders.flat_map(|g| g.outputs());
        Description {
            graph,
            texts: texts.map(|o| o.name.as_str()).collect(),
            options,
            pipeline,
        }
    }

    /// Whether an output is an image.
    pub(crate) fn is_image(&self, output: &str) -> bool {
        is_image(self.graph.name(), output, self.options)
    }

    /// What is told about the model as a whole. What the checkpoint and the user have not stated is left empty.
    pub(crate) fn metadata(&self) -> Metadata {
        let about = &self.pipeline.about;
        let does = match self.graph.name() {
            "text_encoder" => "Text encoder of Stable Diffusion: embeds the tokens of a prompt.",
            "unet" => "UNet of Stable Diffusion: one denoising step.",
            "unet_chunk1" => {
                "UNet of Stable Diffusion: one denoising step, the first of two parts."
            }
            "unet_chunk2" => {
                "UNet of Stable Diffusion: one denoising step, the second of two parts."
            }
            "vae_decoder" => "VAE decoder of Stable Diffusion: makes a picture of latents.",
            _ => "",
        };
        let short_description = match &about.description {
            Some(description) if does.is_empty() => description.clone(),
            Some(description) => format!("{does} {description}"),
            None => does.to_owned(),
        };
        let facts = [
            ("snapc.graph", self.graph.name()),
            ("snapc.interface", self.options.interface.name()),
            ("snapc.precision", self.options.precision.name()),
            ("snapc.version", env!("CARGO_PKG_VERSION")),
        ];
        let stated = |text: &Option<String>| text.clone().unwrap_or_default();
        Metadata {
            short_description,
            version_string: stated(&about.version),
            author: stated(&about.author),
            license: stated(&about.license),
            user_defined: BTreeMap::from(facts.map(|(k, v)| (k.to_owned(), v.to_owned()))),
        }
    }

    /// What is told about an input.
    pub(crate) fn input(&self, name: &str, ty: &TensorType) -> String {
        let found = match self.graph.name() {
            "text_encoder" => self.text_encoder_input(name),
            "unet" | "unet_chunk1" | "unet_chunk2" => self.unet_input(name, ty),
            "vae_decoder" => Some(self.latents()),
            _ => None,
        };
        let feature = found.unwrap_or_else(|| self.handed_over());
        feature.text(ty)
    }

    /// What is told about an output.
    pub(crate) fn output(&self, name: &str, ty: &TensorType) -> String {
        if self.is_image(name) {
            return format!(
                "The picture, RGB with 8 bits per channel. {} rows, {} columns; \
                 black is 0, white is 255",
                ty.shape.dims()[2],
                ty.shape.dims()[3]
            );
        }
        let found = match (self.graph.name(), name) {
            ("text_encoder", _) => Some(text_encoder_output(name)),
            ("unet" | "unet_chunk1" | "unet_chunk2", "out_sample" | "noise_pred") => {
                Some(self.prediction())
            }
            ("vae_decoder", _) => Some(Feature::new(
                "The picture that the latents stand for",
                "pictures, channels (red, green, blue), rows, columns",
                "black is -1, white is 1; values may lie a little outside",
            )),
            _ => None,
        };
        let feature = found.unwrap_or_else(|| self.handed_over());
        feature.text(ty)
    }

    fn text_encoder_input(&self, name: &str) -> Option<Feature> {
        let range = match self.vocabulary() {
            Some(size) => format!("whole numbers from 0 to {}", size - 1),
            None => "whole numbers".to_owned(),
        };
        (name == "input_ids").then(|| {
            Feature::new(
                "Token ids of a prompt by CLIP's tokenizer: start, text, end, and padding behind it",
                "prompts, tokens",
                range,
            )
        })
    }

    /// Number of tokens that the embedding has rows for.
    fn vocabulary(&self) -> Option<usize> {
        let ids = self.graph.inputs().first()?.value;
        let looks_up = |op: &Op| matches!(op, Op::Gather(_));
        let mut nodes = self.graph.nodes().iter();
        let lookup = nodes.find(|n| looks_up(&n.op) && n.operands.get(1) == Some(&ids))?;
        let rows = self.graph.ty(lookup.operands[0]).shape.dims().first()?;
        rows.fixed().filter(|&n| n > 0)
    }

    fn unet_input(&self, name: &str, ty: &TensorType) -> Option<Feature> {
        let last = self.pipeline.scheduler.train_steps.saturating_sub(1);
        Some(match name {
            "sample" => Feature::new(
                "The latents of this step, the same in every row",
                "rows, channels, rows of cells, columns of cells",
                "standard normal noise at the first step",
            ),
            "timestep" if ty.shape.dims().len() == 1 && self.is_apple() => {
                let range = format!("the same number from 0 to {last} in every row");
                Feature::new("Timestep of the noise schedule", "rows", range)
            }
            "timestep" => {
                let range = format!("from 0 to {last}");
                Feature::new("Timestep of the noise schedule, for all rows", "one", range)
            }
            "step" => {
                let steps = self.options.steps;
                let beyond = match self.graph.inputs().iter().any(|i| i.name == "timestep") {
                    true => format!("; {steps} to take the timestep from 'timestep'"),
                    false => String::new(),
                };
                let range = format!("from 0 to {}{beyond}", steps.saturating_sub(1));
                Feature::new("Number of the denoising step, for all rows", "one", range)
            }
            "encoder_hidden_states" => Feature::new(
                "Text embeddings: with guidance, row 0 of the negative prompt and row 1 of the prompt",
                match self.is_apple() {
                    true => "rows, width, one, tokens",
                    false => "rows, tokens, width",
                },
                "the output 'last_hidden_state' of the text encoder",
            ),
            _ if self.texts.contains(&name) => Feature::new(
                "The text encoder's output of this name: with guidance, row 0 of the negative prompt and row 1 of the prompt",
                "rows, and the axes of that output",
                "",
            ),
            _ => return None,
        })
    }

    fn is_apple(&self) -> bool {
        self.options.interface == Interface::Apple
    }

    fn prediction(&self) -> Feature {
        let what = match self.pipeline.scheduler.prediction_type {
            PredictionType::Epsilon => "The noise in the latents, as predicted for each row",
            PredictionType::VPrediction => "The velocity of the latents, as predicted for each row",
        };
        Feature::new(
            what,
            "rows, channels, rows of cells, columns of cells",
            "of the size of the noise",
        )
    }

    fn latents(&self) -> Feature {
        let what = format!(
            "The latents behind the last step, divided by {}",
            self.pipeline.latent.scaling_factor
        );
        Feature::new(
            what,
            "pictures, channels, rows of cells, columns of cells",
            "",
        )
    }

    fn handed_over(&self) -> Feature {
        let what = match self.graph.name() {
            "unet_chunk1" => "What the second part of the UNet takes under this name",
            "unet_chunk2" => "What the first part of the UNet gives under this name",
            _ => "A value of the model",
        };
        Feature::new(what, "axes of the model", "")
    }
}

fn text_encoder_output(name: &str) -> Feature {
    match name {
        "last_hidden_state" => Feature::new(
            "Text embeddings, for the UNet",
            "prompts, tokens, width",
            "a normalized row for each token",
        ),
        "pooler_output" | "pooled_outputs" => Feature::new(
            "Embedding of the whole prompt, taken at its end token; the UNet does not need it",
            "prompts, width",
            "a normalized row",
        ),
        _ => Feature::new(
            "A projection of the text embeddings, for the UNet's input of this name",
            "prompts, and the axes of that input",
            "",
        ),
    }
}
