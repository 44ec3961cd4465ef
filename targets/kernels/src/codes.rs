//! Weights of few bits: their packing, and how a row of a panel becomes floats again.

use half::slice::HalfFloatSliceExt;

use crate::error::{KernelError, check_length, product};
use crate::panels::panel_elements;
use crate::simd::Simd;
use crate::table::Table;
use crate::{PANEL_WIDTH, Weights};

const NAME: &str = "codes";

/// Entries of the largest palette.
pub(crate) const MAX_PALETTE: usize = 256;

/// What codes stand for.
#[derive(Clone, Copy, Debug)]
pub enum Codebook<'a> {
    /// `scale · (code - zero_point)`, codes signed, of 4 or 8 bits. Both factors are the panels of a matrix
    /// `[columns][blocks]`; term `d` of a column is in its block `d / block_rows mod blocks`.
    Scales {
        /// One per column and block.
        scale: Weights<'a>,
        /// One per column and block; zeros when absent.
        zero_point: Option<Weights<'a>>,
        /// Blocks of a column.
        blocks: usize,
        /// Terms of a block that follow one another.
        block_rows: usize,
    },
    /// `table[group][code]`, codes unsigned, of 1, 2, 3, 4, 6 or 8 bits: `[groups][2^bits]` for groups of as many columns
    /// each.
    Palette {
        /// The values, group by group.
        table: &'a [f32],
        /// Groups of columns.
        groups: usize,
    },
}

/// The panels of a weight matrix as codes of few bits.
///
/// A row of a panel is 32 codes in `4 · bits` bytes: one plane after the other for 8, 4, 2 and 1 bits, as far as the sum of
/// them is `bits` (6 bits are 4 and 2). A plane of `p` bits has `4 · p` bytes; byte `i` holds columns `i`, `i + 4p`,
/// `i + 8p` and so on, the first one in its lowest bits. The first plane holds the lowest bits of the codes.
#[derive(Clone, Copy, Debug)]
pub struct Codes<'a> {
    /// Bits of a code.
    pub bits: usize,
    /// The rows of the panels: `[⌈columns / 32⌉][depth][4 · bits]`.
    pub rows: &'a [u8],
    /// What the codes stand for.
    pub book: Codebook<'a>,
}

/// Bytes of the packed panels of a matrix `[columns][depth]`, `None` when they do not fit the address space.
#[must_use]
pub fn code_bytes(bits: usize, columns: usize, depth: usize) -> Option<usize> {
    (panel_elements(columns, depth)? / 8).checked_mul(bits)
}

/// Packs a row of a panel, see [`Codes`]. Bits of a code above `bits` do not count.
pub fn pack_codes(codes: &[u8; PANEL_WIDTH], bits: usize, packed: &mut Vec<u8>) {
    let mut below = 0;
    for plane in [8, 4, 2, 1].into_iter().filter(|plane| bits & plane != 0) {
        let mask = 0xff >> (8 - plane);
        for i in 0..4 * plane {
            let columns = (i..PANEL_WIDTH).step_by(4 * plane).enumerate();
            let byte = columns.map(|(k, c)| (codes[c] >> below & mask) << (k * plane));
            packed.push(byte.fold(0, |a, b| a | b));
        }
        below += plane;
    }
}

/// Eight bytes of one value.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The codes of a packed row of `4 · BITS` bytes, eight of them at a time, with the bits of `flip` inverted.
#[inline(always)]
fn unpack<const BITS: usize>(row: &[u8], flip: u8) -> [u8; PANEL_WIDTH] {
    let mut rest = row;
    let mut codes = [repeated(flip); PANEL_WIDTH / 8];
    let mut below = 0;
    for plane in [8, 4, 2, 1] {
        if BITS & plane == 0 {
            continue;
        }
        let mask = repeated(0xff >> (8 - plane));
        if plane == 1 {
            let (word, _) = rest
                .split_first_chunk::<4>()
                .expect("half a plane of two bits");
            let word = u64::from(u32::from_le_bytes(*word));
            for (i, codes) in codes.iter_mut().enumerate() {
                // Four columns from one bit of each byte, the next four from the bit above.
                let columns = (word >> (2 * i)) & mask | (word >> (2 * i + 1) & mask) << 32;
                *codes ^= columns << below;
            }
            continue;
        }
        let words = plane / 2;
        let (own, others) = rest.split_at(8 * words);
        for (i, word) in own.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            for k in 0..8 / plane {
                codes[words * k + i] ^= (word >> (plane * k) & mask) << below;
            }
        }
        rest = others;
        below += plane;
    }
    bytes_of(codes)
}

