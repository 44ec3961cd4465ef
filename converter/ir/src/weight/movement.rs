//! Movement of elements of any type: `size` is that of one element in bytes.

use std::ops::Range;

/// Side of the square blocks in which a transpose reads and writes, so that both stay in cache.
const TILE: usize = 32;

/// Calls a function with the bytes cut into elements, whose size is known to the compiler in each case.
macro_rules! with_elements {
    ($size:expr, $move:ident($source:expr, $target:expr $(, $argument:expr)*)) => {
        match $size {
            1 => $move::<1>($source.as_chunks().0, $target.as_chunks_mut().0 $(, $argument)*),
            2 => $move::<2>($source.as_chunks().0, $target.as_chunks_mut().0 $(, $argument)*),
            4 => $move::<4>($source.as_chunks().0, $target.as_chunks_mut().0 $(, $argument)*),
            _ => $move::<8>($source.as_chunks().0, $target.as_chunks_mut().0 $(, $argument)*),
        }
    };
}

/// A dimension of the result of a permutation.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    /// Elements of the input between neighbours.
    from: usize,
    /// Elements of the result between neighbours.
    to: usize,
}

/// Dimension `i` of the result is dimension `perm[i]` of the input.
pub(super) fn permute_bytes(bytes: &[u8], size: usize, shape: &[usize], perm: &[usize]) -> Vec<u8> {
    let mut out = vec![0u8; bytes.len()];
    if !out.is_empty() {
        let axes = axes(shape, perm);
        with_elements!(size, permute(bytes, out, &axes));
    }
    out
}

/// The dimensions of the result, those of size 1 left out and those merged that stay neighbours.
fn axes(shape: &[usize], perm: &[usize]) -> Vec<Axis> {
    let strides = crate::tensor::strides(shape);
    let mut axes: Vec<Axis> = Vec::new();
    for &p in perm.iter().filter(|&&p| shape[p] != 1) {
        let (size, from) = (shape[p], strides[p]);
        match axes.last_mut() {
            Some(last) if last.from == from * size => {
                last.size *= size;
                last.from = from;
            }
            _ => axes.push(Axis { size, from, to: 1 }),
        }
    }
    let mut to = 1;
    for axis in axes.iter_mut().rev() {
        axis.to = to;
        to *= axis.size;
    }
    axes
}

fn permute<const S: usize>(source: &[[u8; S]], target: &mut [[u8; S]], axes: &[Axis]) {
    let Some((last, outer)) = axes.split_last() else {
        target.copy_from_slice(source);
        return;
    };
    let inner = outer.iter().position(|a| a.from == 1);
    let Some((inner, row)) = inner.map(|i| (i, outer[i])) else {
        // The innermost dimension stays innermost.
        for [from, to] in offsets(outer) {
            target[to..to + last.size].copy_from_slice(&source[from..from + last.size]);
        }
        return;
    };
    let others = [&outer[..inner], &outer[inner + 1..]].concat();
    for [from, to] in offsets(&others) {
        for i0 in (0..row.size).step_by(TILE) {
            for j0 in (0..last.size).step_by(TILE) {
                let columns = j0..(j0 + TILE).min(last.size);
                for i in i0..(i0 + TILE).min(row.size) {
                    let at = to + i * row.to;
                    let slots = &mut target[at + columns.start..at + columns.end];
                    for (slot, j) in slots.iter_mut().zip(columns.clone()) {
                        *slot = source[from + i + j * last.from];
                    }
                }
            }
        }
    }
}

/// For every index into the axes, in row-major order, where it is in the input and in the result.
fn offsets(axes: &[Axis]) -> Vec<[usize; 2]> {
    let mut all = vec![[0, 0]];
    for axis in axes {
        let along = |&[from, to]: &[usize; 2]| {
            (0..axis.size).map(move |i| [from + i * axis.from, to + i * axis.to])
        };
        all = all.iter().flat_map(along).collect();
    }
    all
}

