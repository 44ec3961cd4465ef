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

/// What is normalized, and where to: `out` itself without an input.
#[derive(Clone, Copy)]
struct Data<'a> {
    input: Option<&'a [f32]>,
    out: Output<'a>,
}

const GROUP_NORM: &str = "group_norm";

const LAYER_NORM: &str = "layer_norm";

impl Kernels {
    /// `out = activation(group_norm(input) · gamma + beta)`, as `torch.nn.GroupNorm` with one `gamma` and `beta` per channel.
    /// The variance is the biased one.
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
        input: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        check_length(GROUP_NORM, "out", Some(input.len()), out.len())?;
        self.group_norm_of(pool, shape, [gamma, beta], Some(input), out)
    }

    /// [`Kernels::group_norm`] of `x` in its own place.
    ///
    /// # Errors
    /// As there.
    pub fn group_norm_in_place(
        &self,
        pool: &Pool,
        shape: GroupNorm,
        gamma: &[f32],
        beta: &[f32],
        x: &mut [f32],
    ) -> Result<(), KernelError> {
        self.group_norm_of(pool, shape, [gamma, beta], None, x)
    }

    /// The group norm of `input`, or of `out` itself.
    fn group_norm_of(
        &self,
        pool: &Pool,
        shape: GroupNorm,
        [gamma, beta]: [&[f32]; 2],
        input: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        if shape.groups == 0 || !shape.channels.is_multiple_of(shape.groups) {
            return Err(KernelError::Shape {
                kernel: GROUP_NORM,
                reason: "the groups do not divide the channels",
            });
        }
        check_length(GROUP_NORM, "gamma", Some(shape.channels), gamma.len())?;
        check_length(GROUP_NORM, "beta", Some(shape.channels), beta.len())?;
        let elements = product(&[shape.batch, shape.positions, shape.channels]);
        check_length(GROUP_NORM, "x", elements, out.len())?;
        let data = Data {
            input,
            out: Output::new(out),
        };
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
                self.normalize_groups(shape, image, groups, [gamma, beta], data, memory);
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
        data: Data<'_>,
        memory: &mut [f32],
    ) {
        let per_group = shape.channels / shape.groups;
        let channels = groups.start * per_group..groups.end * per_group;
        let (mean, rest) = memory.split_at_mut(shape.channels);
        let (squares, scale) = rest.split_at_mut(shape.channels);
        let (mean, squares) = (&mut mean[..channels.len()], &mut squares[..channels.len()]);
        let scale = &mut scale[..channels.len()];
        let range = |position: usize| {
            let at = (image * shape.positions + position) * shape.channels;
            at + channels.start..at + channels.end
        };
        let pixel = |position: usize| match data.input {
            Some(input) => &input[range(position)],
            // SAFETY: these channels of this image belong to this part alone, and no reference outlives its use.
            None => unsafe { data.out.slice(range(position)) },
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
            // SAFETY: these channels of this image belong to this part alone; the table is of this processor.
            unsafe {
                let out = data.out.slice(range(position));
                if let Some(input) = data.input {
                    out.copy_from_slice(&input[range(position)]);
                }
                (table.normalize)(out, mean, scale, beta, shape.activation);
            }
        }
    }

    /// `out = layer_norm(input) · gamma + beta` for each row of `gamma.len()` elements, as `torch.nn.LayerNorm`. The
    /// variance is the biased one.
    ///
    /// # Errors
    /// [`KernelError`] when `beta` is not as long as `gamma`, `out` not as long as `input`, or `input` not whole rows.
    pub fn layer_norm(
        &self,
        pool: &Pool,
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
        input: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        check_length(LAYER_NORM, "out", Some(input.len()), out.len())?;
        self.layer_norm_of(pool, [gamma, beta], eps, Some(input), out)
    }

    /// [`Kernels::layer_norm`] of `x` in its own place.
    ///
    /// # Errors
    /// As there.
    pub fn layer_norm_in_place(
        &self,
        pool: &Pool,
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
        x: &mut [f32],
    ) -> Result<(), KernelError> {
        self.layer_norm_of(pool, [gamma, beta], eps, None, x)
    }

    /// The layer norm of `input`, or of `out` itself.
    fn layer_norm_of(
        &self,
        pool: &Pool,
        [gamma, beta]: [&[f32]; 2],
        eps: f32,
        input: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let width = gamma.len();
        check_length(LAYER_NORM, "beta", Some(width), beta.len())?;
        if out.is_empty() {
            return Ok(());
        }
        if width == 0 || !out.len().is_multiple_of(width) {
            return Err(KernelError::Shape {
                kernel: LAYER_NORM,
                reason: "the elements are not whole rows",
            });
        }
        pool.split_rows(out, out.len() / width, |rows, own, _| {
            for (row, own) in rows.zip(own.chunks_exact_mut(width)) {
                if let Some(input) = input {
                    own.copy_from_slice(&input[row * width..][..width]);
                }
                // SAFETY: the table is of this processor.
                unsafe { (self.table.layer_norm)(own, gamma, beta, eps) };
            }
        });
        Ok(())
    }
}
