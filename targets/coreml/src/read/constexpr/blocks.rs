//! Quantized weights: a scale and an offset per block, in parallel over the elements.

use half::f16;
use rayon::prelude::*;

use super::super::constant::Constant;
use super::super::element::float;
use super::super::error::Fault;
use crate::proto::DataType;

/// Elements that one task makes.
const TASK: usize = 1 << 14;

/// Which group an element belongs to, when every dimension is cut into equal blocks.
pub(super) struct Blocks {
    /// Size, block size and stride of the group's number, outermost dimension first.
    dims: Vec<[usize; 3]>,
    /// How many groups there are.
    groups: usize,
}

impl Blocks {
    /// Dimensions `shape` cut into `groups` blocks each.
    ///
    /// # Errors
    /// When the numbers of blocks do not divide the dimensions.
    pub(super) fn new(shape: &[usize], groups: &[usize]) -> Result<Self, Fault> {
        let divides = |(&size, &n): (&usize, &usize)| n > 0 && size.is_multiple_of(n);
        if shape.len() != groups.len() || !shape.iter().zip(groups).all(divides) {
            return Err(Fault::malformed(format!(
                "groups {groups:?} do not divide the shape {shape:?}"
            )));
        }
        // A dimension of one block continues the one before it, which saves divisions per element.
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (&size, &n) in shape.iter().zip(groups) {
            match joined.last_mut() {
                Some(last) if n == 1 => last.0 *= size,
                _ => joined.push((size, n)),
            }
        }
        let mut stride = 1;
        let mut dims = Vec::new();
        for (size, n) in joined.into_iter().rev() {
            dims.push([size, size / n, stride]);
            stride *= n;
        }
        dims.reverse();
        Ok(Blocks {
            dims,
            groups: stride,
        })
    }

    /// The group of the element at a row-major position.
    pub(super) fn of(&self, mut position: usize) -> usize {
        let mut group = 0;
        for [size, block, stride] in self.dims.iter().rev() {
            group += position % size / block * stride;
            position /= size;
        }
        group
    }
}

/// `scale · (data − offset)` by groups, as elements of the type of `scale`.
///
/// # Errors
/// When a part has the wrong type or size.
pub(super) fn shift_scale(
    data: &Constant,
    blocks: &Blocks,
    scale: &Constant,
    offset: Option<&Constant>,
) -> Result<Constant, Fault> {
    let scales = scale.floats()?;
    let offsets = offset.map(Constant::floats).transpose()?;
    let counts = [Some(scales.len()), offsets.as_ref().map(Vec::len)];
    if counts
        .into_iter()
        .flatten()
        .any(|n| n != blocks.groups && n != 1)
    {
        let groups = blocks.groups;
        return Err(Fault::malformed(format!(
            "scale and offset must have one element or {groups}"
        )));
    }
    let at = float(data.dtype)
        .ok_or_else(|| Fault::malformed(format!("{:?} data is no number", data.dtype)))?;
    // A single element stands for every group.
    let of_group = |list: &[f32], group: usize| list[group.min(list.len() - 1)];
    let bytes = data.bytes();
    let value = |i: usize| {
        let group = blocks.of(i);
        let offset = offsets.as_deref().map_or(0.0, |o| of_group(o, group));
        of_group(&scales, group) * (at(bytes, i) - offset)
    };
    let bytes = match scale.dtype {
        DataType::Float16 => made(data.len(), |i| f16::from_f32(value(i)).to_le_bytes()),
        DataType::Float32 => made(data.len(), |i| value(i).to_le_bytes()),
        other => return Err(Fault::malformed(format!("{other:?} scales are no floats"))),
    };
    Constant::owned(scale.dtype, data.shape.clone(), bytes, true)
}

/// `f` of every position, in order.
fn made<const N: usize>(count: usize, f: impl Fn(usize) -> [u8; N] + Sync) -> Vec<u8> {
    let mut bytes = vec![0; count * N];
    bytes
        .par_chunks_mut(TASK * N)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (i, slot) in chunk.chunks_exact_mut(N).enumerate() {
                slot.copy_from_slice(&f(task * TASK + i));
            }
        });
    bytes
}