/// The elements at these indices along an axis.
pub(super) fn select_bytes(
    bytes: &[u8],
    size: usize,
    shape: &[usize],
    axis: usize,
    indices: &[usize],
) -> Vec<u8> {
    let run = shape[axis + 1..].iter().product::<usize>() * size;
    let outer: usize = shape[..axis].iter().product();
    let mut out = Vec::with_capacity(outer * indices.len() * run);
    for block in 0..outer {
        for &index in indices {
            let start = (block * shape[axis] + index) * run;
            out.extend_from_slice(&bytes[start..start + run]);
        }
    }
    out
}

/// The rows `[columns][depth]` as panels `[⌈columns / width⌉][depth][width]`, filled up with zeros.
pub(super) fn panel_bytes(
    bytes: &[u8],
    size: usize,
    columns: usize,
    depth: usize,
    width: usize,
) -> Vec<u8> {
    let mut out = vec![0u8; columns.next_multiple_of(width) * depth * size];
    if !out.is_empty() {
        with_elements!(size, fill_panels(bytes, out, depth, width));
    }
    out
}

fn fill_panels<const S: usize>(
    source: &[[u8; S]],
    target: &mut [[u8; S]],
    depth: usize,
    width: usize,
) {
    let panels = target.chunks_exact_mut(depth * width);
    for (rows, panel) in source.chunks(width * depth).zip(panels) {
        for (part, strip) in panel.chunks_mut(TILE * width).enumerate() {
            for (column, row) in rows.chunks_exact(depth).enumerate() {
                let slots = strip[column..].iter_mut().step_by(width);
                for (slot, element) in slots.zip(&row[part * TILE..]) {
                    *slot = *element;
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The permutation by index arithmetic, element after element.
    fn plain(bytes: &[u8], size: usize, shape: &[usize], perm: &[usize]) -> Vec<u8> {
        let strides = crate::tensor::strides(shape);
        let dims: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
        let own = crate::tensor::strides(&dims);
        let count = bytes.len() / size;
        let from = |at: usize| {
            let along = |(d, &p): (usize, &usize)| at / own[d] % dims[d] * strides[p];
            perm.iter().enumerate().map(along).sum::<usize>() * size
        };
        (0..count)
            .flat_map(|at| bytes[from(at)..from(at) + size].to_vec())
            .collect()
    }

    #[test]
    fn permutations_agree_with_index_arithmetic() {
        let shapes: [(&[usize], &[usize]); 9] = [
            (&[67, 45], &[1, 0]),
            (&[3, 40, 3, 3], &[0, 2, 3, 1]),
            (&[2, 3, 3, 70], &[0, 3, 1, 2]),
            (&[2, 3, 4, 5], &[3, 1, 0, 2]),
            (&[2, 5, 3, 4], &[0, 2, 1, 3]),
            (&[1, 6, 1, 2], &[3, 2, 0, 1]),
            (&[2, 1, 3], &[0, 2, 1]),
            (&[4, 0, 3], &[2, 0, 1]),
            (&[1, 1], &[1, 0]),
        ];
        for (shape, perm) in shapes {
            for size in [1, 2, 4, 8] {
                let n = shape.iter().product::<usize>() * size;
                let bytes: Vec<u8> = (0..n).map(|i| (i * 31 % 251) as u8).collect();
                let found = permute_bytes(&bytes, size, shape, perm);
                assert!(
                    found == plain(&bytes, size, shape, perm),
                    "{shape:?} {perm:?}"
                );
            }
        }
    }

    #[test]
    fn panels_are_filled_up_with_zeros() {
        // Rows 0 to 4 of [5][3] in panels of 2: element (c, d) is 10 c + d + 1.
        let rows: Vec<u8> = (0..5)
            .flat_map(|c| (1..4).map(move |d| 10 * c + d))
            .collect();
        let expected = [
            1, 11, 2, 12, 3, 13, 21, 31, 22, 32, 23, 33, 41, 0, 42, 0, 43, 0,
        ];
        assert_eq!(panel_bytes(&rows, 1, 5, 3, 2), expected);
        // Deeper than a tile.
        let rows: Vec<u8> = (0..2 * 50).collect();
        let panels = panel_bytes(&rows, 2, 2, 25, 2);
        for (at, pair) in panels.chunks(2).enumerate() {
            let element = (at % 2 * 25 + at / 2) as u8;
            assert_eq!(pair, [2 * element, 2 * element + 1]);
        }
    }
}
