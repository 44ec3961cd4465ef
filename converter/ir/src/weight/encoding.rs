//! Codes of few bits that stand for the elements of a weight.

use half::{bf16, f16};

use super::WeightError;
use super::cast::{cast_bytes, pods, widen};
use crate::types::DType;

/// What a code stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Codebook {
    /// `scale · (code - zero_point)`; codes are signed (ONNX `DequantizeLinear`).
    Affine {
        /// One per group.
        scale: Vec<f32>,
        /// One per group; empty when all are zero.
        zero_point: Vec<i8>,
    },
    /// `table[group][code]`; codes are unsigned (Core ML `constexpr_lut_to_dense`).
    Palette {
        /// `2^bits` entries per group, ascending in each.
        table: Vec<f32>,
    },
}

/// How the elements of a weight become codes of few bits and back. Elements that share a scale or a palette form a group: the
/// weight is cut into `groups[d]` equal parts along every dimension `d`, and groups are numbered row-major. `[Cout,1,1,1]` is
/// one group per output channel of a convolution, `[Cout, Cin/32]` blocks of 32 in a linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    pub(super) bits: u32,
    pub(super) groups: Vec<usize>,
    pub(super) codebook: Codebook,
}

/// An encoding whose parts do not fit each other.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct EncodingError(&'static str);

impl Encoding {
    /// Signed codes of `bits` (4 or 8) bits with a scale per group.
    ///
    /// # Errors
    /// When the number of bits is another one, or scales or zero points are not one per group.
    pub fn affine(
        bits: u32,
        groups: &[usize],
        scale: Vec<f32>,
        zero_point: Vec<i8>,
    ) -> Result<Self, EncodingError> {
        if !matches!(bits, 4 | 8) {
            return Err(EncodingError("codes with a scale have 4 or 8 bits"));
        }
        let count = group_count(groups)?;
        if scale.len() != count || !(zero_point.is_empty() || zero_point.len() == count) {
            return Err(EncodingError(
                "there is one scale, and one zero point if any, per group",
            ));
        }
        let codebook = Codebook::Affine { scale, zero_point };
        Ok(Encoding {
            bits,
            groups: groups.to_vec(),
            codebook,
        })
    }

