//! Rules about the function and its block: opset, names, order of definition.

use std::collections::{BTreeMap, BTreeSet};

use super::blobs::Reference;
use super::{Report, constant, constexpr, operation, rules};
use crate::level::Level;
use crate::names::{RESERVED, is_identifier};
use crate::proto::{
    Block, Bound, DataType, Extent, Function, NamedValueType, Operation, Value, ValueType,
};
use crate::signature::MAX_RANK;

/// Element type and sizes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub dtype: DataType,
    pub shape: Vec<u64>,
}

impl Type {
    /// Number of elements; `None` on overflow.
    pub(super) fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |a, &b| a.checked_mul(b))
    }
}

/// A value in scope.
#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    /// Its type; absent when the declaration was malformed, which has its own finding.
    pub ty: Option<Type>,
    /// Its value, for a `const` in place or in the weight file.
    pub value: Option<&'a Value>,
    /// Whether it is known when the program is compiled.
    pub is_constant: bool,
}

/// The values defined so far.
pub(super) type Scope<'a> = BTreeMap<&'a str, Known<'a>>;

/// Checks a function and gives the blobs it refers to; `None` when there is not one block to look at.
pub(super) fn check(
    function: &Function,
    level: Level,
    report: &mut Report,
) -> Option<Vec<Reference>> {
    if !function.attributes.is_empty() {
        report.add(rules::PROGRAM, "", "the function has attributes");
    }
    if function.opset != level.opset() {
        let (found, expected) = (&function.opset, level.opset());
        report.add(
            rules::OPSET,
            "",
            format!("the opset is '{found}', not '{expected}'"),
        );
    }
    let keys: Vec<&String> = function.block_specializations.keys().collect();
    let Some(block) = function
        .block_specializations
        .values()
        .next()
        .filter(|_| keys.len() == 1)
    else {
        report.add(
            rules::PROGRAM,
            "",
            format!("there are {} blocks, not one", keys.len()),
        );
        return None;
    };
    if keys[0] != level.opset() {
        let message = format!("the block is for '{}', not '{}'", keys[0], level.opset());
        report.add(rules::OPSET, "", message);
    }
    if !block.inputs.is_empty() || !block.attributes.is_empty() {
        report.add(
            rules::PROGRAM,
            "",
            "the function's block has inputs or attributes",
        );
    }
    let mut walk = Walk {
        level,
        scope: Scope::new(),
        blobs: Vec::new(),
        report,
    };
    for input in &function.inputs {
        walk.define(input, "input", Definition::default());
    }
    let uses = uses(block);
    for operation in &block.operations {
        walk.operation(operation, &uses);
    }
    walk.outputs(function, block);
    Some(walk.blobs)
}

/// For every name that a parameter is bound to, the first such parameter: a constant's own name tells little.
fn uses(block: &Block) -> BTreeMap<&str, String> {
    let mut uses = BTreeMap::new();
    for op in &block.operations {
        let result = op.outputs.first().map_or("", |o| o.name.as_str());
        for (parameter, argument) in &op.inputs {
            for binding in &argument.arguments {
                if let Some(Bound::Name(name)) = &binding.bound {
                    let place = || format!("parameter '{parameter}' of {} '{result}'", op.kind);
                    uses.entry(name.as_str()).or_insert_with(place);
                }
            }
        }
    }
    uses
}

/// How a value is defined.
#[derive(Clone, Copy, Default)]
struct Definition<'a> {
    value: Option<&'a Value>,
    is_constant: bool,
    /// A malformed constant has its own finding; what uses it gets none.
    is_malformed: bool,
}

struct Walk<'a, 'r> {
    level: Level,
    scope: Scope<'a>,
    blobs: Vec<Reference>,
    report: &'r mut Report,
}

