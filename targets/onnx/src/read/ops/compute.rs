//! Convolution, matrix products, reductions, upsampling.

use snapc_ir::ops::{
    Add, ArgMax, Cast, Conv2d, Linear, MatMul, Mul, ReduceMean, Softmax, Transpose, UpsampleNearest,
};
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Shape};

use super::super::builder::{Builder, Operand};
use super::super::call::{Call, normal_axes};
use super::super::error::Fault;
use super::movement::reshaped;

/// `Conv` over images.
pub(super) fn conv(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let weight = b.shape(call.input(1)?);
    let &[_, _, rows, columns] = weight.as_slice() else {
        let message = format!(
            "a weight of shape {}; only images are convolved",
            Shape::fixed(&weight)
        );
        return Err(Fault::unsupported(message));
    };
    if sizes::<2>(call, "dilations", [1, 1])? != [1, 1] {
        return Err(Fault::unsupported("every dilation must be 1"));
    }
    if sizes(call, "kernel_shape", [rows, columns])? != [rows, columns] {
        return Err(Fault::malformed(
            "attribute 'kernel_shape' is not that of the weight",
        ));
    }
    let pads = match call.string("auto_pad")? {
        None | Some("NOTSET") => sizes(call, "pads", [0; 4])?,
        Some("VALID") => [0; 4],
        Some(other) => {
            return Err(Fault::unsupported(format!(
                "auto_pad '{other}'; export with pads"
            )));
        }
    };
    let groups = call.int("group")?.unwrap_or(1);
    let op = Conv2d {
        strides: sizes(call, "strides", [1, 1])?,
        pads,
        groups: usize::try_from(groups).unwrap_or(0),
    };
    b.apply(op, &call.all()?, call.name)
}

/// A list attribute of `N` sizes.
fn sizes<const N: usize>(
    call: &Call<'_>,
    name: &str,
    default: [usize; N],
) -> Result<[usize; N], Fault> {
    let Some(given) = call.ints(name)? else {
        return Ok(default);
    };
    let sizes = given
        .iter()
        .map(|&v| usize::try_from(v).ok().filter(|&v| v < 1 << 31));
    let sizes = sizes
        .collect::<Option<Vec<usize>>>()
        .and_then(|v| v.try_into().ok());
    sizes.ok_or_else(|| {
        Fault::malformed(format!(
            "attribute '{name}' is {given:?}, must be {N} sizes"
        ))
    })
}

/// `MatMul` of matrices or batches of them.
pub(super) fn matmul(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    b.apply(MatMul {}, &call.all()?, call.name)
}

/// `Gemm`: `alpha · A · B + beta · C`, as a linear layer where `C` is its bias.
pub(super) fn gemm(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let name = call.name;
    let flip = Transpose { perm: vec![1, 0] };
    let (mut x, mut weight) = (call.input(0)?, call.input(1)?);
    if call.flag("transA", false)? {
        x = b.apply(flip.clone(), &[x], name)?;
    }
    if !call.flag("transB", false)? {
        weight = b.apply(flip, &[weight], name)?;
    }
    let alpha = call.float("alpha")?.unwrap_or(1.0);
    let beta = call.float("beta")?.unwrap_or(1.0);
    let Some(addend) = call.optional(2) else {
        let product = b.apply(Linear {}, &[x, weight], name)?;
        return scaled(b, product, alpha, name);
    };
    let addend = scaled(b, addend, beta, name)?;
    let columns = b.shape(weight).first().copied().unwrap_or(0);
    if alpha == 1.0 && b.shape(addend) == [columns] {
        return b.apply(Linear {}, &[x, weight, addend], name);
    }
    let product = b.apply(Linear {}, &[x, weight], name)?;
    let product = scaled(b, product, alpha, name)?;
    b.apply(Add {}, &[product, addend], name)
}

fn scaled(b: &mut Builder, x: Operand, factor: f32, name: &str) -> Result<Operand, Fault> {
    if factor == 1.0 {
        return Ok(x);
    }
    let dtype = b.ty(x).dtype;
    if !dtype.is_float() {
        return Err(Fault::malformed(format!(
            "an operand must be a float, is {dtype}"
        )));
    }
    let factor = b.scalar(name, factor, dtype);
    b.apply(Mul {}, &[x, factor], name)
}

