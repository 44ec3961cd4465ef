//! Group and layer normalization.

use std::ops::Range;

use crate::error::{KernelError, check_length, product};
use crate::pool::Output;
use crate::{Activation, Kernels, Pool};

/// Shape and options of a group normalization over channels-last data `[batch][positions][channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Images, each normalized by itself.
    pub batch: usize,
    /// Pixels of an image.
    pub positions: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// Groups that the channels are divided into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Applied to the result.
    pub activation: Activation,
}

/// Pixels whose moments are taken in one go: their channels stay in the cache for the second pass.
const CHUNK: usize = 64;

/// Groups that are normalized together; more are taken in several rounds.
const MAX_GROUPS: usize = 32;

/// Number, mean and sum of squared deviations of the elements of a group, merged as in Chan, Golub and LeVeque (1983).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn merge(&mut self, other: Self) {
        let count = self.count + other.count;
        let difference = other.mean - self.mean;
        self.mean += difference * other.count / count;
        self.squares += other.squares + difference * difference * self.count * other.count / count;
        self.count = count;
    }
}

impl Kernels {
    /// `x = activation(group_norm(x) · gamma + beta)` in place, as `torch.nn.GroupNorm` with one `gamma` and `beta` per
    /// channel. The variance is the biased one.
    ///
    /// Sums are f32 over 64 pixels, around their mean; beyond that f64.
    ///
    /// # Errors
    /// [`KernelError`] when the groups do not divide the channels or a length does not fit the shape.
    pub fn group_norm(
        &self,
        pool: &Pool,
        shape: GroupNorm,
        gamma: &[f32],
        beta: &[f32],
        x: &mut [f32],
    ) -> Result<(), KernelError> {
        const NAME: &str = "group_norm";
        if shape.groups == 0 || !shape.channels.is_multiple_of(shape.groups) {
            return Err(KernelError::Shape {
                kernel: NAME,
                reason: "the groups do not divide the channels",
            });
        }
        check_length(NAME, "gamma", Some(shape.channels), gamma.len())?;
        check_length(NAME, "beta", Some(shape.channels), beta.len())?;
        let elements = product(&[shape.batch, shape.positions, shape.channels]);
        check_length(NAME, "x", elements, x.len())?;
        let out = Output::new(x);
        // A group is normalized by one thread from start to end: no sums cross threads.
        pool.split(shape.batch * shape.groups, |own, scratch| {
            let mut first = own.start;
            while first < own.end {
                let image = first / shape.groups;
                let last = own
                    .end
                    .min((image + 1) * shape.groups)
                    .min(first + MAX_GROUPS);
                let groups = first - image * shape.groups..last - image * shape.groups;
                let memory = scratch.take(3 * shape.channels);
                self.normalize_groups(shape, image, groups, [gamma, beta], &out, memory);
                first = last;
            }
        });
        Ok(())
    }

    fn normalize_groups(
        &self,
        shape: GroupNorm,
        image: usize,
        groups: Range<usize>,
        [gamma, beta]: [&[f32]; 2],
        out: &Output<'_>,
        memory: &mut [f32],
    ) {
        let per_group = shape.channels / shape.groups;
        let channels = groups.start * per_group..groups.end * per_group;
        let (mean, rest) = memory.split_at_mut(shape.channels);
        let (squares, scale) = rest.split_at_mut(shape.channels);
        let (mean, squares) = (&mut mean[..channels.len()], &mut squares[..channels.len()]);
        let scale = &mut scale[..channels.len()];
        let pixel = |position: usize| {
            let at = (image * shape.positions + position) * shape.channels;
            // SAFETY: these channels of this image belong to this part alone, and no reference outlives its use.
            unsafe { out.slice(at + channels.start..at + channels.end) }
        };
        let table = self.table;
        let mut moments = [Moments::default(); MAX_GROUPS];
        let moments = &mut moments[..groups.len()];
        for start in (0..shape.positions).step_by(CHUNK) {
            let chunk = start..shape.positions.min(start + CHUNK);
            let count = chunk.len() as f32;
            mean.fill(0.0);
            squares.fill(0.0);
            // SAFETY: the table is of this processor.
            unsafe {
                for position in chunk.clone() {
                    (table.add)(mean, pixel(position));
                }
                (table.scale)(mean, 1.0 / count);
                for position in chunk {
                    (table.add_squares)(squares, pixel(position), mean);
                }
            }
            for (i, moments) in moments.iter_mut().enumerate() {
                for c in i * per_group..(i + 1) * per_group {
                    moments.merge(Moments {
                        count: f64::from(count),
                        mean: f64::from(mean[c]),
                        squares: f64::from(squares[c]),
                    });
                }
            }
        }
        for (i, moments) in moments.iter().enumerate() {
            let variance = moments.squares / moments.count;
            let factor = 1.0 / (variance + f64::from(shape.eps)).sqrt();
            for c in i * per_group..(i + 1) * per_group {
                mean[c] = moments.mean as f32;
                scale[c] = (factor * f64::from(gamma[channels.start + c])) as f32;
            }
        }
        let beta = &beta[channels.clone()];
        for position in 0..shape.positions {
            // SAFETY: the table is of this processor.
            unsafe { (table.normalize)(pixel(position), mean, scale, beta, shape.activation) };
        }
    }

    /// `x = layer_norm(x) · gamma + beta` in place for each row of `gamma.len()` elements, as `torch.nn.LayerNorm`. The
    /// variance is the biased one.
    ///
    /// # Errors
    /// [`KernelError`] when `beta` is not as long as `gamma`, or `x` is not whole rows.
    pub fn layer_norm(
        &self,
        pool: &Pool,
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
        x: &mut [f32],
    ) -> Result<(), KernelError> {
        const NAME: &str = "layer_norm";
        let width = gamma.len();
        check_length(NAME, "beta", Some(width), beta.len())?;
        if x.is_empty() {
            return Ok(());
        }
        if width == 0 || !x.len().is_multiple_of(width) {
            return Err(KernelError::Shape {
                kernel: NAME,
                reason: "the elements are not whole rows",
            });
        }
        pool.split_rows(x, x.len() / width, |_, own, _| {
            for row in own.chunks_exact_mut(width) {
                // SAFETY: the table is of this processor.
                unsafe { (self.table.layer_norm)(row, gamma, beta, eps) };
            }
        });
        Ok(())
    }
}
