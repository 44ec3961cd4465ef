//! The rebuilding of a graph in another float type.

use snapc_ir::ops::Cast;
use snapc_ir::{BuildError, DType, Graph, LazyTensor, Node, Op, ValueDef, ValueId, Weight};

use super::kept::Kept;
use crate::output_values::OutputValues;

/// A graph that is being cast. An old value may have two new ones: one of its own type and one of type `to`.
pub(super) struct Casting<'a> {
    old: &'a Graph,
    to: DType,
    kept: &'a Kept,
    outputs: OutputValues,
    new: Graph,
    own: Vec<Option<ValueId>>,
    cast: Vec<Option<ValueId>>,
    /// Weights that became narrower or wider.
    pub(super) weights_cast: usize,
    /// Casts that were added.
    pub(super) casts: usize,
}

impl<'a> Casting<'a> {
    pub(super) fn new(old: &'a Graph, to: DType, kept: &'a Kept) -> Self {
        Casting {
            old,
            to,
            kept,
            outputs: OutputValues::of(old),
            new: Graph::new(old.name()),
            own: vec![None; old.values().len()],
            cast: vec![None; old.values().len()],
            weights_cast: 0,
            casts: 0,
        }
    }

    /// The new graph.
    ///
    /// # Errors
    /// When an operator does not accept its new operands, which is a defect.
    pub(super) fn run(&mut self) -> Result<Graph, BuildError> {
        for input in self.old.inputs() {
            let mut ty = self.old.ty(input.value).clone();
            ty.dtype = self.result_type(input.value);
            let value = self.new.input(input.name.clone(), ty);
            self.define(input.value, value);
        }
        for (position, node) in self.old.nodes().iter().enumerate() {
            let value = self.node(position, node)?;
            self.outputs.record(node.result, value);
            self.define(node.result, value);
        }
        for output in self.old.outputs() {
            let value = if self.kept.is_too_large(output.value) {
                self.own(output.value, &output.name)?
            } else {
                self.cast(output.value)?
            };
            self.new.output(output.name.clone(), value);
        }
        Ok(std::mem::replace(
            &mut self.new,
            Graph::new(self.old.name()),
        ))
    }

    /// Element type of the new value that stands for an old one.
    fn result_type(&self, value: ValueId) -> DType {
        let dtype = self.old.ty(value).dtype;
        let is_cast = dtype.is_float() && !self.kept.stays(value);
        if is_cast { self.to } else { dtype }
    }

    fn define(&mut self, old: ValueId, new: ValueId) {
        let dtype = self.new.ty(new).dtype;
        if dtype == self.old.ty(old).dtype {
            self.own[old.index()] = Some(new);
        }
        if dtype == self.to || !dtype.is_float() {
            self.cast[old.index()] = Some(new);
        }
    }

    fn node(&mut self, position: usize, node: &Node) -> Result<ValueId, BuildError> {
        if self.kept.computes_as_before(position) {
            let operands = node.operands.iter().map(|&v| self.own(v, &node.name));
            let operands = operands.collect::<Result<Vec<_>, _>>()?;
            return self.new.add(node.op.clone(), &operands, node.name.clone());
        }
        let operands = node.operands.iter().map(|&v| self.cast(v));
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        let op = match &node.op {
            Op::Cast(op) if op.to.is_float() => {
                let operand = operands[0];
                let is_there = self.new.ty(operand).dtype == self.to;
                if is_there && self.outputs.may_replace(&self.new, node.result, operand) {
                    return Ok(operand);
                }
                Cast { to: self.to }.into()
            }
            op => op.clone(),
        };
        self.new.add(op, &operands, node.name.clone())
    }

    /// The new value with the old one's own type, for a reader of that name.
    fn own(&mut self, old: ValueId, reader: &str) -> Result<ValueId, BuildError> {
        if let Some(value) = self.own[old.index()] {
            return Ok(value);
        }
        let to = self.old.ty(old).dtype;
        let value = match self.cast[old.index()] {
            Some(narrow) => {
                self.casts += 1;
                self.new.add(Cast { to }, &[narrow], reader)?
            }
            None => {
                let weight = self.weight_of(old);
                self.weight(weight, weight.tensor.clone())
            }
        };
        self.own[old.index()] = Some(value);
        Ok(value)
    }

    /// The new value of type `to`; integers as they are.
    fn cast(&mut self, old: ValueId) -> Result<ValueId, BuildError> {
        if let Some(value) = self.cast[old.index()] {
            return Ok(value);
        }
        if self.own[old.index()].is_some() || self.kept.stays(old) {
            let name = self.defined_by(old);
            let value = self.own(old, &name)?;
            self.casts += 1;
            let value = self.new.add(Cast { to: self.to }, &[value], name)?;
            self.cast[old.index()] = Some(value);
            return Ok(value);
        }
        let weight = self.weight_of(old);
        let mut tensor = weight.tensor.clone();
        if tensor.dtype().is_float() && tensor.dtype() != self.to {
            self.weights_cast += 1;
            tensor = tensor.cast(self.to);
        }
        Ok(self.weight(weight, tensor))
    }

    fn weight_of(&self, value: ValueId) -> &'a Weight {
        let weight = self.old.weight_of(value);
        weight.expect("inputs and results are defined before they are used")
    }

    fn weight(&mut self, weight: &Weight, tensor: LazyTensor) -> ValueId {
        let name = weight.name.clone();
        let value = if weight.is_parameter {
            self.new.parameter(name, tensor)
        } else {
            self.new.constant(name, tensor)
        };
        self.define(weight.value, value);
        value
    }

    /// Name for a cast of a value.
    fn defined_by(&self, value: ValueId) -> String {
        match self.old.value(value).def {
            ValueDef::Node(n) => self.old.nodes()[n.index()].name.clone(),
            ValueDef::Weight(w) => self.old.weights()[w.index()].name.clone(),
            ValueDef::Input(i) => self.old.inputs()[i].name.clone(),
        }
    }
}
