//! Transformers in the layout of the Neural Engine: tokens `[N,S,C]` stand as `[N,C,1,S]`, the sequence last and the channels
//! where convolutions have them (Apple, "Deploying Transformers on the Apple Neural Engine").
//!
//! Which operators compute in it follows from the graph. Linear layers, layer normalizations and attention begin; what is
//! between them goes along. A view of an image `[N,C,H,W]` as tokens, and back, is one reshape, and nothing else between the
//! operations of a block moves elements, but for the keys of attention. A value is converted once where an operator wants it
//! the other way.

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::ops::{Concat, LayerNorm, Slice};
use snapc_ir::{LazyTensor, Node, Op, ValueId};
use snapc_target::{AttentionForm, TargetError};

use super::Lowering;
use super::block::Mil;
use crate::compressed::with_trailing_ones;
use crate::proto::{Bound, Operation};

/// Queries that are attended to at once in `split-einsum-v2`, as in Apple's implementation of that name.
const QUERY_CHUNK: usize = 512;

/// The values that stand in the layout.
#[derive(Default)]
pub(super) struct Columns {
    /// Queries that are attended to at once; `None` when nothing is in the layout.
    query_chunk: Option<usize>,
    values: BTreeMap<ValueId, Mil>,
    /// Whether the node at hand is computed in the layout.
    pub(super) is_current: bool,
    /// What each result of a reshape was made of, which further reshapes begin with.
    origins: BTreeMap<String, Mil>,
}

impl Columns {
    /// The layout that a form of attention asks for.
    pub(super) fn of(attention: AttentionForm) -> Self {
        let query_chunk = match attention {
            AttentionForm::SplitEinsum => Some(usize::MAX),
            AttentionForm::SplitEinsumV2 => Some(QUERY_CHUNK),
            AttentionForm::Auto | AttentionForm::Sdpa | AttentionForm::Decomposed => None,
        };
        Columns {
            query_chunk,
            ..Columns::default()
        }
    }

    /// A value in the layout.
    pub(super) fn get(&self, id: ValueId) -> Option<Mil> {
        self.values.get(&id).cloned()
    }

    /// Keeps a value in the layout.
    pub(super) fn insert(&mut self, id: ValueId, value: Mil) {
        self.values.insert(id, value);
    }

    /// Keeps what a reshape begins with.
    pub(super) fn reshaped(&mut self, name: &str, x: &Mil) {
        if self.query_chunk.is_some() {
            let origin = self.origin(x);
            self.origins.insert(name.to_owned(), origin);
        }
    }

    /// What a value is a reshape of, or the value itself.
    pub(super) fn origin(&self, x: &Mil) -> Mil {
        self.origins.get(&x.name).unwrap_or(x).clone()
    }

    /// The operations that an output depends on: reshapes of which another one has taken the place are left out.
    pub(super) fn without_unused(
        &self,
        mut operations: Vec<Operation>,
        outputs: &[String],
    ) -> Vec<Operation> {
        if self.query_chunk.is_none() {
            return operations;
        }
        let mut used: BTreeSet<String> = outputs.iter().cloned().collect();
        let mut is_kept = vec![false; operations.len()];
        for (operation, is_kept) in operations.iter().zip(&mut is_kept).rev() {
            *is_kept = operation.outputs.iter().any(|o| used.contains(&o.name));
            if *is_kept {
                let bindings = operation.inputs.values().flat_map(|a| &a.arguments);
                used.extend(bindings.filter_map(|b| match &b.bound {
                    Some(Bound::Name(name)) => Some(name.clone()),
                    _ => None,
                }));
            }
        }
        let mut is_kept = is_kept.into_iter();
        operations.retain(|_| is_kept.next().unwrap_or(true));
        operations
    }
}

/// The dimensions `[N,S,C]` as `[N,C,1,S]`.
fn in_columns(shape: &[usize]) -> Vec<usize> {
    vec![shape[0], shape[2], 1, shape[1]]
}

