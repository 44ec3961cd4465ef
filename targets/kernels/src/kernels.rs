//! The choice of an instruction set.

use crate::error::KernelError;
use crate::table::{self, Dot, Table};

/// An instruction set that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// What the compiler makes of plain arrays; on every processor.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
    /// 64-bit ARM.
    Neon,
}

impl InstructionSet {
    /// All of them; of those that a processor has, the widest comes first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// What a processor must have.
    fn requirement(self) -> &'static str {
        match self {
            Self::Portable => "floating point",
            Self::Avx2 => "AVX2 with FMA and F16C",
            Self::Avx512 => "AVX-512F",
            Self::Neon => "NEON",
        }
    }
}

impl InstructionSet {
    /// The products of integers that go with it on this processor.
    fn dot(self) -> Option<&'static Dot> {
        match self {
            // Slow, but the same nests of loops as everywhere.
            Self::Portable => Some(&table::PORTABLE_DOT),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avxvnni").then_some(&table::AVX2_DOT),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512vnni").then_some(&table::AVX512_DOT),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => {
                std::arch::is_aarch64_feature_detected!("dotprod").then_some(&table::NEON_DOT)
            }
            _ => None,
        }
    }
}

/// The kernels of one instruction set; the operators are its methods.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Only of an instruction set that the processor has: every constructor checks that.
    pub(crate) table: &'static Table,
    /// Products of integers, of the same tile sizes, when the processor has instructions for them.
    pub(crate) dot: Option<&'static Dot>,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.table.name).finish()
    }
}

impl Kernels {
    /// The kernels of the widest instruction set of this processor.
    #[must_use]
    pub fn detect() -> Self {
        InstructionSet::ALL
            .into_iter()
            .find_map(|set| Self::with(set).ok())
            .expect("the portable kernels run everywhere")
    }

    /// The kernels of one instruction set.
    ///
    /// # Errors
    /// [`KernelError::MissingFeature`] when the processor lacks it.
    pub fn with(set: InstructionSet) -> Result<Self, KernelError> {
        let found = match set {
            InstructionSet::Portable => Some(&table::PORTABLE),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => (is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c"))
            .then_some(&table::AVX2),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => is_x86_feature_detected!("avx512f").then_some(&table::AVX512),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => {
                std::arch::is_aarch64_feature_detected!("neon").then_some(&table::NEON)
            }
            // Those of other processors.
            _ => None,
        };
        let table = found.ok_or(KernelError::MissingFeature(set.requirement()))?;
        let dot = set.dot();
        Ok(Self { table, dot })
    }

    /// Name of the instruction set: `portable`, `avx2`, `avx512` or `neon`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.table.name
    }
}
