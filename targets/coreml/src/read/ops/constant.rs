//! What is known when the program is read, and the selection that makes indices positive.

use snapc_ir::{LazyTensor, Op, ValueId};

use super::super::builder::Entry;
use super::super::call::Call;
use super::super::constant::elements;
use super::super::error::Fault;

/// Elements that a `fill` may make.
const MAX_FILLED: usize = 1 << 20;

/// A tensor of one value.
pub(super) fn fill(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let shape = call.ints("shape")?.into_iter().map(usize::try_from);
    let shape = shape.collect::<Result<Vec<usize>, _>>().ok();
    let shape = shape.filter(|s| elements(s).is_some_and(|n| (1..=MAX_FILLED).contains(&n)));
    let shape = shape.ok_or_else(|| Fault::unsupported("the shape is empty or very large"))?;
    let value = call.value("value")?;
    let count: usize = shape.iter().product();
    let data = call.builder.data(value).cloned();
    let data = data.filter(|d| d.elements() == 1);
    let data = data.ok_or_else(|| Fault::unsupported("the value is not one constant"))?;
    let tensor = match data.dtype().is_float() {
        true => LazyTensor::from_f32(&shape, &vec![data.to_f32()?[0]; count]).cast(data.dtype()),
        false => {
            let value = i32::try_from(data.to_i64()?[0]);
            let value = value.map_err(|_| Fault::unsupported("an integer is beyond 32 bits"))?;
            LazyTensor::from_i32(&shape, &vec![value; count])
        }
    };
    Ok(call.define(tensor))
}

/// `x ≥ 0` of integers, which stands before a [`select`].
pub(super) fn greater_equal(call: &mut Call<'_>) -> Result<Entry, Fault> {
    let (x, y) = (call.value("x")?, call.value("y")?);
    let zeros = match call.builder.data(y) {
        Some(data) if !data.dtype().is_float() && data.elements() <= MAX_FILLED => {
            data.to_i64()?.iter().all(|&v| v == 0)
        }
        _ => false,
    };
    let is_sign = zeros && !call.builder.dtype(x).is_float();
    let keeps_shape =
        call.shape(y).len() <= call.shape(x).len() && call.shape(y).iter().product::<usize>() == 1;
    match is_sign && keeps_shape {
        true => Ok(Entry::NotNegative(x)),
        false => Err(Fault::unsupported("only integers are compared, with 0")),
    }
}

/// `i ≥ 0 ? i : i + size`, which coremltools puts before gathers, or a choice that is known when the program is read.
pub(super) fn select(call: &mut Call<'_>) -> Result<Entry, Fault> {
    let (a, b) = (call.value("a")?, call.value("b")?);
    if let Entry::NotNegative(indices) = call.required("cond")? {
        let sizes = match a == indices {
            true => added(call, b, indices),
            false => None,
        };
        let sizes = sizes.ok_or_else(|| {
            Fault::unsupported("a selection by sign is read only where it makes indices positive")
        })?;
        return Ok(Entry::Wrapped { indices, sizes });
    }
    let condition = call.value("cond")?;
    let known = match call.builder.data(condition) {
        Some(data) if data.elements() <= MAX_FILLED => Some(data.to_i64()?),
        _ => None,
    };
    let chosen = match known {
        Some(bits) if bits.iter().all(|&bit| bit != 0) => a,
        Some(bits) if bits.iter().all(|&bit| bit == 0) => b,
        _ => {
            return Err(Fault::unsupported(
                "a choice per element has no form in the IR",
            ));
        }
    };
    let other = if chosen == a { b } else { a };
    match call.shape(chosen) == call.shape(other) {
        true => Ok(Entry::Value(chosen)),
        false => Err(Fault::unsupported(
            "a choice between shapes has no form in the IR",
        )),
    }
}

/// The constant that a sum adds to a value.
fn added(call: &Call<'_>, sum: ValueId, value: ValueId) -> Option<LazyTensor> {
    let node = call.builder.graph.node_of(sum)?;
    let &[x, y] = node.operands.as_slice() else {
        return None;
    };
    let other = if x == value { y } else { x };
    let fits = matches!(node.op, Op::Add(_)) && [x, y].contains(&value);
    let data = call.builder.data(other)?;
    // One size, or one per column.
    (fits && data.elements() <= 8).then(|| data.clone())
}
