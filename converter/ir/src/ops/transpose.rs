//! `y[i₀, i₁, …]` with dimensions reordered: `y.shape[d] = x.shape[perm[d]]` (`torch.permute`, ONNX `Transpose`).

use super::check::{InferError, arity, attribute_error};
use super::elementwise::offsets;
use super::{Example, operator};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x` with its dimensions in the order `perm`; any element type.
    Transpose {
        /// For each dimension of the result, the dimension of the operand that it is.
        perm: Vec<usize>,
    }

    const NAME: &'static str = "transpose";

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        let dims = operands[0].shape.dims();
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..dims.len()) {
            let rank = dims.len();
            let problem = format!("is {:?}, not an order of {rank} dimensions", self.perm);
            return Err(attribute_error("perm", problem));
        }
        let shape = Shape(self.perm.iter().map(|&p| dims[p]).collect());
        Ok(TensorType::new(operands[0].dtype, shape))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let x = operands[0];
        let own = x.strides();
        let shape: Vec<usize> = self.perm.iter().map(|&p| x.shape[p]).collect();
        let strides: Vec<usize> = self.perm.iter().map(|&p| own[p]).collect();
        match &x.elements {
            Elements::Float(v) => Tensor::float(&shape, gather(v, &shape, &strides)),
            Elements::Int(v) => Tensor::int(&shape, gather(v, &shape, &strides)),
        }
    }

    fn examples() -> Vec<Example> {
        let to = |perm: &[usize]| Transpose { perm: perm.to_vec() };
        let ids = TensorType::new(DType::I64, Shape::fixed(&[2, 3]));
        vec![
            Example::f32(to(&[0, 2, 1, 3]), &[Shape::batched(&[3, 2, 5])]),
            Example::f32(to(&[0, 2, 3, 1]), &[Shape::batched(&[3, 2, 5])]),
            Example::f32(to(&[1, 0]), &[Shape::fixed(&[4, 3])]),
            Example::f32(to(&[]), &[Shape::fixed(&[])]),
            Example::new(to(&[1, 0]), vec![ids]),
        ]
    }
}

fn gather<T: Copy>(x: &[T], shape: &[usize], strides: &[usize]) -> Vec<T> {
    let (&columns, outer) = shape.split_last().unwrap_or((&1, &[]));
    let step = strides.last().copied().unwrap_or(0);
    let mut out = Vec::with_capacity(x.len());
    for [start] in offsets(outer, [strides]) {
        out.extend((0..columns).map(|c| x[start + c * step]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn dimensions_change_places() {
        // numpy: np.arange(6).reshape(1, 2, 3).transpose(2, 0, 1)
        let x = Tensor::int(&[1, 2, 3], (0..6).collect());
        let y = Transpose {
            perm: vec![2, 0, 1],
        }
        .eval(&[&x]);
        assert_eq!(y, Tensor::int(&[3, 1, 2], vec![0, 3, 1, 4, 2, 5]));
    }

    #[test]
    fn other_lists_than_permutations_are_refused() {
        let x = TensorType::new(DType::F32, Shape::batched(&[3]));
        for perm in [vec![0, 0], vec![0], vec![0, 2], vec![1, 0, 2]] {
            let problem = format!("attribute perm is {perm:?}, not an order of 2 dimensions");
            assert_eq!(
                Transpose { perm }.infer(&[&x]).unwrap_err().to_string(),
                problem
            );
        }
    }
}
