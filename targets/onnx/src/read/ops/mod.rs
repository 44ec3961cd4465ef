//! The operators of ONNX that are read, each as operators of the IR or as a constant.

mod codes;
mod compute;
mod elementwise;
mod fold;
mod gather;
mod movement;
mod norm;

pub(super) use self::codes::Grid;
use super::builder::{Builder, Operand};
use super::call::Call;
use super::error::Fault;

/// The results of a node.
///
/// # Errors
/// When it is malformed or has no form in the IR.
pub(super) fn read(b: &mut Builder, call: &mut Call<'_>) -> Result<Vec<Operand>, Fault> {
    let result = match call.op {
        "Split" => return movement::split(b, call),

        "Add" | "Sub" | "Mul" | "Div" => elementwise::arithmetic(b, call),
        "Cos" | "Erf" | "Exp" | "Sigmoid" | "Sin" | "Sqrt" => elementwise::function(b, call),
        "Neg" => elementwise::negated(b, call),
        "Reciprocal" => elementwise::reciprocal(b, call),
        "Pow" => elementwise::power(b, call),
        "Gelu" => elementwise::gelu(b, call),

        "Conv" => compute::conv(b, call),
        "Gemm" => compute::gemm(b, call),
        "MatMul" => compute::matmul(b, call),
        "Softmax" => compute::softmax(b, call),
        "ReduceMean" => compute::reduce_mean(b, call),
        "ArgMax" => compute::arg_max(b, call),
        "Resize" => compute::resize(b, call),

        "LayerNormalization" => norm::layer(b, call),
        "InstanceNormalization" => norm::instance(b, call),
        "GroupNormalization" => norm::group(b, call),

        "Identity" => call.input(0),
        "Dropout" => movement::dropout(b, call),
        "Reshape" => movement::reshape(b, call),
        "Flatten" => movement::flatten(b, call),
        "Squeeze" => movement::squeeze(b, call),
        "Unsqueeze" => movement::unsqueeze(b, call),
        "Transpose" => movement::transpose(b, call),
        "Slice" => movement::slice(b, call),
        "Concat" => movement::concat(b, call),
        "Expand" => movement::expand(b, call),
        "Gather" => gather::gather(b, call),
        "GatherElements" => codes::gather_elements(b, call),
        "GatherND" => gather::gather_nd(b, call),

        "Cast" => fold::cast(b, call),
        "CastLike" => fold::cast_like(b, call),
        "Constant" => fold::constant(b, call),
        "ConstantOfShape" => fold::constant_of_shape(b, call),
        "Shape" => fold::shape(b, call),
        "Size" => fold::size(b, call),
        "Range" => fold::range(b, call),
        "Trilu" => fold::trilu(b, call),
        "Where" => fold::choose(b, call),
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => fold::compare(b, call),
        "And" | "Or" | "Not" => fold::logic(b, call),

        "QuantizeLinear" => codes::quantize(b, call),
        "DequantizeLinear" => codes::dequantize(b, call),
        "BitShift" | "BitwiseAnd" | "BitwiseOr" => codes::bitwise(b, call),

        "DynamicQuantizeLinear" => Err(Fault::unsupported(
            "scales that are computed at run time have no form in the IR; quantize statically",
        )),
        "If" | "Loop" | "Scan" => Err(Fault::unsupported(
            "control flow has no form in the IR; export with fixed shapes",
        )),
        _ => Err(Fault::unsupported(
            "it does not occur in Stable Diffusion's networks as torch.onnx and snapc write them",
        )),
    }?;
    Ok(vec![result])
}
