//! The graph under construction: nodes, with what is known already folded.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapc_ir::ops::{Reshape, Transpose};
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Dim, Graph, LazyTensor, Op, Tensor, ValueId, eval};

use super::constant::Constant;
use super::error::Fault;
use super::ops::Grid;

/// Elements of operands and result up to which an operation on constants is carried out.
const FOLDED_ELEMENTS: usize = 1 << 14;

/// What a name of the program stands for.
#[derive(Clone)]
pub(super) enum Entry {
    /// A value of the graph.
    Value(ValueId),
    /// A constant; it becomes a weight when a node wants it.
    Constant(Constant),
    /// A constant stored as codes; it becomes a weight when a node wants it.
    Encoded(LazyTensor),
    /// A string.
    Word(String),
    /// `x ≥ 0` of integers, one half of [`Entry::Wrapped`].
    NotNegative(ValueId),
    /// Indices of which the negative ones have the size of their dimension added, which the IR's `gather` does itself.
    Wrapped {
        /// The indices as they were.
        indices: ValueId,
        /// What is added to the negative ones.
        sizes: LazyTensor,
    },
    /// A value rounded to whole numbers, of which the IR has only those of 8 bits.
    Rounded(ValueId),
    /// Codes of 8 bits for a value, of which the IR has only what they stand for.
    Codes {
        /// What was encoded.
        value: ValueId,
        /// What the codes stand for.
        grid: Grid,
    },
}

/// The graph under construction, and what the names of the program stand for.
pub(super) struct Builder {
    pub(super) graph: Graph,
    pub(super) entries: BTreeMap<String, Entry>,
    /// Constants that have become weights, by name.
    weights: BTreeMap<String, ValueId>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Builder {
            graph: Graph::new(name),
            entries: BTreeMap::new(),
            weights: BTreeMap::new(),
        }
    }

    /// The weight that a constant of the program becomes.
    ///
    /// # Errors
    /// When the IR has no form for its elements.
    pub(super) fn weight(
        &mut self,
        entry: &str,
        name: &str,
        constant: &Constant,
    ) -> Result<ValueId, Fault> {
        if let Some(&value) = self.weights.get(entry) {
            return Ok(value);
        }
        let tensor = constant.tensor()?;
        let value = match constant.is_weight {
            true => self.graph.parameter(name, tensor),
            false => self.graph.constant(name, tensor),
        };
        self.weights.insert(entry.to_owned(), value);
        Ok(value)
    }

    /// The weight that a constant stored as codes becomes.
    pub(super) fn encoded_weight(
        &mut self,
        entry: &str,
        name: &str,
        tensor: &LazyTensor,
    ) -> ValueId {
        if let Some(&value) = self.weights.get(entry) {
            return value;
        }
        let value = self.graph.parameter(name, tensor.clone());
        self.weights.insert(entry.to_owned(), value);
        value
    }

    /// The dimensions of a value; all values have fixed ones.
    pub(super) fn shape(&self, value: ValueId) -> Vec<usize> {
        self.graph.ty(value).shape.bind(1)
    }

    pub(super) fn dtype(&self, value: ValueId) -> DType {
        self.graph.ty(value).dtype
    }

    /// The data of a value that is constant.
    pub(super) fn data(&self, value: ValueId) -> Option<&LazyTensor> {
        self.graph.weight_of(value).map(|w| &w.tensor)
    }

    /// Applies an operator. Constants are folded: moved and converted lazily, computed with when they are small.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    pub(super) fn add(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        name: &str,
    ) -> Result<ValueId, Fault> {
        let op = op.into();
        let types: Vec<_> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let ty = op
            .infer(&types)
            .map_err(|e| Fault::malformed(e.to_string()))?;
        if let &[x] = operands
            && let Some(value) = self.moved(&op, x)
        {
            return Ok(value);
        }
        if let Some(data) = self.constants(operands) {
            let shape = ty.shape.bind(1);
            if let Some(tensor) = folded(&op, &data, &shape, ty.dtype)? {
                return Ok(self.graph.constant(name, tensor));
            }
        }
        Ok(self.graph.add(op, operands, name)?)
    }

    /// A movement that is no work: of a weight, back to where it came from, or nowhere.
    fn moved(&mut self, op: &Op, x: ValueId) -> Option<ValueId> {
        if let Some(weight) = self.graph.weight_of(x) {
            let (name, tensor) = (weight.name.clone(), weight.tensor.clone());
            let is_parameter = weight.is_parameter;
            let tensor = match op {
                Op::Reshape(reshape) => tensor.reshape(&sizes(reshape)?),
                Op::Transpose(transpose) => tensor.permute(&transpose.perm),
                // Integers become halves by way of singles.
                Op::Cast(cast) if cast.to.is_float() && !tensor.dtype().is_float() => {
                    tensor.cast(DType::F32).cast(cast.to)
                }
                Op::Cast(cast) => tensor.cast(cast.to),
                _ => return None,
            };
            return Some(match is_parameter {
                true => self.graph.parameter(name, tensor),
                false => self.graph.constant(name, tensor),
            });
        }
        let before = self.graph.node_of(x);
        match op {
            Op::Reshape(reshape) => {
                let origin = match before.map(|n| (&n.op, n.operands[0])) {
                    Some((Op::Reshape(_), origin)) => origin,
                    _ => x,
                };
                (self.shape(origin) == sizes(reshape)?).then_some(origin)
            }
            Op::Transpose(transpose) => {
                let is_identity = |p: &[usize]| p.iter().copied().eq(0..p.len());
                if is_identity(&transpose.perm) {
                    return Some(x);
                }
                let Op::Transpose(first) = &before?.op else {
                    return None;
                };
                let both: Vec<usize> = transpose.perm.iter().map(|&p| first.perm[p]).collect();
                is_identity(&both).then(|| before.map(|n| n.operands[0]))?
            }
            _ => None,
        }
    }

    /// The tensors of operands that are all small constants.
    fn constants(&self, operands: &[ValueId]) -> Option<Vec<LazyTensor>> {
        let small = |v: &ValueId| {
            let data = self.data(*v)?;
            (data.elements() <= FOLDED_ELEMENTS).then(|| data.clone())
        };
        operands.iter().map(small).collect()
    }

    /// Other dimensions over the same elements.
    ///
    /// # Errors
    /// When their number differs.
    pub(super) fn reshape(
        &mut self,
        x: ValueId,
        shape: &[usize],
        name: &str,
    ) -> Result<ValueId, Fault> {
        let shape = shape.iter().map(|&n| Dim::Fixed(n)).collect();
        self.add(Reshape { shape }, &[x], name)
    }

    /// Other order of dimensions.
    ///
    /// # Errors
    /// When `perm` is no permutation of the dimensions.
    pub(super) fn transpose(
        &mut self,
        x: ValueId,
        perm: &[usize],
        name: &str,
    ) -> Result<ValueId, Fault> {
        let perm = perm.to_vec();
        self.add(Transpose { perm }, &[x], name)
    }

    /// A scalar of the element type of a value.
    pub(super) fn scalar(&mut self, like: ValueId, value: f32, name: &str) -> ValueId {
        let dtype = self.dtype(like);
        let tensor = match dtype.is_float() {
            true => LazyTensor::from_f32(&[], &[value]).cast(dtype),
            false => LazyTensor::from_i32(&[], &[value as i32]),
        };
        self.graph.constant(name, tensor)
    }
}

