//! `y = mean(x)` over some axes, kept with size 1 (`torch.mean` with `keepdim`, ONNX `ReduceMean`).

use super::check::{InferError, arity, attribute_error, float, size};
use super::elementwise::{broadcast_strides, offsets};
use super::{Example, operator};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x)` → the mean of `x` over `axes`, which the result has with size 1; any float type.
    ReduceMean {
        /// The dimensions that are averaged, ascending, at least one; not the batch.
        axes: Vec<usize>,
    }

    const NAME: &'static str = "reduce_mean";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        float(operands, 0)?;
        let mut ty = operands[0].clone();
        let rank = ty.shape.rank();
        let ascending = self.axes.windows(2).all(|w| w[0] < w[1]);
        if !ascending || self.axes.last().is_none_or(|&last| last >= rank) {
            let problem = format!("is {:?}, not ascending axes of rank {rank}", self.axes);
            return Err(attribute_error("axes", problem));
        }
        for &axis in &self.axes {
            size(operands, 0, axis)?;
            ty.shape.0[axis] = Dim::Fixed(1);
        }
        Ok(ty)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let mut shape = x.shape.clone();
        let mut count = 1;
        for &axis in &self.axes {
            count *= x.shape[axis];
            shape[axis] = 1;
        }
        let strides = broadcast_strides(&shape, &x.shape);
        let mut sums = vec![0f64; shape.iter().product()];
        let (columns, outer) = x.shape.split_last().expect("infer: an axis is reduced");
        let step = strides[outer.len()];
        let x_strides = x.strides();
        for [from, to] in offsets(outer, [&x_strides, &strides]) {
            for (c, &v) in x.floats()[from..from + columns].iter().enumerate() {
                sums[to + c * step] += f64::from(v);
            }
        }
        let means = sums.into_iter().map(|s| (s / count as f64) as f32);
        Tensor::float(&shape, means.collect())
    }

    fn examples() -> Vec<Example> {
        let over = |axes: &[usize]| ReduceMean { axes: axes.to_vec() };
        vec![
            Example::f32(over(&[2]), &[Shape::batched(&[4, 6])]),
            Example::f32(over(&[1, 3]), &[Shape::batched(&[4, 3, 2])]),
            Example::f32(over(&[0]), &[Shape::fixed(&[5])]),
            Example::new(over(&[1]), vec![TensorType::new(DType::F16, Shape::batched(&[3]))]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn axes_are_averaged_and_kept() {
        // numpy: np.arange(8).reshape(2, 2, 2).mean(axis=(0, 2), keepdims=True)
        let x = Tensor::float(&[2, 2, 2], (0u8..8).map(f32::from).collect());
        let y = ReduceMean { axes: vec![0, 2] }.eval(&[&x]);
        assert_eq!(y, Tensor::float(&[1, 2, 1], vec![2.5, 4.5]));
        // numpy: … .mean(axis=1, keepdims=True)
        let y = ReduceMean { axes: vec![1] }.eval(&[&x]);
        assert_eq!(y, Tensor::float(&[2, 1, 2], vec![1.0, 2.0, 5.0, 6.0]));
    }

    #[test]
    fn other_lists_than_ascending_axes_are_refused() {
        let x = TensorType::new(DType::F32, Shape::batched(&[3, 4]));
        let message = |axes: Vec<usize>| ReduceMean { axes }.infer(&[&x]).unwrap_err().to_string();
        for axes in [vec![], vec![2, 1], vec![1, 1], vec![3]] {
            let problem = format!("attribute axes is {axes:?}, not ascending axes of rank 3");
            assert_eq!(message(axes), problem);
        }
        assert_eq!(
            message(vec![0]),
            "operand 0 must have shape with a fixed size along axis 0, has [N,3,4]"
        );
    }
}
