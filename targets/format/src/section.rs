//! What a section holds, and where it is.

use std::fmt;

/// A network of the pipeline, by its name in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Prompt to embeddings.
    TextEncoder,
    /// Noise prediction.
    Unet,
    /// Latents to picture.
    VaeDecoder,
}

impl Stage {
    /// The stages in the order of a run, which is the order of their sections.
    pub const ALL: [Stage; 3] = [Stage::TextEncoder, Stage::Unet, Stage::VaeDecoder];

    /// The folder name in a diffusers checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Stage::TextEncoder => "text_encoder",
            Stage::Unet => "unet",
            Stage::VaeDecoder => "vae_decoder",
        }
    }

    /// The number in the file; 0 is for sections of no stage.
    pub fn code(self) -> u16 {
        match self {
            Stage::TextEncoder => 1,
            Stage::Unet => 2,
            Stage::VaeDecoder => 3,
        }
    }

    /// The stage of a number in the file.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Kind of a section that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SectionKind {
    /// The compiled program; bytes to this crate.
    Program,
    /// Key and value strings.
    Metadata,
    /// Constants of the scheduler; bytes to this crate.
    Schedule,
    /// Tables of the tokenizer; bytes to this crate.
    Tokenizer,
    /// Names, types and places of the tensors of a stage.
    TensorTable(Stage),
    /// Data of a stage's tensors.
    Weights {
        /// Whose tensors these are.
        stage: Stage,
        /// Position among the segments of the stage, from 0.
        part: u16,
    },
}

impl SectionKind {
    pub(crate) fn id(self) -> SectionId {
        let (kind, stage, part) = match self {
            SectionKind::Program => (1, 0, 0),
            SectionKind::TensorTable(stage) => (2, stage.code(), 0),
            SectionKind::Weights { stage, part } => (3, stage.code(), part),
            SectionKind::Tokenizer => (4, 0, 0),
            SectionKind::Schedule => (5, 0, 0),
            SectionKind::Metadata => (6, 0, 0),
        };
        SectionId { kind, stage, part }
    }

    /// Whether a reader that does not know this kind has to refuse the file.
    pub(crate) fn is_critical(self) -> bool {
        self != SectionKind::Metadata
    }

    pub(crate) fn is_weights(self) -> bool {
        matches!(self, SectionKind::Weights { .. })
    }
}

/// The numbers that tell a section from the others of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId {
    /// Kind as in the file.
    pub kind: u32,
    /// Stage as in the file; 0 for none.
    pub stage: u16,
    /// Position among the sections of this kind and stage.
    pub part: u16,
}

impl SectionId {
    /// The kind, when this version knows it.
    pub fn known(self) -> Option<SectionKind> {
        let kind = match (self.kind, Stage::from_code(self.stage)) {
            (1, _) => SectionKind::Program,
            (2, Some(stage)) => SectionKind::TensorTable(stage),
            (3, Some(stage)) => SectionKind::Weights {
                stage,
                part: self.part,
            },
            (4, _) => SectionKind::Tokenizer,
            (5, _) => SectionKind::Schedule,
            (6, _) => SectionKind::Metadata,
            _ => return None,
        };
        // A stage or part that the kind does not have makes it one that is not known.
        (kind.id() == self).then_some(kind)
    }
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(SectionKind::Program) => f.write_str("section 'program'"),
            Some(SectionKind::Metadata) => f.write_str("section 'metadata'"),
            Some(SectionKind::Schedule) => f.write_str("section 'schedule'"),
            Some(SectionKind::Tokenizer) => f.write_str("section 'tokenizer'"),
            Some(SectionKind::TensorTable(stage)) => write!(f, "section 'tensor table of {stage}'"),
            Some(SectionKind::Weights { stage, part }) => {
                write!(f, "section 'weights of {stage}, part {part}'")
            }
            None => {
                let SectionId { kind, stage, part } = self;
                write!(f, "section of kind {kind}, stage {stage}, part {part}")
            }
        }
    }
}

/// An entry of the table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What the section holds.
    pub id: SectionId,
    /// Whether a reader that does not know the kind refuses the file.
    pub critical: bool,
    /// Alignment of `offset` in bytes.
    pub alignment: u32,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes without the padding behind them.
    pub length: u64,
    /// Hash of the content; `docs/native-format.md` defines it.
    pub hash: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back_to_their_kinds() {
        let mut kinds = vec![
            SectionKind::Program,
            SectionKind::Metadata,
            SectionKind::Schedule,
            SectionKind::Tokenizer,
        ];
        for stage in Stage::ALL {
            kinds.push(SectionKind::TensorTable(stage));
            kinds.push(SectionKind::Weights { stage, part: 513 });
        }
        for kind in kinds {
            assert_eq!(kind.id().known(), Some(kind));
        }
    }

    #[test]
    fn a_stage_or_part_where_none_belongs_is_not_known() {
        for (kind, stage, part) in [
            (0, 0, 0),
            (1, 1, 0),
            (2, 0, 0),
            (2, 4, 0),
            (2, 1, 1),
            (6, 0, 1),
            (7, 0, 0),
        ] {
            let id = SectionId { kind, stage, part };
            assert_eq!(id.known(), None, "{id}");
        }
    }
}
