//! Activations on a grid of 256 values.

use half::f16;
use snapc_ir::ops::FakeQuantize;
use snapc_ir::{DType, Node};
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;
use crate::level::Level;

impl Lowering<'_> {
    /// `quantize` and `dequantize` around the codes, which the system joins with a product that has quantized weights. The
    /// scale has the element type of the values, so that an f16 graph has it rounded to f16.
    pub(super) fn fake_quantize(
        &mut self,
        node: &Node,
        op: &FakeQuantize,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        if (op.scale, op.zero_point) == (1.0, 0) {
            return self.levels(node, result);
        }
        if self.level < Level::Ios17 {
            let reason = "activations of 8 bits need iOS 17; use --min-ios 17";
            return Err(self.refuse(node, reason));
        }
        let rounded = f16::from_f32(op.scale);
        let fits = rounded != f16::ZERO && rounded.is_finite();
        if result.dtype == DType::F16 && !fits {
            let scale = op.scale;
            let reason = format!("the scale {scale:e} has no form in f16; use --precision f32");
            return Err(self.refuse(node, reason));
        }
        let Ok(zero_point) = u8::try_from(op.zero_point) else {
            return Err(self.refuse(node, "the zero point is beyond 255"));
        };
        let x = self.operand(node, 0)?;
        let name = self.inner_name(node, "codes");
        let quantize = self.op("quantize").tensor("input", &x);
        let quantize = quantize.float("scale", x.dtype, op.scale);
        let quantize = quantize
            .byte("zero_point", zero_point)
            .text("output_dtype", "uint8");
        let codes = quantize.finish(name, DType::U8, &x.shape);
        let name = self.result_name(node);
        let dequantize = self.op("dequantize").tensor("input", &codes);
        let dequantize = dequantize.float("scale", x.dtype, op.scale);
        let dequantize = dequantize.byte("zero_point", zero_point);
        Ok(dequantize.finish(name, result.dtype, &result.shape))
    }

    /// Whole numbers from 0 to 255, the levels of a picture: the system makes a pixel of the number that it finds, so that
    /// rounding and bounds are the program's. Every system version has these operations.
    fn levels(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.inner_name(node, "whole");
        let whole = self.op("round").tensor("x", &x);
        let whole = whole.finish(name, x.dtype, &x.shape);
        let name = self.result_name(node);
        let clip = self.op("clip").tensor("x", &whole);
        let clip = clip.float("alpha", x.dtype, 0.0);
        let clip = clip.float("beta", x.dtype, 255.0);
        Ok(clip.finish(name, result.dtype, &result.shape))
    }
}
