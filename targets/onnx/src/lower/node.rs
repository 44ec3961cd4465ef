//! The ONNX form of each operator, in operator set 17 and those after it.

use snapc_ir::ops::{Conv2d, FakeQuantize, Gather, GroupNorm, LayerNorm, UpsampleNearest};
use snapc_ir::{DType, Dim, Graph, LazyTensor, Node, Op, Shape, TensorType, ValueDef, ValueId};
use snapc_target::TargetError;

use super::attribute::{float, int, ints, string};
use super::{Lowering, WeightForm};
use crate::proto::{INT32, INT64, data_type};

/// Composites that have an ONNX form of their own.
pub(crate) fn is_native(op: &Op) -> bool {
    matches!(op, Op::GroupNorm(_) | Op::LayerNorm(_) | Op::Linear(_))
}

/// Adds the ONNX nodes of an IR node.
pub(super) fn lower(cx: &mut Lowering<'_>, node: &Node) -> Result<(), TargetError> {
    match &node.op {
        Op::Add(_) => elementwise(cx, node, "Add"),
        Op::Sub(_) => elementwise(cx, node, "Sub"),
        Op::Mul(_) => elementwise(cx, node, "Mul"),
        Op::Div(_) => elementwise(cx, node, "Div"),
        Op::Equal(_) => elementwise(cx, node, "Equal"),
        Op::Cos(_) => elementwise(cx, node, "Cos"),
        Op::Sin(_) => elementwise(cx, node, "Sin"),
        Op::Exp(_) => elementwise(cx, node, "Exp"),
        Op::Erf(_) => elementwise(cx, node, "Erf"),
        Op::Sqrt(_) => elementwise(cx, node, "Sqrt"),
        Op::Sigmoid(_) => elementwise(cx, node, "Sigmoid"),
        Op::MatMul(_) => elementwise(cx, node, "MatMul"),
        Op::ArgMax(op) => arg_max(cx, node, op.axis),
        Op::Cast(op) => {
            let inputs = cx.operands(node);
            let to = int("to", i64::from(data_type(op.to)));
            cx.define(node, "Cast", inputs, vec![to]);
        }
        Op::Concat(op) => {
            let inputs = cx.operands(node);
            cx.define(node, "Concat", inputs, vec![int("axis", op.axis as i64)]);
        }
        Op::Conv2d(op) => conv2d(cx, node, op),
        Op::Gather(op) => gather(cx, node, op),
        Op::FakeQuantize(op) => fake_quantize(cx, node, op),
        Op::GroupNorm(op) => group_norm(cx, node, op),
        Op::LayerNorm(op) => layer_norm(cx, node, op),
        Op::Linear(_) => linear(cx, node),
        Op::ReduceMean(op) => reduce_mean(cx, node, &op.axes),
        Op::Reshape(_) => reshape(cx, node),
        Op::Slice(op) => {
            let mut inputs = cx.operands(node);
            for bound in [op.start, op.end, op.axis] {
                inputs.push(cx.int_list(&[bound as i64]));
            }
            cx.define(node, "Slice", inputs, Vec::new());
        }
        Op::Softmax(op) => {
            let inputs = cx.operands(node);
            cx.define(node, "Softmax", inputs, vec![int("axis", op.axis as i64)]);
        }
        Op::Transpose(op) => {
            let inputs = cx.operands(node);
            cx.define(node, "Transpose", inputs, vec![ints("perm", &op.perm)]);
        }
        Op::UpsampleNearest(op) => upsample_nearest(cx, node, op),
        Op::Attention(_)
        | Op::Gelu(_)
        | Op::QuickGelu(_)
        | Op::Silu(_)
        | Op::TimestepEmbedding(_) => {
            return Err(TargetError::Unsupported {
                graph: cx.graph.name().to_owned(),
                node: node.name.clone(),
                op: node.op.name(),
                reason: "the graph has to be legalized first".to_owned(),
            });
        }
    }
    Ok(())
}

fn elementwise(cx: &mut Lowering<'_>, node: &Node, op_type: &str) {
    let inputs = cx.operands(node);
    cx.define(node, op_type, inputs, Vec::new());
}

