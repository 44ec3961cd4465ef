//! Functions along dimensions.

use snapc_kernels::KernelError;
use snapc_program::MAX_RANK;

use super::{Call, for_each_offset, row_major};

pub(super) fn softmax(call: &Call<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    if let Some(x) = call.shared_words(0) {
        out.copy_from_slice(x);
    }
    let (_, leading) = call
        .dims
        .split_last()
        .expect("inference asks for a dimension");
    call.kernels
        .softmax(call.pool, leading.iter().product(), out)
}

/// Sums are f64, one after the other.
pub(super) fn reduce_mean(
    call: &Call<'_>,
    axes: &[u8],
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (x, dims) = (call.words(0), call.dims_of(0));
    let strides = row_major(dims);
    let (mut kept, mut reduced) = ([1; MAX_RANK], [1; MAX_RANK]);
    for (axis, &n) in dims.iter().enumerate() {
        let sizes = match axes.iter().any(|&a| usize::from(a) == axis) {
            true => &mut reduced,
            false => &mut kept,
        };
        sizes[axis] = n;
    }
    let rank = dims.len();
    let count: usize = reduced.iter().product();
    let mut results = out.iter_mut();
    for_each_offset(&kept[..rank], [&strides], |[start]| {
        let mut sum = 0.0;
        for_each_offset(&reduced[..rank], [&strides], |[offset]| {
            sum += f64::from(x[start + offset]);
        });
        if let Some(out) = results.next() {
            *out = (sum / count as f64) as f32;
        }
    });
    Ok(())
}

pub(super) fn arg_max(call: &Call<'_>, axis: u8, out: &mut [f32]) -> Result<(), KernelError> {
    let dims = call.dims_of(0);
    let (axis, out) = (usize::from(axis), bytemuck::cast_slice_mut(out));
    let inner = dims[axis + 1..].iter().product();
    if call.is_integer(0) {
        first_maxima(call.integers(0), dims[axis], inner, out);
    } else {
        first_maxima(call.words(0), dims[axis], inner, out);
    }
    Ok(())
}

fn first_maxima<T: Copy + PartialOrd>(x: &[T], size: usize, inner: usize, out: &mut [i32]) {
    let blocks = x.chunks_exact(size * inner);
    for (block, out) in blocks.zip(out.chunks_exact_mut(inner)) {
        for (i, out) in out.iter_mut().enumerate() {
            let mut best = 0;
            for k in 1..size {
                if block[k * inner + i] > block[best * inner + i] {
                    best = k;
                }
            }
            // Dimensions have 32 bits, and the last index is one less.
            *out = (best as u32).cast_signed();
        }
    }
}
