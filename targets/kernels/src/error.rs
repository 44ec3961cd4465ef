//! What a kernel refuses.

/// Why a kernel did not run. Nothing was written to the output when one of these is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A buffer does not have the length that the shape asks for.
    #[error("{operand} of {kernel} holds {found} elements, the shape asks for {expected}")]
    Length {
        /// Which kernel was called.
        kernel: &'static str,
        /// Which buffer it is.
        operand: &'static str,
        /// Elements the shape asks for.
        expected: usize,
        /// Elements the buffer has.
        found: usize,
    },
    /// A shape has no meaning for the kernel.
    #[error("{kernel}: {reason}")]
    Shape {
        /// Which kernel was called.
        kernel: &'static str,
        /// What is wrong with the shape.
        reason: &'static str,
    },
    /// The processor lacks the instructions that were asked for by name.
    #[error("this processor has no {0}; use Kernels::detect to take the widest it has")]
    MissingFeature(&'static str),
    /// A worker thread could not be started.
    #[error("a worker thread of the pool does not start")]
    Thread(#[from] std::io::Error),
}

/// Checks the length of one buffer of a kernel.
pub(crate) fn check_length(
    kernel: &'static str,
    operand: &'static str,
    expected: Option<usize>,
    found: usize,
) -> Result<(), KernelError> {
    let expected = expected.ok_or(KernelError::Shape {
        kernel,
        reason: "the number of elements does not fit the address space",
    })?;
    if expected == found {
        return Ok(());
    }
    Err(KernelError::Length {
        kernel,
        operand,
        expected,
        found,
    })
}

/// Product of the extents, `None` when it overflows.
pub(crate) fn product(extents: &[usize]) -> Option<usize> {
    extents.iter().try_fold(1usize, |p, &e| p.checked_mul(e))
}
