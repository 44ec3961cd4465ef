//! Weights in the order in which the GEMM tile reads them.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::{KernelError, check_length, product};

/// A weight matrix `[columns][depth]` as a checkpoint has it: one row per output, that is, `Linear.weight`, or a
/// convolution's weight with its input channels last (`[out][kh][kw][in]`).
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// 32 bit.
    F32(&'a [f32]),
    /// 16 bit, IEEE.
    F16(&'a [f16]),
    /// 16 bit, the upper half of an f32.
    Bf16(&'a [bf16]),
}

impl Weights<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F16(w) => w.len(),
            Self::Bf16(w) => w.len(),
        }
    }
}

/// Elements of the panels.
#[derive(Clone, Debug)]
pub enum PanelData<'a> {
    /// 32 bit.
    F32(Cow<'a, [f32]>),
    /// 16 bit, IEEE; widened panel by panel when used.
    F16(Cow<'a, [f16]>),
    /// 16 bit, the upper half of an f32; widened panel by panel when used.
    Bf16(Cow<'a, [bf16]>),
}

/// A weight matrix in panels of `width` columns: `[panels][depth][width]`, the last panel filled up with zeros.
///
/// The layout depends only on `width` ([`crate::Kernels::panel_width`]), so that it can be made when a model is compiled and
/// mapped from a file when it is run.
#[derive(Clone, Debug)]
pub struct PanelMatrix<'a> {
    columns: usize,
    depth: usize,
    width: usize,
    data: PanelData<'a>,
}

const NAME: &str = "panels";

/// Elements of the panels of a matrix, `None` when they do not fit the address space.
fn panel_elements(columns: usize, depth: usize, width: usize) -> Option<usize> {
    product(&[columns.checked_next_multiple_of(width)?, depth])
}

fn pack<T: Copy>(weights: &[T], depth: usize, width: usize, zero: T, panels: &mut [T]) {
    panels.fill(zero);
    if depth == 0 {
        return;
    }
    for (column, row) in weights.chunks_exact(depth).enumerate() {
        let panel = &mut panels[column / width * depth * width..][..depth * width];
        for (slot, &x) in panel[column % width..].iter_mut().step_by(width).zip(row) {
            *slot = x;
        }
    }
}

impl PanelMatrix<'static> {
    /// Packs `weights` `[columns][depth]` and keeps their storage type.
    ///
    /// # Errors
    /// [`KernelError`] when the weights do not have `columns · depth` elements or `width` is zero.
    pub fn pack(
        weights: Weights<'_>,
        columns: usize,
        depth: usize,
        width: usize,
    ) -> Result<Self, KernelError> {
        check_width(width)?;
        check_length(NAME, "weights", product(&[columns, depth]), weights.len())?;
        let len = panel_elements(columns, depth, width).ok_or(TOO_LARGE)?;
        let data = match weights {
            Weights::F32(w) => {
                let mut panels = vec![0.0; len];
                pack(w, depth, width, 0.0, &mut panels);
                PanelData::F32(panels.into())
            }
            Weights::F16(w) => {
                let mut panels = vec![f16::ZERO; len];
                pack(w, depth, width, f16::ZERO, &mut panels);
                PanelData::F16(panels.into())
            }
            Weights::Bf16(w) => {
                let mut panels = vec![bf16::ZERO; len];
                pack(w, depth, width, bf16::ZERO, &mut panels);
                PanelData::Bf16(panels.into())
            }
        };
        Ok(Self {
            columns,
            depth,
            width,
            data,
        })
    }
}

const TOO_LARGE: KernelError = KernelError::Shape {
    kernel: NAME,
    reason: "the matrix does not fit the address space",
};

fn check_width(width: usize) -> Result<(), KernelError> {
    if width == 0 {
        return Err(KernelError::Shape {
            kernel: NAME,
            reason: "a panel has at least one column",
        });
    }
    Ok(())
}

impl<'a> PanelMatrix<'a> {
    /// Takes panels that are in order already, for example from a mapped file.
    ///
    /// # Errors
    /// [`KernelError`] when `data` does not have the length of the panels of a `[columns][depth]` matrix, or `width` is zero.
    pub fn from_panels(
        data: PanelData<'a>,
        columns: usize,
        depth: usize,
        width: usize,
    ) -> Result<Self, KernelError> {
        check_width(width)?;
        let found = match &data {
            PanelData::F32(d) => d.len(),
            PanelData::F16(d) => d.len(),
            PanelData::Bf16(d) => d.len(),
        };
        check_length(NAME, "data", panel_elements(columns, depth, width), found)?;
        Ok(Self {
            columns,
            depth,
            width,
            data,
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

    /// Columns of a panel.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The elements, in the order of the panels.
    #[must_use]
    pub fn data(&self) -> &PanelData<'a> {
        &self.data
    }

    /// Rows `start..start + rows` of panel `panel` as f32: borrowed, or widened into `buffer`.
    pub(crate) fn rows<'b>(
        &'b self,
        panel: usize,
        start: usize,
        rows: usize,
        buffer: &'b mut [f32],
    ) -> &'b [f32] {
        let at = (panel * self.depth + start) * self.width;
        let range = at..at + rows * self.width;
        let buffer = &mut buffer[..range.len()];
        match &self.data {
            PanelData::F32(d) => return &d[range],
            PanelData::F16(d) => d[range].convert_to_f32_slice(buffer),
            PanelData::Bf16(d) => d[range].convert_to_f32_slice(buffer),
        }
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_cut_in_panels_and_filled_up() {
        // Three outputs of two inputs each, in panels of two columns.
        let packed = PanelMatrix::pack(Weights::F32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 3, 2, 2);
        let PanelData::F32(data) = packed.unwrap().data else {
            panic!("the storage type is kept")
        };
        assert_eq!(data.as_ref(), [1.0, 3.0, 2.0, 4.0, 5.0, 0.0, 6.0, 0.0]);
    }

    #[test]
    fn half_panels_are_widened_when_read() {
        let weights = [1.5, -2.0, 0.25, 8.0].map(f16::from_f32);
        let packed = PanelMatrix::pack(Weights::F16(&weights), 2, 2, 2).unwrap();
        assert_eq!(packed.rows(0, 1, 1, &mut [0.0; 2]), [-2.0, 8.0]);
        let weights = [1.5, -2.0, 0.25, 8.0].map(bf16::from_f32);
        let packed = PanelMatrix::pack(Weights::Bf16(&weights), 2, 2, 2).unwrap();
        assert_eq!(packed.rows(0, 0, 2, &mut [0.0; 4]), [1.5, 0.25, -2.0, 8.0]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let error = PanelMatrix::pack(Weights::F32(&[0.0; 5]), 3, 2, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "weights of panels holds 5 elements, the shape asks for 6"
        );
        let data = PanelData::F32(Cow::Borrowed(&[0.0; 6]));
        assert!(PanelMatrix::from_panels(data, 3, 2, 2).is_err());
    }
}