/// The bytes of words, the lowest first.
#[inline(always)]
fn bytes_of(words: [u64; PANEL_WIDTH / 8]) -> [u8; PANEL_WIDTH] {
    let mut bytes = [0; PANEL_WIDTH];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

/// Scale and zero point of each column of a panel, for rows of one block.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    pub scale: [f32; PANEL_WIDTH],
    pub zero_point: [f32; PANEL_WIDTH],
}

/// Widens rows of a panel: `rows` is `[n][4 · bits]`, `out` `[n][32]`.
#[inline(always)]
pub(crate) fn scaled<S: Simd>(s: S, rows: &[u8], bits: usize, grid: &Grid, out: &mut [f32]) {
    match bits {
        4 => scaled_bits::<S, 4>(s, rows, grid, out),
        _ => scaled_bits::<S, 8>(s, rows, grid, out),
    }
}

#[inline(always)]
fn scaled_bits<S: Simd, const BITS: usize>(s: S, rows: &[u8], grid: &Grid, out: &mut [f32]) {
    // A signed code is an unsigned one, its highest bit flipped, less what that bit stands for.
    let flip = 1u8 << (BITS - 1);
    let zero = grid.zero_point.map(|zero| zero + f32::from(flip));
    let lines = out.as_chunks_mut::<PANEL_WIDTH>().0;
    for (row, line) in rows.chunks_exact(4 * BITS).zip(lines) {
        let codes = unpack::<BITS>(row, flip);
        for at in (0..PANEL_WIDTH).step_by(S::LANES) {
            let code = s.sub(s.widen(&codes[at..]), s.load(&zero[at..]));
            s.store(&mut line[at..], s.mul(code, s.load(&grid.scale[at..])));
        }
    }
}

/// Widens rows of a panel whose columns share a palette: `rows` is `[n][4 · bits]`, `out` `[n][32]`.
#[inline(always)]
pub(crate) fn looked_up<S: Simd>(
    s: S,
    rows: &[u8],
    bits: usize,
    palette: &[f32; MAX_PALETTE],
    out: &mut [f32],
) {
    match bits {
        1 => looked_up_bits::<S, 1>(s, rows, palette, out),
        2 => looked_up_bits::<S, 2>(s, rows, palette, out),
        3 => looked_up_bits::<S, 3>(s, rows, palette, out),
        4 => looked_up_bits::<S, 4>(s, rows, palette, out),
        6 => looked_up_bits::<S, 6>(s, rows, palette, out),
        _ => looked_up_bits::<S, 8>(s, rows, palette, out),
    }
}

#[inline(always)]
fn looked_up_bits<S: Simd, const BITS: usize>(
    s: S,
    rows: &[u8],
    palette: &[f32; MAX_PALETTE],
    out: &mut [f32],
) {
    let lines = out.as_chunks_mut::<PANEL_WIDTH>().0;
    for (row, line) in rows.chunks_exact(4 * BITS).zip(lines) {
        let codes = unpack::<BITS>(row, 0);
        let vectors = codes.chunks_exact(S::LANES);
        for (codes, x) in vectors.zip(line.chunks_exact_mut(S::LANES)) {
            s.store(x, s.look_up::<BITS>(palette, codes));
        }
    }
}

