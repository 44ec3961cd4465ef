//! The shape of a result, from its operation's definition in coremltools (`converters/mil/mil/ops/defs`).

use std::collections::BTreeMap;

use super::operation::Call;

type Inferred = Result<Vec<u64>, String>;

/// The shape of the result of an operation whose parameters are of the right kinds.
pub(super) fn infer(kind: &str, call: &Call<'_>) -> Inferred {
    match kind {
        "add" | "sub" | "mul" | "real_div" | "equal" => broadcast(one(call, "x")?, one(call, "y")?),
        "matmul" => matmul(call),
        "conv" => conv(call),
        "linear" => linear(call),
        "layer_norm" => layer_norm(call),
        "scaled_dot_product_attention" => attention(call),
        "reduce_mean" => reduce(call, "axes"),
        "reduce_argmax" => reduce(call, "axis"),
        "reshape" => reshape(call),
        "squeeze" => squeeze(call),
        "transpose" => transpose(call),
        "concat" => concat(call),
        "slice_by_index" => slice(call),
        "gather" => gather(call),
        "upsample_nearest_neighbor" => upsample(call),
        "einsum" => einsum(call),
        "quantize" | "dequantize" => Ok(one(call, "input")?.to_vec()),
        _ => Ok(one(call, "x")?.to_vec()),
    }
}

fn one<'a>(call: &Call<'a>, parameter: &str) -> Result<&'a [u64], String> {
    let found = call.shapes(parameter).first().copied();
    found.ok_or_else(|| format!("the shape of '{parameter}' is unknown"))
}

fn ints<'a>(call: &Call<'a>, parameter: &str) -> Result<&'a [i32], String> {
    call.ints(parameter)
        .ok_or_else(|| format!("'{parameter}' does not stand in place"))
}

fn flag(call: &Call<'_>, parameter: &str) -> Result<bool, String> {
    let found = call.bools(parameter).and_then(|v| v.first().copied());
    found.ok_or_else(|| format!("'{parameter}' does not stand in place"))
}

/// The axis that a possibly negative number means.
fn axis(value: i32, rank: usize) -> Result<usize, String> {
    let signed = i64::from(value);
    let counted = if signed < 0 {
        signed + rank as i64
    } else {
        signed
    };
    let found = usize::try_from(counted).ok().filter(|&a| a < rank);
    found.ok_or_else(|| format!("axis {value} is outside {rank} dimensions"))
}

fn scalar_axis(call: &Call<'_>, parameter: &str, rank: usize) -> Result<usize, String> {
    let value = ints(call, parameter)?.first().copied();
    axis(
        value.ok_or_else(|| format!("'{parameter}' is empty"))?,
        rank,
    )
}

fn broadcast(a: &[u64], b: &[u64]) -> Inferred {
    let rank = a.len().max(b.len());
    let at = |s: &[u64], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let sizes = (0..rank).map(|i| match (at(a, i), at(b, i)) {
        (x, y) if x == y || y == 1 => Some(x),
        (1, y) => Some(y),
        _ => None,
    });
    sizes
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{a:?} and {b:?} do not broadcast"))
}

fn matmul(call: &Call<'_>) -> Inferred {
    let swapped = |parameter: &str, swap: bool| -> Inferred {
        let mut shape = one(call, parameter)?.to_vec();
        let n = shape.len();
        if n < 2 {
            return Err(format!("'{parameter}' has fewer than 2 dimensions"));
        }
        if swap {
            shape.swap(n - 1, n - 2);
        }
        Ok(shape)
    };
    let x = swapped("x", flag(call, "transpose_x")?)?;
    let y = swapped("y", flag(call, "transpose_y")?)?;
    let (x_batch, [rows, inner]) = x.split_last_chunk::<2>().expect("two dimensions or more");
    let (y_batch, [other, columns]) = y.split_last_chunk::<2>().expect("two dimensions or more");
    if inner != other {
        return Err(format!("{x:?} and {y:?} cannot be multiplied"));
    }
    let mut shape = broadcast(x_batch, y_batch)?;
    shape.extend([rows, columns]);
    Ok(shape)
}

fn conv(call: &Call<'_>) -> Inferred {
    let (x, weight) = (one(call, "x")?, one(call, "weight")?);
    let (strides, dilations, pad) = (
        ints(call, "strides")?,
        ints(call, "dilations")?,
        ints(call, "pad")?,
    );
    let groups = ints(call, "groups")?
        .first()
        .and_then(|&g| u64::try_from(g).ok());
    let spatial = x.len().saturating_sub(2);
    let lengths_fit =
        strides.len() == spatial && dilations.len() == spatial && pad.len() == 2 * spatial;
    if !(1..=3).contains(&spatial) || weight.len() != x.len() || !lengths_fit {
        return Err(
            "strides, dilations, pad and weight do not go with the dimensions of x".to_owned(),
        );
    }
    if groups.and_then(|g| weight[1].checked_mul(g)) != Some(x[1]) {
        return Err(format!(
            "weight {weight:?} does not take {} channels in these groups",
            x[1]
        ));
    }
    if let Some(bias) = call.shapes("bias").first()
        && **bias != [weight[0]]
    {
        return Err(format!("bias {bias:?} does not fit weight {weight:?}"));
    }
    if call.word("pad_type") != Some("custom") {
        return Err("pad_type is not custom, which is the one that is checked".to_owned());
    }
    let mut shape = vec![x[0], weight[0]];
    for i in 0..spatial {
        let size = conv_size(
            x[2 + i],
            weight[2 + i],
            [strides[i], dilations[i], pad[2 * i], pad[2 * i + 1]],
        );
        let pads = &pad[2 * i..2 * i + 2];
        let nothing = || {
            let at = 2 + i;
            format!(
                "dimension {at} leaves nothing with parameter 'pad' {pads:?} before and behind it"
            )
        };
        shape.push(size.ok_or_else(nothing)?);
    }
    Ok(shape)
}

