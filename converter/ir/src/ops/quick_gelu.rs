//! `y = x · sigmoid(1.702 x)` (transformers `QuickGELUActivation`, in the text encoder of SD 1.x).

use super::elementwise::{eval_unary, infer_unary, scalar_like};
use super::sigmoid::sigmoid;
use super::{Example, InferError, Mul, Sigmoid, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x · sigmoid(1.702 x)`; any float type.
    QuickGelu {}

    const NAME: &'static str = "quick_gelu";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, |x| x * sigmoid(SLOPE * x))
    }

    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let x = operands[0];
        let slope = scalar_like(graph, x, SLOPE, name);
        let scaled = graph.add(Mul {}, &[x, slope], name)?;
        let gate = graph.add(Sigmoid {}, &[scaled], name)?;
        Ok(Some(graph.add(Mul {}, &[x, gate], name)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(QuickGelu {}, &[Shape::batched(&[3, 5])]),
            Example::f32(QuickGelu {}, &[Shape::fixed(&[])]),
            Example::new(QuickGelu {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

/// With it the sigmoid comes near the normal distribution that GELU has.
const SLOPE: f32 = 1.702;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_values() {
        // x / (1 + math.exp(-1.702 * x)) of Python
        let x = Tensor::float(&[5], vec![0.0, 1.0, -1.0, 3.0, -0.5]);
        let expected = [0.0, 0.845_795_8, -0.154_204_2, 2.981_929, -0.149_611_6];
        let y = QuickGelu {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-6, "{y} is not {e}");
        }
    }
}