/// `Softmax`.
pub(super) fn softmax(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let axis = call.axis("axis", -1, b.shape(x).len())?;
    b.apply(Softmax { axis }, &[x], call.name)
}

/// `ReduceMean`, whose axes are an attribute before operator set 18 and an operand since.
pub(super) fn reduce_mean(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let given = match call.ints("axes")? {
        Some(axes) => Some(axes.to_vec()),
        None => call.optional_integers(b, 1)?,
    };
    let axes = match given {
        Some(axes) if !axes.is_empty() => normal_axes(&axes, shape.len())?,
        _ if call.flag("noop_with_empty_axes", false)? => return Ok(x),
        _ => (0..shape.len()).collect(),
    };
    let kept = (0..shape.len()).filter(|a| !axes.contains(a));
    let kept: Vec<usize> = kept.map(|a| shape[a]).collect();
    let mean = b.apply(ReduceMean { axes }, &[x], call.name)?;
    if call.flag("keepdims", true)? {
        return Ok(mean);
    }
    reshaped(b, mean, &kept, call.name)
}

/// `ArgMax`, the first maximum. Positions are int64 in ONNX and int32 in the IR.
pub(super) fn arg_max(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let mut shape = b.shape(x);
    let axis = call.axis("axis", 0, shape.len())?;
    if call.flag("select_last_index", false)? {
        return Err(Fault::unsupported(
            "the last maximum is asked for, not the first",
        ));
    }
    let mut position = b.apply(ArgMax { axis }, &[x], call.name)?;
    if call.flag("keepdims", true)? {
        shape[axis] = 1;
        position = reshaped(b, position, &shape, call.name)?;
    }
    b.apply(Cast { to: DType::I64 }, &[position], call.name)
}

/// `Resize` that repeats rows and columns a whole number of times.
pub(super) fn resize(b: &mut Builder, call: &Call<'_>) -> Result<Operand, Fault> {
    let x = call.input(0)?;
    let shape = b.shape(x);
    let mode = call.string("mode")?.unwrap_or("nearest");
    let coordinates = call
        .string("coordinate_transformation_mode")?
        .unwrap_or("half_pixel");
    let rounding = call.string("nearest_mode")?.unwrap_or("round_prefer_floor");
    // With a whole scale s both pairs give row ⌊i/s⌋.
    let repeats = mode == "nearest"
        && match coordinates {
            "asymmetric" => rounding == "floor",
            "half_pixel" | "pytorch_half_pixel" => rounding.starts_with("round_prefer_"),
            _ => false,
        };
    if !repeats || call.has("axes") || call.flag("antialias", false)? {
        return Err(Fault::unsupported(format!(
            "mode '{mode}' with '{coordinates}' and '{rounding}'; nearest neighbours with 'asymmetric' and 'floor' are"
        )));
    }
    let scale = match call.optional_integers(b, 3)? {
        Some(sizes) => scale_to(&shape, &sizes),
        None => scale_by(b, call)?,
    };
    let uneven = || Fault::unsupported("rows and columns must grow by the same whole number");
    match scale.ok_or_else(uneven)? {
        1 => Ok(x),
        scale => b.apply(UpsampleNearest { scale }, &[x], call.name),
    }
}

fn scale_to(shape: &[usize], sizes: &[i64]) -> Option<usize> {
    let [n, c, h, w] = shape.try_into().ok()?;
    let sizes: Vec<usize> = sizes
        .iter()
        .map(|&s| usize::try_from(s).ok())
        .collect::<Option<_>>()?;
    let scale = sizes.get(2)?.checked_div(h)?;
    let grown = [n, c, h.checked_mul(scale)?, w.checked_mul(scale)?];
    (scale > 0 && sizes == grown).then_some(scale)
}

fn scale_by(b: &mut Builder, call: &Call<'_>) -> Result<Option<usize>, Fault> {
    let scales = b.elements(call.input(2)?).map(|t| t.elements);
    let Some(Elements::Float(scales)) = scales else {
        return Err(Fault::unsupported("the scales are not constant floats"));
    };
    let whole = |s: f32| (s.fract() == 0.0 && (1.0..1e6).contains(&s)).then_some(s as usize);
    Ok(match scales.as_slice() {
        &[1.0, 1.0, rows, columns] if rows == columns => whole(rows),
        _ => None,
    })
}
