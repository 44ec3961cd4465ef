//! Attention as one operation.

use snapc_ir::ops::{Add, Attention, MatMul, Mul, Softmax};
use snapc_ir::{DType, ValueId};

use super::super::call::Call;
use super::super::error::Fault;
use super::compute::swapped;

/// `softmax(query · keyᵀ / √E + attn_mask) · value` over `[…, L, E]`, the scale always that.
pub(super) fn attention(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let operands = [
        call.value("query")?,
        call.value("key")?,
        call.value("value")?,
    ];
    let mask = call.optional_value("attn_mask")?;
    if mask.is_some_and(|m| call.builder.dtype(m) == DType::Bool) {
        return Err(Fault::unsupported(
            "a mask of truth values; convert with one that is added",
        ));
    }
    let shapes = operands.map(|v| call.shape(v));
    let Some(&width) = shapes[0].last() else {
        return Err(Fault::malformed("the query is a scalar"));
    };
    let scale = 1.0 / (width as f32).sqrt();
    match shapes.each_ref().map(Vec::as_slice) {
        [&[_, heads, _, e], &[_, k_heads, _, k], &[_, v_heads, _, v]]
            if [k, v] == [e, e] && [k_heads, v_heads] == [heads, heads] =>
        {
            heads_joined(call, operands, mask, Attention { heads, scale })
        }
        _ => by_steps(call, operands, mask, scale),
    }
}

/// Over `[N, heads, L, E]`, as the IR has it over `[N, L, heads · E]`. The movements cancel those around the operation
/// that split heads off and join them.
fn heads_joined(
    call: &mut Call<'_>,
    operands: [ValueId; 3],
    mask: Option<ValueId>,
    op: Attention,
) -> Result<ValueId, Fault> {
    let mut joined = Vec::new();
    for operand in operands {
        let rows = call.transpose(operand, &[0, 2, 1, 3])?;
        let shape = call.shape(rows);
        joined.push(call.reshape(rows, &[shape[0], shape[1], shape[2] * shape[3]])?);
    }
    // Masks of fewer dimensions broadcast from the last ones on, as in the IR.
    joined.extend(mask);
    let heads = op.heads;
    let y = call.add(op, &joined)?;
    let shape = call.shape(y);
    let y = call.reshape(y, &[shape[0], shape[1], heads, shape[2] / heads])?;
    call.transpose(y, &[0, 2, 1, 3])
}

fn by_steps(
    call: &mut Call<'_>,
    [query, key, value]: [ValueId; 3],
    mask: Option<ValueId>,
    scale: f32,
) -> Result<ValueId, Fault> {
    // On the queries rather than the logits, which could overflow halves.
    let scale = call.scalar(query, scale);
    let query = call.add(Mul {}, &[query, scale])?;
    let columns = swapped(call, key)?;
    let mut logits = call.add(MatMul {}, &[query, columns])?;
    if let Some(mask) = mask {
        logits = call.add(Add {}, &[logits, mask])?;
    }
    let axis = call.shape(logits).len() - 1;
    let weights = call.add(Softmax { axis }, &[logits])?;
    call.add(MatMul {}, &[weights, value])
}
