//! One operation of the program with its parameters, as the operators' readers ask for them.

use snapc_ir::{LazyTensor, Op, ValueId};

use super::builder::{Builder, Entry};
use super::constant::{Constant, Literal, literal};
use super::error::Fault;
use super::weight_file::WeightFiles;
use crate::proto::{Bound, Operation, Value};

/// An operation, and the graph it is added to.
pub(super) struct Call<'a> {
    operation: &'a Operation,
    /// The name of the nodes it becomes.
    name: String,
    pub(super) builder: &'a mut Builder,
    files: &'a mut WeightFiles,
}

/// Where the value of a parameter comes from.
enum Source<'a> {
    Name(&'a str),
    Literal(&'a Value),
}

impl<'a> Call<'a> {
    pub(super) fn new(
        operation: &'a Operation,
        name: String,
        builder: &'a mut Builder,
        files: &'a mut WeightFiles,
    ) -> Self {
        Call {
            operation,
            name,
            builder,
            files,
        }
    }

    /// Name of the operation in MIL.
    pub(super) fn kind(&self) -> &'a str {
        &self.operation.kind
    }

    /// How many results the operation has.
    pub(super) fn results(&self) -> usize {
        self.operation.outputs.len()
    }

    fn sources(&self, parameter: &str) -> Vec<Source<'a>> {
        if let Some(argument) = self.operation.inputs.get(parameter) {
            let bound = argument.arguments.iter().filter_map(|b| b.bound.as_ref());
            return bound
                .map(|b| match b {
                    Bound::Name(name) => Source::Name(name),
                    Bound::Value(value) => Source::Literal(value),
                })
                .collect();
        }
        let attribute = self.operation.attributes.get(parameter);
        attribute.map(Source::Literal).into_iter().collect()
    }

    fn resolve(&mut self, parameter: &str, source: Source<'a>) -> Result<(String, Entry), Fault> {
        match source {
            Source::Name(name) => {
                let entry = self.builder.entries.get(name).cloned();
                let entry = entry.ok_or_else(|| {
                    Fault::malformed(format!("'{name}' is used before it is defined"))
                })?;
                Ok((name.to_owned(), entry))
            }
            Source::Literal(value) => {
                let entry = match literal(value, self.files)? {
                    Literal::Tensor(constant) => Entry::Constant(constant),
                    Literal::Word(word) => Entry::Word(word),
                };
                // No name of the program has a dot, so this one is free.
                let first = self.operation.outputs.first();
                let result = first.map_or("", |o| o.name.as_str());
                Ok((format!("{result}.{parameter}"), entry))
            }
        }
    }

    /// What a parameter is bound to; `None` when it is not given.
    ///
    /// # Errors
    /// When it is bound to several values, or to one that is not defined.
    pub(super) fn entry(&mut self, parameter: &str) -> Result<Option<(String, Entry)>, Fault> {
        let mut sources = self.sources(parameter);
        let Some(source) = sources.pop() else {
            return Ok(None);
        };
        if !sources.is_empty() {
            return Err(Fault::malformed(format!(
                "'{parameter}' has several values"
            )));
        }
        self.resolve(parameter, source).map(Some)
    }

    /// What a parameter is bound to.
    ///
    /// # Errors
    /// When it is missing or not defined.
    pub(super) fn required(&mut self, parameter: &str) -> Result<Entry, Fault> {
        let entry = self.entry(parameter)?.map(|(_, entry)| entry);
        entry.ok_or_else(|| missing(parameter))
    }

    /// The value in the graph of what a parameter is bound to.
    fn bound_value(&mut self, parameter: &str, found: (String, Entry)) -> Result<ValueId, Fault> {
        match found {
            (_, Entry::Value(value)) => Ok(value),
            (entry, Entry::Constant(constant)) => {
                let name = super::names::restored(&entry);
                self.builder.weight(&entry, &name, &constant)
            }
            (entry, Entry::Encoded(tensor)) => {
                let name = super::names::restored(&entry);
                Ok(self.builder.encoded_weight(&entry, &name, &tensor))
            }
            (_, Entry::Word(_)) => Err(Fault::malformed(format!("'{parameter}' is a string"))),
            (_, Entry::Rounded(_)) => Err(Fault::unsupported(format!(
                "'{parameter}' is rounded, which is read only in front of a 'clip' to 0 and 255"
            ))),
            (_, Entry::Codes { .. }) => Err(Fault::unsupported(format!(
                "'{parameter}' is codes of 8 bits, which only 'dequantize' is read to take"
            ))),
            (_, Entry::NotNegative(_) | Entry::Wrapped { .. }) => Err(Fault::unsupported(
                "a selection by sign is read only where it makes indices of a gather positive",
            )),
        }
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// When it is missing or has no form in the graph.
    pub(super) fn value(&mut self, parameter: &str) -> Result<ValueId, Fault> {
        let value = self.optional_value(parameter)?;
        value.ok_or_else(|| missing(parameter))
    }

    /// The value of a parameter that may be left out.
    ///
    /// # Errors
    /// When it has no form in the graph.
    pub(super) fn optional_value(&mut self, parameter: &str) -> Result<Option<ValueId>, Fault> {
        match self.entry(parameter)? {
            Some(found) => self.bound_value(parameter, found).map(Some),
            None => Ok(None),
        }
    }

    /// The values of a tuple.
    ///
    /// # Errors
    /// When there is none, or one has no form in the graph.
    pub(super) fn values(&mut self, parameter: &str) -> Result<Vec<ValueId>, Fault> {
        let mut values = Vec::new();
        for source in self.sources(parameter) {
            let found = self.resolve(parameter, source)?;
            values.push(self.bound_value(parameter, found)?);
        }
        match values.is_empty() {
            true => Err(missing(parameter)),
            false => Ok(values),
        }
    }

    /// The indices of a gather: a value, and what was added to its negative elements.
    ///
    /// # Errors
    /// When it is missing or has no form in the graph.
    pub(super) fn indices(&mut self) -> Result<(ValueId, Option<LazyTensor>), Fault> {
        match self.required("indices")? {
            Entry::Wrapped { indices, sizes } => Ok((indices, Some(sizes))),
            _ => Ok((self.value("indices")?, None)),
        }
    }

    /// The stored constant of a parameter.
    ///
    /// # Errors
    /// When it is missing or computed.
    pub(super) fn constant(&mut self, parameter: &str) -> Result<Constant, Fault> {
        let constant = self.optional_constant(parameter)?;
        constant.ok_or_else(|| missing(parameter))
    }

    /// The stored constant of a parameter that may be left out.
    ///
    /// # Errors
    /// When it is computed.
    pub(super) fn optional_constant(&mut self, parameter: &str) -> Result<Option<Constant>, Fault> {
        match self.entry(parameter)? {
            None => Ok(None),
            Some((_, Entry::Constant(constant))) => Ok(Some(constant)),
            Some((_, Entry::Encoded(tensor))) => Constant::dense(&tensor).map(Some),
            Some(_) => Err(Fault::malformed(format!(
                "'{parameter}' is no constant tensor"
            ))),
        }
    }

    /// Adds a node, or what it folds to.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    pub(super) fn add(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
    ) -> Result<ValueId, Fault> {
        self.builder.add(op, operands, &self.name)
    }

    /// Other dimensions over the same elements.
    ///
    /// # Errors
    /// When their number differs.
    pub(super) fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId, Fault> {
        self.builder.reshape(x, shape, &self.name)
    }

    /// Other order of dimensions.
    ///
    /// # Errors
    /// When `perm` is no permutation of the dimensions.
    pub(super) fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, Fault> {
        self.builder.transpose(x, perm, &self.name)
    }

    /// A scalar of the element type of a value.
    pub(super) fn scalar(&mut self, like: ValueId, value: f32) -> ValueId {
        self.builder.scalar(like, value, &self.name)
    }

    /// A constant that the operation needs in the graph.
    pub(super) fn define(&mut self, tensor: LazyTensor) -> ValueId {
        self.builder.graph.constant(&self.name, tensor)
    }

    pub(super) fn shape(&self, value: ValueId) -> Vec<usize> {
        self.builder.shape(value)
    }
}

pub(super) fn missing(parameter: &str) -> Fault {
    Fault::malformed(format!("'{parameter}' is missing"))
}
