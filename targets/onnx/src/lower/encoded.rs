//! Weights that are stored as codes, and the nodes that make floats of them.
//!
//! | Encoding | Nodes | Operator set |
//! |---|---|---|
//! | 8-bit codes with a scale per tensor or per index of an axis | `DequantizeLinear` | 17, 19 for f16 |
//! | blocks with a scale each, 4-bit codes | `DequantizeLinear` with `block_size`, INT4 | 21 |
//! | palette of 8 bits | `Cast`, `Gather` in the table | 17 |
//! | palette of 4 bits | UINT4, `Cast`, `Gather` | 21 |
//! | palette of 1, 2, 3, 6 bits | dense bytes, `BitShift`, `BitwiseAnd`, `Cast`, `Gather` | 18 |
//!
//! A table per group is taken with `GatherElements`, from codes that lie group by group. `DequantizeLinear` is the last node
//! wherever the codes can be stored in the order of the weight's use, because ONNX Runtime joins it with the product that it
//! feeds.

use snapc_ir::{Codebook, DType, Encoding, LazyTensor, Shape, TensorType};

use super::attribute::{int, ints, string};
use super::{Initializer, Lowering};
use crate::proto::{AttributeProto, INT4, INT32, UINT4};

/// The operator set that the form of a weight needs; 0 when any has it.
pub(super) fn needed_opset(tensor: &LazyTensor) -> i64 {
    let Some(encoding) = tensor.encoding() else {
        return 0;
    };
    match (encoding.codebook(), encoding.bits()) {
        (Codebook::Affine { .. }, 4) | (Codebook::Palette { .. }, 4) => 21,
        (Codebook::Affine { .. }, _) => match Blocks::new(tensor.shape(), encoding).size {
            Some(_) => 21,
            None if tensor.dtype() == DType::F32 => 0,
            None => 19,
        },
        (Codebook::Palette { .. }, 8) => 0,
        (Codebook::Palette { .. }, _) => 18,
    }
}

/// Adds codes and nodes of an encoded weight; gives the name of its floats, which is the wanted one when that is free.
pub(super) fn lower(
    cx: &mut Lowering<'_>,
    wanted: &str,
    tensor: &LazyTensor,
    encoding: &Encoding,
) -> String {
    let codes = tensor.codes().expect("the weight is encoded");
    let result = Floats {
        name: cx.names.unique(wanted),
        ty: tensor.dtype(),
        shape: tensor.shape(),
    };
    match encoding.codebook() {
        Codebook::Affine { scale, zero_point } => {
            let blocks = Blocks::new(result.shape, encoding);
            affine(
                cx,
                &result,
                codes,
                encoding.bits(),
                &blocks,
                scale,
                zero_point,
            );
        }
        Codebook::Palette { table } => palette(cx, &result, codes, encoding, table),
    }
    result.name
}

/// The floats that the nodes end in.
struct Floats<'a> {
    name: String,
    ty: DType,
    shape: &'a [usize],
}

impl Floats<'_> {
    fn part(&self, suffix: &str) -> String {
        format!("{}/{suffix}", self.name)
    }

    /// Adds the last node.
    fn define(
        &self,
        cx: &mut Lowering<'_>,
        op_type: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) {
        let node = cx.names.unique(&self.part(op_type));
        cx.push_node(node, op_type, inputs, self.name.clone(), attributes);
        let ty = fixed(self.ty, self.shape);
        cx.declare(&self.name, &ty);
    }

    /// Adds a node before the last one.
    fn push(
        &self,
        cx: &mut Lowering<'_>,
        op_type: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
        ty: &TensorType,
    ) -> String {
        cx.push(&self.name, op_type, inputs, attributes, ty)
    }
}

fn fixed(dtype: DType, shape: &[usize]) -> TensorType {
    TensorType::new(dtype, Shape::fixed(shape))
}

/// How `DequantizeLinear` sees the groups of an encoding.
#[derive(Debug, PartialEq)]
struct Blocks {
    /// Dimensions of the codes: those of the weight, from the last one that is cut on merged where blocks lie along it.
    codes: Vec<usize>,
    /// The axis along which scales differ; `None` when there is one for all.
    axis: Option<usize>,
    /// Neighbours along the axis that share a scale, when more than one axis has several scales or they are shared.
    size: Option<usize>,
    /// Dimensions of the scales.
    scales: Vec<usize>,
    /// The group that each scale is of. Blocks have a scale at every index of the other axes, so groups may repeat.
    groups: Vec<usize>,
}

