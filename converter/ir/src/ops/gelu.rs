//! `y = x/2 · (1 + erf(x/√2))` (`torch.nn.GELU` with `approximate="none"`: diffusers `GEGLU`, text encoder of SD 2.x).

use super::elementwise::{eval_unary, infer_unary, scalar_like};
use super::erf::erf;
use super::{Add, Erf, Example, InferError, Mul, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

operator! {
    /// `(x)` → `x/2 · (1 + erf(x/√2))`; any float type.
    Gelu {}

    const NAME: &'static str = "gelu";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        infer_unary(operands)
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        eval_unary(operands, gelu)
    }

    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let x = operands[0];
        let factor = scalar_like(graph, x, std::f32::consts::FRAC_1_SQRT_2, name);
        let one = scalar_like(graph, x, 1.0, name);
        let half = scalar_like(graph, x, 0.5, name);
        let scaled = graph.add(Mul {}, &[x, factor], name)?;
        let error = graph.add(Erf {}, &[scaled], name)?;
        let gate = graph.add(Add {}, &[error, one], name)?;
        let halved = graph.add(Mul {}, &[x, half], name)?;
        Ok(Some(graph.add(Mul {}, &[halved, gate], name)?))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::f32(Gelu {}, &[Shape::batched(&[3, 5])]),
            Example::f32(Gelu {}, &[Shape::fixed(&[])]),
            Example::new(Gelu {}, vec![TensorType::new(DType::F16, Shape::fixed(&[7]))]),
        ]
    }
}

fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    #[test]
    fn known_values() {
        // x * 0.5 * (1 + math.erf(x / math.sqrt(2))) of Python
        let x = Tensor::float(&[5], vec![0.0, 1.0, -1.0, 3.0, -0.5]);
        let expected = [0.0, 0.841_344_7, -0.158_655_3, 2.995_95, -0.154_268_8];
        let y = Gelu {}.eval(&[&x]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-6, "{y} is not {e}");
        }
    }
}
