//! Sinusoids of a timestep (diffusers `get_timestep_embedding`): with `half = dim/2` and
//! `freqᵢ = e^(-ln(max_period) · i / (half - freq_shift))`, `y = [sin(t·freq), cos(t·freq)]`, the halves swapped by
//! `flip_sin_to_cos`.

use super::check::{InferError, arity, attribute_error, shape_error};
use super::{Concat, Cos, Example, Mul, Reshape, Sin, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};
use crate::weight::LazyTensor;

operator! {
    /// `(t[])` → `[1, dim]`, or `(t[N])` → `[N, dim]`. Operand and result are f32 in a graph of any precision: in f16
    /// the angle of a late timestep would be off by up to a quarter radian.
    TimestepEmbedding {
        /// Width of the embedding; even.
        dim: usize,
        /// Whether the cosines stand before the sines.
        flip_sin_to_cos: bool,
        /// Taken off `half` in the exponent (diffusers `downscale_freq_shift`); below `half`.
        freq_shift: f32,
        /// Period of the slowest sinusoid in turns of 2π; positive.
        max_period: f32,
    }

    const NAME: &'static str = "timestep_embedding";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 1..=1, "1")?;
        if operands[0].dtype != DType::F32 {
            return Err(InferError::DType {
                operand: 0,
                expected: "f32".to_owned(),
                found: operands[0].dtype,
            });
        }
        if self.dim == 0 || !self.dim.is_multiple_of(2) {
            let problem = format!("is {}, must be even and not 0", self.dim);
            return Err(attribute_error("dim", problem));
        }
        let half = (self.dim / 2) as f32;
        if self.freq_shift.is_nan() || self.freq_shift >= half {
            let problem = format!("is {}, must be below {half}", self.freq_shift);
            return Err(attribute_error("freq_shift", problem));
        }
        if self.max_period.is_nan() || self.max_period <= 0.0 {
            let problem = format!("is {}, must be positive", self.max_period);
            return Err(attribute_error("max_period", problem));
        }
        let steps = match operands[0].shape.dims() {
            [] => Dim::Fixed(1),
            [n] => *n,
            _ => return Err(shape_error(operands, 0, "[] or [N]")),
        };
        Ok(TensorType::new(DType::F32, Shape(vec![steps, Dim::Fixed(self.dim)])))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        let t = operands[0].floats();
        let frequencies = self.frequencies();
        let mut y = Vec::with_capacity(t.len() * self.dim);
        for &t in t {
            let sines = frequencies.iter().map(|f| (t * f).sin());
            let cosines = frequencies.iter().map(|f| (t * f).cos());
            if self.flip_sin_to_cos {
                y.extend(cosines.chain(sines));
            } else {
                y.extend(sines.chain(cosines));
            }
        }
        Tensor::float(&[t.len(), self.dim], y)
    }

    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let dims = graph.ty(operands[0]).shape.dims();
        let column = vec![dims.first().copied().unwrap_or(Dim::Fixed(1)), Dim::Fixed(1)];
        let table = LazyTensor::from_f32(&[1, self.dim / 2], &self.frequencies());
        let frequencies = graph.constant(name, table);
        let t = graph.add(Reshape { shape: column }, &[operands[0]], name)?;
        let angles = graph.add(Mul {}, &[t, frequencies], name)?;
        let mut halves = [
            graph.add(Sin {}, &[angles], name)?,
            graph.add(Cos {}, &[angles], name)?,
        ];
        if self.flip_sin_to_cos {
            halves.reverse();
        }
        Ok(Some(graph.add(Concat { axis: 1 }, &halves, name)?))
    }

    fn examples() -> Vec<Example> {
        let embedding = |flip_sin_to_cos, freq_shift| TimestepEmbedding {
            dim: 8,
            flip_sin_to_cos,
            freq_shift,
            max_period: 10000.0,
        };
        vec![
            Example::f32(embedding(true, 0.0), &[Shape::fixed(&[])]),
            Example::f32(embedding(true, 0.0), &[Shape::batched(&[])]),
            Example::f32(embedding(false, 1.0), &[Shape::fixed(&[3])]),
        ]
    }
}

impl TimestepEmbedding {
    /// Angle per unit of time of each sinusoid. The steps are those of diffusers and, like there, in f32: at late
    /// timesteps an angle shows every rounding. Only the power is taken in f64, to be rounded once.
    fn frequencies(&self) -> Vec<f32> {
        let half = self.dim / 2;
        let slope = -f64::from(self.max_period).ln() as f32;
        let span = (half as f64 - f64::from(self.freq_shift)) as f32;
        (0..half)
            .map(|i| f64::from(slope * i as f32 / span).exp() as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    fn embed(dim: usize, flip_sin_to_cos: bool, freq_shift: f32, t: &Tensor) -> Tensor {
        let max_period = 10000.0;
        TimestepEmbedding {
            dim,
            flip_sin_to_cos,
            freq_shift,
            max_period,
        }
        .eval(&[t])
    }

    fn assert_near(y: &Tensor, expected: &[f32]) {
        assert_eq!(y.len(), expected.len());
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-6, "{y} is not {e}");
        }
    }

    #[test]
    fn cosines_come_first_when_flipped() {
        // cos 10, cos 0.1, sin 10, sin 0.1
        let y = embed(4, true, 0.0, &Tensor::float(&[], vec![10.0]));
        assert_eq!(y.shape, [1, 4]);
        assert_near(&y, &[-0.839_071_5, 0.995_004_2, -0.544_021_1, 0.099_833_41]);
    }

    #[test]
    fn the_shift_moves_the_last_frequency_to_the_period() {
        // sin t, sin t/10000, cos t, cos t/10000 for t = 1 and 500
        let y = embed(4, false, 1.0, &Tensor::float(&[2], vec![1.0, 500.0]));
        let first = [0.841_471, 1e-4, 0.540_302_3, 1.0];
        let second = [-0.467_771_8, 0.049_979_16, -0.883_849_3, 0.998_750_3];
        assert_near(&y, &[first, second].concat());
    }

    #[test]
    fn attributes_that_give_no_frequencies_are_refused() {
        let t = TensorType::new(DType::F32, Shape::fixed(&[]));
        let message = |dim, freq_shift, max_period, t: &TensorType| {
            let op = TimestepEmbedding {
                dim,
                flip_sin_to_cos: true,
                freq_shift,
                max_period,
            };
            op.infer(&[t]).unwrap_err().to_string()
        };
        assert_eq!(
            message(3, 0.0, 1e4, &t),
            "attribute dim is 3, must be even and not 0"
        );
        assert_eq!(
            message(2, 1.0, 1e4, &t),
            "attribute freq_shift is 1, must be below 1"
        );
        assert_eq!(
            message(2, 0.0, 0.0, &t),
            "attribute max_period is 0, must be positive"
        );
        let half = TensorType::new(DType::F16, Shape::fixed(&[]));
        assert_eq!(message(2, 0.0, 1e4, &half), "operand 0 must be f32, is f16");
        let square = TensorType::new(DType::F32, Shape::fixed(&[2, 2]));
        assert_eq!(
            message(2, 0.0, 1e4, &square),
            "operand 0 must have shape [] or [N], has [2,2]"
        );
    }
}