fn sizes(reshape: &Reshape) -> Option<Vec<usize>> {
    reshape.shape.iter().map(|d| d.fixed()).collect()
}

/// The result of an operation on constants; `None` when it is large.
fn folded(
    op: &Op,
    operands: &[LazyTensor],
    shape: &[usize],
    dtype: DType,
) -> Result<Option<LazyTensor>, Fault> {
    let small = super::constant::elements(shape).is_some_and(|n| n <= FOLDED_ELEMENTS);
    if !small || dtype == DType::I64 {
        return Ok(None);
    }
    let tensors = operands.iter().map(eval::weight_tensor);
    let tensors = tensors.collect::<Result<Vec<Tensor>, _>>()?;
    let result = op.eval(&tensors.iter().collect::<Vec<_>>());
    Ok(Some(to_lazy(&result, dtype)?))
}

/// A tensor as a constant of an element type.
///
/// # Errors
/// When an integer is beyond 32 bits.
pub(super) fn to_lazy(tensor: &Tensor, dtype: DType) -> Result<LazyTensor, Fault> {
    match &tensor.elements {
        Elements::Float(v) => Ok(LazyTensor::from_f32(&tensor.shape, v).cast(dtype)),
        Elements::Int(v) if dtype == DType::Bool => {
            let bytes: Vec<u8> = v.iter().map(|&i| u8::from(i != 0)).collect();
            let range = 0..bytes.len();
            Ok(LazyTensor::from_buffer(
                Arc::new(bytes),
                range,
                dtype,
                &tensor.shape,
            ))
        }
        Elements::Int(v) => {
            let ints = v.iter().map(|&i| i32::try_from(i));
            let ints = ints.collect::<Result<Vec<i32>, _>>();
            let ints = ints.map_err(|_| Fault::unsupported("an integer is beyond 32 bits"))?;
            Ok(LazyTensor::from_i32(&tensor.shape, &ints).cast(dtype))
        }
    }
}