impl Blocks {
    fn new(shape: &[usize], encoding: &Encoding) -> Self {
        let groups = encoding.groups();
        let whole = |axis: Option<usize>, scales: Vec<usize>| Blocks {
            codes: shape.to_vec(),
            axis,
            size: None,
            groups: (0..groups.iter().product()).collect(),
            scales,
        };
        let Some(last) = groups.iter().rposition(|&g| g > 1) else {
            return whole(None, Vec::new());
        };
        let single = groups[..last].iter().all(|&g| g == 1);
        if single && groups[last] == shape[last] {
            return whole(Some(last), vec![shape[last]]);
        }
        let cut = (0..=last).rev().filter(|&axis| groups[axis] > 1);
        let along = cut.map(|axis| Blocks::along(axis, shape, groups));
        along
            .min_by_key(|blocks| blocks.groups.len())
            .expect("the last cut axis is among them")
    }

    /// Blocks along an axis. Dimensions that follow it without a cut are merged with it.
    fn along(axis: usize, shape: &[usize], groups: &[usize]) -> Self {
        let behind = axis + 1..shape.len();
        let merged = groups[behind.clone()].iter().all(|&g| g == 1)
            && shape[behind.clone()].iter().any(|&size| size > 1);
        let mut codes = shape.to_vec();
        if merged {
            codes.truncate(axis);
            codes.push(shape[axis..].iter().product());
        }
        let mut scales = codes.clone();
        scales[axis] = groups[axis];
        let mut of = vec![0];
        for (d, &size) in scales.iter().enumerate() {
            let part = if d == axis { 1 } else { shape[d] / groups[d] };
            let next = |&before: &usize| (0..size).map(move |i| before * groups[d] + i / part);
            of = of.iter().flat_map(next).collect();
        }
        Blocks {
            size: Some(codes[axis] / groups[axis]),
            axis: Some(axis),
            codes,
            scales,
            groups: of,
        }
    }
}

/// `DequantizeLinear`, and `Reshape` where dimensions are merged. A zero point has the type of the codes, so codes of 4 bits
/// take 8 when one is beyond.
fn affine(
    cx: &mut Lowering<'_>,
    result: &Floats<'_>,
    codes: LazyTensor,
    bits: u32,
    blocks: &Blocks,
    scale: &[f32],
    zero_point: &[i8],
) {
    let bits = if zero_point.iter().all(|z| (-8..8).contains(z)) {
        bits
    } else {
        8
    };
    let scales: Vec<f32> = blocks.groups.iter().map(|&g| scale[g]).collect();
    let scales = LazyTensor::from_f32(&blocks.scales, &scales).cast(result.ty);
    let codes = signed(&result.part("codes"), codes.reshape(&blocks.codes), bits);
    let mut inputs = vec![
        cx.add(codes),
        cx.add_initializer(&result.part("scale"), scales),
    ];
    if !zero_point.is_empty() {
        let zeros: Vec<i8> = blocks.groups.iter().map(|&g| zero_point[g]).collect();
        let zeros = LazyTensor::from_i8(&blocks.scales, &zeros);
        inputs.push(cx.add(signed(&result.part("zero_point"), zeros, bits)));
    }
    let mut attributes: Vec<AttributeProto> = Vec::new();
    attributes.extend(blocks.axis.map(|axis| int("axis", axis as i64)));
    attributes.extend(blocks.size.map(|size| int("block_size", size as i64)));
    if blocks.codes == result.shape {
        result.define(cx, "DequantizeLinear", inputs, attributes);
        return;
    }
    let ty = fixed(result.ty, &blocks.codes);
    let floats = result.push(cx, "DequantizeLinear", inputs, attributes, &ty);
    let target = cx.sizes(result.shape);
    result.define(cx, "Reshape", vec![floats, target], Vec::new());
}

/// Signed codes of 8 or 4 bits.
fn signed(name: &str, codes: LazyTensor, bits: u32) -> Initializer {
    match bits {
        4 => Initializer::nibbles(name, codes, INT4),
        _ => Initializer::new(name, codes),
    }
}