    /// Unsigned codes of 1, 2, 3, 4, 6 or 8 bits with a table of `2^bits` values per group.
    ///
    /// # Errors
    /// When the number of bits is another one, or the tables are not one per group.
    pub fn palette(bits: u32, groups: &[usize], table: Vec<f32>) -> Result<Self, EncodingError> {
        if !matches!(bits, 1 | 2 | 3 | 4 | 6 | 8) {
            return Err(EncodingError(
                "codes of a palette have 1, 2, 3, 4, 6 or 8 bits",
            ));
        }
        if group_count(groups)?.checked_mul(1 << bits) != Some(table.len()) {
            return Err(EncodingError(
                "there is one table of 2^bits values per group",
            ));
        }
        let codebook = Codebook::Palette { table };
        Ok(Encoding {
            bits,
            groups: groups.to_vec(),
            codebook,
        })
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Into how many parts each dimension is cut.
    pub fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// What the codes stand for.
    pub fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// Element type of one code in a byte of its own: `I8` for scales, `U8` for palettes.
    pub fn code_dtype(&self) -> DType {
        match self.codebook {
            Codebook::Affine { .. } => DType::I8,
            Codebook::Palette { .. } => DType::U8,
        }
    }

    /// Whether a tensor of this shape can be cut into the groups.
    pub fn fits(&self, shape: &[usize]) -> bool {
        let divides = |(&size, &parts): (&usize, &usize)| size.is_multiple_of(parts);
        self.groups.len() == shape.len() && shape.iter().zip(&self.groups).all(divides)
    }

    /// Bytes of the codes of `elements` elements, packed without gaps, and of what they stand for, each value in `value_size`
    /// bytes.
    pub fn stored_bytes(&self, elements: usize, value_size: usize) -> usize {
        let codes = (elements * self.bits as usize).div_ceil(8);
        codes
            + match &self.codebook {
                Codebook::Affine { scale, zero_point } => {
                    scale.len() * value_size + zero_point.len()
                }
                Codebook::Palette { table } => table.len() * value_size,
            }
    }

    /// The codes, one per byte, of the rows from `first_row` on of a tensor of which `shape` is the part at hand and `lead` the
    /// whole first dimension.
    pub(super) fn quantize(
        &self,
        bytes: &[u8],
        dtype: DType,
        part: &Part<'_>,
    ) -> Result<Vec<u8>, WeightError> {
        if let (Codebook::Palette { table }, DType::F16 | DType::BF16) = (&self.codebook, dtype) {
            return Ok(self.halves_to_palette(table, &pods(bytes), dtype, part));
        }
        let values = widen(bytes, dtype)?;
        let mut codes = vec![0u8; values.len()];
        self.for_each_run(part, |group, run| {
            let pairs = values[run.clone()].iter().zip(&mut codes[run]);
            match &self.codebook {
                Codebook::Affine { scale, zero_point } => {
                    let scale = scale[group];
                    let zero = zero_point.get(group).map_or(0, |&z| i32::from(z));
                    let end = 1i32 << (self.bits - 1);
                    for (&x, code) in pairs {
                        let q = (round_half_even(x / scale) + zero).clamp(-end, end - 1);
                        *code = q as u8;
                    }
                }
                Codebook::Palette { table } => {
                    let table = self.table_of(table, group);
                    pairs.for_each(|(&x, code)| *code = nearest(table, x));
                }
            }
        });
        Ok(codes)
    }

    /// The codes of 16-bit floats by a palette.
    fn halves_to_palette(
        &self,
        tables: &[f32],
        halves: &[u16],
        dtype: DType,
        part: &Part<'_>,
    ) -> Vec<u8> {
        let mut codes = vec![0u8; halves.len()];
        self.for_each_run(part, |group, run| {
            let table = self.table_of(tables, group);
            let pairs = halves[run.clone()].iter().zip(&mut codes[run.clone()]);
            if run.len() < PATTERNS_PAY_FROM {
                pairs.for_each(|(&x, code)| *code = nearest(table, value_of(x, dtype)));
            } else {
                let of_pattern = codes_of_patterns(table, dtype);
                pairs.for_each(|(&x, code)| *code = of_pattern[usize::from(x)]);
            }
        });
        codes
    }

    fn table_of<'t>(&self, tables: &'t [f32], group: usize) -> &'t [f32] {
        &tables[group << self.bits..(group + 1) << self.bits]
    }

    /// What codes, one per byte, stand for.
    pub(super) fn dequantize(
        &self,
        codes: &[u8],
        to: DType,
        part: &Part<'_>,
    ) -> Result<Vec<u8>, WeightError> {
        let mut values = vec![0f32; codes.len()];
        self.for_each_run(part, |group, run| {
            let pairs = codes[run.clone()].iter().zip(&mut values[run]);
            match &self.codebook {
                Codebook::Affine { scale, zero_point } => {
                    let scale = scale[group];
                    let zero = zero_point.get(group).map_or(0, |&z| i32::from(z));
                    for (&code, value) in pairs {
                        *value = scale * (i32::from(code.cast_signed()) - zero) as f32;
                    }
                }
                Codebook::Palette { table } => {
                    let table = self.table_of(table, group);
                    let mask = table.len() - 1;
                    for (&code, value) in pairs {
                        *value = table[usize::from(code) & mask];
                    }
                }
            }
        });
        cast_bytes(bytemuck::cast_slice(&values), DType::F32, to, 0)
    }

    /// Calls `each` with every group and a run of elements of it, in row-major order; runs are as long as the groups allow.
    fn for_each_run(&self, part: &Part<'_>, mut each: impl FnMut(usize, std::ops::Range<usize>)) {
        let elements: usize = part.shape.iter().product();
        let Some(last) = self.groups.iter().rposition(|&g| g > 1) else {
            return each(0, 0..elements);
        };
        // Coarse dimensions: single indices before the last one that is cut, whole parts along it.
        let inner: usize = part.shape[last + 1..].iter().product();
        let size = |d: usize| if d == 0 { part.lead } else { part.shape[d] };
        let along = if last == 0 {
            1
        } else {
            size(last) / self.groups[last]
        };
        let run = along * inner;
        if run == 0 {
            return;
        }
        let mut coarse: Vec<usize> = part.shape[..=last].to_vec();
        coarse[last] = part.shape[last] / along;
        for (n, start) in (0..elements).step_by(run).enumerate() {
            let (mut rest, mut group, mut stride) = (n, 0, 1);
            for d in (0..=last).rev() {
                let index = rest % coarse[d] + if d == 0 { part.first_row } else { 0 };
                rest /= coarse[d];
                let whole = if d == last && last > 0 {
                    1
                } else {
                    size(d) / self.groups[d]
                };
                group += index / whole * stride;
                stride *= self.groups[d];
            }
            each(group, start..start + run);
        }
    }
}

