//! Movement of elements of any type: `size` is that of one element in bytes.

use std::ops::Range;

/// Side of the square blocks in which a transpose reads and writes, so that both stay in cache.
const TILE: usize = 32;

/// Dimension `i` of the result is dimension `perm[i]` of the input.
pub(super) fn permute_bytes(bytes: &[u8], size: usize, shape: &[usize], perm: &[usize]) -> Vec<u8> {
    let mut out = vec![0u8; bytes.len()];
    if perm == [1, 0] {
        let (rows, cols) = (shape[0], shape[1]);
        for r0 in (0..rows).step_by(TILE) {
            for c0 in (0..cols).step_by(TILE) {
                for c in c0..(c0 + TILE).min(cols) {
                    for r in r0..(r0 + TILE).min(rows) {
                        let (from, to) = ((r * cols + c) * size, (c * rows + r) * size);
                        out[to..to + size].copy_from_slice(&bytes[from..from + size]);
                    }
                }
            }
        }
        return out;
    }
    let mut strides = vec![size; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    let dims: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let steps: Vec<usize> = perm.iter().map(|&p| strides[p]).collect();
    let mut index = vec![0usize; dims.len()];
    let mut from = 0;
    for to in out.chunks_exact_mut(size) {
        to.copy_from_slice(&bytes[from..from + size]);
        for d in (0..dims.len()).rev() {
            index[d] += 1;
            from += steps[d];
            if index[d] < dims[d] {
                break;
            }
            from -= steps[d] * dims[d];
            index[d] = 0;
        }
    }
    out
}

/// The elements within `range` along `axis`.
pub(super) fn slice_bytes(
    bytes: &[u8],
    size: usize,
    shape: &[usize],
    axis: usize,
    range: Range<usize>,
) -> Vec<u8> {
    let inner = shape[axis + 1..].iter().product::<usize>() * size;
    let outer: usize = shape[..axis].iter().product();
    let mut out = Vec::with_capacity(outer * range.len() * inner);
    for o in 0..outer {
        let base = o * shape[axis] * inner;
        out.extend_from_slice(&bytes[base + range.start * inner..base + range.end * inner]);
    }
    out
}
