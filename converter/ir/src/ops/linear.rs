//! `y = x · weightᵀ + bias` (`torch.nn.Linear`).

use super::check::{InferError, arity, dims, float, same_dtype, shape_error, shape_is, size};
use super::matmul::{multiply, product, transposed};
use super::{Add, Example, MatMul, Transpose, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(x[…,Cin], weight[Cout,Cin], bias[Cout]?)` → `[…,Cout]`; operands of one float type, `x` of rank 2 or more.
    Linear {}

    const NAME: &'static str = "linear";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 2..=3, "2 or 3")?;
        let dtype = float(operands, 0)?;
        same_dtype(operands)?;
        let [lead @ .., _, _] = operands[0].shape.dims() else {
            return Err(shape_error(operands, 0, "of rank 2 or more"));
        };
        let cin = size(operands, 0, lead.len() + 1)?;
        let cout = {
            dims::<2>(operands, 1, &format!("[Cout,{cin}]"))?;
            size(operands, 1, 0)?
        };
        shape_is(operands, 1, &[Dim::Fixed(cout), Dim::Fixed(cin)])?;
        if operands.len() == 3 {
            shape_is(operands, 2, &[Dim::Fixed(cout)])?;
        }
        let mut shape = operands[0].shape.clone();
        shape.0[lead.len() + 1] = Dim::Fixed(cout);
        Ok(TensorType::new(dtype, shape))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let (x, weight) = (operands[0], operands[1]);
        let (cout, cin) = (weight.shape[0], weight.shape[1]);
        let (_, lead) = x.shape.split_last().expect("infer: rank 2 or more");
        let rows: usize = lead.iter().product();
        let mut y = match operands.get(2) {
            Some(bias) => bias.floats().repeat(rows),
            None => vec![0.0; rows * cout],
        };
        let columns = transposed(weight.floats(), cout, cin);
        multiply(x.floats(), &columns, &mut y, [rows, cin, cout]);
        Tensor::float(&[lead, &[cout]].concat(), y)
    }

    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let columns = graph.add(Transpose { perm: vec![1, 0] }, &[operands[1]], name)?;
        let mut y = graph.add(MatMul {}, &[operands[0], columns], name)?;
        if let Some(&bias) = operands.get(2) {
            y = graph.add(Add {}, &[y, bias], name)?;
        }
        Ok(Some(y))
    }

    fn macs(&self, operands: &[&TensorType], result: &TensorType) -> u64 {
        let cin = operands[1].shape.dims()[1].fixed();
        product(result, cin.unwrap_or(0))
    }

    fn examples() -> Vec<Example> {
        let (weight, bias) = (Shape::fixed(&[6, 5]), Shape::fixed(&[6]));
        let half = |s: &Shape| TensorType::new(DType::F16, s.clone());
        vec![
            Example::f32(Linear {}, &[Shape::batched(&[3, 5]), weight.clone(), bias.clone()]),
            Example::f32(Linear {}, &[Shape::batched(&[5]), weight.clone()]),
            Example::f32(Linear {}, &[Shape::fixed(&[1, 5]), weight.clone(), bias]),
            Example::new(Linear {}, vec![half(&Shape::batched(&[2, 5])), half(&weight)]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn weights_are_stored_by_output() {
        // numpy: np.array([[1, 2, 3]]) @ np.array([[1, 0, -1], [2, 1, 0]]).T + np.array([10, 20])
        let x = Tensor::float(&[1, 3], vec![1.0, 2.0, 3.0]);
        let weight = Tensor::float(&[2, 3], vec![1.0, 0.0, -1.0, 2.0, 1.0, 0.0]);
        let bias = Tensor::float(&[2], vec![10.0, 20.0]);
        let y = Linear {}.eval(&[&x, &weight, &bias]);
        assert_eq!(y, Tensor::float(&[1, 2], vec![8.0, 24.0]));
        assert_eq!(Linear {}.eval(&[&x, &weight]).floats(), [-2.0, 4.0]);
    }

    #[test]
    fn multiply_adds_are_counted() {
        let ty = |s| TensorType::new(DType::F32, s);
        let (x, weight) = (
            ty(Shape::batched(&[77, 768])),
            ty(Shape::fixed(&[3072, 768])),
        );
        let y = Linear {}.infer(&[&x, &weight]).unwrap();
        assert_eq!(Linear {}.macs(&[&x, &weight], &y), 77 * 768 * 3072);
    }

    #[test]
    fn refused_operands_are_named() {
        let ty = |s| TensorType::new(DType::F32, Shape::fixed(s));
        let (x, weight) = (ty(&[2, 3]), ty(&[4, 3]));
        let message = |types: &[&TensorType]| Linear {}.infer(types).unwrap_err().to_string();
        assert_eq!(message(&[&x]), "operand count must be 2 or 3, is 1");
        assert_eq!(
            message(&[&x, &ty(&[3, 4])]),
            "operand 1 must have shape [3,3], has [3,4]"
        );
        assert_eq!(
            message(&[&x, &ty(&[4])]),
            "operand 1 must have shape [Cout,3], has [4]"
        );
        assert_eq!(
            message(&[&x, &weight, &ty(&[3])]),
            "operand 2 must have shape [4], has [3]"
        );
        assert_eq!(
            message(&[&ty(&[3]), &weight]),
            "operand 0 must have shape of rank 2 or more, has [3]"
        );
    }
}
