//! The instructions of one network.

use std::fmt;

use crate::infer::{InferError, OperandType, Operands};
use crate::op::{Op, Rounding};
use crate::types::{Codebook, Codes, Dim, Element, Storage, Type, Weight};

/// What an instruction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// A value: first the inputs in order, then one per instruction.
    Value(u32),
    /// A weight of the graph.
    Weight(u32),
}

/// One step: an operation on operands that gives one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// The network's module that it comes from, as diffusers calls it; several may share one.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// From what.
    pub operands: Vec<Operand>,
    /// What the result is rounded to.
    pub rounding: Rounding,
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name outside, as in diffusers.
    pub name: String,
    /// The value.
    pub value: u32,
}

/// Why an instruction or port cannot be added.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// An operand, output or weight that does not exist yet.
    #[error("instruction '{name}': {operand} is not there; operands come before their use")]
    Undefined {
        /// The instruction or output.
        name: String,
        /// What is missing.
        operand: String,
    },
    /// The operands do not fit.
    #[error("instruction '{name}': {source}")]
    Infer {
        /// The instruction.
        name: String,
        /// What is wrong.
        source: InferError,
    },
    /// An input or weight without a valid type.
    #[error("'{name}' has no valid type: {ty}")]
    Type {
        /// The input or weight.
        name: String,
        /// What was given.
        ty: String,
    },
    /// Codes that do not go with what they stand for.
    #[error("weight '{name}': {problem}")]
    Codes {
        /// The weight.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two inputs, outputs or weights of one name, or an input after an instruction.
    #[error("'{name}' is there twice, or comes too late")]
    Order {
        /// Its name.
        name: String,
    },
}

/// The instructions of one network, in the order they run. Appending is the only change, and every append is checked: what
/// is there is well typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    weights: Vec<Weight>,
    weight_types: Vec<Option<Type>>,
    instructions: Vec<Instruction>,
    values: Vec<Type>,
}

impl Graph {
    /// No instructions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inputs in order; input `i` is value `i`.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Outputs in order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Weights in order.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Instructions in order; instruction `i` defines value `inputs().len() + i`.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Types of all values.
    pub fn values(&self) -> &[Type] {
        &self.values
    }

    /// The type of what an operand stands for; `None` for a weight in rows or panels.
    ///
    /// # Panics
    /// When the graph has no such operand.
    pub fn ty(&self, operand: Operand) -> Option<&Type> {
        match operand {
            Operand::Value(v) => Some(&self.values[v as usize]),
            Operand::Weight(w) => self.weight_types[w as usize].as_ref(),
        }
    }

    /// Declares an input.
    ///
    /// # Errors
    /// When the name is taken, an instruction is there already, or the type is none.
    pub fn input(&mut self, name: impl Into<String>, ty: Type) -> Result<Operand, GraphError> {
        let name = name.into();
        if !self.instructions.is_empty() || self.inputs.iter().any(|p| p.name == name) {
            return Err(GraphError::Order { name });
        }
        let batches = ty.dims.iter().filter(|d| **d == Dim::Batch).count();
        if !is_countable(&ty) || batches > 1 {
            let ty = ty.to_string();
            return Err(GraphError::Type { name, ty });
        }
        let value = index(self.values.len());
        self.values.push(ty);
        self.inputs.push(Port { name, value });
        Ok(Operand::Value(value))
    }

    /// Declares a weight. The caller sees to it that no name is declared twice.
    ///
    /// # Errors
    /// When the dimensions are none, or those of codes do not go with what they stand for.
    pub fn weight(&mut self, weight: Weight) -> Result<Operand, GraphError> {
        let dims: Vec<Dim> = weight.dims.iter().map(|&n| Dim::Fixed(n)).collect();
        let element = match weight.storage {
            Storage::I32 => Element::I32,
            _ => Element::F32,
        };
        let ty = Type { element, dims };
        let ranked = match weight.storage {
            Storage::Panels | Storage::Codes(_) => matches!(weight.dims.len(), 2 | 4),
            Storage::Rows => !weight.dims.is_empty(),
            Storage::F32 | Storage::I32 => true,
        };
        if !is_countable(&ty) || !ranked {
            let (name, ty) = (weight.name, ty.to_string());
            return Err(GraphError::Type { name, ty });
        }
        if let Storage::Codes(codes) = weight.storage
            && let Err(problem) = self.check_codes(codes, &weight.dims)
        {
            let name = weight.name;
            return Err(GraphError::Codes { name, problem });
        }
        let is_value = matches!(weight.storage, Storage::F32 | Storage::I32);
        self.weight_types.push(is_value.then_some(ty));
        self.weights.push(weight);
        Ok(Operand::Weight(index(self.weights.len() - 1)))
    }