/// The codes of a packed row of `4 · bits` bytes.
fn unpacked(row: &[u8], bits: usize) -> [u8; PANEL_WIDTH] {
    match bits {
        1 => unpack::<1>(row, 0),
        2 => unpack::<2>(row, 0),
        3 => unpack::<3>(row, 0),
        4 => unpack::<4>(row, 0),
        6 => unpack::<6>(row, 0),
        _ => unpack::<8>(row, 0),
    }
}

/// 32 elements of a panel as f32.
pub(crate) fn line(panels: &Weights<'_>, line: usize) -> [f32; PANEL_WIDTH] {
    let range = line * PANEL_WIDTH..(line + 1) * PANEL_WIDTH;
    let mut wide = [0.0; PANEL_WIDTH];
    match panels {
        Weights::F32(x) => wide.copy_from_slice(&x[range]),
        Weights::F16(x) => x[range].convert_to_f32_slice(&mut wide),
        Weights::Bf16(x) => x[range].convert_to_f32_slice(&mut wide),
    }
    wide
}

impl<'a> Codes<'a> {
    /// Checks that the parts are those of a matrix `[columns][depth]`.
    pub(crate) fn check(&self, columns: usize, depth: usize) -> Result<(), KernelError> {
        let shape = |reason| KernelError::Shape {
            kernel: NAME,
            reason,
        };
        let bytes = code_bytes(self.bits, columns, depth);
        check_length(NAME, "rows", bytes, self.rows.len())?;
        match self.book {
            Codebook::Scales {
                scale,
                zero_point,
                blocks,
                block_rows,
            } => {
                if !matches!(self.bits, 4 | 8) {
                    return Err(shape("codes with a scale have 4 or 8 bits"));
                }
                if blocks == 0 || block_rows == 0 {
                    return Err(shape(
                        "a column has at least one block of at least one term",
                    ));
                }
                let elements = panel_elements(columns, blocks);
                check_length(NAME, "scale", elements, scale.len())?;
                zero_point.map_or(Ok(()), |zero| {
                    check_length(NAME, "zero_point", elements, zero.len())
                })
            }
            Codebook::Palette { table, groups } => {
                if !matches!(self.bits, 1 | 2 | 3 | 4 | 6 | 8) {
                    return Err(shape("codes of a palette have 1, 2, 3, 4, 6 or 8 bits"));
                }
                if groups == 0 || !columns.is_multiple_of(groups) {
                    return Err(shape("the palettes are for equal groups of columns"));
                }
                let entries = product(&[groups, 1 << self.bits]);
                check_length(NAME, "table", entries, table.len())
            }
        }
    }