impl Lowering<'_> {
    /// The result of a node in the layout; `None` for a node that is not computed in it.
    ///
    /// # Errors
    /// As [`super::lower`].
    pub(super) fn node_in_columns(&mut self, node: &Node) -> Result<Option<Mil>, TargetError> {
        let Some(query_chunk) = self.columns.query_chunk else {
            return Ok(None);
        };
        let ty = self.graph.ty(node.result);
        if ty.shape.rank() != 3 || !ty.dtype.is_float() {
            return Ok(None);
        }
        let (dtype, rows) = self.result_type(node)?;
        let result = Mil {
            name: String::new(),
            dtype,
            shape: in_columns(&rows),
        };
        let begins = match &node.op {
            Op::Linear(_) => (1..node.operands.len()).all(|i| self.weight_of(node, i).is_some()),
            Op::LayerNorm(_) => (1..3).all(|i| self.weight_of(node, i).is_some()),
            Op::Attention(_) => true,
            Op::Transpose(op) => {
                let is_token = self.columns.values.contains_key(&node.operands[0]);
                let is_view = op.perm == [0, 2, 1] && !is_token;
                return match is_view {
                    true => self.image_in_columns(node, &result).map(Some),
                    false => Ok(None),
                };
            }
            _ => self.goes_along(node),
        };
        if !begins {
            return Ok(None);
        }
        self.columns.is_current = true;
        let made = match &node.op {
            Op::Linear(_) => self.linear_in_columns(node, &result),
            Op::LayerNorm(op) => self.layer_norm_in_columns(node, op),
            Op::Attention(op) => self.split_einsum(node, op, query_chunk),
            Op::Slice(op) => {
                let axis = axis_in_columns(op.axis);
                let (start, end) = (op.start, op.end);
                self.slice(node, &Slice { axis, start, end }, &result)
            }
            Op::Concat(op) => {
                let axis = axis_in_columns(op.axis);
                self.concat(node, &Concat { axis }, &result)
            }
            _ => self.elementwise(node, &result),
        };
        self.columns.is_current = false;
        made.map(Some)
    }

    /// Whether a node that works on single elements or moves channels has an operand in the layout, and none that cannot be.
    fn goes_along(&self, node: &Node) -> bool {
        let moves = matches!(
            node.op,
            Op::Add(_)
                | Op::Sub(_)
                | Op::Mul(_)
                | Op::Div(_)
                | Op::Sigmoid(_)
                | Op::Silu(_)
                | Op::Gelu(_)
                | Op::QuickGelu(_)
                | Op::Cast(_)
                | Op::FakeQuantize(_)
                | Op::Slice(_)
                | Op::Concat(_)
        );
        let fits = |&id: &ValueId| {
            let rank = self.graph.ty(id).shape.rank();
            rank == 3 || (rank < 3 && self.graph.weight_of(id).is_some())
        };
        let has = |id: &ValueId| self.columns.values.contains_key(id);
        moves && node.operands.iter().all(fits) && node.operands.iter().any(has)
    }

    /// An operator on single elements; its operands are those of the layout.
    fn elementwise(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        match &node.op {
            Op::Add(_) => self.binary(node, "add", result),
            Op::Sub(_) => self.binary(node, "sub", result),
            Op::Mul(_) => self.binary(node, "mul", result),
            Op::Div(_) => self.div(node, result),
            Op::Sigmoid(_) => self.unary(node, "sigmoid", result),
            Op::Silu(_) => self.unary(node, "silu", result),
            Op::Gelu(_) => self.gelu(node, "EXACT", result),
            Op::QuickGelu(_) => self.gelu(node, "SIGMOID_APPROXIMATION", result),
            Op::Cast(op) => self.cast(node, op, result),
            Op::FakeQuantize(op) => self.fake_quantize(node, op, result),
            _ => unreachable!("the operators that go along are these"),
        }
    }

    /// `[N,C,S]` seen as tokens: the elements stay where they are.
    fn image_in_columns(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let image = self.operand(node, 0)?;
        let origin = self.columns.origin(&image);
        if origin.shape == result.shape {
            return Ok(origin);
        }
        let name = self.inner_name(node, "columns");
        Ok(self.reshape_to(&origin, &result.shape, name))
    }

    /// A linear layer as a convolution of one element.
    fn linear_in_columns(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let mut constants = Vec::new();
        for (index, ones) in (1..node.operands.len()).zip([2, 0]) {
            let weight = self.weight_of(node, index).expect("checked before");
            let tensor = with_trailing_ones(&weight.tensor, ones);
            constants.push(self.constant(node, &weight.name, &tensor)?);
        }
        let name = self.result_name(node);
        let conv = self.op("conv").tensor("x", &x);
        let conv = conv.tensor("weight", &constants[0]);
        let conv = conv.optional("bias", constants.get(1));
        let conv = conv.text("pad_type", "custom").ints("pad", &[0; 4]);
        let conv = conv.ints("strides", &[1, 1]).ints("dilations", &[1, 1]);
        Ok(conv
            .int("groups", 1)
            .finish(name, result.dtype, &result.shape))
    }

    /// A normalization over the channels.
    fn layer_norm_in_columns(&mut self, node: &Node, op: &LayerNorm) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        self.check_epsilon(node, x.dtype, op.epsilon)?;
        let mut constants = Vec::new();
        for index in 1..3 {
            let weight = self.weight_of(node, index).expect("checked before");
            constants.push(self.constant(node, &weight.name, &weight.tensor)?);
        }
        let affine = Some((&constants[0], &constants[1]));
        let name = self.result_name(node);
        Ok(self.normalize(&x, &[1], affine, op.epsilon, name))
    }

    /// An operand of a node that is computed in the layout.
    pub(super) fn operand_in_columns(
        &mut self,
        node: &Node,
        id: ValueId,
    ) -> Result<Mil, TargetError> {
        if let Some(value) = self.columns.get(id) {
            return Ok(value);
        }
        if let Some(weight) = self.graph.weight_of(id) {
            return self.constant(node, &weight.name, &weight_in_columns(&weight.tensor));
        }
        let rows = self.values[&id].clone();
        let shape = in_columns(&rows.shape);
        let stem = rows.name.clone();
        let name = self.block.names.fresh(&format!("{stem}_channels"));
        let channels = self.transpose_to(&rows, &[0, 2, 1], name);
        let name = self.block.names.fresh(&format!("{stem}_columns"));
        let columns = self.reshape_to(&channels, &shape, name);
        self.columns.insert(id, columns.clone());
        Ok(columns)
    }

    /// A value with the dimensions that the graph has it in; `None` for a weight.
    pub(super) fn rows_of(&mut self, id: ValueId) -> Option<Mil> {
        if let Some(value) = self.values.get(&id) {
            return Some(value.clone());
        }
        let columns = self.columns.get(id)?;
        let [n, c, _, s] = columns.shape[..] else {
            return None;
        };
        let stem = columns.name.clone();
        let name = self.block.names.fresh(&format!("{stem}_channels"));
        let channels = self.reshape_to(&columns, &[n, c, s], name);
        let name = match self.named.get(&id) {
            Some(name) => name.clone(),
            None => self.block.names.fresh(&format!("{stem}_rows")),
        };
        let rows = self.transpose_to(&channels, &[0, 2, 1], name);
        self.values.insert(id, rows.clone());
        Some(rows)
    }
}

