//! Weights in the order in which the GEMM tile reads them.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::codes::Codes;
use crate::error::{KernelError, check_length, product};
use crate::pool::share;
use crate::simd::fetch;
use crate::table::Table;

/// Columns of a panel: one for all instruction sets, so that a file needs one packed form. Narrower tiles take a panel in
/// several steps.
pub const PANEL_WIDTH: usize = 32;

/// Elements of a weight matrix in one of the storage types.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// 32 bit.
    F32(&'a [f32]),
    /// 16 bit, IEEE; widened block by block when used.
    F16(&'a [f16]),
    /// 16 bit, the upper half of an f32; widened block by block when used.
    Bf16(&'a [bf16]),
}

impl Weights<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F16(w) => w.len(),
            Self::Bf16(w) => w.len(),
        }
    }
}

#[derive(Clone, Debug)]
enum Data<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
    Codes(Codes<'a>),
}

/// A weight matrix `[columns][depth]` in panels of [`PANEL_WIDTH`] columns: `[⌈columns / 32⌉][depth][32]`, the last panel
/// filled up with zeros.
///
/// The layout depends on nothing else, so that it is made when a model is compiled ([`pack_panel`]) and mapped from a file
/// when it is run ([`PanelMatrix::from_panels`]).
#[derive(Clone, Debug)]
pub struct PanelMatrix<'a> {
    columns: usize,
    depth: usize,
    data: Data<'a>,
}

const NAME: &str = "panels";

const TOO_LARGE: KernelError = KernelError::Shape {
    kernel: NAME,
    reason: "the matrix does not fit the address space",
};

/// Elements of the panels of a matrix `[columns][depth]`, `None` when they do not fit the address space.
#[must_use]
pub fn panel_elements(columns: usize, depth: usize) -> Option<usize> {
    product(&[columns.checked_next_multiple_of(PANEL_WIDTH)?, depth])
}

/// Packs up to 32 rows of a weight matrix, `depth` elements each, as one panel `[depth][32]`; missing rows become zeros
/// (`T::default()`).
///
/// A row is what one output takes: a row of `Linear.weight`, or of a convolution's weight with its input channels last
/// (`[out][kh][kw][in]`).
///
/// # Errors
/// [`KernelError`] when `rows` is not up to 32 whole rows, or `panel` does not have `32 · depth` elements.
pub fn pack_panel<T: Copy + Default>(
    rows: &[T],
    depth: usize,
    panel: &mut [T],
) -> Result<(), KernelError> {
    check_length(NAME, "panel", product(&[depth, PANEL_WIDTH]), panel.len())?;
    if rows.len() > panel.len() || !rows.len().is_multiple_of(depth.max(1)) {
        return Err(KernelError::Shape {
            kernel: NAME,
            reason: "the rows of a panel are at most 32 whole rows",
        });
    }
    if depth > 0 {
        fill_panel(rows.chunks_exact(depth), panel);
    }
    Ok(())
}

/// Rows that are read side by side: their cache lines and the written ones stay in the first-level cache.
const STRIP: usize = 64;

/// Writes rows as the columns of a panel `[depth][32]`; missing rows become zeros.
pub(crate) fn fill_panel<'a, T: Copy + Default + 'a>(
    rows: impl Iterator<Item = &'a [T]> + Clone,
    panel: &mut [T],
) {
    for (part, strip) in panel.chunks_mut(STRIP * PANEL_WIDTH).enumerate() {
        let start = part * STRIP;
        let count = strip.len() / PANEL_WIDTH;
        let mut filled = 0;
        for (column, row) in rows.clone().enumerate() {
            let slots = strip[column..].iter_mut().step_by(PANEL_WIDTH);
            for (slot, &x) in slots.zip(&row[start..start + count]) {
                *slot = x;
            }
            filled = column + 1;
        }
        if filled < PANEL_WIDTH {
            for line in strip.chunks_exact_mut(PANEL_WIDTH) {
                line[filled..].fill(T::default());
            }
        }
    }
}

fn pack<T: Copy + Default>(weights: &[T], depth: usize, len: usize) -> Vec<T> {
    let mut panels = vec![T::default(); len];
    if depth > 0 {
        let sources = weights.chunks(depth * PANEL_WIDTH);
        for (rows, panel) in sources.zip(panels.chunks_exact_mut(depth * PANEL_WIDTH)) {
            fill_panel(rows.chunks_exact(depth), panel);
        }
    }
    panels
}

