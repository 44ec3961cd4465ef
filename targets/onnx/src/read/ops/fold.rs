//! Operators that are carried out while the model is read: constants, casts of them, arithmetic on shapes, masks.

use snapc_ir::ops::{Cast, Equal};
use snapc_ir::tensor::{Elements, strides};
use snapc_ir::{DType, Op, Shape, Tensor};

use super::super::builder::{Builder, Operand};
use super::super::call::Call;
use super::super::error::Fault;
use super::super::tensor::{constant as tensor_constant, elements};
use super::movement::broadcast;
use crate::proto::{DOUBLE, element_type};

/// The elements of an operand that must be a constant of reasonable size.
pub(super) fn known(b: &mut Builder, call: &Call<'_>, i: usize) -> Result<Tensor, Fault> {
    let operand = call.input(i)?;
    let tensor = b.elements(operand);
    tensor.ok_or_else(|| {
        Fault::unsupported(format!(
            "operand {i} is computed at run time; the operator is read only with constants, as on shapes and masks"
        ))
    })
}

/// A tensor repeated to a shape that it broadcasts to.
pub(super) fn expanded(tensor: &Tensor, to: &[usize]) -> Tensor {
    let missing = to.len() - tensor.shape.len();
    let own = strides(&tensor.shape);
    let step = |axis: usize| match axis.checked_sub(missing) {
        Some(own_axis) if tensor.shape[own_axis] != 1 => own[own_axis],
        _ => 0,
    };
    let to_strides = strides(to);
    let count: usize = to.iter().product();
    let source = |flat: usize| {
        let along = (0..to.len()).map(|axis| flat / to_strides[axis] % to[axis] * step(axis));
        along.sum::<usize>()
    };
    match &tensor.elements {
        Elements::Float(v) => Tensor::float(to, (0..count).map(|i| v[source(i)]).collect()),
        Elements::Int(v) => Tensor::int(to, (0..count).map(|i| v[source(i)]).collect()),
    }
}

/// Operands broadcast together.
pub(super) fn together<const N: usize>(
    b: &mut Builder,
    tensors: [&Tensor; N],
) -> Result<[Tensor; N], Fault> {
    let mut shape = Shape::default();
    for tensor in tensors {
        let wide = shape.broadcast(&Shape::fixed(&tensor.shape));
        shape = wide.ok_or_else(|| Fault::malformed("the operands do not broadcast"))?;
    }
    let shape = shape.to_fixed().unwrap_or_default();
    let count = elements(&shape).map_err(Fault::Malformed)?;
    if !b.take_budget(count) {
        return Err(too_large(&shape));
    }
    Ok(tensors.map(|t| expanded(t, &shape)))
}

fn too_large(shape: &[usize]) -> Fault {
    let shape = Shape::fixed(shape);
    Fault::unsupported(format!(
        "a constant of shape {shape} is too large to be computed while reading"
    ))
}

/// The element type that an attribute or list names; `DOUBLE` becomes f32.
fn target_type(data_type: i64) -> Result<DType, Fault> {
    let data_type = i32::try_from(data_type).unwrap_or_default();
    let dtype = match data_type {
        DOUBLE => Some(DType::F32),
        other => element_type(other),
    };
    dtype.ok_or_else(|| Fault::unsupported(format!("element type {data_type}")))
}

/// `Cast`.
pub(super) fn cast(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let to = call
        .int("to")?
        .ok_or_else(|| Fault::malformed("attribute 'to' is missing"))?;
    cast_to(b, call, target_type(to)?)
}

/// `CastLike`.
pub(super) fn cast_like(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let to = b.ty(call.input(1)?).dtype;
    cast_to(b, call, to)
}

