//! What the user chooses about an artifact.

use std::fmt;
use std::str::FromStr;

use crate::error::TargetError;

/// A word that is not among the choices of an option.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown {option} '{word}'; choose one of {choices}")]
pub struct UnknownChoice {
    /// The option.
    pub option: &'static str,
    /// The word given.
    pub word: String,
    /// The words it takes.
    pub choices: String,
}

macro_rules! choice {
    (
        $(#[$doc:meta])* $name:ident, $option:literal {
            $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every choice.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The word on the command line and in the manifest.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownChoice;

            fn from_str(word: &str) -> Result<Self, UnknownChoice> {
                let found = $name::ALL.iter().copied().find(|c| c.name() == word);
                found.ok_or_else(|| UnknownChoice {
                    option: $option,
                    word: word.to_owned(),
                    choices: [$($word),*].join(", "),
                })
            }
        }
    };
}

choice! {
    /// Element type of weights and activations.
    Precision, "precision" {
        /// IEEE binary16; timestep embeddings stay in f32.
        F16 = "f16",
        /// IEEE binary32.
        F32 = "f32",
    }
}

choice! {
    /// Names and shapes of the graphs' features.
    Interface, "interface" {
        /// Those of diffusers.
        Plain = "plain",
        /// Those of Apple's Stable Diffusion packages.
        Apple = "apple",
        /// Those of graphs that are specialised to a run: the number of the step in place of the timestep, and the prompt's
        /// keys and values in place of its embeddings.
        Snap = "snap",
    }
}

choice! {
    /// How attention is written.
    AttentionForm, "attention form" {
        /// The target's best for the lowest system version it has to run on.
        Auto = "auto",
        /// One operator.
        Sdpa = "sdpa",
        /// Products and a softmax.
        Decomposed = "decomposed",
        /// One head after the other in the layout of the Neural Engine; Core ML only.
        SplitEinsum = "split-einsum",
        /// The same in chunks of 512 queries.
        SplitEinsumV2 = "split-einsum-v2",
    }
}

choice! {
    /// How the weights of products are stored.
    WeightForm, "weight form" {
        /// IEEE binary32.
        F32 = "f32",
        /// IEEE binary16.
        F16 = "f16",
        /// Signed 8-bit codes with a scale per output channel.
        Int8 = "int8",
        /// Signed 4-bit codes with a scale per block of input channels.
        Int4 = "int4",
        /// 8-bit codes of a table of 256 values.
        Palette8 = "palette8",
        /// 6-bit codes of a table of 64 values.
        Palette6 = "palette6",
        /// 4-bit codes of tables of 16 values.
        Palette4 = "palette4",
        /// 2-bit codes of tables of 4 values.
        Palette2 = "palette2",
        /// A form per layer, within a budget.
        Mixed = "mixed",
        /// 8-bit weights and 8-bit data of products.
        W8a8 = "w8a8",
    }
}

/// The major versions of iOS that [`EmitOptions::min_ios`] may be, oldest first.
pub const IOS_VERSIONS: [u32; 4] = [16, 17, 18, 26];

/// A list for people: `1, 2 or 3`.
pub fn alternatives(list: &[impl fmt::Display]) -> String {
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// What the user chooses about an artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct EmitOptions {
    /// Element type of weights and activations.
    pub precision: Precision,
    /// How the weights of products are stored; that of the precision when absent.
    pub weights: Option<WeightForm>,
    /// Names and shapes of the features.
    pub interface: Interface,
    /// Lowest major version of iOS that has to load the artifact, one of [`IOS_VERSIONS`], for targets that depend on it; the
    /// target's own choice when absent.
    pub min_ios: Option<u32>,
    /// How attention is written.
    pub attention: AttentionForm,
    /// Number of denoising steps that the manifest plans.
    pub steps: usize,
    /// Guidance scale that the manifest records.
    pub guidance: f32,
    /// Whether the UNet is written in two chunks; Core ML only.
    pub chunk_unet: bool,
    /// Whether the VAE decoder gives an RGB image in place of a multi-array; Core ML only.
    pub image_output: bool,
    /// Rows and columns in pixels of the pictures that the artifact makes, the size of the program first; Core ML only. Empty
    /// for the size of the program alone.
    pub sizes: Vec<[usize; 2]>,
    /// Batch size of every graph, for targets without a symbolic batch; the target's own choice when absent.
    pub batch: Option<usize>,
}

impl EmitOptions {
    /// Refuses what only Core ML packages can have, for the other targets.
    ///
    /// # Errors
    /// [`TargetError::Option`] for attention in the layout of the Neural Engine, a UNet in chunks, several sizes,
    /// and a picture as an image.
    pub fn refuse_core_ml_forms(&self) -> Result<(), TargetError> {
        if matches!(
            self.attention,
            AttentionForm::SplitEinsum | AttentionForm::SplitEinsumV2
        ) {
            return Err(TargetError::Option {
                option: "--attention",
                reason: format!(
                    "'{}' is for Core ML; choose auto or decomposed",
                    self.attention
                ),
            });
        }
        if self.chunk_unet {
            return Err(TargetError::Option {
                option: "--chunk-unet",
                reason: "only Core ML packages are written in chunks".to_owned(),
            });
        }
        if self.sizes.len() > 1 {
            return Err(TargetError::Option {
                option: "--sizes",
                reason: "only Core ML packages have functions for several sizes; convert once for each size".to_owned(),
            });
        }
        if self.image_output {
            return Err(TargetError::Option {
                option: "--image-output",
                reason: "only Core ML has outputs that are images".to_owned(),
            });
        }
        Ok(())
    }
}

impl Default for EmitOptions {
    /// f16, plain, 8 steps with guidance 7.5, the rest as the target wants it.
    fn default() -> Self {
        EmitOptions {
            precision: Precision::F16,
            weights: None,
            interface: Interface::Plain,
            min_ios: None,
            attention: AttentionForm::Auto,
            steps: 8,
            guidance: 7.5,
            chunk_unet: false,
            image_output: false,
            sizes: Vec::new(),
            batch: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(&IOS_VERSIONS), "16, 17, 18 or 26");
        assert_eq!(alternatives(&["one"]), "one");
    }

    #[test]
    fn choices_print_and_parse() {
        for &p in Precision::ALL {
            assert_eq!(p.to_string().parse(), Ok(p));
        }
        assert_eq!("apple".parse(), Ok(Interface::Apple));
        let error = "flash".parse::<AttentionForm>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown attention form 'flash'; choose one of auto, sdpa, decomposed, split-einsum, split-einsum-v2"
        );
    }
}
