//! Tensors seen through strides: how permutations and broadcasts reach their elements.

use crate::error::{KernelError, check_length, product};

/// A tensor in memory of its own order: the element with the index `[i, j, …]` is `data[i · strides[0] + j · strides[1] + …]`.
///
/// A stride of zero repeats one element along its dimension, as a broadcast does.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// The elements, from the one with the index zero on.
    pub data: &'a [f32],
    /// Elements from one index to the next, per dimension.
    pub strides: &'a [usize],
}

impl Strided<'_> {
    fn check(
        &self,
        kernel: &'static str,
        operand: &'static str,
        extents: &[usize],
    ) -> Result<(), KernelError> {
        if self.strides.len() != extents.len() {
            return Err(KernelError::Shape {
                kernel,
                reason: "an operand does not have one stride per dimension",
            });
        }
        if extents.contains(&0) {
            return Ok(());
        }
        let last = extents
            .iter()
            .zip(self.strides)
            .try_fold(0usize, |at, (e, s)| {
                at.checked_add((e - 1).checked_mul(*s)?)
            });
        match last {
            Some(last) if last < self.data.len() => Ok(()),
            // An index that does not fit the address space is beyond every buffer.
            _ => check_length(
                kernel,
                operand,
                last.and_then(|last| last.checked_add(1)),
                self.data.len(),
            ),
        }
    }
}

/// One dimension of a walk over `N` operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dimension<const N: usize> {
    pub extent: usize,
    pub strides: [usize; N],
}

/// A walk over the elements of a row-major result and of `N` operands in step with it, in as few dimensions as they allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Walk<const N: usize> {
    /// All dimensions but the innermost.
    pub outer: Vec<Dimension<N>>,
    /// The innermost dimension; of extent 1 for a single element.
    pub inner: Dimension<N>,
}

impl<const N: usize> Walk<N> {
    /// Checks that every operand holds the elements and `out` has as many as `extents` ask for.
    pub(crate) fn new(
        kernel: &'static str,
        extents: &[usize],
        operands: [(&'static str, Strided<'_>); N],
        out: usize,
    ) -> Result<Self, KernelError> {
        check_length(kernel, "out", product(extents), out)?;
        for (name, operand) in operands {
            operand.check(kernel, name, extents)?;
        }
        let mut outer: Vec<Dimension<N>> = Vec::new();
        for (i, &extent) in extents.iter().enumerate().filter(|(_, e)| **e != 1) {
            let strides = operands.map(|(_, operand)| operand.strides[i]);
            let merged = outer.last_mut().filter(|last| {
                let steps = last.strides.iter().zip(strides);
                // A product that overflows is no stride of a checked operand.
                steps
                    .clone()
                    .all(|(last, own)| Some(*last) == own.checked_mul(extent))
            });
            match merged {
                Some(last) => {
                    last.extent *= extent;
                    last.strides = strides;
                }
                None => outer.push(Dimension { extent, strides }),
            }
        }
        let inner = outer.pop().unwrap_or(Dimension {
            extent: 1,
            strides: [0; N],
        });
        Ok(Self { outer, inner })
    }

    /// Runs of the innermost dimension.
    pub(crate) fn runs(&self) -> usize {
        self.outer.iter().map(|d| d.extent).product()
    }

    /// Where run `run` starts in each operand.
    pub(crate) fn start(&self, mut run: usize) -> [usize; N] {
        let mut at = [0; N];
        for dimension in self.outer.iter().rev() {
            let index = run % dimension.extent;
            run /= dimension.extent;
            for (at, stride) in at.iter_mut().zip(dimension.strides) {
                *at += index * stride;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk<const N: usize>(
        extents: &[usize],
        strides: [&[usize]; N],
    ) -> Result<Walk<N>, KernelError> {
        let data = [0.0; 64];
        let operands = strides.map(|strides| {
            (
                "x",
                Strided {
                    data: &data,
                    strides,
                },
            )
        });
        Walk::new("test", extents, operands, extents.iter().product())
    }

    #[test]
    fn dimensions_that_lie_one_in_the_other_become_one() {
        // A row-major operand, and one value per element of the last two dimensions.
        let found = walk(&[2, 3, 1, 4], [&[12, 4, 7, 1], &[0, 4, 0, 1]]).unwrap();
        let dimension = |extent, strides| Dimension { extent, strides };
        assert_eq!(found.outer, [dimension(2, [12, 0])]);
        assert_eq!(found.inner, dimension(12, [1, 1]));
        assert_eq!(found.start(1), [12, 0]);
    }

    #[test]
    fn operands_that_are_too_short_are_refused() {
        assert!(walk(&[2, 3], [&[61, 1]]).is_ok());
        assert!(walk(&[2, 3], [&[62, 1]]).is_err());
        assert!(walk(&[2, 3], [&[usize::MAX, 1]]).is_err());
        assert!(walk(&[2, 3], [&[usize::MAX, usize::MAX]]).is_err());
        assert!(walk(&[2, 3], [&[1]]).is_err());
        assert!(walk(&[2, 0], [&[1, 1]]).is_ok());
    }
}
