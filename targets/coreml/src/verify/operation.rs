//! Rules about single operations, from their signatures.

use super::function::{Known, Scope, Type};
use super::{Report, rules, shape};
use crate::level::Level;
use crate::proto::{Argument, Bound, Content, DataType, Elements, Operation, Value};
use crate::signature::{Kind, Parameter, ResultType, Signature, find};

/// Checks the attributes that every operation has.
pub(super) fn check_attributes(op: &Operation, place: &str, report: &mut Report) {
    match op.attributes.get("name").map(word) {
        Some(Some(name)) if !name.is_empty() => {}
        Some(_) => report.add(rules::NAMED, place, "its name attribute is not one string"),
        None => report.add(rules::NAMED, place, "it has no name attribute"),
    }
    let may_have_more = op.kind.starts_with("constexpr_");
    for key in op.attributes.keys() {
        let known = key == "name" || (key == "val" && op.kind == "const");
        if !known && !may_have_more {
            report.add(rules::NAMED, place, format!("unknown attribute '{key}'"));
        }
    }
}

/// Checks an operation that is no constant.
pub(super) fn check(
    op: &Operation,
    place: &str,
    level: Level,
    scope: &Scope<'_>,
    report: &mut Report,
) {
    let before = report.findings.len();
    let Some(signature) = find(&op.kind).filter(|s| s.since <= level) else {
        report.add(rules::OPERATION, place, format!("unknown at {level}"));
        return;
    };
    if op.outputs.len() != 1 || !op.blocks.is_empty() {
        report.add(rules::OPERATION, place, "it has blocks, or not one result");
        return;
    }
    let call = Call {
        op,
        signature,
        level,
        scope,
    };
    call.parameters(place, report);
    // The rest follows from parameters that are as they should be.
    if report.findings.len() == before {
        call.types(place, report);
        call.ranks(place, report);
    }
    if report.findings.len() == before {
        call.shape(place, report);
    }
}

/// An operation with what it may refer to.
pub(super) struct Call<'a> {
    op: &'a Operation,
    signature: &'static Signature,
    level: Level,
    scope: &'a Scope<'a>,
}

impl<'a> Call<'a> {
    fn parameters(&self, place: &str, report: &mut Report) {
        for (name, argument) in &self.op.inputs {
            match self.signature.parameter(name, self.level) {
                None => report.add(
                    rules::PARAMETER,
                    place,
                    format!("it has no parameter '{name}' at {}", self.level),
                ),
                Some(parameter) => self.argument(parameter, argument, place, report),
            }
        }
        let demanded = self
            .signature
            .parameters
            .iter()
            .filter(|p| p.required && p.since <= self.level);
        for parameter in demanded {
            if !self.op.inputs.contains_key(parameter.name) {
                report.add(
                    rules::MISSING,
                    place,
                    format!("parameter '{}' is not written", parameter.name),
                );
            }
        }
    }

    fn argument(
        &self,
        parameter: &Parameter,
        argument: &Argument,
        place: &str,
        report: &mut Report,
    ) {
        let name = parameter.name;
        let count = argument.arguments.len();
        let is_tuple = matches!(parameter.kind, Kind::Tuple(_));
        if count == 0 || (count > 1 && !is_tuple) {
            report.add(
                rules::KIND,
                place,
                format!("parameter '{name}' has {count} values"),
            );
        }
        for binding in &argument.arguments {
            match &binding.bound {
                Some(Bound::Name(value)) => match self.scope.get(value.as_str()) {
                    Some(known) => self.kind(parameter, known, place, report),
                    None => {
                        let message = format!(
                            "parameter '{name}' is '{value}', which nothing before defines"
                        );
                        report.add(rules::DEFINED, place, message);
                    }
                },
                Some(Bound::Value(_)) => {
                    report.add(
                        rules::INLINE,
                        place,
                        format!("parameter '{name}' is a value in place"),
                    );
                }
                None => report.add(rules::KIND, place, format!("parameter '{name}' is empty")),
            }
        }
    }

