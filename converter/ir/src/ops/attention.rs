//! Scaled dot-product attention over heads (diffusers `AttnProcessor2_0`, transformers `CLIPAttention`, both on
//! `torch.nn.functional.scaled_dot_product_attention`): per head `softmax(scale · q · kᵀ + mask) · v`.

use rayon::prelude::*;

use super::check::{InferError, arity, attribute_error, dims, float, same_dtype, shape_error};
use super::check::{shape_is, size};
use super::elementwise::{broadcast_strides, offsets, scalar_like};
use super::matmul::{multiply_rows, transposed};
use super::softmax::softmax;
use super::{Add, Example, MatMul, Mul, Reshape, Softmax, Transpose, operator};
use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// `(q[N,S,C], k[N,T,C], v[N,T,C], mask?)` → `[N,S,C]`; operands of one float type. Head `h` has the channels
    /// `h·C/heads ..`. The mask is added to the logits `[N,heads,S,T]`, to which it broadcasts.
    Attention {
        /// Number of heads; divides `C`.
        heads: usize,
        /// Factor on `q`, `1 / √(C / heads)` as a rule.
        scale: f32,
    }

    const NAME: &'static str = "attention";
    const COMPOSITE: bool = true;

    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
        arity(operands, 3..=4, "3 or 4")?;
        let dtype = float(operands, 0)?;
        same_dtype(operands)?;
        let &[n, s, _] = dims(operands, 0, "[N,S,C]")?;
        let channels = size(operands, 0, 2)?;
        if self.heads == 0 || !channels.is_multiple_of(self.heads) {
            let problem = format!("is {}, which does not divide {channels} channels", self.heads);
            return Err(attribute_error("heads", problem));
        }
        size(operands, 0, 1)?;
        dims::<3>(operands, 1, "[N,T,C]")?;
        let keys = Dim::Fixed(size(operands, 1, 1)?);
        shape_is(operands, 1, &[n, keys, Dim::Fixed(channels)])?;
        shape_is(operands, 2, &[n, keys, Dim::Fixed(channels)])?;
        if let Some(mask) = operands.get(3) {
            let logits = Shape(vec![n, Dim::Fixed(self.heads), s, keys]);
            if mask.shape.broadcast(&logits).as_ref() != Some(&logits) {
                return Err(shape_error(operands, 3, format!("that broadcasts to {logits}")));
            }
        }
        Ok(TensorType::new(dtype, operands[0].shape.clone()))
    }

    fn eval(&self, operands: &[&Tensor]) -> Tensor {
        /// Queries whose logits are held at once.
        const BAND: usize = 64;
        let (q, k) = (operands[0], operands[1]);
        let (n, s, channels, t) = (q.shape[0], q.shape[1], q.shape[2], k.shape[1]);
        let d = channels / self.heads;
        if q.is_empty() {
            return q.clone();
        }
        let mask = operands.get(3).map(|mask| {
            let strides = broadcast_strides(&mask.shape, &[n, self.heads, s, t]);
            (mask.floats(), strides)
        });
        let heads: Vec<Vec<f32>> = (0..n * self.heads)
            .into_par_iter()
            .map(|i| {
                let (image, head) = (i / self.heads, i % self.heads);
                let rows = |x: &Tensor| head_rows(x, image, head * d..(head + 1) * d);
                let scaled: Vec<f32> = rows(q).iter().map(|v| v * self.scale).collect();
                let mut y = vec![0.0; s * d];
                if t == 0 {
                    return y;
                }
                let (k, v) = (transposed(&rows(k), t, d), rows(operands[2]));
                let bands = scaled.chunks(BAND * d).zip(y.chunks_mut(BAND * d));
                for (band, (q, y)) in bands.enumerate() {
                    let queries = q.len() / d;
                    let mut logits = vec![0.0; queries * t];
                    multiply_rows(q, &k, &mut logits, d, t);
                    if let Some((mask, strides)) = &mask {
                        let row = band * BAND * strides[2];
                        let start = image * strides[0] + head * strides[1] + row;
                        let inner = offsets(&[queries, t], [&strides[2..]]);
                        for (logit, [at]) in logits.iter_mut().zip(inner) {
                            *logit += mask[start + at];
                        }
                    }
                    logits.chunks_exact_mut(t).for_each(softmax);
                    multiply_rows(&logits, &v, y, t, d);
                }
                y
            })
            .collect();
        let mut y = Vec::with_capacity(q.len());
        for image in heads.chunks_exact(self.heads) {
            for row in 0..s {
                for head in image {
                    y.extend_from_slice(&head[row * d..(row + 1) * d]);
                }
            }
        }
        Tensor::float(&q.shape, y)
    }

    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let result = graph.ty(operands[0]).shape.0.clone();
        let mut q = operands[0];
        if self.scale != 1.0 {
            let scale = scalar_like(graph, q, self.scale, name);
            q = graph.add(Mul {}, &[q, scale], name)?;
        }
        let q = self.split_heads(graph, q, [0, 2, 1, 3], name)?;
        let k = self.split_heads(graph, operands[1], [0, 2, 3, 1], name)?;
        let v = self.split_heads(graph, operands[2], [0, 2, 1, 3], name)?;
        let mut logits = graph.add(MatMul {}, &[q, k], name)?;
        if let Some(&mask) = operands.get(3) {
            logits = graph.add(Add {}, &[logits, mask], name)?;
        }
        let weights = graph.add(Softmax { axis: 3 }, &[logits], name)?;
        let heads = graph.add(MatMul {}, &[weights, v], name)?;
        let rows = graph.add(Transpose { perm: vec![0, 2, 1, 3] }, &[heads], name)?;
        Ok(Some(graph.add(Reshape { shape: result }, &[rows], name)?))
    }

    fn macs(&self, operands: &[&TensorType], result: &TensorType) -> u64 {
        let keys = operands[1].shape.dims()[1].fixed().unwrap_or(0);
        super::matmul::product(result, keys).saturating_mul(2)
    }

    fn examples() -> Vec<Example> {
        let attention = |heads, scale| Attention { heads, scale };
        let (q, k) = (Shape::batched(&[5, 8]), Shape::batched(&[3, 8]));
        let half = TensorType::new(DType::F16, Shape::batched(&[3, 4]));
        vec![
            Example::f32(attention(2, 0.5), &[q.clone(), q.clone(), q.clone()]),
            Example::f32(attention(4, 0.7), &[q.clone(), k.clone(), k.clone()]),
            Example::f32(
                attention(1, 1.0),
                &[q.clone(), q.clone(), q.clone(), Shape::fixed(&[5, 5])],
            ),
            Example::f32(attention(2, 0.5), &[q, k.clone(), k, Shape::batched(&[1, 1, 3])]),
            Example::f32(
                attention(2, 0.6),
                &[Shape::fixed(&[2, 1, 6]), Shape::fixed(&[2, 4, 6]), Shape::fixed(&[2, 4, 6])],
            ),
            Example::new(attention(2, 0.5), vec![half.clone(), half.clone(), half]),
        ]
    }
}

