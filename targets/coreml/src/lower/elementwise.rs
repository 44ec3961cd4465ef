//! Operations on single elements.

use snapc_ir::ops::Cast;
use snapc_ir::{DType, Node};
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;

impl Lowering<'_> {
    /// An operation of parameters `x` and `y` that broadcasts as numpy does.
    pub(super) fn binary(
        &mut self,
        node: &Node,
        kind: &'static str,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let (x, y) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let name = self.result_name(node);
        let op = self.op(kind).tensor("x", &x).tensor("y", &y);
        Ok(op.finish(name, result.dtype, &result.shape))
    }

    /// Division of floats; Core ML's divisions of integers round otherwise than the IR's.
    pub(super) fn div(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        if !result.dtype.is_float() {
            return Err(self.refuse(node, "Core ML divides floats only; cast the operands"));
        }
        self.binary(node, "real_div", result)
    }

    /// An operation of parameter `x` alone.
    pub(super) fn unary(
        &mut self,
        node: &Node,
        kind: &'static str,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let op = self.op(kind).tensor("x", &x);
        Ok(op.finish(name, result.dtype, &result.shape))
    }

    /// `gelu`; the mode `SIGMOID_APPROXIMATION` is `x * sigmoid(1.702 x)`, CLIP's quick form.
    pub(super) fn gelu(
        &mut self,
        node: &Node,
        mode: &str,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let op = self.op("gelu").tensor("x", &x).text("mode", mode);
        Ok(op.finish(name, result.dtype, &result.shape))
    }

    /// `cast`, whose names of element types are not those of the IR.
    pub(super) fn cast(
        &mut self,
        node: &Node,
        op: &Cast,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let dtype = match op.to {
            DType::F16 => "fp16",
            DType::F32 => "fp32",
            DType::I32 => "int32",
            DType::Bool => "bool",
            DType::BF16 | DType::I64 | DType::I8 | DType::U8 => {
                return Err(self.refuse(node, format!("Core ML has no {} values", op.to)));
            }
        };
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let op = self.op("cast").tensor("x", &x).text("dtype", dtype);
        Ok(op.finish(name, result.dtype, &result.shape))
    }
}