    fn kind(&self, parameter: &Parameter, known: &Known<'_>, place: &str, report: &mut Report) {
        let Some(ty) = &known.ty else {
            return;
        };
        let rank = ty.shape.len();
        let problem = match parameter.kind {
            Kind::Tensor(dtypes) | Kind::Tuple(dtypes) => wrong_dtype(ty, dtypes),
            Kind::Constant(dtypes) => wrong_dtype(ty, dtypes).or(not_constant(known)),
            Kind::ConstantBefore17(dtypes) if self.level < Level::Ios17 => {
                wrong_dtype(ty, dtypes).or(not_constant(known))
            }
            Kind::ConstantBefore17(dtypes) => wrong_dtype(ty, dtypes),
            Kind::Scalar(dtypes) => wrong_dtype(ty, dtypes)
                .or(not_constant(known))
                .or((rank != 0).then(|| "is no scalar".to_owned())),
            Kind::Vector(dtype) => wrong_dtype(ty, &[dtype])
                .or(not_constant(known))
                .or((rank != 1).then(|| "is no vector".to_owned())),
            Kind::PerDimension(dtype) => {
                let x = self.types_of("x").next().map(|t| t.shape.len() as u64);
                let fits = rank == 1 && x.is_none_or(|n| ty.shape[0] == n);
                wrong_dtype(ty, &[dtype])
                    .or(not_constant(known))
                    .or((!fits).then(|| "has not one element per dimension of x".to_owned()))
            }
            Kind::Word(words) => match known.value.and_then(word) {
                Some(w) if words.contains(&w) => None,
                Some(w) => Some(format!("is '{w}', not one of {}", words.join(", "))),
                None => Some("is no constant string".to_owned()),
            },
        };
        if let Some(problem) = problem {
            report.add(
                rules::KIND,
                place,
                format!("parameter '{}' {problem}", parameter.name),
            );
        }
    }