/// `floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1`.
fn conv_size(size: u64, kernel: u64, [stride, dilation, before, after]: [i32; 4]) -> Option<u64> {
    let unsigned = |v: i32| u64::try_from(v).ok();
    let (stride, dilation) = (unsigned(stride).filter(|&s| s > 0)?, unsigned(dilation)?);
    let padded = size
        .checked_add(unsigned(before)?)?
        .checked_add(unsigned(after)?)?;
    let reach = kernel
        .checked_sub(1)?
        .checked_mul(dilation)?
        .checked_add(1)?;
    Some(padded.checked_sub(reach)? / stride + 1)
}

fn linear(call: &Call<'_>) -> Inferred {
    let (x, weight, bias) = (one(call, "x")?, one(call, "weight")?, one(call, "bias")?);
    let ([rest @ .., c_in], [c_out, w_in]) = (x, weight) else {
        return Err(format!("x {x:?} and weight {weight:?} do not fit"));
    };
    if c_in != w_in || bias != [*c_out] {
        return Err(format!(
            "x {x:?}, weight {weight:?} and bias {bias:?} do not fit"
        ));
    }
    Ok([rest, &[*c_out]].concat())
}

fn layer_norm(call: &Call<'_>) -> Inferred {
    let x = one(call, "x")?;
    let axes = ints(call, "axes")?.iter().map(|&a| axis(a, x.len()));
    let axes = axes.collect::<Result<Vec<usize>, _>>()?;
    let normalized: Vec<u64> = axes.iter().map(|&a| x[a]).collect();
    for parameter in ["gamma", "beta"] {
        if let Some(shape) = call.shapes(parameter).first()
            && **shape != normalized
        {
            return Err(format!(
                "'{parameter}' has shape {shape:?}, must have {normalized:?}"
            ));
        }
    }
    Ok(x.to_vec())
}

fn attention(call: &Call<'_>) -> Inferred {
    let (q, k, v) = (one(call, "query")?, one(call, "key")?, one(call, "value")?);
    let split = |s: &'_ [u64]| s.split_last_chunk::<2>().map(|(b, t)| (b.to_vec(), *t));
    let (Some((qb, [s, e])), Some((kb, [t, ke])), Some((vb, [vt, ev]))) =
        (split(q), split(k), split(v))
    else {
        return Err("query, key and value need 3 dimensions or more".to_owned());
    };
    if q.len() < 3 || qb != kb || qb != vb || e != ke || t != vt {
        return Err(format!("query {q:?}, key {k:?} and value {v:?} do not fit"));
    }
    if let Some(mask) = call.shapes("attn_mask").first() {
        let logits = [qb.as_slice(), &[s, t]].concat();
        if broadcast(mask, &logits)? != logits {
            return Err(format!(
                "attn_mask {mask:?} does not broadcast to {logits:?}"
            ));
        }
    }
    Ok([qb.as_slice(), &[s, ev]].concat())
}

/// The sizes of the labels of an equation such as `nchw,nwhu->nchu`.
fn einsum(call: &Call<'_>) -> Inferred {
    let equation = call.word("equation").ok_or("the equation is unknown")?;
    let values = call.shapes("values");
    let form = || format!("'{equation}' is no sum of {values:?}");
    let (operands, result) = equation.split_once("->").ok_or_else(form)?;
    let labels: Vec<&str> = operands.split(',').collect();
    if labels.len() != values.len() {
        return Err(form());
    }
    let mut sizes = BTreeMap::new();
    for (labels, shape) in labels.iter().zip(&values) {
        if labels.len() != shape.len() {
            return Err(form());
        }
        for (label, &size) in labels.bytes().zip(shape.iter()) {
            if *sizes.entry(label).or_insert(size) != size {
                return Err(form());
            }
        }
    }
    let result = result.bytes().map(|label| sizes.get(&label).copied());
    result.collect::<Option<_>>().ok_or_else(form)
}

fn reduce(call: &Call<'_>, parameter: &str) -> Inferred {
    let x = one(call, "x")?;
    let keep = flag(call, "keep_dims")?;
    let axes = ints(call, parameter)?.iter().map(|&a| axis(a, x.len()));
    let axes = axes.collect::<Result<Vec<usize>, _>>()?;
    let sizes = x
        .iter()
        .enumerate()
        .filter_map(|(i, &n)| match axes.contains(&i) {
            false => Some(n),
            true => keep.then_some(1),
        });
    Ok(sizes.collect())
}

