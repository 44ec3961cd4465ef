//! Instructions that move elements without changing them. They move words, so f32 and i32 are the same to them.

use half::slice::HalfFloatSliceExt;
use snapc_kernels::{KernelError, Strided, Weights, upsample_nearest as upsample};
use snapc_program::MAX_RANK;

use super::{Call, row_major};

pub(super) fn view(call: &Call<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    // Where the view shares the place of its operand there is nothing to do.
    if let Some(x) = call.shared_words(0) {
        out.copy_from_slice(x);
    }
    Ok(())
}

pub(super) fn permute(call: &Call<'_>, order: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    let own = row_major(call.dims_of(0));
    let mut strides = [0; MAX_RANK];
    for (stride, &axis) in strides.iter_mut().zip(order) {
        *stride = own[usize::from(axis)];
    }
    let input = Strided {
        data: call.words(0),
        strides: &strides[..order.len()],
    };
    call.kernels.permute(call.pool, call.dims, input, out)
}

pub(super) fn slice(
    call: &Call<'_>,
    axis: u8,
    start: u32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let strides = row_major(call.dims_of(0));
    let skipped = start as usize * strides[usize::from(axis)];
    let input = Strided {
        data: &call.words(0)[skipped..],
        strides: &strides[..call.dims.len()],
    };
    call.kernels.permute(call.pool, call.dims, input, out)
}

pub(super) fn concat(call: &Call<'_>, axis: u8, out: &mut [f32]) -> Result<(), KernelError> {
    let axis = usize::from(axis);
    let rows = call.dims[..axis].iter().product();
    call.pool.split_rows(out, rows, |rows, own, _| {
        let width = own.len() / rows.len();
        let mut at = 0;
        for operand in 0..call.count() {
            let x = call.words(operand);
            let block: usize = call.dims_of(operand)[axis..].iter().product();
            let sources = x.chunks_exact(block).skip(rows.start);
            for (row, source) in own.chunks_exact_mut(width).zip(sources) {
                row[at..at + block].copy_from_slice(source);
            }
            at += block;
        }
    });
    Ok(())
}

pub(super) fn gather(
    call: &Call<'_>,
    axis: u8,
    batch_dims: u8,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (axis, shared) = (usize::from(axis), usize::from(batch_dims));
    let (dims, indices) = (call.dims_of(0), call.integers(1));
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let (size, block) = (dims[axis], product(&dims[axis + 1..]));
    let rows = product(&dims[shared..axis]);
    let count = product(&call.dims_of(1)[shared..]);
    let outside = if call.is_integer(0) { 0.0 } else { f32::NAN };
    let x = match call.weight(0) {
        Some(weight) => weight,
        None => Weights::F32(call.words(0)),
    };
    for (row, out) in out.chunks_exact_mut(count * block).enumerate() {
        let own = &indices[row / rows * count..][..count];
        for (&index, out) in own.iter().zip(out.chunks_exact_mut(block)) {
            match position(index, size) {
                Some(i) => widen(&x, (row * size + i) * block, out),
                None => out.fill(outside),
            }
        }
    }
    Ok(())
}

/// The position that an index means, if it is inside.
fn position(index: i32, size: usize) -> Option<usize> {
    let position = match usize::try_from(index) {
        Ok(position) => position,
        Err(_) => size.checked_sub(index.unsigned_abs() as usize)?,
    };
    (position < size).then_some(position)
}

/// Copies elements from `start` on as f32.
fn widen(x: &Weights<'_>, start: usize, out: &mut [f32]) {
    let range = start..start + out.len();
    match x {
        Weights::F32(x) => out.copy_from_slice(&x[range]),
        Weights::F16(x) => x[range].convert_to_f32_slice(out),
        Weights::Bf16(x) => x[range].convert_to_f32_slice(out),
    }
}

pub(super) fn upsample_nearest(
    call: &Call<'_>,
    scale: u32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let dims = call.dims_of(0);
    let shape = [dims[0], dims[1], dims[2], dims[3]];
    upsample(call.pool, shape, scale as usize, call.words(0), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_indices_count_from_the_end() {
        let cases = [
            (0, Some(0)),
            (2, Some(2)),
            (3, None),
            (-1, Some(2)),
            (-3, Some(0)),
            (-4, None),
        ];
        for (index, expected) in cases {
            assert_eq!(position(index, 3), expected, "{index}");
        }
        assert_eq!(position(i32::MIN, 3), None);
    }
}
