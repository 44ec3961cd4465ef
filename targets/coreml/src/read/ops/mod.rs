//! The operations of MIL as operators of the IR, by kind.

mod activation;
mod attention;
mod compute;
mod constant;
mod einsum;
mod elementwise;
mod index;
mod movement;
mod norm;
mod quantize;
mod slice;

use snapc_ir::ValueId;

pub(super) use self::quantize::Grid;
use super::builder::Entry;
use super::call::Call;
use super::error::Fault;

/// Adds what an operation becomes and gives its results.
///
/// # Errors
/// When a parameter is missing or does not fit, or the IR has no form for the operation.
pub(super) fn read(call: &mut Call<'_>) -> Result<Vec<Entry>, Fault> {
    match call.kind() {
        "split" => {
            let parts = slice::split(call)?;
            return Ok(parts.into_iter().map(Entry::Value).collect());
        }
        "greater_equal" => return Ok(vec![constant::greater_equal(call)?]),
        "select" => return Ok(vec![constant::select(call)?]),
        "round" => return Ok(vec![Entry::Rounded(call.value("x")?)]),
        "quantize" => return Ok(vec![quantize::quantize(call)?]),
        _ => {}
    }
    Ok(vec![Entry::Value(value(call)?)])
}

/// The result of an operation that has one.
fn value(call: &mut Call<'_>) -> Result<ValueId, Fault> {
    match call.kind() {
        "add" | "sub" | "mul" | "real_div" | "equal" => elementwise::binary(call),
        "pow" => elementwise::pow(call),
        "sqrt" | "exp" | "erf" | "sin" | "cos" => elementwise::unary(call),
        "square" | "rsqrt" | "inverse" | "exp2" => elementwise::composed(call),
        "cast" => elementwise::cast(call),
        "identity" => call.value("x"),
        "sigmoid" | "silu" | "tanh" => activation::simple(call),
        "gelu" => activation::gelu(call),
        "softmax" => activation::softmax(call),
        "conv" => compute::conv(call),
        "linear" => compute::linear(call),
        "matmul" => compute::matmul(call),
        "reduce_mean" | "reduce_sum" => compute::reduce(call),
        "reduce_argmax" => compute::arg_max(call),
        "einsum" => einsum::einsum(call),
        "scaled_dot_product_attention" => attention::attention(call),
        "layer_norm" => norm::layer_norm(call),
        "instance_norm" => norm::instance_norm(call),
        "batch_norm" => norm::batch_norm(call),
        "reshape" => movement::reshape(call),
        "transpose" => movement::transpose(call),
        "expand_dims" => movement::expand_dims(call),
        "squeeze" => movement::squeeze(call),
        "concat" => movement::concat(call),
        "stack" => movement::stack(call),
        "tile" => movement::tile(call),
        "upsample_nearest_neighbor" => movement::upsample(call),
        "resize_nearest_neighbor" => movement::resize(call),
        "slice_by_index" => slice::by_index(call),
        "slice_by_size" => slice::by_size(call),
        "gather" => index::gather(call),
        "gather_nd" => index::gather_nd(call),
        "gather_along_axis" => index::gather_along_axis(call),
        "fill" => constant::fill(call),
        "dequantize" => quantize::dequantize(call),
        "clip" => quantize::levels(call),
        _ => Err(Fault::unsupported(
            "it is none of the operations of Stable Diffusion's networks",
        )),
    }
}