/// Some rows of a tensor.
pub(super) struct Part<'a> {
    /// Dimensions of the part.
    pub shape: &'a [usize],
    /// The first dimension of the whole tensor.
    pub lead: usize,
    /// Where the part begins along it.
    pub first_row: usize,
}

fn group_count(groups: &[usize]) -> Result<usize, EncodingError> {
    let count = groups.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
    count.filter(|&n| n > 0).ok_or(EncodingError(
        "every dimension is cut into at least one part",
    ))
}

/// The nearest integer, the even one of two; what lies beyond ±512 counts as ±512.
///
/// Behind 1.5 · 2^23 the integers are all that an f32 holds, so the addition rounds and the integer stands in the last bits
/// of the sum. Unlike `round_ties_even` it is compiled to vector instructions on every processor.
fn round_half_even(x: f32) -> i32 {
    const INTEGERS_ONLY: f32 = 12_582_912.0;
    let sum = x.clamp(-512.0, 512.0) + INTEGERS_ONLY;
    sum.to_bits()
        .wrapping_sub(INTEGERS_ONLY.to_bits())
        .cast_signed()
}

/// From this many elements on it pays to know the code of every bit pattern of a 16-bit float.
const PATTERNS_PAY_FROM: usize = 1 << 13;

fn value_of(pattern: u16, dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_bits(pattern).to_f32(),
        _ => f16::from_bits(pattern).to_f32(),
    }
}

/// The code of every 16-bit float by its bit pattern. Codes do not decrease from one float to the next larger one, so that
/// only the ends of the ranges that share a code have to be searched for.
fn codes_of_patterns(table: &[f32], dtype: DType) -> Vec<u8> {
    let mut codes = vec![0u8; 1 << 16];
    let infinity: u16 = match dtype {
        DType::BF16 => 0x7f80,
        _ => 0x7c00,
    };
    // Counted from the infinity of the same sign: magnitudes fall from minus infinity, and rise to plus infinity.
    let negative: Vec<u16> = (0..=infinity).rev().map(|m| m | 0x8000).collect();
    let positive: Vec<u16> = (0..=infinity).collect();
    for patterns in [negative, positive] {
        let mut rest = &patterns[..];
        while let Some(&first) = rest.first() {
            let code = nearest(table, value_of(first, dtype));
            let end = rest.partition_point(|&p| nearest(table, value_of(p, dtype)) <= code);
            let (same, larger) = rest.split_at(end);
            same.iter().for_each(|&p| codes[usize::from(p)] = code);
            rest = larger;
        }
    }
    codes
}

/// Position of the entry of an ascending table that is nearest to `x`; the lower one of two that are equally near.
fn nearest(table: &[f32], x: f32) -> u8 {
    let above = table.partition_point(|&t| t < x);
    let position = match (above.checked_sub(1), table.get(above)) {
        (None, _) => 0,
        (Some(below), None) => below,
        (Some(below), Some(&t)) if x - table[below] <= t - x => below,
        _ => above,
    };
    position as u8
}