/// The operator set that the form of a node needs; 0 when any has it.
pub(super) fn needed_opset(graph: &Graph, node: &Node) -> i64 {
    match &node.op {
        Op::FakeQuantize(op) if grid_type(graph.ty(node.result).dtype, op) == DType::F16 => 19,
        _ => 0,
    }
}

/// The type in which `QuantizeLinear` computes: f32, or f16 where that holds the scale.
fn grid_type(dtype: DType, op: &FakeQuantize) -> DType {
    let scale = LazyTensor::from_f32(&[], &[op.scale]).cast(dtype);
    let held = scale.to_f32().is_ok_and(|held| held == [op.scale]);
    match dtype {
        DType::F16 if held => DType::F16,
        _ => DType::F32,
    }
}

/// `QuantizeLinear` to uint8 and `DequantizeLinear`, between casts where the type of the values does not hold the scale.
fn fake_quantize(cx: &mut Lowering<'_>, node: &Node, op: &FakeQuantize) {
    let ty = cx.graph.ty(node.result).clone();
    let grid = TensorType::new(grid_type(ty.dtype, op), ty.shape.clone());
    let cast = |to: DType| vec![int("to", i64::from(data_type(to)))];
    let mut x = cx.value(node.operands[0]);
    if grid.dtype != ty.dtype {
        x = cx.push(&node.name, "Cast", vec![x], cast(grid.dtype), &grid);
    }
    let scale = LazyTensor::from_f32(&[], &[op.scale]).cast(grid.dtype);
    let scale = cx.constant(&format!("{}/{}", grid.dtype, op.scale), scale);
    let zero_point = cx.bytes(&[], &[op.zero_point as u8]);
    let codes = TensorType::new(DType::U8, ty.shape.clone());
    let inputs = vec![x, scale.clone(), zero_point.clone()];
    let codes = cx.push(&node.name, "QuantizeLinear", inputs, Vec::new(), &codes);
    let inputs = vec![codes, scale, zero_point];
    if grid.dtype == ty.dtype {
        cx.define(node, "DequantizeLinear", inputs, Vec::new());
        return;
    }
    let wide = cx.push(&node.name, "DequantizeLinear", inputs, Vec::new(), &grid);
    cx.define(node, "Cast", vec![wide], cast(ty.dtype));
}

/// The axes are an attribute before operator set 18 and an operand since.
fn reduce_mean(cx: &mut Lowering<'_>, node: &Node, axes: &[usize]) {
    let mut inputs = cx.operands(node);
    let mut attributes = vec![int("keepdims", 1)];
    if cx.lowered.opset < 18 {
        attributes.insert(0, ints("axes", axes));
    } else {
        inputs.push(cx.sizes(axes));
    }
    cx.define(node, "ReduceMean", inputs, attributes);
}

/// ONNX counts positions in int64, the IR in int32.
fn arg_max(cx: &mut Lowering<'_>, node: &Node, axis: usize) {
    let inputs = cx.operands(node);
    let attributes = vec![int("axis", axis as i64), int("keepdims", 0)];
    let ty = TensorType::new(DType::I64, cx.graph.ty(node.result).shape.clone());
    let position = cx.push(&node.name, "ArgMax", inputs, attributes, &ty);
    cx.define(
        node,
        "Cast",
        vec![position],
        vec![int("to", i64::from(INT32))],
    );
}

fn conv2d(cx: &mut Lowering<'_>, node: &Node, op: &Conv2d) {
    let inputs = cx.operands(node);
    let kernel = cx.graph.ty(node.operands[1]).shape.bind(1);
    let attributes = vec![
        ints("dilations", &[1, 1]),
        int("group", op.groups as i64),
        ints("kernel_shape", &kernel[2..]),
        ints("pads", &op.pads),
        ints("strides", &op.strides),
    ];
    cx.define(node, "Conv", inputs, attributes);
}