impl<'a> Walk<'a, '_> {
    fn define(&mut self, value: &'a NamedValueType, place: &str, definition: Definition<'a>) {
        let name = value.name.as_str();
        let place = format!("{place} '{name}'");
        if !is_identifier(name) || RESERVED.contains(&name) {
            self.report
                .add(rules::IDENTIFIER, &place, "the name is no identifier");
        }
        let ty = check_type(value.ty.as_ref(), &place, self.report);
        let known = Known {
            ty: ty.filter(|_| !definition.is_malformed),
            value: definition.value,
            is_constant: definition.is_constant,
        };
        if self.scope.insert(name, known).is_some() {
            self.report
                .add(rules::UNIQUE, &place, "the name is defined twice");
        }
    }

    fn operation(&mut self, op: &'a Operation, uses: &BTreeMap<&str, String>) {
        let name = op.outputs.first().map_or("", |o| o.name.as_str());
        let mut place = format!("{} '{name}'", op.kind);
        if let Some(first_use) = uses.get(name).filter(|_| op.kind == "const") {
            place = format!("{place}, {first_use}");
        }
        operation::check_attributes(op, &place, self.report);
        let before = self.report.findings.len();
        let is_const = op.kind == "const";
        let is_constexpr = op.kind.starts_with("constexpr_");
        if is_const {
            self.blobs.extend(constant::check(op, &place, self.report));
        } else if is_constexpr {
            let references = constexpr::check(op, &place, self.level, self.report);
            self.blobs.extend(references);
        } else {
            operation::check(op, &place, self.level, &self.scope, self.report);
        }
        let definition = Definition {
            value: op.attributes.get("val").filter(|_| is_const),
            is_constant: is_const || is_constexpr,
            is_malformed: is_const && self.report.findings.len() > before,
        };
        for output in &op.outputs {
            self.define(output, &op.kind, definition);
        }
    }

    fn outputs(&mut self, function: &Function, block: &Block) {
        let inputs: BTreeSet<&str> = function.inputs.iter().map(|i| i.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        for name in &block.outputs {
            let place = format!("output '{name}'");
            if inputs.contains(name.as_str()) {
                self.report
                    .add(rules::OUTPUT, &place, "it is an input of the function");
            } else if !self.scope.contains_key(name.as_str()) {
                self.report
                    .add(rules::DEFINED, &place, "nothing defines it");
            }
            if !seen.insert(name) {
                self.report
                    .add(rules::OUTPUT, &place, "it is given out twice");
            }
        }
    }
}

/// The type when it is well formed.
pub(super) fn check_type(ty: Option<&ValueType>, place: &str, report: &mut Report) -> Option<Type> {
    check_type_of_rank(ty, place, MAX_RANK, report)
}

/// The same with another limit on the number of dimensions.
pub(super) fn check_type_of_rank(
    ty: Option<&ValueType>,
    place: &str,
    max_rank: usize,
    report: &mut Report,
) -> Option<Type> {
    let Some(tensor) = ty.and_then(|t| t.tensor.as_ref()) else {
        report.add(rules::TYPE, place, "it has no tensor type");
        return None;
    };
    let dtype = DataType::try_from(tensor.data_type)
        .ok()
        .filter(|d| *d != DataType::Unused);
    let Some(dtype) = dtype else {
        report.add(
            rules::TYPE,
            place,
            format!("element type {} is unknown", tensor.data_type),
        );
        return None;
    };
    if usize::try_from(tensor.rank) != Ok(tensor.dimensions.len()) {
        let message = format!(
            "the rank is {} with {} dimensions",
            tensor.rank,
            tensor.dimensions.len()
        );
        report.add(rules::TYPE, place, message);
        return None;
    }
    let sizes = tensor.dimensions.iter().map(|d| match &d.extent {
        Some(Extent::Constant(c)) => Some(c.size),
        _ => None,
    });
    let Some(shape) = sizes.collect::<Option<Vec<u64>>>() else {
        report.add(rules::TYPE, place, "a dimension has no constant size");
        return None;
    };
    if shape.len() > max_rank {
        report.add(
            rules::RANK,
            place,
            format!("{} dimensions are more than {max_rank}", shape.len()),
        );
        return None;
    }
    Some(Type { dtype, shape })
}