/// Codes, one per byte, with `bits` bits each and no gaps, least significant bits first.
pub(super) fn pack(codes: &[u8], bits: u32) -> Vec<u8> {
    if bits == 8 {
        return codes.to_vec();
    }
    let mask = (1u32 << bits) - 1;
    let mut packed = Vec::with_capacity((codes.len() * bits as usize).div_ceil(8));
    let (mut word, mut filled) = (0u32, 0);
    for &code in codes {
        word |= (u32::from(code) & mask) << filled;
        filled += bits;
        while filled >= 8 {
            packed.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        packed.push(word as u8);
    }
    packed
}

/// Codes of a row that [`pack_rows`] packs.
pub(super) const ROW: usize = 32;

/// Rows of 32 codes, one per byte, in planes of 8, 4, 2 and 1 bits: see [`super::LazyTensor::pack_rows`].
pub(super) fn pack_rows(codes: &[u8], bits: u32) -> Vec<u8> {
    let planes = [8, 4, 2, 1].into_iter().filter(|plane| bits & plane != 0);
    let mut packed = Vec::with_capacity(codes.len() / 8 * bits as usize);
    for row in codes.as_chunks::<ROW>().0 {
        let mut below = 0;
        for plane in planes.clone() {
            let (bytes, mask) = (4 * plane as usize, 0xff >> (8 - plane));
            for i in 0..bytes {
                let codes = row[i..].iter().step_by(bytes).rev();
                let byte = codes.fold(0u32, |byte, &code| {
                    byte << plane | u32::from(code) >> below & mask
                });
                packed.push(byte as u8);
            }
            below += plane;
        }
    }
    packed
}

/// The first `count` codes of packed ones, one per byte; signed ones keep their sign.
pub(super) fn unpack(packed: &[u8], bits: u32, signed: bool, count: usize) -> Vec<u8> {
    let mask = (1u32 << bits) - 1;
    let (mut word, mut held) = (0u32, 0);
    let mut bytes = packed.iter();
    let mut code = || {
        while held < bits {
            word |= u32::from(*bytes.next().unwrap_or(&0)) << held;
            held += 8;
        }
        let code = (word & mask) as u8;
        word >>= bits;
        held -= bits;
        if signed && bits < 8 {
            let shift = 8 - bits;
            ((code << shift).cast_signed() >> shift).cast_unsigned()
        } else {
            code
        }
    };
    (0..count).map(|_| code()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::LazyTensor;

    fn encoded(shape: &[usize], data: &[f32], encoding: Encoding) -> LazyTensor {
        LazyTensor::from_f32(shape, data).encode(Arc::new(encoding))
    }

    #[test]
    fn a_scale_per_channel_rounds_to_nearest_even() {
        // numpy: np.clip(np.round(x / s), -128, 127) * s, row by row.
        let encoding = Encoding::affine(8, &[2, 1], vec![0.5, 2.0], Vec::new()).unwrap();
        let w = encoded(&[2, 3], &[0.25, 0.75, -100.0, 3.0, 5.0, -1.0], encoding);
        assert_eq!(w.to_f32().unwrap(), [0.0, 1.0, -64.0, 4.0, 4.0, 0.0]);
        let codes = w.codes().unwrap();
        assert_eq!(codes.dtype(), DType::I8);
        assert_eq!(codes.bytes().unwrap().as_ref(), [0, 2, 128, 2, 2, 0]);
    }

    #[test]
    fn blocks_have_a_scale_and_a_zero_point_of_their_own() {
        let encoding = Encoding::affine(4, &[1, 2], vec![1.0, 10.0], vec![1, -3]).unwrap();
        let w = encoded(
            &[2, 4],
            &[1.0, 2.0, 30.0, 40.0, -3.0, 9.0, 0.0, 99.0],
            encoding,
        );
        // Codes end at 7: 6 after the zero point 1, 10 after -3.
        let expected = [1.0, 2.0, 30.0, 40.0, -3.0, 6.0, 0.0, 100.0];
        assert_eq!(w.to_f32().unwrap(), expected);
    }

    #[test]
    fn a_palette_takes_the_nearest_entry_and_the_lower_of_two() {
        let table = vec![-1.0, 0.0, 0.5, 4.0, 0.0, 1.0, 2.0, 3.0];
        let encoding = Encoding::palette(2, &[2, 1], table).unwrap();
        let w = encoded(
            &[2, 4],
            &[-9.0, 0.25, 0.3, 2.5, -1.0, 0.6, 9.0, 2.5],
            encoding,
        );
        assert_eq!(
            w.to_f32().unwrap(),
            [-1.0, 0.0, 0.5, 4.0, 0.0, 1.0, 3.0, 2.0]
        );
    }

    #[test]
    fn rounding_by_addition_is_rounding_to_nearest_even() {
        for i in -5120..=5120 {
            let x = i as f32 / 10.0;
            assert_eq!(round_half_even(x), x.round_ties_even() as i32, "{x}");
        }
        let halves = [-0.5, 0.5, 1.5, 2.5, -2.5, 126.5, 127.5, 0.499_999_97];
        for x in halves {
            assert_eq!(round_half_even(x), x.round_ties_even() as i32, "{x}");
        }
        assert_eq!([1e30, f32::NEG_INFINITY].map(round_half_even), [512, -512]);
    }

    #[test]
    fn codes_of_half_floats_are_those_of_their_values() {
        let table = [-2.0, -0.3, -1e-7, 0.0, 1e-7, 0.1, 0.1001, 60000.0];
        for dtype in [DType::F16, DType::BF16] {
            let codes = codes_of_patterns(&table, dtype);
            for pattern in 0..=u16::MAX {
                let x = value_of(pattern, dtype);
                if !x.is_nan() {
                    let code = nearest(&table, x);
                    assert_eq!(codes[usize::from(pattern)], code, "{dtype} {x}");
                }
            }
        }
    }

    #[test]
    fn long_runs_of_half_floats_take_the_same_codes_as_single_ones() {
        let n = 3 * PATTERNS_PAY_FROM;
        let data: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let tables: Vec<f32> = (0..8).map(|i| (i as f32 - 3.5) * 0.25).collect();
        for dtype in [DType::F16, DType::BF16] {
            let half = LazyTensor::from_f32(&[n], &data).cast(dtype);
            let encoding = Arc::new(Encoding::palette(3, &[1], tables.clone()).unwrap());
            let codes = half.clone().encode(encoding).codes().unwrap();
            let values = half.to_f32().unwrap();
            let expected: Vec<u8> = values.iter().map(|&x| nearest(&tables, x)).collect();
            assert!(*codes.bytes().unwrap() == *expected);
        }
    }

    #[test]
    fn groups_along_several_dimensions_are_numbered_row_major() {
        let scale: Vec<f32> = (1..=8).map(|i| i as f32).collect();
        let encoding = Encoding::affine(8, &[2, 4, 1], scale.clone(), Vec::new()).unwrap();
        let ones: Vec<f32> = vec![100.0; 2 * 2 * 8 * 3];
        let w = encoded(&[4, 8, 3], &ones, encoding);
        let got = w.codes().unwrap().to_i64().unwrap();
        for (i, &code) in got.iter().enumerate() {
            let (row, column) = (i / 24, i / 3 % 8);
            let expected = (100.0 / scale[row / 2 * 4 + column / 2]).round_ties_even();
            assert_eq!(code as f32, expected, "element {i}");
        }
    }

    #[test]
    fn packing_is_dense_with_low_bits_first() {
        // coremltools: 6-bit codes 1, 2, 3, 4 are the bytes 81 30 10.
        assert_eq!(pack(&[1, 2, 3, 4], 6), [0x81, 0x30, 0x10]);
        assert_eq!(pack(&[0xff, 0x07, 0xf8], 4), [0x7f, 0x08]);
        for bits in [1, 2, 3, 4, 6, 8] {
            let codes: Vec<u8> = (0..77u32)
                .map(|i| ((i * 37) & ((1 << bits) - 1)) as u8)
                .collect();
            let packed = pack(&codes, bits);
            assert_eq!(packed.len(), (77 * bits as usize).div_ceil(8));
            assert_eq!(unpack(&packed, bits, false, 77), codes, "{bits}");
        }
        assert_eq!(unpack(&[0x7f, 0x08], 4, true, 3), [0xff, 0x07, 0xf8]);
    }

    #[test]
    fn rows_are_packed_in_planes() {
        let codes: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(pack_rows(&codes, 8), codes);
        // The lowest four bits of columns 0 and 16, 1 and 17, up to 15 and 31.
        let four: Vec<u8> = (0..16).map(|i| i << 4 | i).collect();
        assert_eq!(pack_rows(&codes, 4), four);
        // Columns 0, 8, 16 and 24 have 0, 0, 1 and 1 in the bits above.
        let six = [&four[..], &[0b0101_0000; 8]].concat();
        assert_eq!(pack_rows(&codes, 6), six);
        // Columns 0, 4, 8 and so on are even, and their second bit is not set; that of 2, 6, 10 is.
        assert_eq!(pack_rows(&codes, 1), [0, 0xff, 0, 0xff]);
        let two = [0, 0x55, 0xaa, 0xff, 0, 0x55, 0xaa, 0xff];
        assert_eq!(pack_rows(&codes, 2), two);
        // Bit 2 is set in columns 4 to 7, 12 to 15 and so on: every second one of 0, 4, 8 and so on.
        assert_eq!(pack_rows(&codes, 3), [&two[..], &[0xaa; 4]].concat());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert!(Encoding::affine(6, &[1], vec![1.0], Vec::new()).is_err());
        assert!(Encoding::affine(8, &[2], vec![1.0], Vec::new()).is_err());
        assert!(Encoding::affine(8, &[0], Vec::new(), Vec::new()).is_err());
        assert!(Encoding::palette(5, &[1], vec![0.0; 32]).is_err());
        assert!(Encoding::palette(2, &[2], vec![0.0; 4]).is_err());
        assert!(
            !Encoding::palette(2, &[3], vec![0.0; 12])
                .unwrap()
                .fits(&[4])
        );
    }
}
