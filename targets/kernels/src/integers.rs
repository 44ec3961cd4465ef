//! Products of codes of eight bits: the left operand on a grid of 256 values, the right one with a scale per column. Codes
//! are multiplied and added up as integers, four at a time, so that the sum is exact; what is rounded is its product with
//! the scales.

use crate::codes::{Codebook, Codes};
use crate::error::{KernelError, check_length, product};
use crate::gemm::{DenseRows, RowSource, check_product};
use crate::panels::{Ahead, PanelSource};
use crate::pool::share;
use crate::result::Integers;
use crate::simd::fetch;
use crate::table::{Dot, Table};
use crate::tile::DEPTH;
use crate::{Epilogue, Kernels, PANEL_WIDTH, PanelMatrix, Pool};

/// Codes in a word.
pub(crate) const PER_WORD: usize = 4;

/// Terms of the longest sum that 32 bits hold: 2³¹ over the largest product of two codes.
const MAX_DEPTH: usize = 65_536;

/// The left operand of a product of integers.
#[derive(Clone, Copy, Debug)]
pub struct Quantized<'a> {
    /// Distance of two values of the grid; positive and finite.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: u8,
    /// [`PanelMatrix::column_sums`] of the weights.
    pub column_sums: &'a [i32],
}

/// How numbers become codes in words.
#[derive(Clone, Copy)]
pub(crate) struct Quantizer {
    scale: f32,
    zero_point: u8,
    /// Taken off every code.
    offset: u8,
}

impl Quantizer {
    /// A word of codes of 0.
    pub(crate) fn zeros(&self) -> f32 {
        word([self.zero_point.wrapping_sub(self.offset); PER_WORD])
    }
}

/// Four codes as the bits of a number.
#[inline(always)]
fn word(codes: [u8; PER_WORD]) -> f32 {
    f32::from_bits(u32::from_ne_bytes(codes))
}

/// The codes of numbers, four in each word; codes without a number are 0.
#[inline(always)]
pub(crate) fn quantize(x: &[f32], quantizer: &Quantizer, words: &mut [f32]) {
    let Quantizer {
        scale,
        zero_point,
        offset,
    } = *quantizer;
    let zero = f32::from(zero_point);
    let code = |x: f32| {
        let code = ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0);
        (code as i32 as u8).wrapping_sub(offset)
    };
    let (whole, rest) = x.as_chunks::<PER_WORD>();
    for (word_of, x) in words.iter_mut().zip(whole) {
        *word_of = word(x.map(code));
    }
    if !rest.is_empty() {
        let mut last = [0; PER_WORD];
        for (slot, &x) in last.iter_mut().zip(rest) {
            *slot = code(x);
        }
        words[whole.len()] = word(last);
    }
}

/// Rows of a panel, 32 codes each, as words of the four codes of a column; rows that are missing in the last word are 0.
#[inline(always)]
pub(crate) fn interleave(rows: &[u8], words: &mut [f32]) {
    let rows = rows.as_chunks::<PANEL_WIDTH>().0;
    let (whole, rest) = rows.as_chunks::<PER_WORD>();
    let mut lines = words.as_chunks_mut::<PANEL_WIDTH>().0.iter_mut();
    for (rows, line) in whole.iter().zip(&mut lines) {
        interleave_line(rows, line);
    }
    if let (Some(line), false) = (lines.next(), rest.is_empty()) {
        let mut rows = [[0; PANEL_WIDTH]; PER_WORD];
        rows[..rest.len()].copy_from_slice(rest);
        interleave_line(&rows, line);
    }
}

#[inline(always)]
fn interleave_line(rows: &[[u8; PANEL_WIDTH]; PER_WORD], line: &mut [f32; PANEL_WIDTH]) {
    for (column, x) in line.iter_mut().enumerate() {
        *x = word(rows.map(|row| row[column]));
    }
}

/// Sums of products of codes, as bits, to numbers: `(sum - zero · column sum) · column scale · scale`.
#[inline(always)]
pub(crate) fn dequantize(x: &mut [f32], sums: &[i32], scales: &[f32], zero: i32, scale: f32) {
    for ((x, &sum), &column) in x.iter_mut().zip(sums).zip(scales) {
        let products = x.to_bits().cast_signed();
        // Within 32 bits, by the limit on the depth.
        let exact = products.wrapping_sub(sum.wrapping_mul(zero));
        *x = exact as f32 * (column * scale);
    }
}

/// Rows of another source as words of codes.
pub(crate) struct QuantizedRows<'a, R> {
    pub rows: R,
    pub depth: usize,
    pub table: &'a Table,
    pub quantizer: Quantizer,
}

impl<R: RowSource> RowSource for QuantizedRows<'_, R> {
    fn gather(&self, row: usize, start: usize, out: &mut [f32]) {
        let mut numbers = [0.0; DEPTH * PER_WORD];
        let start = start * PER_WORD;
        let count = (out.len() * PER_WORD).min(self.depth - start);
        let numbers = &mut numbers[..count];
        self.rows.gather(row, start, numbers);
        // SAFETY: the table is of this processor.
        unsafe { (self.table.quantize)(numbers, &self.quantizer, out) };
    }
}

/// A matrix of codes of eight bits as words of four terms.
pub(crate) struct CodeWords<'a> {
    codes: Codes<'a>,
    columns: usize,
    depth: usize,
}

