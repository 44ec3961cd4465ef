//! Activations and softmax.

use snapc_ir::ValueId;
use snapc_ir::ops::{Add, Gelu, Mul, QuickGelu, Sigmoid, Silu, Softmax, Sub};

use super::super::call::Call;
use super::super::error::Fault;

pub(super) fn simple(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    match call.kind() {
        "sigmoid" => call.add(Sigmoid {}, &[x]),
        "silu" => call.add(Silu {}, &[x]),
        // tanh(x) = 2 sigmoid(2x) - 1
        _ => {
            let (two, one) = (call.scalar(x, 2.0), call.scalar(x, 1.0));
            let doubled = call.add(Mul {}, &[x, two])?;
            let gate = call.add(Sigmoid {}, &[doubled])?;
            let gate = call.add(Mul {}, &[gate, two])?;
            call.add(Sub {}, &[gate, one])
        }
    }
}

/// `gelu` in its modes; `SIGMOID_APPROXIMATION` is CLIP's quick form.
pub(super) fn gelu(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let mode = call.optional_word("mode")?;
    match mode.as_deref().unwrap_or("EXACT") {
        "EXACT" => call.add(Gelu {}, &[x]),
        "SIGMOID_APPROXIMATION" => call.add(QuickGelu {}, &[x]),
        "TANH_APPROXIMATION" => tanh_gelu(call, x),
        other => Err(Fault::malformed(format!("unknown mode '{other}'"))),
    }
}

/// `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`, which is `x · sigmoid(2 √(2/π) (x + 0.044715 x³))`.
fn tanh_gelu(call: &mut Call<'_>, x: ValueId) -> Result<ValueId, Fault> {
    let slope = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
    let (slope, cubic) = (call.scalar(x, slope), call.scalar(x, 0.044715));
    let square = call.add(Mul {}, &[x, x])?;
    let cube = call.add(Mul {}, &[square, x])?;
    let cube = call.add(Mul {}, &[cube, cubic])?;
    let inside = call.add(Add {}, &[x, cube])?;
    let inside = call.add(Mul {}, &[inside, slope])?;
    let gate = call.add(Sigmoid {}, &[inside])?;
    call.add(Mul {}, &[x, gate])
}

pub(super) fn softmax(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    let x = call.value("x")?;
    let axis = call.axis_or("axis", call.shape(x).len(), -1)?;
    call.add(Softmax { axis }, &[x])
}