fn cast_to(b: &mut Builder, call: &Call<'_>, to: DType) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let from = b.ty(x).dtype;
    if from == to {
        return Ok(x);
    }
    if from.is_float() && to.is_float() {
        return b.apply(Cast { to }, &[x], call.name);
    }
    if matches!(to, DType::I32 | DType::I64)
        && let Some(wide) = b.widened(x, to)
    {
        return Ok(wide);
    }
    if let Some(tensor) = b.elements(x) {
        let shape = &tensor.shape;
        let tensor = match (&tensor.elements, to) {
            (Elements::Float(v), DType::Bool) => {
                Tensor::int(shape, v.iter().map(|&v| i64::from(v != 0.0)).collect())
            }
            (Elements::Int(v), DType::Bool) => {
                Tensor::int(shape, v.iter().map(|&v| i64::from(v != 0)).collect())
            }
            (Elements::Float(v), _) => Tensor::int(shape, v.iter().map(|&v| v as i64).collect()),
            (Elements::Int(v), to) if to.is_float() => {
                let mut wide = Tensor::float(shape, v.iter().map(|&v| v as f32).collect());
                wide.round_to(to);
                wide
            }
            (Elements::Int(_), _) => tensor,
        };
        return Ok(b.known(call.name, &tensor, to));
    }
    if let Some(narrow) = narrowed_again(b, x, to) {
        return Ok(narrow);
    }
    if from.is_float() || to == DType::Bool {
        return Err(Fault::unsupported(format!("{from} to {to} at run time")));
    }
    b.apply(Cast { to }, &[x], call.name)
}

/// The value of type `to` that `x` has been widened from.
fn narrowed_again(b: &Builder, x: Operand, to: DType) -> Option<Operand> {
    let Operand::Computed(value) = x else {
        return None;
    };
    let node = b.graph.node_of(value)?;
    let before = *node.operands.first()?;
    let widened = matches!(&node.op, Op::Cast(op) if op.to == DType::I64);
    (widened && to == DType::I32 && b.graph.ty(before).dtype == to)
        .then_some(Operand::Computed(before))
}

/// `Constant`.
pub(super) fn constant(b: &mut Builder, call: &mut Call<'_>) -> Result<Operand, Fault> {
    if let Some(tensor) = call.tensor("value")? {
        let tensor = tensor_constant(tensor, call.files).map_err(Fault::Malformed)?;
        return Ok(b.constant(call.name, tensor));
    }
    let (tensor, dtype) = if let Some(v) = call.int("value_int")? {
        (Tensor::int(&[], vec![v]), DType::I64)
    } else if let Some(v) = call.ints("value_ints")? {
        (Tensor::int(&[v.len()], v.to_vec()), DType::I64)
    } else if let Some(v) = call.float("value_float")? {
        (Tensor::float(&[], vec![v]), DType::F32)
    } else if let Some(v) = call.floats("value_floats")? {
        (Tensor::float(&[v.len()], v.to_vec()), DType::F32)
    } else {
        return Err(Fault::unsupported(
            "its value is neither a tensor nor numbers",
        ));
    };
    Ok(b.known(call.name, &tensor, dtype))
}

/// `ConstantOfShape`.
pub(super) fn constant_of_shape(b: &mut Builder, call: &mut Call<'_>) -> Result<Operand, Fault> {
    let sizes = call
        .integers(b, 0)?
        .into_iter()
        .map(|d| usize::try_from(d).ok());
    let negative = || Fault::malformed("a size is negative");
    let shape: Vec<usize> = sizes.collect::<Option<_>>().ok_or_else(negative)?;
    let value = match call.tensor("value")? {
        Some(value) => tensor_constant(value, call.files).map_err(Fault::Malformed)?,
        None => snapc_ir::LazyTensor::from_f32(&[1], &[0.0]),
    };
    if value.elements() != 1 {
        return Err(Fault::malformed("attribute 'value' must have one element"));
    }
    let dtype = value.dtype();
    let value = b.constant(call.name, value.reshape(&[]));
    let count = elements(&shape).map_err(Fault::Malformed)?;
    if !b.take_budget(count) {
        return Err(too_large(&shape));
    }
    let value = b.elements(value).ok_or_else(|| too_large(&shape))?;
    Ok(b.known(call.name, &expanded(&value, &shape), dtype))
}

