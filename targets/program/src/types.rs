//! Elements and dimensions of values and weights.

use std::fmt;

/// Largest number of dimensions.
pub const MAX_RANK: usize = 8;

/// What a value is made of. Floats are computed and kept as f32 whatever the weights are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// IEEE binary32.
    F32,
    /// Signed 32-bit integer: token ids, positions and truth values.
    I32,
}

/// A dimension of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// The batch, bound at run time.
    Batch,
    /// A size, at least 1.
    Fixed(u32),
}

impl Dim {
    /// The size when the batch is `batch`.
    pub fn bind(self, batch: usize) -> usize {
        match self {
            Dim::Batch => batch,
            Dim::Fixed(n) => n as usize,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Batch => f.write_str("N"),
            Dim::Fixed(n) => n.fmt(f),
        }
    }
}

/// Type of a value: a dense row-major tensor with at most one batch dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// What it is made of.
    pub element: Element,
    /// Dimensions, outermost first; none for a scalar.
    pub dims: Vec<Dim>,
}

impl Type {
    /// A type of f32.
    pub fn f32(dims: impl Into<Vec<Dim>>) -> Self {
        Type {
            element: Element::F32,
            dims: dims.into(),
        }
    }

    /// A type of i32.
    pub fn i32(dims: impl Into<Vec<Dim>>) -> Self {
        Type {
            element: Element::I32,
            dims: dims.into(),
        }
    }

    /// Whether a dimension is the batch.
    pub fn has_batch(&self) -> bool {
        self.dims.contains(&Dim::Batch)
    }

    /// Elements per unit of batch; `None` when 64 bits cannot count them.
    pub fn elements_per_batch(&self) -> Option<u64> {
        let sizes = self.dims.iter().filter_map(|d| match d {
            Dim::Batch => None,
            Dim::Fixed(n) => Some(u64::from(*n)),
        });
        sizes.into_iter().try_fold(1u64, u64::checked_mul)
    }

    /// The sizes when the batch is `batch`.
    pub fn bind(&self, batch: usize) -> Vec<usize> {
        self.dims.iter().map(|d| d.bind(batch)).collect()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.element {
            Element::F32 => "f32[",
            Element::I32 => "i32[",
        })?;
        for (i, dim) in self.dims.iter().enumerate() {
            write!(f, "{}{dim}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}

/// How a weight is stored, which decides what may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Storage {
    /// Row-major f32, as vectors and small constants are. May stand wherever a value of f32 may.
    F32,
    /// Row-major i32. May stand wherever a value of i32 may.
    I32,
    /// Row-major rows of f32, f16 or bf16, read by [`crate::Op::Gather`] only.
    Rows,
    /// Panels of f32, f16 or bf16, read by [`crate::Op::Linear`] and [`crate::Op::Conv2d`] only. The first dimension counts
    /// the columns of the product, the others its depth: `[Cout, Cin]` or `[Cout, KH, KW, Cin]`.
    Panels,
    /// Panels of codes of few bits, read as [`Storage::Panels`] are. The tensor in the container holds the packed rows of the
    /// panels, [`Codes::packed_dims`].
    Codes(Codes),
}

/// Codes that stand for the elements of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Codes {
    /// Bits of a code: 4 or 8 with a scale, 1, 2, 3, 4, 6 or 8 with a palette.
    pub bits: u8,
    /// What they stand for, in other weights that are declared before this one.
    pub book: Codebook,
}

/// What codes stand for. Weights are given by their number in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codebook {
    /// `scale · (code - zero_point)` with signed codes. Both are weights in [`Storage::Panels`] of dimensions
    /// `[Cout, blocks]`. Along the depth, a block is `Cin / blocks` input channels, the same for every pixel of a kernel.
    Scales {
        /// One factor per column and block.
        scale: u32,
        /// One code per column and block; all zero when absent.
        zero_point: Option<u32>,
    },
    /// `table[group][code]` with unsigned codes: a weight in [`Storage::F32`] of dimensions `[groups, 2^bits]`, for groups of
    /// `Cout / groups` columns.
    Palette {
        /// The tables.
        table: u32,
    },
}

impl Codes {
    /// Columns of a panel.
    const PANEL_WIDTH: u64 = 32;

    /// Dimensions of the tensor of bytes in the container for a weight of dimensions `dims`: `[⌈Cout / 32⌉, depth, 4 · bits]`.
    pub fn packed_dims(&self, dims: &[u32]) -> [u64; 3] {
        let (columns, depth) = dims.split_first().unwrap_or((&0, &[]));
        // The elements of a weight in a graph were counted in 64 bits.
        let depth = depth.iter().fold(1u64, |n, &d| n.saturating_mul(d.into()));
        let panels = u64::from(*columns).div_ceil(Self::PANEL_WIDTH);
        [panels, depth, 4 * u64::from(self.bits)]
    }
}

/// A tensor of the container that a graph reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Its name in the stage's tensor table.
    pub name: String,
    /// How it is stored.
    pub storage: Storage,
    /// Its dimensions, as in the tensor table.
    pub dims: Vec<u32>,
}
