//! `y = x · sigmoid(x)` (`torch.nn.SiLU`, the activation of diffusers `ResnetBlock2D`).

use super::elementwise::{eval_unary, infer_unary};
use super::sigmoid::sigmoid;
use super::{Example, InferError, Mul, Sigmoid, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x · sigmoid(x)`; any float type.
    Silu {}

    const NAME: &'static str = "silu";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, |x| x * sigmoid(x))
    }

    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let x = operands[0];
        let gate = graph.add(Sigmoid {}, &[x], name)?;
        Ok(Some(graph.add(Mul {}, &[x, gate], name)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Silu {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Silu {}, &[Shape::fixed(&[])]),
            Example::new(Silu {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_values() {
        // x / (1 + math.exp(-x)) of Python
        let x = Tensor::float(&[5], vec![0.0, 1.0, -1.0, 3.0, -0.5]);
        let expected = [0.0, 0.731_058_6, -0.268_941_4, 2.857_722, -0.188_770_3];
        let y = Silu {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-6, "{y} is not {e}");
        }
    }
}