/// `Shape`, of which `start` and `end` may cut a part.
pub(super) fn shape(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let shape = b.shape(call.input(0)?);
    let rank = shape.len() as i64;
    let bound = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let start = bound(call.int("start")?.unwrap_or(0));
    let end = bound(call.int("end")?.unwrap_or(rank));
    let sizes = shape.get(start..end).unwrap_or_default();
    let sizes: Vec<i64> = sizes.iter().map(|&d| d as i64).collect();
    let tensor = Tensor::int(&[sizes.len()], sizes);
    Ok(b.known(call.name, &tensor, DType::I64))
}

/// `Size`.
pub(super) fn size(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let shape = b.shape(call.input(0)?);
    let count = elements(&shape).map_err(Fault::Malformed)?;
    let tensor = Tensor::int(&[], vec![count as i64]);
    Ok(b.known(call.name, &tensor, DType::I64))
}

/// `Range` of integers.
pub(super) fn range(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let bounds = (0..3).map(|i| call.integers(b, i));
    let bounds = bounds.collect::<Result<Vec<_>, _>>()?.concat();
    let &[start, limit, step] = bounds.as_slice() else {
        return Err(Fault::malformed("start, limit and step must be scalars"));
    };
    if step == 0 {
        return Err(Fault::malformed("the step is 0"));
    }
    let (span, step) = (i128::from(limit) - i128::from(start), i128::from(step));
    let count = usize::try_from((span + step - step.signum()) / step).unwrap_or(0);
    if !b.take_budget(count) {
        return Err(too_large(&[count]));
    }
    let at = |i: usize| (i128::from(start) + i as i128 * step) as i64;
    let tensor = Tensor::int(&[count], (0..count).map(at).collect());
    let dtype = b.ty(call.input(0)?).dtype;
    Ok(b.known(call.name, &tensor, dtype))
}

/// `Trilu`: the upper or lower triangle of matrices, the rest 0.
pub(super) fn trilu(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let mut tensor = known(b, call, 0)?;
    let diagonal = call
        .optional_integers(b, 1)?
        .and_then(|k| k.first().copied())
        .unwrap_or(0);
    let upper = call.flag("upper", true)?;
    let &[.., rows, columns] = tensor.shape.as_slice() else {
        return Err(Fault::malformed("operand 0 must have rank 2 or more"));
    };
    let keeps = |flat: usize| {
        let (row, column) = (flat / columns % rows, flat % columns);
        let offset = column as i64 - row as i64;
        if upper {
            offset >= diagonal
        } else {
            offset <= diagonal
        }
    };
    match &mut tensor.elements {
        Elements::Float(v) => clear(v, 0.0, keeps),
        Elements::Int(v) => clear(v, 0, keeps),
    }
    let dtype = b.ty(call.input(0)?).dtype;
    Ok(b.known(call.name, &tensor, dtype))
}

fn clear<T: Copy>(elements: &mut [T], zero: T, keeps: impl Fn(usize) -> bool) {
    let all = elements.iter_mut().enumerate();
    all.filter(|(i, _)| !keeps(*i)).for_each(|(_, e)| *e = zero);
}

