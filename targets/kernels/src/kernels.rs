//! The choice of an instruction set.

use crate::error::KernelError;
use crate::table::{self, Table};

/// An instruction set that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// What the compiler makes of plain arrays; on every processor.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512F.
    Avx512,
}

impl InstructionSet {
    /// All of them, the widest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];
}

/// The kernels of one instruction set; the operators are its methods.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Only of an instruction set that the processor has: every constructor checks that.
    pub(crate) table: &'static Table,
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
        #[cfg(target_arch = "x86_64")]
        let found = match set {
            InstructionSet::Portable => Ok(&table::PORTABLE),
            InstructionSet::Avx2 => (is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c"))
            .then_some(&table::AVX2)
            .ok_or("AVX2 with FMA and F16C"),
            InstructionSet::Avx512 => is_x86_feature_detected!("avx512f")
                .then_some(&table::AVX512)
                .ok_or("AVX-512F"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let found = match set {
            InstructionSet::Portable => Ok(&table::PORTABLE),
            InstructionSet::Avx2 => Err("AVX2 with FMA and F16C"),
            InstructionSet::Avx512 => Err("AVX-512F"),
        };
        found
            .map(|table| Self { table })
            .map_err(KernelError::MissingFeature)
    }

    /// Name of the instruction set: `portable`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.table.name
    }

    /// Columns of a panel of weights ([`crate::PanelMatrix::pack`]).
    #[must_use]
    pub fn panel_width(&self) -> usize {
        self.table.tile_width
    }
}
