//! Codes of few bits: that they, their scales and the operator set fit each other.

use std::collections::BTreeMap;

use super::Report;
use crate::proto::{
    BFLOAT16, FLOAT, FLOAT16, GraphProto, INT4, INT8, NodeProto, TensorProto, UINT4, UINT8,
};

/// Checks the nodes of a model that make floats of codes, or codes of floats.
pub(super) fn check(proto: &GraphProto, opset: i64, report: &mut Report<'_>) {
    let tensors = proto.initializer.iter();
    let named = |t| -> (&str, &TensorProto) { (name(t), t) };
    let mut codes = Codes {
        opset,
        tensors: tensors.map(named).collect(),
        grids: BTreeMap::new(),
    };
    for tensor in &proto.initializer {
        if matches!(tensor.data_type, Some(INT4 | UINT4)) && opset < 21 {
            let place = format!("initializer '{}'", name(tensor));
            report.add("codes", place, needs(21, "elements of 4 bits"));
        }
    }
    for node in &proto.node {
        if let Err(problem) = codes.node(node) {
            let place = format!("node '{}'", node.name.as_deref().unwrap_or_default());
            report.add("codes", place, problem);
        }
    }
}

fn name(tensor: &TensorProto) -> &str {
    tensor.name.as_deref().unwrap_or_default()
}

fn needs(opset: i64, what: &str) -> String {
    format!("{what} need operator set {opset}")
}

struct Codes<'a> {
    opset: i64,
    tensors: BTreeMap<&'a str, &'a TensorProto>,
    /// Scale and zero point by the codes of `QuantizeLinear`.
    grids: BTreeMap<&'a str, &'a [String]>,
}

impl<'a> Codes<'a> {
    fn node(&mut self, node: &'a NodeProto) -> Result<(), String> {
        match node.op_type.as_deref().unwrap_or_default() {
            "BitShift" | "BitwiseAnd" | "BitwiseOr" if self.opset < 18 => {
                Err(needs(18, "operators on bits"))
            }
            "ReduceMean" if (node.input.len() == 2) != (self.opset >= 18) => {
                Err("axes are an operand since operator set 18, and an attribute before".to_owned())
            }
            "QuantizeLinear" => self.quantized(node),
            "DequantizeLinear" => self.dequantized(node),
            _ => Ok(()),
        }
    }

    fn tensor(&self, node: &NodeProto, i: usize, role: &str) -> Result<&'a TensorProto, String> {
        let found = node.input.get(i).and_then(|n| self.tensors.get(n.as_str()));
        let found = found.copied();
        found.ok_or_else(|| format!("its {role} is not an initializer"))
    }

    /// The scale of a node, of a type that the operator set takes.
    fn scale(&self, node: &NodeProto) -> Result<&'a TensorProto, String> {
        let scale = self.tensor(node, 1, "scale")?;
        match scale.data_type.unwrap_or_default() {
            FLOAT => Ok(scale),
            FLOAT16 | BFLOAT16 if self.opset >= 19 => Ok(scale),
            FLOAT16 | BFLOAT16 => Err(needs(19, "scales in half precision")),
            other => Err(format!("its scale has element type {other}")),
        }
    }

    fn quantized(&mut self, node: &'a NodeProto) -> Result<(), String> {
        let (scale, zero) = (self.scale(node)?, self.tensor(node, 2, "zero point")?);
        if let Some(codes) = node.output.first() {
            self.grids.insert(codes, &node.input[1..]);
        }
        let fits = zero.data_type == Some(UINT8) && scale.dims.is_empty() && zero.dims.is_empty();
        fits.then_some(())
            .ok_or_else(|| "one scale and one uint8 zero point are expected".to_owned())
    }

    fn dequantized(&self, node: &NodeProto) -> Result<(), String> {
        let codes = node.input.first().map_or("", String::as_str);
        if let Some(&grid) = self.grids.get(codes) {
            let same = grid == &node.input[1..];
            return same.then_some(()).ok_or_else(|| {
                "its scale or zero point is not that of its QuantizeLinear".to_owned()
            });
        }
        let codes = self.tensor(node, 0, "operand")?;
        if !matches!(codes.data_type, Some(INT8 | INT4)) {
            let found = codes.data_type.unwrap_or_default();
            return Err(format!(
                "codes of element type {found}, expected int8 or int4"
            ));
        }
        let scale = self.scale(node)?;
        if node.input.len() == 3 {
            let zero = self.tensor(node, 2, "zero point")?;
            if zero.data_type != codes.data_type || zero.dims != scale.dims {
                return Err(
                    "its zero point has not the type of the codes and the dimensions of the scale"
                        .to_owned(),
                );
            }
        }
        let attribute = |name: &str| {
            let found = node
                .attribute
                .iter()
                .find(|a| a.name.as_deref() == Some(name));
            found.and_then(|a| a.i)
        };
        let axis = usize::try_from(attribute("axis").unwrap_or(1)).unwrap_or(usize::MAX);
        let block = attribute("block_size").unwrap_or(0);
        if block != 0 && self.opset < 21 {
            return Err(needs(21, "blocks"));
        }
        scales_fit(&codes.dims, &scale.dims, axis, block).ok_or_else(|| {
            let (codes, scale) = (&codes.dims, &scale.dims);
            format!(
                "scales {scale:?} do not fit codes {codes:?} along axis {axis}, block size {block}"
            )
        })
    }
}

/// Whether there is one scale, one per index of an axis, or one per block of them.
fn scales_fit(codes: &[i64], scales: &[i64], axis: usize, block: i64) -> Option<()> {
    if scales.is_empty() {
        return (block == 0).then_some(());
    }
    let along = *codes.get(axis)?;
    if block == 0 {
        return (scales == [along]).then_some(());
    }
    let mut expected = codes.to_vec();
    expected[axis] = *scales.get(axis)?;
    let covered = expected[axis].checked_mul(block);
    (block > 0 && scales == expected && covered == Some(along)).then_some(())
}
