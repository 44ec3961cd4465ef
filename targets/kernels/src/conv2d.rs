//! Convolution as a matrix product whose left rows are gathered where they are needed.

use crate::direct::{self, Direct};
use crate::error::{KernelError, check_length, product};
use crate::gemm::{RowSource, check_product};
use crate::integers::{PER_WORD, Quantized, QuantizedRows};
use crate::{Epilogue, Kernels, PanelMatrix, Pool};

/// Shape of a convolution over images with channels last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Rows of an input image.
    pub height: usize,
    /// Columns of an input image.
    pub width: usize,
    /// Input channels.
    pub channels: usize,
    /// Kernel rows and columns.
    pub kernel: [usize; 2],
    /// Steps between outputs, down and to the right.
    pub stride: [usize; 2],
    /// Zeros around the input: top, left, bottom, right.
    pub pads: [usize; 4],
}

const NAME: &str = "conv2d";

impl Conv2d {
    /// Rows and columns of an output image.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when the stride is zero or the kernel does not fit the padded image.
    pub fn output_size(&self) -> Result<[usize; 2], KernelError> {
        let extent = |size: usize, kernel: usize, stride: usize, before: usize, after: usize| {
            let padded = size.checked_add(before)?.checked_add(after)?;
            padded
                .checked_sub(kernel)?
                .checked_div(stride)?
                .checked_add(1)
        };
        let [top, left, bottom, right] = self.pads;
        let rows = extent(self.height, self.kernel[0], self.stride[0], top, bottom);
        let columns = extent(self.width, self.kernel[1], self.stride[1], left, right);
        rows.zip(columns)
            .map(|(rows, columns)| [rows, columns])
            .ok_or(KernelError::Shape {
                kernel: NAME,
                reason: "the kernel does not fit the padded image, or the stride is zero",
            })
    }

    /// Checks the operands; rows and columns of an output image, and all output pixels.
    fn check(
        &self,
        input: &[f32],
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &[f32],
    ) -> Result<([usize; 2], usize), KernelError> {
        let output = self.output_size()?;
        let elements = product(&[self.batch, self.height, self.width, self.channels]);
        check_length(NAME, "input", elements, input.len())?;
        let taps = product(&[self.kernel[0], self.kernel[1], self.channels]);
        if taps != Some(weights.depth()) {
            return Err(KernelError::Shape {
                kernel: NAME,
                reason: "a row of the weights does not have kernel size times input channels elements",
            });
        }
        let rows = product(&[self.batch, output[0], output[1]]).ok_or(KernelError::Shape {
            kernel: NAME,
            reason: "the output does not fit the address space",
        })?;
        check_product(NAME, rows, weights, epilogue, out)?;
        Ok((output, rows))
    }
}

/// Row `(image, y, x)` holds the inputs below the kernel at output `(y, x)`, ordered `[kh][kw][channels]`.
struct Patches<'a> {
    shape: Conv2d,
    output: [usize; 2],
    data: &'a [f32],
}

impl Patches<'_> {
    /// Elements of the input pixel under a tap of the kernel, `None` in the padding.
    fn pixel(&self, image: usize, [y, x]: [usize; 2], tap: usize) -> Option<&[f32]> {
        let s = &self.shape;
        let [ky, kx] = [tap / s.kernel[1], tap % s.kernel[1]];
        let y = (y * s.stride[0] + ky).checked_sub(s.pads[0])?;
        let x = (x * s.stride[1] + kx).checked_sub(s.pads[1])?;
        if y >= s.height || x >= s.width {
            return None;
        }
        let at = ((image * s.height + y) * s.width + x) * s.channels;
        Some(&self.data[at..at + s.channels])
    }
}

impl RowSource for Patches<'_> {
    fn gather(&self, row: usize, start: usize, out: &mut [f32]) {
        let [height, width] = self.output;
        let (image, y, x) = (row / (height * width), row / width % height, row % width);
        let channels = self.shape.channels;
        let (mut tap, mut channel) = (start / channels.max(1), start % channels.max(1));
        let mut rest = out;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(rest.len().min(channels - channel));
            match self.pixel(image, [y, x], tap) {
                Some(pixel) => now.copy_from_slice(&pixel[channel..channel + now.len()]),
                None => now.fill(0.0),
            }
            (tap, channel) = (tap + 1, 0);
            rest = later;
        }
    }
}

impl Kernels {
    /// `out = epilogue(conv2d(input, weights))`, as `torch.nn.functional.conv2d` without groups and dilation.
    ///
    /// `input` is `[batch][height][width][channels]`, `out` `[batch][rows][columns][out_channels]`; the weights are the panels
    /// of a matrix `[out_channels][kh · kw · channels]`, that is, the weight with its input channels last. Nothing but one
    /// block of rows is ever unfolded.
    ///
    /// # Errors
    /// [`KernelError`] when a length does not fit the shape.
    pub fn conv2d(
        &self,
        pool: &Pool,
        shape: Conv2d,
        input: &[f32],
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let (output, rows) = shape.check(input, weights, epilogue, out)?;
        let result = self.result(weights.columns(), epilogue, None, out);
        if direct::suits(&shape, 1) {
            let direct = Direct {
                shape,
                output,
                input,
                weights,
                quantizer: None,
                result,
            };
            direct.run(pool);
            return Ok(());
        }
        let source = Patches {
            shape,
            output,
            data: input,
        };
        self.multiply(pool, rows, &source, weights, result);
        Ok(())
    }

    /// As [`Kernels::conv2d`] where `input` is on a grid and `weights` are codes of eight bits, see
    /// [`Kernels::gemm_quantized`].
    ///
    /// # Errors
    /// As [`Kernels::gemm_quantized`].
    #[allow(clippy::too_many_arguments, reason = "as conv2d, with the grid")]
    pub fn conv2d_quantized(
        &self,
        pool: &Pool,
        shape: Conv2d,
        input: &[f32],
        left: Quantized<'_>,
        weights: &PanelMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let (output, rows) = shape.check(input, weights, epilogue, out)?;
        let parts = self.integer_parts("conv2d_quantized", weights, left)?;
        let result = self.result(weights.columns(), epilogue, Some(parts.integers), out);
        if direct::suits(&shape, PER_WORD) {
            let direct = Direct {
                shape,
                output,
                input,
                weights: &parts.words,
                quantizer: Some(parts.quantizer),
                result,
            };
            direct.run(pool);
            return Ok(());
        }
        let source = QuantizedRows {
            rows: Patches {
                shape,
                output,
                data: input,
            },
            depth: weights.depth(),
            table: self.table,
            quantizer: parts.quantizer,
        };
        self.multiply(pool, rows, &source, &parts.words, result);
        Ok(())
    }
}
