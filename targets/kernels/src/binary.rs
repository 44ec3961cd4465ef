//! Sums, differences, products and quotients of two tensors, with broadcast.

use crate::error::KernelError;
use crate::pool::Output;
use crate::strided::{Strided, Walk};
use crate::{Kernels, Pool};

/// An operator over two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
}

/// Elements that a thread takes at a time.
const GRAIN: usize = 4096;

impl Kernels {
    /// `out[i, j, …] = operator(a[i, j, …], b[i, j, …])`; `out` is row by row with these `extents`. A stride of zero
    /// broadcasts an operand along its dimension.
    ///
    /// # Errors
    /// [`KernelError`] when an operand does not reach as far as the extents ask for, or `out` has another length.
    pub fn binary(
        &self,
        pool: &Pool,
        operator: Binary,
        extents: &[usize],
        a: Strided<'_>,
        b: Strided<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let walk = Walk::new("binary", extents, [("a", a), ("b", b)], out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let (extent, [step_a, step_b]) = (walk.inner.extent, walk.inner.strides);
        let pieces = extent.div_ceil(GRAIN);
        let out = Output::new(out);
        pool.split(walk.runs() * pieces, |own, _| {
            for piece in own {
                let (run, first) = (piece / pieces, piece % pieces * GRAIN);
                let last = extent.min(first + GRAIN);
                let [start_a, start_b] = walk.start(run);
                // SAFETY: the pieces are disjoint.
                let out = unsafe { out.slice(run * extent + first..run * extent + last) };
                let a = (&a.data[start_a + first * step_a..], step_a);
                let b = (&b.data[start_b + first * step_b..], step_b);
                match operator {
                    Binary::Add => combine(a, b, out, |a, b| a + b),
                    Binary::Sub => combine(a, b, out, |a, b| a - b),
                    Binary::Mul => combine(a, b, out, |a, b| a * b),
                    Binary::Div => combine(a, b, out, |a, b| a / b),
                }
            }
        });
        Ok(())
    }
}

/// `out[i] = f(a[i · step of a], b[i · step of b])`. Memory is slower than these loops in any instruction set.
fn combine(
    (a, step_a): (&[f32], usize),
    (b, step_b): (&[f32], usize),
    out: &mut [f32],
    f: impl Fn(f32, f32) -> f32,
) {
    let count = out.len();
    match (step_a, step_b) {
        (1, 1) => {
            for ((out, &a), &b) in out.iter_mut().zip(&a[..count]).zip(&b[..count]) {
                *out = f(a, b);
            }
        }
        (1, 0) => {
            let b = b[0];
            for (out, &a) in out.iter_mut().zip(&a[..count]) {
                *out = f(a, b);
            }
        }
        (0, 1) => {
            let a = a[0];
            for (out, &b) in out.iter_mut().zip(&b[..count]) {
                *out = f(a, b);
            }
        }
        _ => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = f(a[i * step_a], b[i * step_b]);
            }
        }
    }
}
