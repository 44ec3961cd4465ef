//! Operators that work element by element.

use snapc_ir::Op;
use snapc_ir::ops::{Add, Cos, Div, Erf, Exp, Gelu, Mul, Sigmoid, Sin, Sqrt, Sub};
use snapc_ir::tensor::Elements;

use super::super::builder::{Builder, Operand};
use super::super::call::Call;
use super::super::error::Fault;

/// `Add`, `Sub`, `Mul`, `Div`.
pub(super) fn arithmetic(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let op: Op = match call.op {
        "Add" => Add {}.into(),
        "Sub" => Sub {}.into(),
        "Mul" => Mul {}.into(),
        _ => Div {}.into(),
    };
    b.apply(op, &call.all()?, call.name)
}

/// `Cos`, `Erf`, `Exp`, `Sigmoid`, `Sin`, `Sqrt`.
pub(super) fn function(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let op: Op = match call.op {
        "Cos" => Cos {}.into(),
        "Erf" => Erf {}.into(),
        "Exp" => Exp {}.into(),
        "Sigmoid" => Sigmoid {}.into(),
        "Sin" => Sin {}.into(),
        _ => Sqrt {}.into(),
    };
    b.apply(op, &call.all()?, call.name)
}

/// `Neg`: `x · -1`.
pub(super) fn negated(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let dtype = b.ty(x).dtype;
    let minus = if dtype.is_float() {
        b.scalar(call.name, -1.0, dtype)
    } else {
        b.known(call.name, &snapc_ir::Tensor::int(&[], vec![-1]), dtype)
    };
    b.apply(Mul {}, &[x, minus], call.name)
}

/// `Reciprocal`: `1 / x`.
pub(super) fn reciprocal(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let dtype = b.ty(x).dtype;
    if !dtype.is_float() {
        return Err(Fault::malformed(format!(
            "operand 0 must be a float, is {dtype}"
        )));
    }
    let one = b.scalar(call.name, 1.0, dtype);
    b.apply(Div {}, &[one, x], call.name)
}

/// `Pow` with one of the exponents that have a simpler form.
pub(super) fn power(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let exponent = b.elements(call.input(1)?).filter(|e| e.len() == 1);
    let exponent = exponent.map(|e| match e.elements {
        Elements::Float(v) => v[0],
        Elements::Int(v) => v[0] as f32,
    });
    match exponent {
        Some(1.0) => Ok(x),
        Some(2.0) => b.apply(Mul {}, &[x, x], call.name),
        Some(0.5) => b.apply(Sqrt {}, &[x], call.name),
        _ => Err(Fault::unsupported(
            "the exponent must be a constant 0.5, 1 or 2",
        )),
    }
}

/// `Gelu` by the error function.
pub(super) fn gelu(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    match call.string("approximate")? {
        None | Some("none") => b.apply(Gelu {}, &call.all()?, call.name),
        Some(other) => Err(Fault::unsupported(format!(
            "approximate '{other}', must be 'none'"
        ))),
    }
}
