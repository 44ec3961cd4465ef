//! Normalizations.

use snapc_ir::ops::{GroupNorm, LayerNorm};

use super::super::builder::{Builder, Operand};
use super::super::call::Call;
use super::super::error::Fault;
use super::movement::reshaped;

/// Epsilon where the attribute is left out.
const EPSILON: f32 = 1e-5;
/// The operator set since which `GroupNormalization` has a scale and a bias per channel.
const PER_CHANNEL: i64 = 21;

/// `LayerNormalization` over the last axis.
pub(super) fn layer(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let shape = b.shape(x);
    let axis = call.axis("axis", -1, shape.len())?;
    let channels = b.shape(scale);
    if axis + 1 != shape.len() || channels != shape[axis..] {
        return Err(Fault::unsupported(
            "it must be over the last axis, with a scale for each element",
        ));
    }
    let bias = match call.optional(2) {
        Some(bias) => bias,
        None => filled_like(b, scale, 0.0, call.name)?,
    };
    let epsilon = call.float("epsilon")?.unwrap_or(EPSILON);
    b.apply(LayerNorm { epsilon }, &[x, scale, bias], call.name)
}

/// `InstanceNormalization`: group normalization with a channel in each group.
pub(super) fn instance(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let groups = channels(b, call)?;
    grouped(b, call, groups, [call.input(1)?, call.input(2)?])
}

/// `GroupNormalization`.
pub(super) fn group(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let channels = channels(b, call)?;
    let groups = usize::try_from(call.int("num_groups")?.unwrap_or(0)).unwrap_or(0);
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Fault::malformed(format!(
            "{groups} groups of {channels} channels"
        )));
    }
    if call.opset < PER_CHANNEL {
        return Err(Fault::unsupported(format!(
            "it is deprecated before operator set {PER_CHANNEL}; export with that or a later one"
        )));
    }
    grouped(b, call, groups, [call.input(1)?, call.input(2)?])
}

fn channels(b: &Builder, call: &Call<'_>) -> Result<usize, Fault> {
    let shape = b.shape(call.input(0)?);
    match shape.as_slice() {
        [_, channels, _, ..] => Ok(*channels),
        _ => Err(Fault::malformed(
            "operand 0 must have images, channels and positions",
        )),
    }
}

fn grouped(
    b: &mut Builder,
    call: &Call<'_>,
    groups: usize,
    [scale, bias]: [Operand; 2],
) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let (lead, positions) = shape.split_at(2);
    let image = match positions {
        [_, _] => shape.clone(),
        _ => [lead, &[positions.iter().product(), 1]].concat(),
    };
    let epsilon = call.float("epsilon")?.unwrap_or(EPSILON);
    let x = reshaped(b, x, &image, call.name)?;
    let y = b.apply(GroupNorm { groups, epsilon }, &[x, scale, bias], call.name)?;
    reshaped(b, y, &shape, call.name)
}

/// A vector of equal elements, as long as a given constant and of its element type.
fn filled_like(b: &mut Builder, like: Operand, value: f32, name: &str) -> Result<Operand, Fault> {
    let ty = b.ty(like);
    let len = b.shape(like).iter().product();
    if !ty.dtype.is_float() || !b.take_budget(len) {
        return Err(Fault::malformed("the scale must be a vector of floats"));
    }
    Ok(b.filled(name, len, value, ty.dtype))
}