/// `Gather` in a table, or `GatherElements` in one per group and movement of the groups to their places.
fn palette(
    cx: &mut Lowering<'_>,
    result: &Floats<'_>,
    codes: LazyTensor,
    encoding: &Encoding,
    table: &[f32],
) {
    let bits = encoding.bits();
    let entries = 1 << bits;
    let count = table.len() / entries;
    if count == 1 {
        let table = LazyTensor::from_f32(&[entries], table).cast(result.ty);
        let table = cx.add_initializer(&result.part("table"), table);
        let indices = indices(cx, result, codes, bits);
        result.define(cx, "Gather", vec![table, indices], vec![int("axis", 0)]);
        return;
    }
    let table = LazyTensor::from_f32(&[count, entries], table).cast(result.ty);
    let table = cx.add_initializer(&result.part("table"), table);

    // Every dimension as its groups and what is in them; the groups in front.
    let groups = encoding.groups();
    let inside: Vec<usize> = result
        .shape
        .iter()
        .zip(groups)
        .map(|(&n, &g)| n / g)
        .collect();
    let rank = groups.len();
    let cut: Vec<usize> = groups
        .iter()
        .zip(&inside)
        .flat_map(|(&g, &n)| [g, n])
        .collect();
    let forth: Vec<usize> = (0..rank)
        .map(|d| 2 * d)
        .chain((0..rank).map(|d| 2 * d + 1))
        .collect();
    let back: Vec<usize> = (0..rank).flat_map(|d| [d, rank + d]).collect();
    let in_place = moves_nothing(&cut, &forth);
    let size = codes.elements() / count;
    let codes = codes.reshape(&cut).permute(&forth).reshape(&[count, size]);

    let indices = indices(cx, result, codes, bits);
    let by_group = fixed(result.ty, &[count, size]);
    let inputs = vec![table, indices];
    let mut floats = result.push(
        cx,
        "GatherElements",
        inputs,
        vec![int("axis", 1)],
        &by_group,
    );
    if !in_place {
        let grouped = [groups, &inside].concat();
        let target = cx.sizes(&grouped);
        let ty = fixed(result.ty, &grouped);
        floats = result.push(cx, "Reshape", vec![floats, target], Vec::new(), &ty);
        let ty = fixed(result.ty, &cut);
        floats = result.push(
            cx,
            "Transpose",
            vec![floats],
            vec![ints("perm", &back)],
            &ty,
        );
    }
    let target = cx.sizes(result.shape);
    result.define(cx, "Reshape", vec![floats, target], Vec::new());
}

/// Whether a permutation leaves the elements of a tensor of this shape in their order.
fn moves_nothing(shape: &[usize], perm: &[usize]) -> bool {
    let kept = perm.iter().filter(|&&axis| shape[axis] != 1);
    kept.is_sorted()
}

/// Unsigned codes as int32 in their dimensions.
fn indices(cx: &mut Lowering<'_>, result: &Floats<'_>, codes: LazyTensor, bits: u32) -> String {
    let shape = codes.shape().to_vec();
    let name = result.part("codes");
    let codes = match bits {
        8 => cx.add_initializer(&name, codes),
        4 => cx.add(Initializer::nibbles(&name, codes, UINT4)),
        _ => unpacked(cx, result, codes, bits),
    };
    let to = vec![int("to", i64::from(INT32))];
    result.push(cx, "Cast", vec![codes], to, &fixed(DType::I32, &shape))
}

/// Codes of 1, 2, 3 or 6 bits out of bytes without gaps: rows of one byte, or of three, hold a whole number of codes. The
/// bits of a code that lie in the byte behind its first one are shifted up, what does not belong to it is masked.
fn unpacked(cx: &mut Lowering<'_>, result: &Floats<'_>, codes: LazyTensor, bits: u32) -> String {
    let shape = codes.shape().to_vec();
    let count = codes.elements();
    let width = if 8 % bits == 0 { 1 } else { 3 };
    let lanes = 8 * width / bits as usize;
    let rows = count.div_ceil(lanes);
    let packed = filled_up(codes.pack(bits), rows * width).reshape(&[rows, width]);
    let bytes = cx.add_initializer(&result.part("codes"), packed);

    let starts: Vec<usize> = (0..lanes).map(|lane| lane * bits as usize).collect();
    let of = |f: &dyn Fn(usize) -> usize| starts.iter().map(|&s| f(s) as u8).collect::<Vec<_>>();
    let ty = fixed(DType::U8, &[rows, lanes]);
    let right = of(&|start| start % 8);
    let code = if width == 1 {
        shifted(cx, result, bytes, "RIGHT", &right, &ty)
    } else {
        let first = of(&|start| start / 8);
        let second = of(&|start| (start / 8 + 1).min(width - 1));
        // A code that begins its byte has nothing behind it; 7 leaves only what the mask takes away.
        let left = of(&|start| (8 - start % 8).min(7));
        let low = gathered(cx, result, bytes.clone(), &first, &ty);
        let low = shifted(cx, result, low, "RIGHT", &right, &ty);
        let high = gathered(cx, result, bytes, &second, &ty);
        let high = shifted(cx, result, high, "LEFT", &left, &ty);
        result.push(cx, "BitwiseOr", vec![low, high], Vec::new(), &ty)
    };
    let mask = cx.bytes(&[], &[((1u32 << bits) - 1) as u8]);
    let mut code = result.push(cx, "BitwiseAnd", vec![code, mask], Vec::new(), &ty);
    if rows * lanes != count {
        let all = fixed(DType::U8, &[rows * lanes]);
        let target = cx.sizes(&[rows * lanes]);
        code = result.push(cx, "Reshape", vec![code, target], Vec::new(), &all);
        let mut inputs = vec![code];
        for bound in [0, count, 0] {
            inputs.push(cx.sizes(&[bound]));
        }
        code = result.push(cx, "Slice", inputs, Vec::new(), &fixed(DType::U8, &[count]));
    }
    let target = cx.sizes(&shape);
    result.push(
        cx,
        "Reshape",
        vec![code, target],
        Vec::new(),
        &fixed(DType::U8, &shape),
    )
}