/// `Gather` without a shared dimension. With one, `GatherND`, whose indices are int64 and carry a last dimension that
/// counts the indexed ones; it indexes the dimension behind the shared one, so another one is brought there and back.
fn gather(cx: &mut Lowering<'_>, node: &Node, op: &Gather) {
    let mut inputs = cx.operands(node);
    if op.batch_dims == 0 {
        cx.define(node, "Gather", inputs, vec![int("axis", op.axis as i64)]);
        return;
    }
    inputs[1] = gather_nd_indices(cx, node, inputs[1].clone());
    let shared = vec![int("batch_dims", op.batch_dims as i64)];
    if op.axis == op.batch_dims {
        cx.define(node, "GatherND", inputs, shared);
        return;
    }
    let x = cx.graph.ty(node.operands[0]).clone();
    let indexed = cx.graph.ty(node.operands[1]).shape.rank() - op.batch_dims;
    let (front, between, rank) = (op.batch_dims, op.axis - op.batch_dims, x.shape.rank());
    let forth: Vec<usize> = (0..front)
        .chain([op.axis])
        .chain(front..op.axis)
        .chain(op.axis + 1..rank)
        .collect();
    let moved = permuted(&x, &forth);
    inputs[0] = cx.push(
        &node.name,
        "Transpose",
        vec![inputs[0].clone()],
        vec![ints("perm", &forth)],
        &moved,
    );
    let result = cx.graph.ty(node.result).clone();
    let back: Vec<usize> = (0..front)
        .chain(front + indexed..front + indexed + between)
        .chain(front..front + indexed)
        .chain(front + indexed + between..result.shape.rank())
        .collect();
    let mut inverse = vec![0; back.len()];
    back.iter()
        .enumerate()
        .for_each(|(i, &axis)| inverse[axis] = i);
    let taken = permuted(&result, &inverse);
    let taken = cx.push(&node.name, "GatherND", inputs, shared, &taken);
    cx.define(node, "Transpose", vec![taken], vec![ints("perm", &back)]);
}

fn permuted(ty: &TensorType, perm: &[usize]) -> TensorType {
    let dims = perm.iter().map(|&axis| ty.shape.dims()[axis]);
    TensorType::new(ty.dtype, Shape(dims.collect()))
}

fn gather_nd_indices(cx: &mut Lowering<'_>, node: &Node, indices: String) -> String {
    let given = cx.graph.ty(node.operands[1]);
    let mut ty = TensorType::new(DType::I64, given.shape.clone());
    let wide = match given.dtype {
        DType::I64 => indices,
        _ => {
            let to = int("to", i64::from(INT64));
            cx.push(&node.name, "Cast", vec![indices], vec![to], &ty)
        }
    };
    ty.shape.0.push(Dim::Fixed(1));
    let last = cx.int_list(&[-1]);
    cx.push(&node.name, "Unsqueeze", vec![wide, last], Vec::new(), &ty)
}

/// `InstanceNormalization` over `[N, G, C/G * H, W]`, then scale and bias per channel. `GroupNormalization` means scale
/// and bias per group before opset 21, so it would not be the same function. Rows and columns stay apart because ONNX
/// Runtime's Core ML provider refuses dimensions beyond 16384.
fn group_norm(cx: &mut Lowering<'_>, node: &Node, op: &GroupNorm) {
    let x = cx.value(node.operands[0]);
    let ty = cx.graph.ty(node.operands[0]).clone();
    let (batch, columns) = (ty.shape.dims()[0], ty.shape.dims()[3]);
    let sizes = ty.shape.bind(1);
    let rows = sizes[1] / op.groups * sizes[2];
    let grouped = vec![batch, Dim::Fixed(op.groups), Dim::Fixed(rows), columns];
    let grouped = TensorType::new(ty.dtype, Shape(grouped));

    let target = cx.reshape_target(&ty.shape, &grouped.shape);
    let x = cx.push(&node.name, "Reshape", vec![x, target], Vec::new(), &grouped);
    let one = filled(cx, ty.dtype, op.groups, 1.0);
    let zero = filled(cx, ty.dtype, op.groups, 0.0);
    let epsilon = float("epsilon", op.epsilon);
    let x = cx.push(
        &node.name,
        "InstanceNormalization",
        vec![x, one, zero],
        vec![epsilon],
        &grouped,
    );
    let target = cx.reshape_target(&grouped.shape, &ty.shape);
    let x = cx.push(&node.name, "Reshape", vec![x, target], Vec::new(), &ty);
    let scale = per_channel(cx, node, node.operands[1]);
    let x = cx.push(&node.name, "Mul", vec![x, scale], Vec::new(), &ty);
    let bias = per_channel(cx, node, node.operands[2]);
    cx.define(node, "Add", vec![x, bias], Vec::new());
}

