//! Activations in 8 bits.

use snapc_ir::ValueId;
use snapc_ir::ops::FakeQuantize;

use super::super::builder::Entry;
use super::super::call::Call;
use super::super::error::Fault;

/// What the codes of signed types are moved by, to be those of uint8.
const SIGNED: i64 = 128;

/// `quantize` with one scale: codes that only a `dequantize` takes.
pub(super) fn quantize(call: &mut Call<'_>) -> Result<Entry, Fault> {
    let offset = match call.word("output_dtype")?.as_str() {
        "uint8" => 0,
        "int8" => SIGNED,
        other => {
            return Err(Fault::unsupported(format!(
                "codes are int8 or uint8, not {other}"
            )));
        }
    };
    let value = call.value("input")?;
    let grid = grid(call, offset)?;
    Ok(Entry::Codes { value, grid })
}

/// `dequantize` of codes that `quantize` has made with the same scale and zero point.
pub(super) fn dequantize(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let Entry::Codes { value, grid: made } = call.required("input")? else {
        return Err(Fault::unsupported(
            "codes are read where 'quantize' has made them; quantize weights as constexpr operations",
        ));
    };
    let read = grid(call, made.offset)?;
    if read != made {
        return Err(Fault::unsupported(
            "scale and zero_point are not those that the codes were made with",
        ));
    }
    let op = FakeQuantize {
        scale: made.scale,
        zero_point: made.zero_point,
    };
    call.add(op, &[value])
}

/// `clip` of rounded values to 0 and 255: whole numbers of 8 bits, as pictures have them.
pub(super) fn levels(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let Entry::Rounded(value) = call.required("x")? else {
        return Err(Fault::unsupported(
            "a 'clip' is read behind 'round', where a picture is made",
        ));
    };
    let bounds = [
        call.float_or("alpha", f32::NAN)?,
        call.float_or("beta", f32::NAN)?,
    ];
    if bounds != [0.0, 255.0] {
        return Err(Fault::unsupported(format!(
            "the bounds are {bounds:?}, and those of a picture are 0 and 255"
        )));
    }
    let op = FakeQuantize {
        scale: 1.0,
        zero_point: 0,
    };
    call.add(op, &[value])
}

/// What codes of 8 bits stand for.
#[derive(Clone, Copy, PartialEq)]
pub(in super::super) struct Grid {
    scale: f32,
    /// As a code of uint8.
    zero_point: usize,
    /// What was added to the stored zero point.
    offset: i64,
}

/// The scale and the zero point, which are scalars or vectors of one element.
fn grid(call: &mut Call<'_>, offset: i64) -> Result<Grid, Fault> {
    let scale = call.constant("scale")?;
    let zero_point = call.optional_constant("zero_point")?;
    let zero_point = zero_point.map_or(Ok(vec![0]), |z| z.integers())?;
    let (&[scale], &[zero_point]) = (scale.floats()?.as_slice(), zero_point.as_slice()) else {
        return Err(Fault::unsupported(
            "activations have one scale and one zero_point each; quantize them per tensor",
        ));
    };
    let code = zero_point.checked_add(offset);
    let code = code.and_then(|z| usize::try_from(z).ok());
    let zero_point = code
        .filter(|z| *z <= 255)
        .ok_or_else(|| Fault::malformed(format!("zero_point {zero_point} is no code of 8 bits")))?;
    Ok(Grid {
        scale,
        zero_point,
        offset,
    })
}