/// The axis of `[N,C,1,S]` that an axis of `[N,S,C]` is.
fn axis_in_columns(axis: usize) -> usize {
    [0, 3, 1][axis]
}

/// A constant that broadcasts to `[N,S,C]` as one that broadcasts to `[N,C,1,S]`.
fn weight_in_columns(tensor: &LazyTensor) -> LazyTensor {
    let shape = tensor.shape();
    if shape.is_empty() {
        return tensor.clone();
    }
    let mut rows = vec![1; 3 - shape.len()];
    rows.extend(shape);
    let columns = in_columns(&rows);
    tensor
        .clone()
        .reshape(&rows)
        .permute(&[0, 2, 1])
        .reshape(&columns)
}

#[cfg(test)]
mod tests {
    use super::super::{IntegerFeatures, lower};
    use super::*;
    use crate::blob::WeightFile;
    use crate::level::Level;
    use snapc_ir::ops::{Add, Attention, Gelu, Linear, Mul, Reshape, Transpose};
    use snapc_ir::{DType, Dim, Graph, Shape, TensorType};
    use std::collections::BTreeMap;

    /// A transformer block as the UNet has it, over an image of 8 channels and 4 × 4 cells, with 3 tokens of text.
    fn block() -> Graph {
        let mut g = Graph::new("unet");
        let ty = |shape: &[usize]| TensorType::new(DType::F16, Shape::fixed(shape));
        let image = g.input("image", ty(&[2, 8, 4, 4]));
        let text = g.input("text", ty(&[2, 3, 6]));
        let mut weights = 0;
        let mut weight = |g: &mut Graph, shape: &[usize]| {
            weights += 1;
            let n = shape.iter().product();
            let data: Vec<f32> = (0..n).map(|i| (i + weights) as f32 % 7.0 - 3.0).collect();
            let tensor = LazyTensor::from_f32(shape, &data).cast(DType::F16);
            g.parameter(format!("w{weights}"), tensor)
        };
        let fixed = |shape: &[usize]| shape.iter().map(|&n| Dim::Fixed(n)).collect();
        let shape = fixed(&[2, 8, 16]);
        let x = g.add(Reshape { shape }, &[image], "in").unwrap();
        let perm = vec![0, 2, 1];
        let mut x = g.add(Transpose { perm: perm.clone() }, &[x], "in").unwrap();
        for source in [None, Some((text, 6))] {
            let [scale, bias] = [weight(&mut g, &[8]), weight(&mut g, &[8])];
            let norm = LayerNorm { epsilon: 1e-5 };
            let normed = g.add(norm, &[x, scale, bias], "norm").unwrap();
            let (source, width) = source.unwrap_or((normed, 8));
            let mut project = |g: &mut Graph, from: ValueId, width: usize| {
                let w = weight(g, &[8, width]);
                g.add(Linear {}, &[from, w], "to").unwrap()
            };
            let q = project(&mut g, normed, 8);
            let [k, v] = [0, 1].map(|_| project(&mut g, source, width));
            let attention = Attention {
                heads: 2,
                scale: 0.5,
            };
            let attended = g.add(attention, &[q, k, v], "attn").unwrap();
            let attended = project(&mut g, attended, 8);
            x = g.add(Add {}, &[attended, x], "sum").unwrap();
        }
        let w = weight(&mut g, &[32, 8]);
        let wide = g.add(Linear {}, &[x, w], "ff").unwrap();
        let half = |g: &mut Graph, start: usize| {
            let (axis, end) = (2, start + 16);
            g.add(Slice { axis, start, end }, &[wide], "half").unwrap()
        };
        let [value, gate] = [half(&mut g, 0), half(&mut g, 16)];
        let gate = g.add(Gelu {}, &[gate], "gelu").unwrap();
        let gated = g.add(Mul {}, &[value, gate], "geglu").unwrap();
        let w = weight(&mut g, &[8, 16]);
        let y = g.add(Linear {}, &[gated, w], "ff").unwrap();
        let y = g.add(Add {}, &[y, x], "sum").unwrap();
        let y = g.add(Transpose { perm }, &[y], "out").unwrap();
        let shape = fixed(&[2, 8, 4, 4]);
        let y = g.add(Reshape { shape }, &[y], "out").unwrap();
        g.output("y", y);
        g
    }

    fn counts(attention: AttentionForm) -> BTreeMap<String, usize> {
        let weights = WeightFile::default();
        let integers = IntegerFeatures::Int32;
        let lowered = lower(&block(), Level::Ios16, integers, attention, weights).unwrap();
        let block = &lowered.function.block_specializations["CoreML6"];
        let mut counts = BTreeMap::new();
        for op in &block.operations {
            *counts.entry(op.kind.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// One reshape into the layout and one out of it; the text is transposed into it once; per attention, the keys.
    #[test]
    fn nothing_moves_elements_inside_a_block_but_the_keys() {
        let counts = counts(AttentionForm::SplitEinsum);
        let of = |kind: &str| counts.get(kind).copied().unwrap_or(0);
        assert_eq!((of("transpose"), of("reshape")), (2 + 1, 2 + 1));
        assert_eq!((of("linear"), of("conv")), (0, 10));
        // Two attentions of two heads, two products each.
        assert_eq!((of("einsum"), of("softmax"), of("matmul")), (8, 4, 0));
        assert_eq!(of("layer_norm"), 2);
    }
}
