//! What weights are stored as.

use std::fmt;

use serde::Deserialize;
use snapc_ir::{Encoding, LazyTensor};

use super::{EncodeError, affine, palette};

/// The option `form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightForm {
    /// Eight bits with a scale per output channel.
    Int8,
    /// Four bits with a scale per block of input channels.
    Int4,
    /// A palette of 4 values.
    Palette2,
    /// A palette of 16 values.
    Palette4,
    /// A palette of 64 values.
    Palette6,
    /// A palette of 256 values.
    Palette8,
    /// A form per layer.
    Mixed,
}

impl WeightForm {
    /// What every weight is stored as; where that is decided per layer, as it is.
    pub(super) fn code_form(self, block: usize, group: usize) -> CodeForm {
        match self {
            WeightForm::Int8 => CodeForm::Int8,
            WeightForm::Int4 => CodeForm::Int4 { block },
            WeightForm::Palette2 => CodeForm::Palette { bits: 2, group },
            WeightForm::Palette4 => CodeForm::Palette { bits: 4, group },
            WeightForm::Palette6 => CodeForm::Palette { bits: 6, group },
            WeightForm::Palette8 => CodeForm::Palette { bits: 8, group },
            WeightForm::Mixed => CodeForm::Plain,
        }
    }
}

/// What one weight `[Cout,Cin,…]` is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeForm {
    /// As it is.
    Plain,
    /// Eight bits with a scale per output channel.
    Int8,
    /// Four bits with a scale per output channel and block of input channels.
    Int4 {
        /// Input channels of a block.
        block: usize,
    },
    /// Palettes of `2^bits` values.
    Palette {
        /// Bits of a code.
        bits: u32,
        /// Output channels per palette; 0 for all of them.
        group: usize,
    },
}

impl CodeForm {
    /// The encoding of a weight, none for [`CodeForm::Plain`].
    pub(crate) fn encoding(self, tensor: &LazyTensor) -> Result<Option<Encoding>, EncodeError> {
        let groups = self.groups(tensor.shape());
        match self {
            CodeForm::Plain => Ok(None),
            CodeForm::Int8 => affine::symmetric(tensor, 8, &groups).map(Some),
            CodeForm::Int4 { .. } => affine::symmetric(tensor, 4, &groups).map(Some),
            CodeForm::Palette { bits, .. } => palette::palettes(tensor, bits, groups[0]).map(Some),
        }
    }

    /// Into how many parts each dimension is cut.
    fn groups(self, shape: &[usize]) -> Vec<usize> {
        let mut groups = vec![1; shape.len()];
        match self {
            CodeForm::Plain => {}
            CodeForm::Int8 => groups[0] = shape[0],
            CodeForm::Int4 { block } => {
                groups[0] = shape[0];
                if shape[1].is_multiple_of(block) {
                    groups[1] = shape[1] / block;
                }
            }
            CodeForm::Palette { group, .. } => {
                if group > 0 && shape[0].is_multiple_of(group) {
                    groups[0] = shape[0] / group;
                }
            }
        }
        groups
    }

    /// Whether the channels cannot be divided as asked.
    pub(super) fn falls_back(self, shape: &[usize]) -> bool {
        match self {
            CodeForm::Int4 { block } => !shape[1].is_multiple_of(block),
            CodeForm::Palette { group, .. } => group > 0 && !shape[0].is_multiple_of(group),
            _ => false,
        }
    }

    /// What weights have that fall back.
    pub(super) fn coarser(self) -> &'static str {
        match self {
            CodeForm::Palette { .. } => "one palette",
            _ => "one scale per output channel",
        }
    }

    /// Bytes of a weight of that shape with values of `value_size` bytes.
    pub(super) fn bytes(self, shape: &[usize], value_size: usize) -> usize {
        let elements: usize = shape.iter().product();
        let groups: usize = self.groups(shape).iter().product();
        match self {
            CodeForm::Plain => elements * value_size,
            CodeForm::Int8 => elements + groups * value_size,
            CodeForm::Int4 { .. } => elements.div_ceil(2) + groups * value_size,
            CodeForm::Palette { bits, .. } => {
                (elements * bits as usize).div_ceil(8) + (groups << bits) * value_size
            }
        }
    }
}

impl fmt::Display for CodeForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodeForm::Plain => f.write_str("as it is"),
            CodeForm::Int8 => f.write_str("int8"),
            CodeForm::Int4 { .. } => f.write_str("int4"),
            CodeForm::Palette { bits, .. } => write!(f, "palette{bits}"),
        }
    }
}