/// `Where`: of constants, or a condition that is the same everywhere.
pub(super) fn choose(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let condition = known(b, call, 0)?;
    let (x, y) = (call.input(1)?, call.input(2)?);
    if b.ty(x).dtype != b.ty(y).dtype || b.ty(call.input(0)?).dtype != DType::Bool {
        return Err(Fault::malformed(
            "a condition and two operands of one type are asked for",
        ));
    }
    let constants = b.data(x).is_some() && b.data(y).is_some();
    if !constants {
        return choose_all(b, call, &condition, x, y);
    }
    let (x_tensor, y_tensor) = (known(b, call, 1)?, known(b, call, 2)?);
    let [condition, x_tensor, y_tensor] = together(b, [&condition, &x_tensor, &y_tensor])?;
    let shape = &condition.shape;
    let flags = condition.ints();
    let tensor = match (&x_tensor.elements, &y_tensor.elements) {
        (Elements::Float(x), Elements::Float(y)) => Tensor::float(shape, selected(flags, x, y)),
        (Elements::Int(x), Elements::Int(y)) => Tensor::int(shape, selected(flags, x, y)),
        _ => return Err(Fault::malformed("the operands differ in type")),
    };
    let dtype = b.ty(x).dtype;
    Ok(b.known(call.name, &tensor, dtype))
}

fn selected<T: Copy>(flags: &[i64], x: &[T], y: &[T]) -> Vec<T> {
    let pairs = flags.iter().zip(x.iter().zip(y));
    pairs
        .map(|(&flag, (&x, &y))| if flag != 0 { x } else { y })
        .collect()
}

fn choose_all(
    b: &mut Builder,
    call: &Call<'_>,
    condition: &Tensor,
    x: Operand,
    y: Operand,
) -> Result<Operand, Fault> {
    let flags = condition.ints();
    let chosen = match flags.first() {
        Some(&first) if flags.iter().all(|&f| f == first) => {
            if first != 0 {
                x
            } else {
                y
            }
        }
        _ => {
            return Err(Fault::unsupported(
                "a choice between values that are computed at run time",
            ));
        }
    };
    let mut wide = chosen;
    for shape in [condition.shape.clone(), b.shape(x), b.shape(y)] {
        wide = broadcast(b, wide, &shape, call.name)?;
    }
    Ok(wide)
}

/// `Equal`, `Less` and their relatives.
pub(super) fn compare(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let (x, y) = (call.input(0)?, call.input(1)?);
    if call.op == "Equal" && (b.data(x).is_none() || b.data(y).is_none()) {
        return b.apply(Equal {}, &[x, y], call.name);
    }
    let (x, y) = (known(b, call, 0)?, known(b, call, 1)?);
    let [x, y] = together(b, [&x, &y])?;
    let flags = match (&x.elements, &y.elements) {
        (Elements::Float(x), Elements::Float(y)) => compared(call.op, x, y),
        (Elements::Int(x), Elements::Int(y)) => compared(call.op, x, y),
        _ => return Err(Fault::malformed("the operands differ in type")),
    };
    Ok(b.known(call.name, &Tensor::int(&x.shape, flags), DType::Bool))
}

fn compared<T: PartialOrd>(op: &str, x: &[T], y: &[T]) -> Vec<i64> {
    let holds = |x: &T, y: &T| match op {
        "Equal" => x == y,
        "Less" => x < y,
        "LessOrEqual" => x <= y,
        "Greater" => x > y,
        _ => x >= y,
    };
    x.iter()
        .zip(y)
        .map(|(x, y)| i64::from(holds(x, y)))
        .collect()
}

/// `And`, `Or`, `Not`.
pub(super) fn logic(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let all_bool = call
        .all()?
        .into_iter()
        .all(|o| b.ty(o).dtype == DType::Bool);
    if !all_bool {
        return Err(Fault::malformed("the operands must be bool"));
    }
    let x = known(b, call, 0)?;
    let tensor = if call.op == "Not" {
        Tensor::int(
            &x.shape,
            x.ints().iter().map(|&v| i64::from(v == 0)).collect(),
        )
    } else {
        let y = known(b, call, 1)?;
        let [x, y] = together(b, [&x, &y])?;
        let pairs = x.ints().iter().zip(y.ints());
        let joined = pairs.map(|(&x, &y)| match call.op {
            "And" => i64::from(x != 0 && y != 0),
            _ => i64::from(x != 0 || y != 0),
        });
        Tensor::int(&x.shape, joined.collect())
    };
    Ok(b.known(call.name, &tensor, DType::Bool))
}