impl Attention {
    /// `x[N,S,C]` as `[N,S,heads,C/heads]`, transposed.
    fn split_heads(
        &self,
        graph: &mut Graph,
        x: ValueId,
        perm: [usize; 4],
        name: &str,
    ) -> Result<ValueId, BuildError> {
        let mut shape = graph.ty(x).shape.0.clone();
        if let Some(Dim::Fixed(channels)) = shape.pop() {
            shape.extend([Dim::Fixed(self.heads), Dim::Fixed(channels / self.heads)]);
        }
        let heads = graph.add(Reshape { shape }, &[x], name)?;
        graph.add(
            Transpose {
                perm: perm.to_vec(),
            },
            &[heads],
            name,
        )
    }
}

/// Some channels of one image of `x[N,S,C]`, row by row.
fn head_rows(x: &Tensor, image: usize, channels: std::ops::Range<usize>) -> Vec<f32> {
    let (rows, width) = (x.shape[1], x.shape[2]);
    let image = &x.floats()[image * rows * width..(image + 1) * rows * width];
    let row = |r: &'_ [f32]| r[channels.clone()].to_vec();
    image.chunks_exact(width).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Operator;

    fn tensors() -> [Tensor; 3] {
        let q = vec![1.0, 0.0, 2.0, -1.0, 0.5, 1.0, -1.0, 0.0];
        let k = vec![1.0, 1.0, 0.0, 1.0, 0.0, -1.0, 1.0, 2.0, 2.0, 0.0, 1.0, 0.0];
        let v = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -1.0, 0.0, 1.0, 2.0];
        [
            Tensor::float(&[1, 2, 4], q),
            Tensor::float(&[1, 3, 4], k),
            Tensor::float(&[1, 3, 4], v),
        ]
    }

    fn assert_near(y: &Tensor, expected: [f32; 8]) {
        assert_eq!(y.shape, [1, 2, 4]);
        for (y, e) in y.floats().iter().zip(expected) {
            assert!((y - e).abs() < 1e-5, "{y} is not {e}");
        }
    }

    // The expected values of the next two tests are those of the formula in float64 numpy, with two heads and scale 0.5.

    #[test]
    fn heads_attend_on_their_own() {
        let [q, k, v] = tensors();
        let y = Attention {
            heads: 2,
            scale: 0.5,
        }
        .eval(&[&q, &k, &v]);
        let first = [0.732_334_1, 1.732_334, 2.667_832, 3.667_832];
        let second = [0.800_716, 1.800_716, 3.548_137, 4.548_137];
        assert_near(&y, [first, second].concat().try_into().unwrap());
    }

    #[test]
    fn the_mask_is_added_to_the_logits() {
        let [q, k, v] = tensors();
        let mask = Tensor::float(&[2, 3], vec![0.0, -1.0, -10000.0, 0.5, 0.0, 1.0]);
        let y = Attention {
            heads: 2,
            scale: 0.5,
        }
        .eval(&[&q, &k, &v, &mask]);
        let first = [1.729_702, 2.729_702, 4.510_163, 5.510_163];
        let second = [0.237_954_5, 1.237_954, 2.776_812, 3.776_812];
        assert_near(&y, [first, second].concat().try_into().unwrap());
    }

    #[test]
    fn both_products_are_counted() {
        // Cross-attention of SD v1's first level: 4096 positions, 77 tokens, 320 channels.
        let q = TensorType::new(DType::F32, Shape::batched(&[4096, 320]));
        let k = TensorType::new(DType::F32, Shape::batched(&[77, 320]));
        let op = Attention {
            heads: 8,
            scale: 0.158,
        };
        assert_eq!(op.macs(&[&q, &k, &k], &q), 2 * 4096 * 77 * 320);
    }

    #[test]
    fn refused_operands_are_named() {
        let op = Attention {
            heads: 2,
            scale: 1.0,
        };
        let ty = |s| TensorType::new(DType::F32, s);
        let (q, k) = (ty(Shape::batched(&[5, 8])), ty(Shape::batched(&[3, 8])));
        let message =
            |op: &Attention, types: &[&TensorType]| op.infer(types).unwrap_err().to_string();
        assert_eq!(
            message(
                &Attention {
                    heads: 3,
                    scale: 1.0
                },
                &[&q, &k, &k]
            ),
            "attribute heads is 3, which does not divide 8 channels"
        );
        assert_eq!(
            message(&op, &[&q, &k, &q]),
            "operand 2 must have shape [N,3,8], has [N,5,8]"
        );
        assert_eq!(
            message(&op, &[&q, &k, &k, &ty(Shape::fixed(&[3, 5]))]),
            "operand 3 must have shape that broadcasts to [N,2,5,3], has [3,5]"
        );
    }
}
