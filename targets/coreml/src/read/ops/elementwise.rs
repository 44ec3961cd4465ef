//! Operations on single elements.

use snapc_ir::ops::{Add, Cast, Cos, Div, Equal, Erf, Exp, Mul, Sin, Sqrt, Sub};
use snapc_ir::{DType, Op, ValueId};

use super::super::builder::to_lazy;
use super::super::call::Call;
use super::super::error::Fault;

/// An operation of parameters `x` and `y` that broadcasts as numpy does.
pub(super) fn binary(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let op: Op = match call.kind() {
        "add" => Add {}.into(),
        "sub" => Sub {}.into(),
        "mul" => Mul {}.into(),
        "real_div" => Div {}.into(),
        _ => Equal {}.into(),
    };
    let (x, y) = (call.value("x")?, call.value("y")?);
    let divides_integers = matches!(op, Op::Div(_)) && !call.builder.dtype(x).is_float();
    if divides_integers {
        return Err(Fault::unsupported(
            "a quotient of integers is no integer; cast them first",
        ));
    }
    call.add(op, &[x, y])
}

/// An operation of parameter `x` that the IR has.
pub(super) fn unary(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let op: Op = match call.kind() {
        "sqrt" => Sqrt {}.into(),
        "exp" => Exp {}.into(),
        "erf" => Erf {}.into(),
        "sin" => Sin {}.into(),
        _ => Cos {}.into(),
    };
    let x = call.value("x")?;
    call.add(op, &[x])
}

/// An operation of parameter `x` in several steps.
pub(super) fn composed(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    match call.kind() {
        "square" => call.add(Mul {}, &[x, x]),
        "exp2" => {
            let ln_2 = call.scalar(x, std::f32::consts::LN_2);
            let scaled = call.add(Mul {}, &[x, ln_2])?;
            call.add(Exp {}, &[scaled])
        }
        "rsqrt" => {
            let shifted = shifted(call, x, 1e-12)?;
            let root = call.add(Sqrt {}, &[shifted])?;
            reciprocal(call, root)
        }
        _ => {
            let shifted = shifted(call, x, 1e-4)?;
            reciprocal(call, shifted)
        }
    }
}

/// `x + epsilon`.
fn shifted(call: &mut Call<'_>, x: ValueId, default: f32) -> Result<ValueId, Fault> {
    let epsilon = call.float_or("epsilon", default)?;
    let epsilon = call.scalar(x, epsilon);
    call.add(Add {}, &[x, epsilon])
}

fn reciprocal(call: &mut Call<'_>, x: ValueId) -> Result<ValueId, Fault> {
    let one = call.scalar(x, 1.0);
    call.add(Div {}, &[one, x])
}

/// A power whose exponent is a constant that products and roots can make.
pub(super) fn pow(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let exponent = call.float_or("y", f32::NAN)?;
    if exponent == 1.0 {
        Ok(x)
    } else if exponent == 2.0 {
        call.add(Mul {}, &[x, x])
    } else if exponent == 3.0 {
        let square = call.add(Mul {}, &[x, x])?;
        call.add(Mul {}, &[square, x])
    } else if exponent == 0.5 {
        call.add(Sqrt {}, &[x])
    } else if exponent == -0.5 {
        let root = call.add(Sqrt {}, &[x])?;
        reciprocal(call, root)
    } else if exponent == -1.0 {
        reciprocal(call, x)
    } else {
        Err(Fault::unsupported(format!(
            "the exponent {exponent} is none of 1, 2, 3, 0.5, -0.5 and -1"
        )))
    }
}

/// Another element type. Integers keep their value: all widths are one type in the IR.
pub(super) fn cast(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let from = call.builder.dtype(x);
    let word = call.word("dtype")?;
    let to = match word.as_str() {
        "fp16" => DType::F16,
        "fp32" | "fp64" => DType::F32,
        "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32" => DType::I32,
        other => {
            return Err(Fault::unsupported(format!(
                "the IR has no cast to '{other}'"
            )));
        }
    };
    if from == to {
        return Ok(x);
    }
    if !from.is_float() || to.is_float() {
        return call.add(Cast { to }, &[x]);
    }
    let Some(data) = call.builder.data(x).cloned() else {
        return Err(Fault::unsupported("the IR rounds no floats to integers"));
    };
    let mut tensor = snapc_ir::eval::weight_tensor(&data)?;
    let truncated = tensor.floats().iter().map(|&v| v as i64).collect();
    tensor.elements = snapc_ir::tensor::Elements::Int(truncated);
    let integers = to_lazy(&tensor, to)?;
    Ok(call.define(integers))
}