impl PanelMatrix<'static> {
    /// Packs `weights` `[columns][depth]` and keeps their storage type.
    ///
    /// # Errors
    /// [`KernelError`] when the weights do not have `columns · depth` elements.
    pub fn pack(weights: Weights<'_>, columns: usize, depth: usize) -> Result<Self, KernelError> {
        check_length(NAME, "weights", product(&[columns, depth]), weights.len())?;
        let len = panel_elements(columns, depth).ok_or(TOO_LARGE)?;
        let data = match weights {
            Weights::F32(w) => Data::F32(pack(w, depth, len).into()),
            Weights::F16(w) => Data::F16(pack(w, depth, len).into()),
            Weights::Bf16(w) => Data::Bf16(pack(w, depth, len).into()),
        };
        Ok(Self {
            columns,
            depth,
            data,
        })
    }
}

impl<'a> PanelMatrix<'a> {
    /// Takes panels that are in order already, for example from a mapped file, without a copy.
    ///
    /// # Errors
    /// [`KernelError`] when `panels` does not have the [`panel_elements`] of a `[columns][depth]` matrix.
    pub fn from_panels(
        panels: Weights<'a>,
        columns: usize,
        depth: usize,
    ) -> Result<Self, KernelError> {
        check_length(NAME, "panels", panel_elements(columns, depth), panels.len())?;
        let data = match panels {
            Weights::F32(d) => Data::F32(d.into()),
            Weights::F16(d) => Data::F16(d.into()),
            Weights::Bf16(d) => Data::Bf16(d.into()),
        };
        Ok(Self {
            columns,
            depth,
            data,
        })
    }

    /// Takes panels of codes, which become floats block by block when they are used.
    ///
    /// # Errors
    /// [`KernelError`] when the codes or what they stand for do not have the lengths of a `[columns][depth]` matrix.
    pub fn from_codes(codes: Codes<'a>, columns: usize, depth: usize) -> Result<Self, KernelError> {
        codes.check(columns, depth)?;
        Ok(Self {
            columns,
            depth,
            data: Data::Codes(codes),
        })
    }

    /// Columns of the product, that is, outputs.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Terms of each dot product, that is, inputs.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The elements, in the order of the panels; `None` when they are stored as codes.
    #[must_use]
    pub fn panels(&self) -> Option<Weights<'_>> {
        match &self.data {
            Data::F32(d) => Some(Weights::F32(d)),
            Data::F16(d) => Some(Weights::F16(d)),
            Data::Bf16(d) => Some(Weights::Bf16(d)),
            Data::Codes(_) => None,
        }
    }
}

impl<'a> PanelMatrix<'a> {
    /// The codes, when the elements are stored so.
    pub(crate) fn codes(&self) -> Option<Codes<'a>> {
        match &self.data {
            Data::Codes(codes) => Some(*codes),
            _ => None,
        }
    }
}

/// The right operand of a product, cut in panels.
pub(crate) trait PanelSource: Sync {
    /// Columns of the product.
    fn columns(&self) -> usize;
    /// Terms of each dot product.
    fn depth(&self) -> usize;
    /// Rows `start..start + rows` of panel `panel`, `[rows][32]`: borrowed, or written to `buffer`, which holds as many, by
    /// the kernels of `table`.
    fn rows<'b>(
        &'b self,
        table: &Table,
        panel: usize,
        start: usize,
        rows: usize,
        buffer: &'b mut [f32],
    ) -> &'b [f32];

    /// Asks for the memory behind one of `parts` parts of those rows ahead of their use.
    fn fetch(&self, ahead: Ahead, part: usize, parts: usize) {
        let _ = (ahead, part, parts);
    }
}

/// Rows `start..start + rows` of panel `panel`, which will be used soon.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub panel: usize,
    pub start: usize,
    pub rows: usize,
}

