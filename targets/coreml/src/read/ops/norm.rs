//! Normalizations.

use snapc_ir::ops::{Add, GroupNorm, LayerNorm, Mul};
use snapc_ir::{LazyTensor, ValueId};

use super::super::call::Call;
use super::super::constant::elements;
use super::super::error::Fault;

/// Scales and biases that the IR wants and the program does not give.
const MAX_FILLED: usize = 1 << 20;

/// `layer_norm` over any axes. Over rows and columns it is a group normalization with one channel per group, which
/// the pass `fuse-norms` joins with what is around it.
pub(super) fn layer_norm(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let axes = call.optional_axes("axes", shape.len())?;
    let axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let scale = call.optional_value("gamma")?;
    let bias = call.optional_value("beta")?;
    if let (&[_, groups, _, _], [2, 3], None, None) = (&shape[..], &axes[..], scale, bias) {
        let scale = filled(call, x, groups, 1.0)?;
        let bias = filled(call, x, groups, 0.0)?;
        return call.add(GroupNorm { groups, epsilon }, &[x, scale, bias]);
    }
    // The axes last, as one.
    let (mut perm, mut sizes) = (Vec::new(), Vec::new());
    for axis in (0..shape.len()).filter(|a| !axes.contains(a)) {
        perm.push(axis);
        sizes.push(shape[axis]);
    }
    perm.extend(&axes);
    let width = axes.iter().map(|&a| shape[a]).product();
    sizes.push(width);
    let moved = call.transpose(x, &perm)?;
    let moved_shape = call.shape(moved);
    let rows = call.reshape(moved, &sizes)?;
    let scale = match scale {
        Some(scale) => call.reshape(scale, &[width])?,
        None => filled(call, x, width, 1.0)?,
    };
    let bias = match bias {
        Some(bias) => call.reshape(bias, &[width])?,
        None => filled(call, x, width, 0.0)?,
    };
    let y = call.add(LayerNorm { epsilon }, &[rows, scale, bias])?;
    let y = call.reshape(y, &moved_shape)?;
    let mut back = vec![0; perm.len()];
    perm.iter()
        .enumerate()
        .for_each(|(to, &from)| back[from] = to);
    call.transpose(y, &back)
}

/// Normalization of every channel of every image.
pub(super) fn instance_norm(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let (image, groups) = match shape[..] {
        [n, c, l] => ([n, c, l, 1], c),
        [n, c, h, w] => ([n, c, h, w], c),
        _ => {
            return Err(Fault::unsupported(
                "only three and four dimensions are read",
            ));
        }
    };
    let scale = match call.optional_value("gamma")? {
        Some(scale) => scale,
        None => filled(call, x, groups, 1.0)?,
    };
    let bias = match call.optional_value("beta")? {
        Some(bias) => bias,
        None => filled(call, x, groups, 0.0)?,
    };
    let image = call.reshape(x, &image)?;
    let y = call.add(GroupNorm { groups, epsilon }, &[image, scale, bias])?;
    call.reshape(y, &shape)
}

/// `gamma · (x − mean) / √(variance + epsilon) + beta` per channel with known statistics: a factor and a sum.
pub(super) fn batch_norm(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let shape = call.shape(x);
    let &[_, channels, ..] = shape.as_slice() else {
        return Err(Fault::malformed("x has no channels"));
    };
    let epsilon = call.float_or("epsilon", 1e-5)?;
    let mut vector = |parameter: &str| -> Result<Option<Vec<f32>>, Fault> {
        match call.optional_constant(parameter)? {
            Some(c) if c.len() == channels => Ok(Some(c.floats()?)),
            Some(_) => Err(Fault::malformed(format!(
                "'{parameter}' must have {channels} elements"
            ))),
            None => Ok(None),
        }
    };
    let missing = |what: &str| Fault::malformed(format!("'{what}' is missing"));
    let mean = vector("mean")?.ok_or_else(|| missing("mean"))?;
    let variance = vector("variance")?.ok_or_else(|| missing("variance"))?;
    let (gamma, beta) = (vector("gamma")?, vector("beta")?);
    let (mut scale, mut bias) = (Vec::new(), Vec::new());
    for i in 0..channels {
        let deviation = (f64::from(variance[i]) + f64::from(epsilon)).sqrt();
        let factor = gamma.as_ref().map_or(1.0, |g| f64::from(g[i])) / deviation;
        let offset = beta.as_ref().map_or(0.0, |b| f64::from(b[i]));
        scale.push(factor as f32);
        bias.push((offset - f64::from(mean[i]) * factor) as f32);
    }
    let mut per_channel = vec![1; shape.len()];
    per_channel[1] = channels;
    let dtype = call.builder.dtype(x);
    let [scale, bias] = [scale, bias].map(|v| {
        let tensor = LazyTensor::from_f32(&per_channel, &v).cast(dtype);
        call.define(tensor)
    });
    let scaled = call.add(Mul {}, &[x, scale])?;
    call.add(Add {}, &[scaled, bias])
}

/// A vector of one value, of the element type of `like`.
fn filled(call: &mut Call<'_>, like: ValueId, size: usize, value: f32) -> Result<ValueId, Fault> {
    if elements(&[size]).is_none_or(|n| n > MAX_FILLED) {
        return Err(Fault::unsupported(format!(
            "{size} elements are normalized without a scale"
        )));
    }
    let tensor = LazyTensor::from_f32(&[size], &vec![value; size]);
    let tensor = tensor.cast(call.builder.dtype(like));
    Ok(call.define(tensor))
}