    fn known(&self, parameter: &str) -> impl Iterator<Item = &'a Known<'a>> + use<'a> {
        let scope = self.scope;
        let bindings = self
            .op
            .inputs
            .get(parameter)
            .map_or(&[][..], |a| &a.arguments);
        bindings.iter().filter_map(move |b| match &b.bound {
            Some(Bound::Name(name)) => scope.get(name.as_str()),
            _ => None,
        })
    }

    fn types_of(&self, parameter: &str) -> impl Iterator<Item = &'a Type> + use<'a> {
        self.known(parameter).filter_map(|k| k.ty.as_ref())
    }

    fn types(&self, place: &str, report: &mut Report) {
        let mut groups = vec![self.signature.same_type.to_vec()];
        if self.level < Level::Ios17 {
            let mut with_x = vec!["x"];
            with_x.extend(self.signature.same_type_before_17);
            groups.push(with_x);
        }
        for group in groups {
            let mut dtypes: Vec<DataType> = group
                .iter()
                .flat_map(|p| self.types_of(p))
                .map(|t| t.dtype)
                .collect();
            dtypes.dedup();
            if dtypes.len() > 1 {
                let message = format!(
                    "parameters '{}' must have one element type, have {dtypes:?}",
                    group.join("', '")
                );
                report.add(rules::SAME_TYPE, place, message);
            }
        }
        let expected = match self.signature.result {
            ResultType::Always(dtype) => Some(dtype),
            ResultType::Of(parameter) => self.types_of(parameter).next().map(|t| t.dtype),
            ResultType::Named => match self.word("dtype") {
                Some("fp16") => Some(DataType::Float16),
                Some("fp32") => Some(DataType::Float32),
                Some("int32") => Some(DataType::Int32),
                Some("bool") => Some(DataType::Bool),
                _ => None,
            },
        };
        let found = self.declared().map(|t| t.dtype);
        if let (Some(expected), Some(found)) = (expected, found)
            && expected != found
        {
            report.add(
                rules::SAME_TYPE,
                place,
                format!("the result is {found:?}, must be {expected:?}"),
            );
        }
    }

    fn ranks(&self, place: &str, report: &mut Report) {
        let max = self.signature.max_rank;
        if let Some(x) = self.types_of("x").find(|t| t.shape.len() > max) {
            let message = format!(
                "parameter 'x' has {} dimensions, {max} at most",
                x.shape.len()
            );
            report.add(rules::RANK, place, message);
        }
    }

    fn shape(&self, place: &str, report: &mut Report) {
        let is_typed = |p: &String| self.known(p).all(|k| k.ty.is_some());
        let Some(declared) = self
            .declared()
            .filter(|_| self.op.inputs.keys().all(is_typed))
        else {
            return;
        };
        match shape::infer(&self.op.kind, self) {
            Ok(shape) if shape == declared.shape => {}
            Ok(shape) => {
                let message = format!(
                    "the result is declared {:?}, must be {shape:?} by {}",
                    declared.shape,
                    self.given()
                );
                report.add(rules::SHAPE, place, message);
            }
            Err(problem) => report.add(rules::SHAPE, place, problem),
        }
    }

    /// The parameters with their integers or shapes, which the shape of the result follows from.
    fn given(&self) -> String {
        let describe = |parameter: &String| match self.ints(parameter) {
            Some(ints) => format!("parameter '{parameter}' {ints:?}"),
            None => format!(
                "parameter '{parameter}' of shape {:?}",
                self.shapes(parameter)
            ),
        };
        let parameters = self.op.inputs.keys().map(describe);
        parameters.collect::<Vec<_>>().join(", ")
    }

    /// The declared type of the result when it is well formed; otherwise it has its finding where it is defined.
    fn declared(&self) -> Option<Type> {
        let ty = self.op.outputs[0].ty.as_ref();
        super::function::check_type(ty, "", &mut Report::new(String::new()))
    }

    /// Sizes of a parameter's values in order.
    pub(super) fn shapes(&self, parameter: &str) -> Vec<&'a [u64]> {
        self.types_of(parameter)
            .map(|t| t.shape.as_slice())
            .collect()
    }

    /// The integers of a constant parameter that stands in place.
    pub(super) fn ints(&self, parameter: &str) -> Option<&'a [i32]> {
        let known = self.known(parameter).next()?;
        match elements(known.value?)? {
            Elements::Ints(v) if is_count(known, v.values.len()) => Some(&v.values),
            _ => None,
        }
    }

    /// The truth values of a constant parameter that stands in place.
    pub(super) fn bools(&self, parameter: &str) -> Option<&'a [bool]> {
        let known = self.known(parameter).next()?;
        match elements(known.value?)? {
            Elements::Bools(v) if is_count(known, v.values.len()) => Some(&v.values),
            _ => None,
        }
    }

    /// The f32 or int32 of a constant scalar parameter that stands in place.
    pub(super) fn number(&self, parameter: &str) -> Option<f64> {
        match elements(self.known(parameter).next()?.value?)? {
            Elements::Floats(v) => v.values.first().map(|&x| f64::from(x)),
            Elements::Ints(v) => v.values.first().map(|&x| f64::from(x)),
            _ => None,
        }
    }

    /// The word that a constant parameter is.
    pub(super) fn word(&self, parameter: &str) -> Option<&'a str> {
        self.known(parameter).next()?.value.and_then(word)
    }
}

fn wrong_dtype(ty: &Type, dtypes: &[DataType]) -> Option<String> {
    (!dtypes.contains(&ty.dtype)).then(|| format!("is {:?}, not one of {dtypes:?}", ty.dtype))
}

fn not_constant(known: &Known<'_>) -> Option<String> {
    (!known.is_constant).then(|| "is no constant".to_owned())
}

/// Whether a constant has as many elements as its type says; if not, it has its finding where it is defined.
fn is_count(known: &Known<'_>, count: usize) -> bool {
    known.ty.as_ref().and_then(Type::elements) == Some(count as u64)
}

fn elements(value: &Value) -> Option<&Elements> {
    match &value.content {
        Some(Content::Immediate(immediate)) => immediate.tensor.as_ref()?.elements.as_ref(),
        _ => None,
    }
}

/// The string that a value is, if it is one without dimensions.
fn word(value: &Value) -> Option<&str> {
    let ty = value.ty.as_ref()?.tensor.as_ref()?;
    let is_scalar = ty.data_type == DataType::String as i32 && ty.dimensions.is_empty();
    match elements(value)? {
        Elements::Strings(v) if is_scalar && v.values.len() == 1 => Some(&v.values[0]),
        _ => None,
    }
}