    /// Compares codes of dimensions `dims`, two or four, with the weights that they refer to.
    fn check_codes(&self, codes: Codes, dims: &[u32]) -> Result<(), &'static str> {
        let declared = |number: u32| {
            let weight = self.weights.get(number as usize);
            weight.ok_or("refers to a weight that is not declared before it")
        };
        let columns = dims.first().copied().unwrap_or(0);
        match codes.book {
            Codebook::Scales { scale, zero_point } => {
                if !matches!(codes.bits, 4 | 8) {
                    return Err("codes with a scale have 4 or 8 bits");
                }
                let scale = declared(scale)?;
                let blocks = match scale.dims[..] {
                    [c, blocks] if c == columns && scale.storage == Storage::Panels => blocks,
                    _ => return Err("scales are a weight in panels, [columns, blocks]"),
                };
                if !dims.last().is_some_and(|n| n.is_multiple_of(blocks)) {
                    return Err("the blocks do not divide the input channels");
                }
                let zero_point = zero_point.map(declared).transpose()?;
                let fits = |w: &Weight| w.storage == Storage::Panels && w.dims == scale.dims;
                match zero_point.is_none_or(fits) {
                    true => Ok(()),
                    false => Err("zero points are a weight like the scales"),
                }
            }
            Codebook::Palette { table } => {
                if !matches!(codes.bits, 1 | 2 | 3 | 4 | 6 | 8) {
                    return Err("codes of a palette have 1, 2, 3, 4, 6 or 8 bits");
                }
                let table = declared(table)?;
                match table.dims[..] {
                    [groups, entries]
                        if table.storage == Storage::F32
                            && entries == 1 << codes.bits
                            && columns.is_multiple_of(groups) =>
                    {
                        Ok(())
                    }
                    _ => Err("palettes are a weight of f32, [groups of columns, 2^bits]"),
                }
            }
        }
    }

    /// Appends an instruction and gives its value.
    ///
    /// # Errors
    /// When an operand is not there or does not fit.
    pub fn push(&mut self, instruction: Instruction) -> Result<Operand, GraphError> {
        let mut operands = Vec::with_capacity(instruction.operands.len());
        for operand in &instruction.operands {
            let Some(ty) = self.operand_type(*operand) else {
                return Err(GraphError::Undefined {
                    name: instruction.name,
                    operand: operand.to_string(),
                });
            };
            operands.push(ty);
        }
        match instruction.op.infer(&Operands(&operands)) {
            Ok(ty) => self.values.push(ty),
            Err(source) => {
                let name = instruction.name;
                return Err(GraphError::Infer { name, source });
            }
        }
        self.instructions.push(instruction);
        Ok(Operand::Value(index(self.values.len() - 1)))
    }

    /// Declares an output.
    ///
    /// # Errors
    /// When the name is taken or the value is not there.
    pub fn output(&mut self, name: impl Into<String>, value: u32) -> Result<(), GraphError> {
        let name = name.into();
        if self.outputs.iter().any(|p| p.name == name) {
            return Err(GraphError::Order { name });
        }
        if value as usize >= self.values.len() {
            let operand = Operand::Value(value).to_string();
            return Err(GraphError::Undefined { name, operand });
        }
        self.outputs.push(Port { name, value });
        Ok(())
    }

    fn operand_type(&self, operand: Operand) -> Option<OperandType<'_>> {
        match operand {
            Operand::Value(v) => self.values.get(v as usize).map(OperandType::Value),
            Operand::Weight(w) => {
                let weight = self.weights.get(w as usize)?;
                Some(match &self.weight_types[w as usize] {
                    Some(ty) => OperandType::Value(ty),
                    None => OperandType::Weight(weight.storage, &weight.dims),
                })
            }
        }
    }
}

fn is_countable(ty: &Type) -> bool {
    let elements = ty.elements_per_batch();
    ty.dims.len() <= crate::types::MAX_RANK && elements.is_some_and(|n| n > 0)
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a program has fewer than 2^32 parts")
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Value(v) => write!(f, "value {v}"),
            Operand::Weight(w) => write!(f, "weight {w}"),
        }
    }
}