impl PanelSource for PanelMatrix<'_> {
    fn columns(&self) -> usize {
        self.columns
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn rows<'b>(
        &'b self,
        table: &Table,
        panel: usize,
        start: usize,
        rows: usize,
        buffer: &'b mut [f32],
    ) -> &'b [f32] {
        let at = (panel * self.depth + start) * PANEL_WIDTH;
        let range = at..at + rows * PANEL_WIDTH;
        let buffer = &mut buffer[..range.len()];
        match &self.data {
            Data::F32(d) => return &d[range],
            Data::F16(d) => d[range].convert_to_f32_slice(buffer),
            Data::Bf16(d) => d[range].convert_to_f32_slice(buffer),
            Data::Codes(c) => c.widen(table, (self.columns, self.depth), (panel, start), buffer),
        }
        buffer
    }

    fn fetch(&self, ahead: Ahead, part: usize, parts: usize) {
        // In few parts there are more requests at a time than the processor keeps.
        if parts < 8 {
            return;
        }
        let first = ahead.panel * self.depth + ahead.start;
        let rows = share(ahead.rows, part, parts);
        let range = (first + rows.start) * PANEL_WIDTH..(first + rows.end) * PANEL_WIDTH;
        match &self.data {
            Data::F32(d) => fetch(&d[range]),
            Data::F16(d) => fetch(&d[range]),
            Data::Bf16(d) => fetch(&d[range]),
            Data::Codes(c) => fetch(c.bytes(first + rows.start..first + rows.end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::PORTABLE;

    /// `[columns][depth]` with the value `100 column + term`.
    fn weights(columns: usize, depth: usize) -> Vec<f32> {
        (0..columns * depth)
            .map(|i| (100 * (i / depth) + i % depth) as f32)
            .collect()
    }

    #[test]
    fn a_matrix_is_cut_in_panels_and_filled_up() {
        let (columns, depth) = (33, 70);
        let weights = weights(columns, depth);
        let packed = PanelMatrix::pack(Weights::F32(&weights), columns, depth).unwrap();
        let Some(Weights::F32(panels)) = packed.panels() else {
            panic!("the storage type is kept")
        };
        assert_eq!(Some(panels.len()), panel_elements(columns, depth));
        for (i, &x) in panels.iter().enumerate() {
            let (panel, term, column) = (i / 2240, i / 32 % 70, i % 32);
            let column = panel * 32 + column;
            let expected = if column < 33 { 100 * column + term } else { 0 };
            assert_eq!(
                x, expected as f32,
                "panel {panel}, term {term}, column {column}"
            );
        }
    }

    #[test]
    fn panels_packed_one_by_one_are_those_of_the_matrix() {
        let (columns, depth) = (40, 5);
        let weights = weights(columns, depth);
        let whole = PanelMatrix::pack(Weights::F32(&weights), columns, depth).unwrap();
        let mut panels = Vec::new();
        for rows in weights.chunks(PANEL_WIDTH * depth) {
            // What the buffer held before does not show.
            let mut panel = vec![f32::NAN; PANEL_WIDTH * depth];
            pack_panel(rows, depth, &mut panel).unwrap();
            panels.extend(panel);
        }
        let mapped = PanelMatrix::from_panels(Weights::F32(&panels), columns, depth).unwrap();
        let (Some(Weights::F32(a)), Some(Weights::F32(b))) = (whole.panels(), mapped.panels())
        else {
            panic!("the storage type is kept")
        };
        assert_eq!(a, b);
    }

    #[test]
    fn half_panels_are_widened_when_read() {
        let weights = [1.5, -2.0, 0.25, 8.0].map(f16::from_f32);
        let packed = PanelMatrix::pack(Weights::F16(&weights), 2, 2).unwrap();
        let mut buffer = [0.0; 64];
        assert_eq!(
            packed.rows(&PORTABLE, 0, 1, 1, &mut buffer)[..3],
            [-2.0, 8.0, 0.0]
        );
        let weights = [1.5, -2.0, 0.25, 8.0].map(bf16::from_f32);
        let packed = PanelMatrix::pack(Weights::Bf16(&weights), 2, 2).unwrap();
        let rows = packed.rows(&PORTABLE, 0, 0, 2, &mut buffer);
        assert_eq!(
            (&rows[..2], &rows[32..34]),
            (&[1.5, 0.25][..], &[-2.0, 8.0][..])
        );
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let error = PanelMatrix::pack(Weights::F32(&[0.0; 5]), 3, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "weights of panels holds 5 elements, the shape asks for 6"
        );
        assert!(PanelMatrix::from_panels(Weights::F32(&[0.0; 6]), 3, 2).is_err());
        assert!(PanelMatrix::from_panels(Weights::F32(&[]), usize::MAX, 2).is_err());
        let mut panel = [0.0; 64];
        assert!(pack_panel(&[0.0; 3], 2, &mut panel).is_err());
        assert!(pack_panel(&[0.0; 66], 2, &mut panel).is_err());
        assert!(pack_panel(&[0.0; 64], 2, &mut panel[1..]).is_err());
        assert!(pack_panel::<f32>(&[], 0, &mut []).is_ok());
    }
}