impl CodeWords<'_> {
    /// Rows of a panel, counted over all panels, that make these words.
    fn terms(&self, panel: usize, start: usize, words: usize) -> std::ops::Range<usize> {
        let term = |word: usize| panel * self.depth + (word * PER_WORD).min(self.depth);
        term(start)..term(start + words)
    }
}

impl PanelSource for CodeWords<'_> {
    fn columns(&self) -> usize {
        self.columns
    }

    fn depth(&self) -> usize {
        self.depth.div_ceil(PER_WORD)
    }

    fn rows<'b>(
        &'b self,
        table: &Table,
        panel: usize,
        start: usize,
        rows: usize,
        buffer: &'b mut [f32],
    ) -> &'b [f32] {
        let buffer = &mut buffer[..rows * PANEL_WIDTH];
        let packed = self.codes.bytes(self.terms(panel, start, rows));
        // SAFETY: the table is of this processor.
        unsafe { (table.interleave)(packed, buffer) };
        buffer
    }

    fn fetch(&self, ahead: Ahead, part: usize, parts: usize) {
        if parts < 8 || ahead.rows == 0 {
            return;
        }
        let own = share(ahead.rows, part, parts);
        let terms = self.terms(ahead.panel, ahead.start + own.start, own.len());
        fetch(self.codes.bytes(terms));
    }
}

impl<'a> PanelMatrix<'a> {
    /// Sums of the codes of each column, when they are of eight bits with one scale per column and few enough for products
    /// of integers; `None` for other weights.
    #[must_use]
    pub fn column_sums(&self) -> Option<Vec<i32>> {
        let words = self.code_words()?;
        let panel = words.depth * PANEL_WIDTH;
        let mut sums = Vec::with_capacity(words.columns.next_multiple_of(PANEL_WIDTH));
        for panel in words.codes.rows.chunks(panel.max(1)) {
            let mut own = [0; PANEL_WIDTH];
            for row in panel.as_chunks::<PANEL_WIDTH>().0 {
                for (sum, code) in own.iter_mut().zip(row) {
                    *sum += i32::from(code.cast_signed());
                }
            }
            sums.extend(own);
        }
        sums.truncate(words.columns);
        Some(sums)
    }

    /// The codes in words, when they are such that integers can be multiplied.
    pub(crate) fn code_words(&self) -> Option<CodeWords<'a>> {
        let codes = self.codes().filter(|codes| codes.bits == 8)?;
        let is_plain = matches!(
            codes.book,
            Codebook::Scales {
                zero_point: None,
                blocks: 1,
                ..
            }
        );
        let (columns, depth) = (self.columns(), self.depth());
        (is_plain && depth <= MAX_DEPTH).then_some(CodeWords {
            codes,
            columns,
            depth,
        })
    }
}

/// What a product of integers needs besides its operands.
pub(crate) struct Parts<'a> {
    pub words: CodeWords<'a>,
    pub integers: Integers<'a>,
    pub quantizer: Quantizer,
}

impl Kernels {
    /// Whether the processor has instructions for products of integers, so that they are worth their while.
    #[must_use]
    pub fn multiplies_integers(&self) -> bool {
        self.dot.is_some()
    }

    /// Checks the weights of a product of integers.
    pub(crate) fn integer_parts<'a>(
        &self,
        kernel: &'static str,
        weights: &PanelMatrix<'a>,
        left: Quantized<'a>,
    ) -> Result<Parts<'a>, KernelError> {
        let shape = |reason| KernelError::Shape { kernel, reason };
        let dot: &'static Dot = self
            .dot
            .ok_or(shape("the processor has no products of integers"))?;
        let words = weights.code_words();
        let words = words.ok_or(shape("the weights are not codes with a scale per column"))?;
        let (columns, sums) = (weights.columns(), left.column_sums);
        check_length(kernel, "column_sums", Some(columns), sums.len())?;
        let quantizer = Quantizer {
            scale: left.scale,
            zero_point: left.zero_point,
            offset: dot.offset,
        };
        let integers = Integers {
            dot,
            codes: words.codes,
            sums,
            scale: left.scale,
            zero: i32::from(left.zero_point) - i32::from(dot.offset),
        };
        Ok(Parts {
            words,
            integers,
            quantizer,
        })
    }

    /// As [`Kernels::gemm`] where `a` is on a grid and `weights` are codes of eight bits: the products are those of the codes,
    /// and their sums exact. What of `a` is not on the grid is rounded to it.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit the shape, the weights have no [`PanelMatrix::column_sums`], or the
    /// processor lacks the instructions ([`Kernels::multiplies_integers`]).
    #[allow(clippy::too_many_arguments, reason = "as gemm, with the grid")]
    pub fn gemm_quantized(
        &self,
        pool: &Pool,
        rows: usize,
        a: &[f32],
        left: Quantized<'_>,
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        const NAME: &str = "gemm_quantized";
        let depth = weights.depth();
        check_length(NAME, "a", product(&[rows, depth]), a.len())?;
        check_product(NAME, rows, weights, epilogue, out)?;
        let parts = self.integer_parts(NAME, weights, left)?;
        let source = QuantizedRows {
            rows: DenseRows { data: a, depth },
            depth,
            table: self.table,
            quantizer: parts.quantizer,
        };
        let result = self.result(weights.columns(), epilogue, Some(parts.integers), out);
        self.multiply(pool, rows, &source, &parts.words, result);
        Ok(())
    }
}