/// A vector of equal elements.
fn filled(cx: &mut Lowering<'_>, dtype: DType, len: usize, value: f32) -> String {
    let tensor = LazyTensor::from_f32(&[len], &vec![value; len]).cast(dtype);
    cx.constant(&format!("{dtype}/{value}x{len}"), tensor)
}

/// A vector `[C]` as `[C,1,1]`.
fn per_channel(cx: &mut Lowering<'_>, node: &Node, id: ValueId) -> String {
    if let ValueDef::Weight(weight) = cx.graph.value(id).def {
        return cx.weight(weight, WeightForm::Channels);
    }
    let mut ty = cx.graph.ty(id).clone();
    let from = ty.shape.clone();
    ty.shape.0.extend([Dim::Fixed(1), Dim::Fixed(1)]);
    let target = cx.reshape_target(&from, &ty.shape);
    let vector = cx.value(id);
    cx.push(&node.name, "Reshape", vec![vector, target], Vec::new(), &ty)
}

fn layer_norm(cx: &mut Lowering<'_>, node: &Node, op: &LayerNorm) {
    let inputs = cx.operands(node);
    let attributes = vec![int("axis", -1), float("epsilon", op.epsilon)];
    cx.define(node, "LayerNormalization", inputs, attributes);
}

/// `Gemm` for matrices, which takes the weight as it is; `MatMul` by the transposed weight and `Add` otherwise.
fn linear(cx: &mut Lowering<'_>, node: &Node) {
    let x = node.operands[0];
    let weight = node.operands[1];
    if cx.graph.ty(x).shape.rank() == 2 {
        let inputs = cx.operands(node);
        cx.define(node, "Gemm", inputs, vec![int("transB", 1)]);
        return;
    }
    let matrix = match cx.graph.value(weight).def {
        ValueDef::Weight(id) => cx.weight(id, WeightForm::Transposed),
        _ => {
            let mut ty = cx.graph.ty(weight).clone();
            ty.shape.0.reverse();
            let source = cx.value(weight);
            cx.push(
                &node.name,
                "Transpose",
                vec![source],
                vec![ints("perm", &[1, 0])],
                &ty,
            )
        }
    };
    let inputs = vec![cx.value(x), matrix];
    let Some(&bias) = node.operands.get(2) else {
        cx.define(node, "MatMul", inputs, Vec::new());
        return;
    };
    let ty = cx.graph.ty(node.result).clone();
    let product = cx.push(&node.name, "MatMul", inputs, Vec::new(), &ty);
    let bias = cx.value(bias);
    cx.define(node, "Add", vec![product, bias], Vec::new());
}

fn reshape(cx: &mut Lowering<'_>, node: &Node) {
    let mut inputs = cx.operands(node);
    let from = cx.graph.ty(node.operands[0]).shape.clone();
    let to = cx.graph.ty(node.result).shape.clone();
    inputs.push(cx.reshape_target(&from, &to));
    cx.define(node, "Reshape", inputs, Vec::new());
}

/// By `scales`, since `sizes` would fix the batch. Rows and columns are static, and `asymmetric` with `floor` is the one
/// pair of modes that ONNX Runtime's Core ML provider takes for nearest neighbours.
fn upsample_nearest(cx: &mut Lowering<'_>, node: &Node, op: &UpsampleNearest) {
    let scale = op.scale as f32;
    let x = cx.value(node.operands[0]);
    let scales = LazyTensor::from_f32(&[4], &[1.0, 1.0, scale, scale]);
    let scales = cx.constant(&format!("scales/{}", op.scale), scales);
    let attributes = vec![
        string("coordinate_transformation_mode", "asymmetric"),
        string("mode", "nearest"),
        string("nearest_mode", "floor"),
    ];
    cx.define(node, "Resize", vec![x, String::new(), scales], attributes);
}