    /// The bytes of rows of a panel, rows counted over all panels.
    pub(crate) fn bytes(&self, rows: std::ops::Range<usize>) -> &'a [u8] {
        &self.rows[rows.start * 4 * self.bits..rows.end * 4 * self.bits]
    }

    /// Writes rows `start..start + out.len() / 32` of a panel as floats. The codes are those of a matrix
    /// `[columns][depth]`.
    pub(crate) fn widen(
        &self,
        table: &Table,
        (columns, depth): (usize, usize),
        (panel, start): (usize, usize),
        out: &mut [f32],
    ) {
        let rows = out.len() / PANEL_WIDTH;
        let first = panel * depth + start;
        let packed = self.bytes(first..first + rows);
        match self.book {
            Codebook::Scales {
                scale,
                zero_point,
                blocks,
                block_rows,
            } => {
                let mut done = 0;
                while done < rows {
                    let row = start + done;
                    let left = block_rows - row % block_rows;
                    let count = if blocks == 1 {
                        rows
                    } else {
                        left.min(rows - done)
                    };
                    let at = panel * blocks + row / block_rows % blocks;
                    let grid = Grid {
                        scale: line(&scale, at),
                        zero_point: zero_point.map_or([0.0; PANEL_WIDTH], |zero| line(&zero, at)),
                    };
                    let end = done + count;
                    let bytes = &packed[done * 4 * self.bits..end * 4 * self.bits];
                    let out = &mut out[done * PANEL_WIDTH..end * PANEL_WIDTH];
                    // SAFETY: the table is of this processor.
                    unsafe { (table.widen_scaled)(bytes, self.bits, &grid, out) };
                    done = end;
                }
            }
            Codebook::Palette {
                table: values,
                groups,
            } => {
                let size = columns / groups;
                let group = |column: usize| (panel * PANEL_WIDTH + column).min(columns - 1) / size;
                let entries = 1 << self.bits;
                let palette = |group: usize| &values[group * entries..(group + 1) * entries];
                if group(0) == group(PANEL_WIDTH - 1) {
                    let mut own = [0.0; MAX_PALETTE];
                    own[..entries].copy_from_slice(palette(group(0)));
                    // SAFETY: the table is of this processor.
                    unsafe { (table.widen_looked_up)(packed, self.bits, &own, out) };
                    return;
                }
                let palettes: [&[f32]; PANEL_WIDTH] = std::array::from_fn(|c| palette(group(c)));
                let lines = out.chunks_exact_mut(PANEL_WIDTH);
                for (row, line) in packed.chunks_exact(4 * self.bits).zip(lines) {
                    let codes = unpacked(row, self.bits);
                    for ((x, code), palette) in line.iter_mut().zip(codes).zip(palettes) {
                        *x = palette[usize::from(code)];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_packed_in_planes() {
        let codes: [u8; 32] = std::array::from_fn(|i| i as u8);
        let packed = |bits| {
            let mut packed = Vec::new();
            pack_codes(&codes, bits, &mut packed);
            packed
        };
        assert_eq!(packed(8), codes);
        // Columns 0 and 16, whose lower four bits are 0 and 0; 1 and 17; 15 and 31.
        let four = packed(4);
        assert_eq!(
            (four.len(), four[0], four[1], four[15]),
            (16, 0, 0x11, 0xff)
        );
        // Behind them the upper two bits: columns 0, 8, 16, 24 have 0, 0, 1, 1.
        let six = packed(6);
        assert_eq!((six.len(), &six[..16]), (24, &four[..]));
        assert_eq!(six[16..], [0b01_01_00_00; 8]);
        // Columns 0, 4, 8 … 28 have an even code.
        assert_eq!(packed(1), [0, 0xff, 0, 0xff]);
        assert_eq!(packed(3).len(), 12);
    }

    #[test]
    fn unpacking_undoes_packing() {
        let codes: [u8; 32] = std::array::from_fn(|i| (i * 37 + 11) as u8);
        for bits in [1, 2, 3, 4, 6, 8] {
            let mut packed = Vec::new();
            pack_codes(&codes, bits, &mut packed);
            let expected = codes.map(|c| c & (0xff >> (8 - bits)));
            assert_eq!(unpacked(&packed, bits), expected, "{bits} bits");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let rows = [0; 32 * 8];
        let scale = [1.0; 64];
        let scales = |blocks, block_rows| Codebook::Scales {
            scale: Weights::F32(&scale),
            zero_point: None,
            blocks,
            block_rows,
        };
        let check = |bits, rows, book| Codes { bits, rows, book }.check(20, 8).is_ok();
        assert!(check(8, &rows[..], scales(2, 4)));
        assert!(check(4, &rows[..128], scales(2, 4)));
        assert!(!check(4, &rows[..], scales(2, 4)));
        assert!(!check(6, &rows[..192], scales(2, 4)));
        assert!(!check(8, &rows[..], scales(1, 8)));
        assert!(!check(8, &rows[..], scales(2, 0)));
        let table = [0.0; 8];
        let palette = |groups| Codebook::Palette {
            table: &table,
            groups,
        };
        assert!(check(2, &rows[..64], palette(2)));
        assert!(!check(2, &rows[..64], palette(1)));
        assert!(!check(1, &rows[..32], palette(3)));
        assert!(!check(5, &rows[..160], palette(1)));
    }
}