fn reshape(call: &Call<'_>) -> Inferred {
    let x = one(call, "x")?;
    let shape = ints(call, "shape")?
        .iter()
        .map(|&n| u64::try_from(n).ok().filter(|&n| n > 0));
    let shape: Vec<u64> = shape
        .collect::<Option<_>>()
        .ok_or("the new shape has an open dimension")?;
    let count = |s: &[u64]| s.iter().try_fold(1u64, |a, &b| a.checked_mul(b));
    if count(x) != count(&shape) {
        return Err(format!(
            "{x:?} and {shape:?} have different numbers of elements"
        ));
    }
    Ok(shape)
}

fn squeeze(call: &Call<'_>) -> Inferred {
    let x = one(call, "x")?;
    let axes = ints(call, "axes")?.iter().map(|&a| axis(a, x.len()));
    let axes = axes.collect::<Result<Vec<usize>, _>>()?;
    if axes.iter().any(|&a| x[a] != 1) {
        return Err(format!("axes {axes:?} of {x:?} are not all 1"));
    }
    let kept = x.iter().enumerate().filter(|(i, _)| !axes.contains(i));
    Ok(kept.map(|(_, &n)| n).collect())
}

fn transpose(call: &Call<'_>) -> Inferred {
    let x = one(call, "x")?;
    let perm = ints(call, "perm")?.iter().map(|&a| axis(a, x.len()));
    let perm = perm.collect::<Result<Vec<usize>, _>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..x.len()) {
        return Err(format!(
            "perm {perm:?} is no order of {} dimensions",
            x.len()
        ));
    }
    Ok(perm.iter().map(|&p| x[p]).collect())
}

fn concat(call: &Call<'_>) -> Inferred {
    let values = call.shapes("values");
    let first = one(call, "values")?;
    let axis = scalar_axis(call, "axis", first.len())?;
    let mut shape = first.to_vec();
    for value in &values[1..] {
        let fits = value.len() == shape.len()
            && (0..shape.len()).all(|i| i == axis || value[i] == shape[i]);
        if !fits {
            return Err(format!(
                "{value:?} does not go with {first:?} along axis {axis}"
            ));
        }
        shape[axis] = shape[axis]
            .checked_add(value[axis])
            .ok_or("the sum of sizes overflows")?;
    }
    Ok(shape)
}

fn slice(call: &Call<'_>) -> Inferred {
    let x = one(call, "x")?;
    let (begin, end, stride) = (
        ints(call, "begin")?,
        ints(call, "end")?,
        ints(call, "stride")?,
    );
    let mask = |parameter: &str, i: usize| call.bools(parameter).is_some_and(|m| m[i]);
    let mut shape = Vec::new();
    for (i, &n) in x.iter().enumerate() {
        let n = i128::from(n);
        let index = |v: i32| {
            if v < 0 {
                i128::from(v) + n
            } else {
                i128::from(v)
            }
        };
        let from = if mask("begin_mask", i) {
            0
        } else {
            index(begin[i])
        };
        let to = if mask("end_mask", i) {
            n
        } else {
            index(end[i])
        };
        let stride = u128::try_from(stride[i]).unwrap_or(0);
        if stride == 0 || from < 0 || to <= from || to > n {
            return Err(format!(
                "{from}..{to} by {stride} is no range of dimension {i} of {x:?}"
            ));
        }
        if !mask("squeeze_mask", i) {
            let size = (to - from).unsigned_abs().div_ceil(stride);
            shape.push(u64::try_from(size).map_err(|_| "the size overflows")?);
        }
    }
    Ok(shape)
}

fn gather(call: &Call<'_>) -> Inferred {
    let (x, indices) = (one(call, "x")?, one(call, "indices")?);
    let axis = scalar_axis(call, "axis", x.len())?;
    let batch = ints(call, "batch_dims")?
        .first()
        .and_then(|&b| usize::try_from(b).ok());
    let fits = |b: &usize| *b <= axis && *b <= indices.len() && x[..*b] == indices[..*b];
    let batch = batch
        .filter(fits)
        .ok_or_else(|| format!("batch_dims does not fit {x:?} and {indices:?}"))?;
    Ok([&x[..axis], &indices[batch..], &x[axis + 1..]].concat())
}

fn upsample(call: &Call<'_>) -> Inferred {
    let x = one(call, "x")?;
    let mut shape = x.to_vec();
    let n = shape.len();
    if n < 3 {
        return Err(format!("x {x:?} has fewer than 3 dimensions"));
    }
    for (i, parameter) in [
        (n - 2, "scale_factor_height"),
        (n - 1, "scale_factor_width"),
    ] {
        let factor = call.number(parameter).filter(|f| *f >= 1.0);
        let factor = factor.ok_or_else(|| format!("'{parameter}' is not 1 or more"))?;
        shape[i] = (shape[i] as f64 * factor) as u64;
    }
    Ok(shape)
}
