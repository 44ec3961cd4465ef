//! Element types, dimensions, shapes and tensor types.

use std::fmt;
use std::str::FromStr;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Truth value, one byte.
    Bool,
    /// Signed 8-bit integer; only codes of encoded weights have it.
    I8,
    /// Unsigned 8-bit integer; only codes of encoded weights have it.
    U8,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 8] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::I64,
        DType::Bool,
        DType::I8,
        DType::U8,
    ];

    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::I64 => 8,
            DType::Bool | DType::I8 | DType::U8 => 1,
        }
    }

    /// Whether this is one of the floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The name used in the text form and in messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::Bool => "bool",
            DType::I8 => "i8",
            DType::U8 => "u8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no element type.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown element type '{0}'")]
pub struct UnknownDType(pub String);

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        DType::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| UnknownDType(s.to_owned()))
    }
}

/// One dimension of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// A size known at compile time.
    Fixed(usize),
    /// The batch size, left open until run time; written `N`.
    Batch,
}

impl Dim {
    /// The size when it is known.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(n),
            Dim::Batch => None,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Batch => f.write_str("N"),
        }
    }
}

/// The dimensions of a tensor, outermost first. A scalar has none. At most one dimension is [`Dim::Batch`]
/// in a verified graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape without batch dimension.
    pub fn fixed(dims: &[usize]) -> Self {
        Shape(dims.iter().copied().map(Dim::Fixed).collect())
    }

    /// A shape `[N, dims…]`.
    pub fn batched(dims: &[usize]) -> Self {
        let tail = dims.iter().copied().map(Dim::Fixed);
        Shape(std::iter::once(Dim::Batch).chain(tail).collect())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The dimensions.
    pub fn dims(&self) -> &[Dim] {
        &self.0
    }

    /// All sizes, when none is the batch.
    pub fn to_fixed(&self) -> Option<Vec<usize>> {
        self.0.iter().map(|d| d.fixed()).collect()
    }

    /// Whether a dimension is the batch.
    pub fn has_batch(&self) -> bool {
        self.0.contains(&Dim::Batch)
    }

    /// Number of elements per unit of batch (all fixed sizes multiplied); `None` on overflow.
    pub fn elements_per_batch(&self) -> Option<usize> {
        self.0
            .iter()
            .filter_map(|d| d.fixed())
            .try_fold(1usize, |a, b| a.checked_mul(b))
    }

    /// The sizes with `batch` in place of the batch dimension.
    pub fn bind(&self, batch: usize) -> Vec<usize> {
        self.0.iter().map(|d| d.fixed().unwrap_or(batch)).collect()
    }

    /// The numpy broadcast of two shapes; `None` when they do not fit. The batch dimension meets only itself and 1.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let at = |s: &Shape, i: usize| {
            let missing = rank - s.rank();
            if i < missing {
                Dim::Fixed(1)
            } else {
                s.0[i - missing]
            }
        };
        (0..rank)
            .map(|i| match (at(self, i), at(other, i)) {
                (a, b) if a == b => Some(a),
                (Dim::Fixed(1), b) => Some(b),
                (a, Dim::Fixed(1)) => Some(a),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// Element type and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Shape,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: Shape) -> Self {
        TensorType { dtype, shape }
    }

    /// Bytes per unit of batch; `None` on overflow.
    pub fn bytes_per_batch(&self) -> Option<usize> {
        self.shape
            .elements_per_batch()?
            .checked_mul(self.dtype.size())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_follows_numpy() {
        let a = Shape::batched(&[1, 5]);
        let b = Shape::fixed(&[4, 1]);
        assert_eq!(a.broadcast(&b), Some(Shape::batched(&[4, 5])));
        assert_eq!(Shape::fixed(&[2]).broadcast(&Shape::fixed(&[3])), None);
        assert_eq!(Shape::batched(&[]).broadcast(&Shape::fixed(&[2])), None);
    }

    #[test]
    fn element_types_print_and_parse() {
        for d in DType::ALL {
            assert_eq!(d.name().parse(), Ok(d));
        }
        assert!("f8".parse::<DType>().is_err());
    }

    #[test]
    fn overflow_is_seen() {
        let s = Shape::fixed(&[usize::MAX, 2]);
        assert_eq!(s.elements_per_batch(), None);
    }
}
