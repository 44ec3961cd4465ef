//! One node of the model: its operands and attributes, checked.

use std::collections::BTreeMap;

use snapc_ir::tensor::Elements;

use super::builder::{Builder, Operand};
use super::error::Fault;
use super::external::DataFiles;
use crate::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_FLOATS, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRING,
    ATTRIBUTE_TENSOR, AttributeProto, NodeProto, TensorProto,
};

/// A node with its operands looked up.
pub(super) struct Call<'a> {
    /// Name of the nodes that it becomes.
    pub(super) name: &'a str,
    /// Operator.
    pub(super) op: &'a str,
    /// Version of the operator set.
    pub(super) opset: i64,
    /// Number of results, those without a name included.
    pub(super) results: usize,
    /// Files that a constant among the attributes may point to.
    pub(super) files: &'a mut DataFiles,
    node: &'a NodeProto,
    inputs: Vec<Option<Operand>>,
    attributes: BTreeMap<&'a str, &'a AttributeProto>,
}

impl<'a> Call<'a> {
    /// Looks up the operands of a node.
    ///
    /// # Errors
    /// When one is not defined before, or an attribute is given twice.
    pub(super) fn new(
        node: &'a NodeProto,
        name: &'a str,
        opset: i64,
        builder: &Builder,
        files: &'a mut DataFiles,
    ) -> Result<Self, Fault> {
        let mut inputs = Vec::with_capacity(node.input.len());
        let op = node.op_type.as_deref().unwrap_or_default();
        for (i, input) in node.input.iter().enumerate() {
            let takes_codes = op == "DequantizeLinear" && i == 0;
            if builder.codes.contains_key(input) && !takes_codes {
                return Err(Fault::unsupported(format!(
                    "operand '{input}' are codes of QuantizeLinear, which only DequantizeLinear takes"
                )));
            }
            inputs.push(match input.as_str() {
                "" => None,
                input => Some(*builder.values.get(input).ok_or_else(|| {
                    Fault::malformed(format!("operand '{input}' is not defined before its use"))
                })?),
            });
        }
        let mut attributes = BTreeMap::new();
        for attribute in &node.attribute {
            let name = attribute.name.as_deref().unwrap_or_default();
            if attributes.insert(name, attribute).is_some() {
                return Err(Fault::malformed(format!(
                    "attribute '{name}' is given twice"
                )));
            }
        }
        Ok(Call {
            name,
            op,
            opset,
            results: node.output.len(),
            files,
            node,
            inputs,
            attributes,
        })
    }

    /// Name of an operand; empty when it is left out.
    pub(super) fn operand_name(&self, i: usize) -> &'a str {
        self.node.input.get(i).map_or("", String::as_str)
    }

    /// Name of the first result.
    pub(super) fn result_name(&self) -> &'a str {
        self.node.output.first().map_or("", String::as_str)
    }

    /// An operand that must be given.
    pub(super) fn input(&self, i: usize) -> Result<Operand, Fault> {
        let missing = || Fault::malformed(format!("operand {i} is missing"));
        self.optional(i).ok_or_else(missing)
    }

    /// An operand that may be left out.
    pub(super) fn optional(&self, i: usize) -> Option<Operand> {
        self.inputs.get(i).copied().flatten()
    }

    /// All operands, of which none may be left out.
    pub(super) fn all(&self) -> Result<Vec<Operand>, Fault> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// The elements of a constant integer operand.
    pub(super) fn integers(&self, builder: &mut Builder, i: usize) -> Result<Vec<i64>, Fault> {
        let operand = self.input(i)?;
        let Some(tensor) = builder.elements(operand) else {
            return Err(Fault::unsupported(format!(
                "operand {i} is computed at run time, but the reader needs its value; export with fixed shapes"
            )));
        };
        match tensor.elements {
            Elements::Int(v) => Ok(v),
            Elements::Float(_) => Err(Fault::malformed(format!("operand {i} must be integers"))),
        }
    }

    /// As [`Call::integers`], when the operand is given.
    pub(super) fn optional_integers(
        &self,
        builder: &mut Builder,
        i: usize,
    ) -> Result<Option<Vec<i64>>, Fault> {
        let given = self.optional(i).map(|_| self.integers(builder, i));
        given.transpose()
    }

    /// Whether an attribute is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    fn attribute(
        &self,
        name: &str,
        kind: i32,
        expected: &str,
    ) -> Result<Option<&'a AttributeProto>, Fault> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(attribute) if attribute.kind == Some(kind) => Ok(Some(*attribute)),
            Some(_) => Err(Fault::malformed(format!(
                "attribute '{name}' must be {expected}"
            ))),
        }
    }

    /// An integer attribute.
    pub(super) fn int(&self, name: &str) -> Result<Option<i64>, Fault> {
        let attribute = self.attribute(name, ATTRIBUTE_INT, "an integer")?;
        Ok(attribute.map(|a| a.i.unwrap_or_default()))
    }

    /// A truth value as an integer attribute.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Fault> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }

    /// A float attribute.
    pub(super) fn float(&self, name: &str) -> Result<Option<f32>, Fault> {
        let attribute = self.attribute(name, ATTRIBUTE_FLOAT, "a float")?;
        Ok(attribute.map(|a| a.f.unwrap_or_default()))
    }

    /// A list of integers as an attribute.
    pub(super) fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, Fault> {
        let attribute = self.attribute(name, ATTRIBUTE_INTS, "a list of integers")?;
        Ok(attribute.map(|a| a.ints.as_slice()))
    }

    /// A list of floats as an attribute.
    pub(super) fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, Fault> {
        let attribute = self.attribute(name, ATTRIBUTE_FLOATS, "a list of floats")?;
        Ok(attribute.map(|a| a.floats.as_slice()))
    }

    /// A string attribute.
    pub(super) fn string(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        let attribute = self.attribute(name, ATTRIBUTE_STRING, "a string")?;
        let bytes = attribute.map(|a| a.s.as_deref().unwrap_or_default());
        let text = bytes.map(std::str::from_utf8).transpose();
        text.map_err(|_| Fault::malformed(format!("attribute '{name}' is not UTF-8")))
    }

    /// A tensor attribute.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, Fault> {
        let attribute = self.attribute(name, ATTRIBUTE_TENSOR, "a tensor")?;
        let missing = || Fault::malformed(format!("attribute '{name}' has no tensor"));
        attribute
            .map(|a| a.t.as_deref().ok_or_else(missing))
            .transpose()
    }

    /// The axis that an attribute names, counted from the front.
    pub(super) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, Fault> {
        normal_axis(self.int(name)?.unwrap_or(default), rank)
    }
}

/// An axis counted from the front; negative ones count from the end.
pub(super) fn normal_axis(axis: i64, rank: usize) -> Result<usize, Fault> {
    let count = i64::try_from(rank).unwrap_or(i64::MAX);
    let normal = if axis < 0 {
        axis.checked_add(count)
    } else {
        Some(axis)
    };
    let normal = normal.filter(|a| (0..count).contains(a));
    let outside = || Fault::malformed(format!("axis {axis} does not exist at rank {rank}"));
    normal.map(|a| a as usize).ok_or_else(outside)
}

/// As [`normal_axis`] for several, each once, in ascending order.
pub(super) fn normal_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, Fault> {
    let normal = axes.iter().map(|&a| normal_axis(a, rank));
    let mut normal = normal.collect::<Result<Vec<_>, _>>()?;
    normal.sort_unstable();
    if normal.windows(2).any(|w| w[0] == w[1]) {
        return Err(Fault::malformed(format!("axes {axes:?} name one twice")));
    }
    Ok(normal)
}