/// Bytes with zeros behind them, `len` in all.
fn filled_up(bytes: LazyTensor, len: usize) -> LazyTensor {
    match len - bytes.elements() {
        0 => bytes,
        missing => LazyTensor::concat(vec![
            bytes,
            LazyTensor::from_u8(&[missing], &vec![0; missing]),
        ]),
    }
}

fn gathered(
    cx: &mut Lowering<'_>,
    result: &Floats<'_>,
    bytes: String,
    columns: &[u8],
    ty: &TensorType,
) -> String {
    let columns: Vec<usize> = columns.iter().map(|&c| usize::from(c)).collect();
    let inputs = vec![bytes, cx.sizes(&columns)];
    result.push(cx, "Gather", inputs, vec![int("axis", 1)], ty)
}

fn shifted(
    cx: &mut Lowering<'_>,
    result: &Floats<'_>,
    bytes: String,
    direction: &str,
    by: &[u8],
    ty: &TensorType,
) -> String {
    let inputs = vec![bytes, cx.bytes(&[by.len()], by)];
    result.push(
        cx,
        "BitShift",
        inputs,
        vec![string("direction", direction)],
        ty,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(shape: &[usize], groups: &[usize]) -> Blocks {
        let count = groups.iter().product();
        let encoding = Encoding::affine(8, groups, vec![1.0; count], Vec::new()).unwrap();
        Blocks::new(shape, &encoding)
    }

    #[test]
    fn scales_per_tensor_and_axis_are_not_blocks() {
        let found = blocks(&[4, 6], &[1, 1]);
        assert_eq!((found.axis, found.size), (None, None));
        assert!(found.scales.is_empty());
        let found = blocks(&[4, 6, 1, 1], &[1, 6, 1, 1]);
        assert_eq!((found.axis, found.size), (Some(1), None));
        assert_eq!(found.scales, [6]);
    }

    #[test]
    fn blocks_reach_over_the_dimensions_behind_them() {
        let found = blocks(&[2, 6, 3, 3], &[2, 3, 1, 1]);
        assert_eq!((found.axis, found.size), (Some(1), Some(18)));
        assert_eq!((found.codes, found.scales), (vec![2, 54], vec![2, 3]));
        assert_eq!(found.groups, [0, 1, 2, 3, 4, 5]);
        let found = blocks(&[2, 6, 1, 1], &[2, 3, 1, 1]);
        assert_eq!(found.codes, [2, 6, 1, 1]);
        assert_eq!(found.scales, [2, 3, 1, 1]);
    }

    #[test]
    fn a_scale_that_rows_share_is_repeated() {
        let found = blocks(&[4, 6], &[2, 3]);
        assert_eq!((found.scales, found.size), (vec![4, 3], Some(2)));
        assert_eq!(found.groups, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
    }

    #[test]
    fn blocks_lie_along_the_axis_that_needs_the_fewest_scales() {
        // A linear layer's weight with blocks of 32 inputs, as `MatMul` takes it.
        let found = blocks(&[768, 3072], &[24, 3072]);
        assert_eq!((found.axis, found.size), (Some(0), Some(32)));
        assert_eq!(found.scales, [24, 3072]);
        assert!(found.groups.iter().copied().eq(0..24 * 3072));
        // Rows of blocks in front of dimensions that are not cut.
        let found = blocks(&[8, 2, 2], &[2, 2, 1]);
        assert_eq!((found.axis, found.size), (Some(0), Some(4)));
        assert_eq!((found.codes, found.scales), (vec![8, 2, 2], vec![2, 2, 2]));
        assert_eq!(found.groups, [0, 0, 1, 1, 2, 2, 3, 3]);
    }
}
