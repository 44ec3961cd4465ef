//! The graph under construction: its values by name, and the folding of what is constant.

use std::collections::BTreeMap;

use snapc_ir::eval::weight_tensor;
use snapc_ir::{DType, Dim, Graph, LazyTensor, Op, Shape, Tensor, TensorType, ValueId};

use super::error::Fault;
use super::ops::Grid;
use super::tensor::{elements, lazy};

/// Results with more elements are not computed while a model is read.
const MAX_FOLDED: usize = 1 << 20;
/// Elements that are computed in all, so that a small file cannot ask for endless work.
const MAX_FOLDED_IN_ALL: usize = 1 << 26;
/// Steps that a lazy constant takes before it is left to the graph.
const MAX_LAZY_STEPS: usize = 12;

/// A value of the model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    /// It depends on the inputs.
    Computed(ValueId),
    /// It does not; the position in the builder's list.
    Constant(usize),
}

struct Constant {
    name: String,
    tensor: LazyTensor,
    is_parameter: bool,
    /// The codes that it is a cast of, as a position in the list.
    widened_from: Option<usize>,
    /// Its value in the graph, when something there uses it.
    value: Option<ValueId>,
}

/// The graph under construction.
pub(super) struct Builder {
    /// What is read so far.
    pub(super) graph: Graph,
    /// Values of the model by name.
    pub(super) values: BTreeMap<String, Operand>,
    /// Values of the model that are codes, and what these stand for; as operands they are the floats.
    pub(super) codes: BTreeMap<String, Grid>,
    constants: Vec<Constant>,
    folded: usize,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Builder {
            graph: Graph::new(name),
            values: BTreeMap::new(),
            codes: BTreeMap::new(),
            constants: Vec::new(),
            folded: 0,
        }
    }

    /// Element type and shape of a value.
    pub(super) fn ty(&self, operand: Operand) -> TensorType {
        match operand {
            Operand::Computed(value) => self.graph.ty(value).clone(),
            Operand::Constant(i) => {
                let tensor = &self.constants[i].tensor;
                TensorType::new(tensor.dtype(), Shape::fixed(tensor.shape()))
            }
        }
    }

    /// Sizes of a value.
    pub(super) fn shape(&self, operand: Operand) -> Vec<usize> {
        let shape = self.ty(operand).shape;
        shape
            .to_fixed()
            .expect("inputs have fixed sizes, so all values have")
    }

    /// The data of a constant.
    pub(super) fn data(&self, operand: Operand) -> Option<&LazyTensor> {
        match operand {
            Operand::Computed(_) => None,
            Operand::Constant(i) => Some(&self.constants[i].tensor),
        }
    }

    /// The elements of a constant of reasonable size, as folding reads them.
    pub(super) fn elements(&mut self, operand: Operand) -> Option<Tensor> {
        let count = self.data(operand)?.elements();
        self.take_budget(count).then_some(())?;
        weight_tensor(self.data(operand)?).ok()
    }

    /// The elements of a constant that says what codes stand for. There is one to a block of a weight, so one constant may
    /// take all of the budget.
    pub(super) fn scales(&mut self, operand: Operand) -> Option<Tensor> {
        let count = self.data(operand)?.elements();
        self.take(count).then_some(())?;
        weight_tensor(self.data(operand)?).ok()
    }

    /// Whether so many elements may still be computed; they count if so.
    pub(super) fn take_budget(&mut self, count: usize) -> bool {
        count <= MAX_FOLDED && self.take(count)
    }

    fn take(&mut self, count: usize) -> bool {
        let total = self.folded.saturating_add(count);
        let fits = total <= MAX_FOLDED_IN_ALL;
        if fits {
            self.folded = total;
        }
        fits
    }

    /// A trained tensor.
    pub(super) fn parameter(&mut self, name: &str, tensor: LazyTensor) -> Operand {
        self.push(name, tensor, true)
    }

    /// A constant of the architecture.
    pub(super) fn constant(&mut self, name: &str, tensor: LazyTensor) -> Operand {
        self.push(name, tensor, false)
    }

    /// A constant that folding has computed.
    pub(super) fn known(&mut self, name: &str, tensor: &Tensor, dtype: DType) -> Operand {
        self.push(name, lazy(tensor, dtype), false)
    }

    /// A scalar of element type `dtype`.
    pub(super) fn scalar(&mut self, name: &str, value: f32, dtype: DType) -> Operand {
        self.push(name, LazyTensor::from_f32(&[], &[value]).cast(dtype), false)
    }

    /// A vector of `len` equal elements.
    pub(super) fn filled(&mut self, name: &str, len: usize, value: f32, dtype: DType) -> Operand {
        let tensor = LazyTensor::from_f32(&[len], &vec![value; len]).cast(dtype);
        self.push(name, tensor, false)
    }

    fn push(&mut self, name: &str, tensor: LazyTensor, is_parameter: bool) -> Operand {
        self.constants.push(Constant {
            name: name.to_owned(),
            tensor,
            is_parameter,
            widened_from: None,
            value: None,
        });
        Operand::Constant(self.constants.len() - 1)
    }

    /// Constant bytes as wider integers, cast when they are used.
    pub(super) fn widened(&mut self, operand: Operand, to: DType) -> Option<Operand> {
        let Operand::Constant(i) = operand else {
            return None;
        };
        let Constant { name, tensor, .. } = &self.constants[i];
        if !matches!(tensor.dtype(), DType::I8 | DType::U8) {
            return None;
        }
        let (name, wide) = (name.clone(), tensor.clone().cast(to));
        let wide = self.push(&name, wide, false);
        self.constants.last_mut()?.widened_from = Some(i);
        Some(wide)
    }

    /// The unsigned bytes that constant integers have been cast from.
    pub(super) fn narrow_codes(&self, operand: Operand) -> Option<&LazyTensor> {
        let Operand::Constant(i) = operand else {
            return None;
        };
        let codes = &self.constants[self.constants[i].widened_from?].tensor;
        (codes.dtype() == DType::U8).then_some(codes)
    }

    /// The value in the graph; a constant is added at its first use.
    pub(super) fn value(&mut self, operand: Operand) -> ValueId {
        let i = match operand {
            Operand::Computed(value) => return value,
            Operand::Constant(i) => i,
        };
        let constant = &mut self.constants[i];
        if let Some(value) = constant.value {
            return value;
        }
        let (name, tensor) = (constant.name.clone(), constant.tensor.clone());
        let value = if constant.is_parameter {
            self.graph.parameter(name, tensor)
        } else {
            self.graph.constant(name, tensor)
        };
        constant.value = Some(value);
        value
    }

    /// A value of the graph, a weight of it as a constant again.
    pub(super) fn operand(&mut self, value: ValueId) -> Operand {
        let constant = self.constants.iter().position(|c| c.value == Some(value));
        constant.map_or(Operand::Computed(value), Operand::Constant)
    }

    /// Applies an operator: computed at once when all operands are constants and the result is small, and a node of the
    /// graph otherwise. Large constants are moved and cast lazily.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    pub(super) fn apply(
        &mut self,
        op: impl Into<Op>,
        operands: &[Operand],
        name: &str,
    ) -> Result<Operand, Fault> {
        let op = op.into();
        let types: Vec<TensorType> = operands.iter().map(|&o| self.ty(o)).collect();
        let types: Vec<&TensorType> = types.iter().collect();
        let ty = op.infer(&types)?;
        let shape = ty.shape.to_fixed().ok_or_else(|| open_batch(&ty))?;
        let count = elements(&shape).map_err(Fault::Malformed)?;
        if let Some(moved) = self.moved(&op, operands) {
            return Ok(moved);
        }
        if operands.iter().all(|&o| self.data(o).is_some()) && self.take_budget(count) {
            let constants: Option<Vec<Tensor>> =
                operands.iter().map(|&o| self.elements(o)).collect();
            if let Some(constants) = constants {
                let constants: Vec<&Tensor> = constants.iter().collect();
                let mut result = op.eval(&constants);
                result.round_to(ty.dtype);
                return Ok(self.known(name, &result, ty.dtype));
            }
        }
        let values: Vec<ValueId> = operands.iter().map(|&o| self.value(o)).collect();
        let added = self.graph.add(op, &values, name);
        match added {
            Ok(value) => Ok(Operand::Computed(value)),
            Err(snapc_ir::BuildError::Infer { source, .. }) => Err(source.into()),
            Err(error) => Err(Fault::malformed(error.to_string())),
        }
    }

    /// A constant under an operator that its lazy tensor can carry out.
    fn moved(&mut self, op: &Op, operands: &[Operand]) -> Option<Operand> {
        let &[Operand::Constant(i)] = operands else {
            return None;
        };
        let constant = &self.constants[i];
        let tensor = constant.tensor.clone();
        if tensor.transforms().len() >= MAX_LAZY_STEPS {
            return None;
        }
        let tensor = match op {
            Op::Reshape(op) => tensor.reshape_codes(&Shape(op.shape.clone()).to_fixed()?),
            Op::Transpose(op) => tensor.permute_codes(&op.perm),
            Op::Slice(op) => tensor.slice(op.axis, op.start, op.end),
            Op::Cast(op) if op.to.is_float() && tensor.dtype().is_float() => tensor.cast(op.to),
            _ => return None,
        };
        let (name, is_parameter) = (constant.name.clone(), constant.is_parameter);
        Some(self.push(&name, tensor, is_parameter))
    }
}

fn open_batch(ty: &TensorType) -> Fault {
    let message = format!("the result would have type {ty}, with an open batch");
    Fault::Malformed(message)
}

/// Sizes as dimensions.
pub(super) fn dims(sizes: &[usize]) -> Vec<Dim> {
    sizes.iter().copied().map(Dim::Fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_may_be_many_but_not_endless() {
        let mut builder = Builder::new("g");
        let row = LazyTensor::from_f32(&[MAX_FOLDED + 1], &vec![0.5; MAX_FOLDED + 1]);
        let many = builder.constant("many", row);
        assert!(builder.elements(many).is_none());
        let reads = (0..).take_while(|_| builder.scales(many).is_some());
        assert_eq!(reads.count(), MAX_FOLDED_IN_ALL / (MAX_FOLDED + 1));
    }
}
