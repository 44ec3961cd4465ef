//! Tensors of a stage: name, shape, and the variants of the data.

use std::fmt;

/// Type of a tensor's elements.
///
/// Types under 8 bits are packed without gaps, the first element in the lowest bits of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// Two's complement, 64 bits.
    I64,
    /// Two's complement, 32 bits.
    I32,
    /// Two's complement, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// Unsigned, 6 bits: indices of a palette of 64.
    U6,
    /// Unsigned, 4 bits: indices of a palette of 16.
    U4,
}

impl DType {
    const ALL: [(DType, u16, &'static str, u64); 9] = [
        (DType::F32, 1, "f32", 32),
        (DType::F16, 2, "f16", 16),
        (DType::Bf16, 3, "bf16", 16),
        (DType::I64, 4, "i64", 64),
        (DType::I32, 5, "i32", 32),
        (DType::I8, 6, "i8", 8),
        (DType::U8, 7, "u8", 8),
        (DType::U6, 8, "u6", 6),
        (DType::U4, 9, "u4", 4),
    ];

    fn row(self) -> (DType, u16, &'static str, u64) {
        let row = Self::ALL.into_iter().find(|r| r.0 == self);
        row.expect("every type has a row")
    }

    /// Bits of an element.
    pub fn bits(self) -> u64 {
        self.row().3
    }

    /// The number in the file.
    pub(crate) fn code(self) -> u16 {
        self.row().1
    }

    pub(crate) fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.1 == code).map(|r| r.0)
    }

    /// Bytes of a tensor of this shape in the canonical layout; `None` when a dimension is 0 or the bits are more than
    /// 64 bits can count.
    pub fn byte_len(self, shape: &[u64]) -> Option<u64> {
        let mut bits = self.bits();
        for &n in shape {
            bits = bits.checked_mul(n)?;
        }
        (bits != 0).then(|| bits.div_ceil(8))
    }

    /// Bytes of a tensor of this shape in [`LayoutId::PANELS`]; `None` for less than two dimensions, for elements that are
    /// no whole bytes, and as for [`DType::byte_len`].
    pub fn panels_len(self, shape: &[u64]) -> Option<u64> {
        let [columns, depth @ ..] = shape else {
            return None;
        };
        if depth.is_empty() || *columns == 0 || !self.bits().is_multiple_of(8) {
            return None;
        }
        let filled = columns.checked_next_multiple_of(PANEL_WIDTH)?;
        self.byte_len(depth)?.checked_mul(filled)
    }

    /// Bytes of a tensor of this shape in a layout that stands for the tensor: canonical, or panels. `None` for other
    /// layouts, and for shapes and types that the layout does not take.
    pub(crate) fn base_len(self, layout: LayoutId, shape: &[u64]) -> Option<u64> {
        match layout {
            LayoutId::CANONICAL => self.byte_len(shape),
            LayoutId::PANELS => self.panels_len(shape),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

/// Columns of a panel of [`LayoutId::PANELS`].
pub const PANEL_WIDTH: u64 = 32;

/// How the elements of a variant are arranged. The container knows [`LayoutId::CANONICAL`] and [`LayoutId::PANELS`]; the
/// kernels that read other variants give those numbers their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayoutId(pub u16);

impl LayoutId {
    /// Row-major in the order of the shape, without gaps.
    pub const CANONICAL: LayoutId = LayoutId(0);

    /// Panels of [`PANEL_WIDTH`] columns, as products read them: the shape is `[columns, depth…]`, and element `(c, d)` of
    /// the matrix `[columns][depth]` is at `[c / 32][d][c mod 32]`. Columns are filled up with zeros to whole panels.
    pub const PANELS: LayoutId = LayoutId(1);
}

impl fmt::Display for LayoutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One arrangement of a tensor's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Type of its elements.
    pub dtype: DType,
    /// Their arrangement.
    pub layout: LayoutId,
    /// Segment of the stage that holds it.
    pub part: u16,
    /// First byte in that segment.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A tensor as the table of its stage describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name within the stage.
    pub name: String,
    /// Dimensions, outermost first; none for a scalar.
    pub shape: Vec<u64>,
    /// The canonical variant or that in panels, then the others by ascending layout.
    pub variants: Vec<Variant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_round_up_to_bytes() {
        for (dtype, shape, expected) in [
            (DType::F32, &[2, 3][..], Some(24)),
            (DType::Bf16, &[5], Some(10)),
            (DType::I64, &[], Some(8)),
            (DType::U4, &[3], Some(2)),
            (DType::U6, &[5], Some(4)),
            (DType::U8, &[3, 0], None),
            (DType::U8, &[1 << 32, 1 << 32], None),
            (DType::F32, &[1 << 59], None),
            (DType::U4, &[1 << 61], Some(1 << 60)),
        ] {
            assert_eq!(dtype.byte_len(shape), expected, "{dtype} {shape:?}");
        }
    }

    #[test]
    fn panels_are_filled_up() {
        for (dtype, shape, expected) in [
            (DType::F32, &[2, 3][..], Some(4 * 32 * 3)),
            (DType::F16, &[33, 3, 3, 4], Some(2 * 64 * 36)),
            (DType::U8, &[32, 1], Some(32)),
            (DType::U4, &[32, 2], None),
            (DType::F32, &[2], None),
            (DType::F32, &[0, 3], None),
            (DType::F32, &[3, 0], None),
            (DType::U8, &[u64::MAX, 1], None),
            (DType::U8, &[33, 1 << 58], None),
        ] {
            assert_eq!(dtype.panels_len(shape), expected, "{dtype} {shape:?}");
        }
    }

    #[test]
    fn numbers_lead_back_to_their_types() {
        for code in 1..=9 {
            let dtype = DType::from_code(code).unwrap();
            assert_eq!(dtype.code(), code);
        }
        assert_eq!(DType::from_code(0), None);
        assert_eq!(DType::from_code(10), None);
    }
}
