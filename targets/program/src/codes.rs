//! The numbers that stand for choices in a file: the position in a list that only grows at its end.

use crate::op::{Activation, Binary, Rounding, Unary};
use crate::types::Element;

/// A choice that is one byte in a file.
pub(crate) trait Coded: Copy + PartialEq + 'static {
    /// What is chosen, as errors call it.
    const WHAT: &'static str;
    /// The choices in the order of their numbers, from 0.
    const ALL: &'static [Self];

    /// The number in the file.
    fn code(self) -> u8 {
        let position = Self::ALL.iter().position(|x| *x == self);
        position.expect("every choice is listed") as u8
    }

    /// The choice of a number in a file.
    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl Coded for Element {
    const WHAT: &'static str = "element";
    const ALL: &'static [Self] = &[Element::F32, Element::I32];
}

impl Coded for Unary {
    const WHAT: &'static str = "unary function";
    const ALL: &'static [Self] = &[
        Unary::Silu,
        Unary::Gelu,
        Unary::QuickGelu,
        Unary::Sigmoid,
        Unary::Exp,
        Unary::Sqrt,
        Unary::Sin,
        Unary::Cos,
        Unary::Erf,
    ];
}

impl Coded for Binary {
    const WHAT: &'static str = "binary function";
    const ALL: &'static [Self] = &[Binary::Add, Binary::Sub, Binary::Mul, Binary::Div];
}

impl Coded for Activation {
    const WHAT: &'static str = "activation";
    const ALL: &'static [Self] = &[
        Activation::None,
        Activation::Silu,
        Activation::Gelu,
        Activation::QuickGelu,
    ];
}

impl Coded for Rounding {
    const WHAT: &'static str = "rounding";
    const ALL: &'static [Self] = &[Rounding::None, Rounding::F16, Rounding::Bf16];
}

/// Numbers of the storages of weights; `docs/native-format.md` gives what follows those of codes.
pub(crate) mod storage {
    pub(crate) const F32: u8 = 0;
    pub(crate) const I32: u8 = 1;
    pub(crate) const ROWS: u8 = 2;
    pub(crate) const PANELS: u8 = 3;
    pub(crate) const SCALED_CODES: u8 = 4;
    pub(crate) const PALETTE_CODES: u8 = 5;
}

/// Numbers of the instructions; `docs/native-format.md` gives the attributes behind each.
pub(crate) mod op {
    pub(crate) const VIEW: u8 = 1;
    pub(crate) const PERMUTE: u8 = 2;
    pub(crate) const SLICE: u8 = 3;
    pub(crate) const CONCAT: u8 = 4;
    pub(crate) const GATHER: u8 = 5;
    pub(crate) const UPSAMPLE_NEAREST: u8 = 6;
    pub(crate) const UNARY: u8 = 7;
    pub(crate) const BINARY: u8 = 8;
    pub(crate) const EQUAL: u8 = 9;
    pub(crate) const CAST: u8 = 10;
    pub(crate) const SOFTMAX: u8 = 11;
    pub(crate) const REDUCE_MEAN: u8 = 12;
    pub(crate) const ARG_MAX: u8 = 13;
    pub(crate) const LINEAR: u8 = 14;
    pub(crate) const CONV2D: u8 = 15;
    pub(crate) const GEGLU: u8 = 16;
    pub(crate) const MAT_MUL: u8 = 17;
    pub(crate) const ATTENTION: u8 = 18;
    pub(crate) const GROUP_NORM: u8 = 19;
    pub(crate) const LAYER_NORM: u8 = 20;
    pub(crate) const TIMESTEP_EMBEDDING: u8 = 21;
    pub(crate) const FAKE_QUANTIZE: u8 = 22;
}
