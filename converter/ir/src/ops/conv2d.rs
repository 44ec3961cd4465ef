//! `y[n, o, i, j] = bias[o] + Σ weight[o, c, u, v] · x[n, c, i·sh + u - top, j·sw + v - left]`, zero outside `x`
//! (`torch.nn.Conv2d`, ONNX `Conv`).

use rayon::prelude::*;

use super::check::{InferError, arity, attribute_error, dims, float, same_dtype, shape_error};
use super::check::{shape_is, size};
use super::matmul::{multiply_rows, product};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x[N,Cin,H,W], weight[Cout,Cin/groups,KH,KW], bias[Cout]?)` → `[N,Cout,OH,OW]` with
    /// `OH = (H + top + bottom - KH) / strides[0] + 1` rounded down, and `OW` likewise; operands of one float type.
    Conv2d {
        /// Steps between result rows and result columns; at least 1.
        strides: [usize; 2],
        /// Zeros around the operand: top, left, bottom, right, in the order of ONNX.
        pads: [usize; 4],
        /// Number of channel groups that do not mix; divides `Cin` and `Cout`.
        groups: usize,
    }

    const NAME: &'static str = "conv2d";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 2..=3, "2 or 3")?;
        let dtype = float(operands, 0)?;
        same_dtype(operands)?;
        let batch = dims::<4>(operands, 0, "[N,Cin,H,W]")?[0];
        let cin = size(operands, 0, 1)?;
        if self.groups == 0 || !cin.is_multiple_of(self.groups) {
            let problem = format!("is {}, which does not divide {cin} channels", self.groups);
            return Err(attribute_error("groups", problem));
        }
        if self.strides.contains(&0) {
            return Err(attribute_error("strides", "must be 1 or more"));
        }
        let expected = format!("[Cout,{},KH,KW]", cin / self.groups);
        dims::<4>(operands, 1, &expected)?;
        let cout = size(operands, 1, 0)?;
        if size(operands, 1, 1)? != cin / self.groups || !cout.is_multiple_of(self.groups) {
            return Err(shape_error(operands, 1, expected));
        }
        if operands.len() == 3 {
            shape_is(operands, 2, &[Dim::Fixed(cout)])?;
        }
        let rows = self.result_size(operands, 0)?;
        let columns = self.result_size(operands, 1)?;
        let shape = vec![batch, Dim::Fixed(cout), Dim::Fixed(rows), Dim::Fixed(columns)];
        Ok(TensorType::new(dtype, Shape(shape)))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let (x, weight) = (operands[0], operands[1]);
        let [top, left, bottom, right] = self.pads;
        let (height, width) = (x.shape[2], x.shape[3]);
        let (kh, kw) = (weight.shape[2], weight.shape[3]);
        let rows = (height + top + bottom - kh) / self.strides[0] + 1;
        let columns = (width + left + right - kw) / self.strides[1] + 1;
        let shape = [x.shape[0], weight.shape[0], rows, columns];
        // Each task makes some rows of all channels of a group, few enough that its patches stay in the cache.
        let band = (512 / columns).clamp(1, rows);
        let bands = rows.div_ceil(band);
        let channels = weight.shape[0] / self.groups;
        let tasks: Vec<(usize, usize, Vec<f32>)> = (0..shape[0] * self.groups * bands)
            .into_par_iter()
            .map(|task| {
                let (image, rest) = (task / (self.groups * bands), task % (self.groups * bands));
                let (group, first) = (rest / bands, rest % bands * band);
                let out_rows = first..rows.min(first + band);
                let positions = out_rows.len() * columns;
                let patches = self.patches(x, weight, [image, group], out_rows, columns);
                let per_channel = weight.shape[1] * kh * kw;
                let filters = per_channel * channels;
                let filters = &weight.floats()[group * filters..(group + 1) * filters];
                let bias = |c| operands.get(2).map_or(0.0, |b| b.floats()[group * channels + c]);
                let repeated = |c| std::iter::repeat_n(bias(c), positions);
                let mut y: Vec<f32> = (0..channels).flat_map(repeated).collect();
                if per_channel > 0 {
                    multiply_rows(filters, &patches, &mut y, per_channel, positions);
                }
                (image * shape[1] + group * channels, first * columns, y)
            })
            .collect();
        let plane = rows * columns;
        let mut y = vec![0.0; shape.iter().product()];
        for (plane_idx, start, part) in tasks.iter().filter(|t| !t.2.is_empty()) {
            for (c, row) in part.chunks_exact(part.len() / channels).enumerate() {
                let at = (plane_idx + c) * plane + start;
                y[at..at + row.len()].copy_from_slice(row);
            }
        }
        Tensor::float(&shape, y)
    }

    fn macs(&self, operands: &[&TensorType], result: &TensorType) -> u64 {
        let filter = operands[1].shape.dims()[1..].iter().filter_map(|d| d.fixed());
        product(result, filter.fold(1, usize::saturating_mul))
    }

    fn examples() -> Vec<Example> {
        let conv = |strides, pads, groups| Conv2d { strides, pads, groups };
        let same = conv([1, 1], [1, 1, 1, 1], 1);
        let x = Shape::batched(&[4, 5, 7]);
        let half = |s| TensorType::new(DType::F16, s);
        vec![
            Example::f32(
                same.clone(),
                &[x.clone(), Shape::fixed(&[6, 4, 3, 3]), Shape::fixed(&[6])],
            ),
            Example::f32(same.clone(), &[x.clone(), Shape::fixed(&[6, 4, 3, 3])]),
            Example::f32(
                conv([1, 1], [0; 4], 1),
                &[x.clone(), Shape::fixed(&[3, 4, 1, 1]), Shape::fixed(&[3])],
            ),
            Example::f32(
                conv([2, 2], [1, 1, 1, 1], 1),
                &[Shape::batched(&[4, 6, 6]), Shape::fixed(&[4, 4, 3, 3]), Shape::fixed(&[4])],
            ),
            Example::f32(
                conv([2, 1], [0, 1, 1, 0], 1),
                &[Shape::fixed(&[1, 2, 6, 5]), Shape::fixed(&[3, 2, 3, 2])],
            ),
            Example::f32(
                conv([1, 1], [1, 1, 1, 1], 2),
                &[x.clone(), Shape::fixed(&[6, 2, 3, 3]), Shape::fixed(&[6])],
            ),
            Example::f32(conv([1, 1], [0; 4], 4), &[x, Shape::fixed(&[4, 1, 3, 3])]),
            Example::new(
                same,
                vec![half(Shape::batched(&[2, 3, 3])), half(Shape::fixed(&[2, 2, 3, 3]))],
            ),
        ]
    }
}

impl Conv2d {
    /// Rows (`side` 0) or columns (`side` 1) of the result.
    fn result_size(&self, operands: &[&TensorType], side: usize) -> Result<usize, InferError> {
        let axis = 2 + side;
        let (size_in, kernel) = (size(operands, 0, axis)?, size(operands, 1, axis)?);
        let padded = size_in
            .checked_add(self.pads[side])
            .and_then(|n| n.checked_add(self.pads[side + 2]))
            .ok_or_else(|| attribute_error("pads", "make a size that is too large"))?;
        if kernel == 0 || kernel > padded {
            let expected = format!("with a kernel of 1 to {padded} along axis {axis}");
            return Err(shape_error(operands, 1, expected));
        }
        Ok((padded - kernel) / self.strides[side] + 1)
    }

    /// The operand elements under the kernel as a matrix `[Cin/groups · KH · KW, rows · columns]`, for some rows of the
    /// result of one image and group.
    fn patches(
        &self,
        x: &Tensor,
        weight: &Tensor,
        [image, group]: [usize; 2],
        rows: std::ops::Range<usize>,
        columns: usize,
    ) -> Vec<f32> {
        let (height, width) = (x.shape[2], x.shape[3]);
        let (channels, kh, kw) = (weight.shape[1], weight.shape[2], weight.shape[3]);
        let mut patches = Vec::with_capacity(channels * kh * kw * rows.len() * columns);
        for c in 0..channels {
            let plane_idx = image * x.shape[1] + group * channels + c;
            let plane = &x.floats()[plane_idx * height * width..(plane_idx + 1) * height * width];
            for (u, v) in (0..kh).flat_map(|u| (0..kw).map(move |v| (u, v))) {
                for i in rows.clone() {
                    let source = (i * self.strides[0] + u).checked_sub(self.pads[0]);
                    let Some(source) = source.filter(|&s| s < height) else {
                        patches.extend(std::iter::repeat_n(0.0, columns));
                        continue;
                    };
                    let row = &plane[source * width..(source + 1) * width];
                    patches.extend((0..columns).map(|j| {
                        let source = (j * self.strides[1] + v).checked_sub(self.pads[1]);
                        source.and_then(|s| row.get(s)).copied().unwrap_or(0.0)
                    }));
                }
            }
        }
        patches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    fn counting(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::float(shape, (0..n).map(|i| i as f32).collect())
    }

    #[test]
    fn zeros_stand_around_the_image() {
        // A kernel of ones sums the 3×3 neighborhood, by hand.
        let op = Conv2d {
            strides: [1, 1],
            pads: [1; 4],
            groups: 1,
        };
        let kernel = Tensor::float(&[1, 1, 3, 3], vec![1.0; 9]);
        let bias = Tensor::float(&[1], vec![100.0]);
        let y = op.eval(&[&counting(&[1, 1, 3, 3]), &kernel, &bias]);
        let sums = [8.0, 15.0, 12.0, 21.0, 36.0, 27.0, 20.0, 33.0, 24.0];
        assert_eq!(y.floats(), sums.map(|s| s + 100.0));
    }

    #[test]
    fn pads_and_strides_are_told_apart_by_side() {
        // By hand: a row of zeros above and a column of zeros to the right of [[0,1,2],[3,4,5]]; the kernel
        // [[1,10],[100,1000]] at rows 0 and columns 0, 2.
        let op = Conv2d {
            strides: [2, 2],
            pads: [1, 0, 0, 1],
            groups: 1,
        };
        let kernel = Tensor::float(&[1, 1, 2, 2], vec![1.0, 10.0, 100.0, 1000.0]);
        let y = op.eval(&[&counting(&[1, 1, 2, 3]), &kernel]);
        assert_eq!(y, Tensor::float(&[1, 1, 1, 2], vec![1000.0, 200.0]));
    }

    #[test]
    fn groups_do_not_mix_and_images_are_apart() {
        // By hand: 1×1 kernels, four channels in two groups, two images of one pixel.
        let op = Conv2d {
            strides: [1, 1],
            pads: [0; 4],
            groups: 2,
        };
        let kernel = Tensor::float(&[2, 2, 1, 1], vec![1.0, 10.0, 100.0, 1000.0]);
        let y = op.eval(&[&counting(&[2, 4, 1, 1]), &kernel]);
        assert_eq!(
            y,
            Tensor::float(&[2, 2, 1, 1], vec![10.0, 3200.0, 54.0, 7600.0])
        );
    }

    #[test]
    fn bands_of_rows_join_seamlessly() {
        // The centre tap alone copies the image, here one of more rows than a band has.
        let op = Conv2d {
            strides: [1, 1],
            pads: [1; 4],
            groups: 1,
        };
        let mut taps = vec![0.0; 9];
        taps[4] = 1.0;
        let x = counting(&[1, 1, 50, 40]);
        let y = op.eval(&[&x, &Tensor::float(&[1, 1, 3, 3], taps)]);
        assert_eq!(y, x);
    }

    #[test]
    fn multiply_adds_are_counted() {
        // The first convolution of SD v1's UNet: 320 · 64 · 64 results of 4 · 3 · 3 products.
        let op = Conv2d {
            strides: [1, 1],
            pads: [1; 4],
            groups: 1,
        };
        let x = TensorType::new(DType::F32, Shape::batched(&[4, 64, 64]));
        let weight = TensorType::new(DType::F32, Shape::fixed(&[320, 4, 3, 3]));
        let y = op.infer(&[&x, &weight]).unwrap();
        assert_eq!(y.shape, Shape::batched(&[320, 64, 64]));
        assert_eq!(op.macs(&[&x, &weight], &y), 47_185_920);
    }

    #[test]
    fn refused_operands_are_named() {
        let op = |strides, groups| Conv2d {
            strides,
            pads: [1; 4],
            groups,
        };
        let ty = |s: &[usize]| TensorType::new(DType::F32, Shape::fixed(s));
        let x = ty(&[1, 4, 8, 8]);
        let message =
            |op: Conv2d, weight: &[usize]| op.infer(&[&x, &ty(weight)]).unwrap_err().to_string();
        let kernel = [6, 4, 3, 3];
        assert_eq!(
            message(op([1, 1], 3), &kernel),
            "attribute groups is 3, which does not divide 4 channels"
        );
        assert_eq!(
            message(op([0, 1], 1), &kernel),
            "attribute strides must be 1 or more"
        );
        assert_eq!(
            message(op([1, 1], 2), &kernel),
            "operand 1 must have shape [Cout,2,KH,KW], has [6,4,3,3]"
        );
        assert_eq!(
            message(op([1, 1], 1), &[6, 4, 3, 11]),
            "operand 1 must have shape with a kernel of 1 to 10 along axis 3, has [6,4,3,11]"
        );
        let bias = ty(&[4]);
        let error = op([1, 1], 1).infer(&[&x, &ty(&kernel), &bias]).unwrap_err();
        assert_eq!(error.to_string(), "operand 2 must have shape [6], has [4]");
    }
}
