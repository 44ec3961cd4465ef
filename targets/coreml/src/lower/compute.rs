//! Convolutions, products and reductions.

use snapc_ir::ops::{ArgMax, Conv2d, ReduceMean, Softmax};
use snapc_ir::{DType, LazyTensor, Node};
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;
use crate::level::Level;

/// Largest rank of the operand of `linear`.
const LINEAR_RANK: usize = 3;

impl Lowering<'_> {
    /// `conv` with explicit padding, whose order is (before, after) of each dimension.
    pub(super) fn conv2d(
        &mut self,
        node: &Node,
        op: &Conv2d,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let operands = self.operands(node)?;
        let (x, weight, bias) = (&operands[0], &operands[1], operands.get(2));
        if bias.is_some() && self.weight_of(node, 2).is_none() && self.level < Level::Ios17 {
            return Err(self.refuse(node, "before iOS 17 the bias of conv must be a constant"));
        }
        let [top, left, bottom, right] = op.pads;
        let name = self.result_name(node);
        let conv = self
            .op("conv")
            .tensor("x", x)
            .tensor("weight", weight)
            .optional("bias", bias);
        let conv = conv
            .text("pad_type", "custom")
            .ints("pad", &[top, bottom, left, right]);
        let conv = conv.ints("strides", &op.strides).ints("dilations", &[1, 1]);
        let conv = conv.int("groups", op.groups);
        Ok(conv.finish(name, result.dtype, &result.shape))
    }

    /// `linear` over a constant weight, `matmul` over any other.
    pub(super) fn linear(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let constant = |index| self.weight_of(node, index).is_some();
        let is_constant = constant(1) && (node.operands.len() < 3 || constant(2));
        if !is_constant {
            return self.linear_of_values(node, result);
        }
        let x = self.operand(node, 0)?;
        let weight = self.operand(node, 1)?;
        let bias = match node.operands.len() {
            3 => self.operand(node, 2)?,
            _ => self.zeros(node, weight.dtype, weight.shape[0])?,
        };
        if x.shape.len() <= LINEAR_RANK {
            let name = self.result_name(node);
            let linear = self.op("linear").tensor("x", &x).tensor("weight", &weight);
            return Ok(linear
                .tensor("bias", &bias)
                .finish(name, result.dtype, &result.shape));
        }
        let (&c_in, rows) = x.shape.split_last().expect("rank above 3");
        let rows: usize = rows.iter().product();
        let name = self.inner_name(node, "rows");
        let x = self.reshape_to(&x, &[rows, c_in], name);
        let name = self.inner_name(node, "linear");
        let linear = self.op("linear").tensor("x", &x).tensor("weight", &weight);
        let linear =
            linear
                .tensor("bias", &bias)
                .finish(name, result.dtype, &[rows, weight.shape[0]]);
        let name = self.result_name(node);
        Ok(self.reshape_to(&linear, &result.shape, name))
    }

    /// The bias that a linear layer without one is written with.
    fn zeros(&mut self, node: &Node, dtype: DType, n: usize) -> Result<Mil, TargetError> {
        let zeros = LazyTensor::from_f32(&[n], &vec![0.0; n]).cast(dtype);
        self.constant(node, &format!("{}_zero_bias", node.name), &zeros)
    }

    fn linear_of_values(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let operands = self.operands(node)?;
        let (x, weight) = (&operands[0], &operands[1]);
        let Some(bias) = operands.get(2) else {
            let name = self.result_name(node);
            return Ok(self.product(x, weight, true, name, &result.shape));
        };
        let name = self.inner_name(node, "matmul");
        let product = self.product(x, weight, true, name, &result.shape);
        let name = self.result_name(node);
        let add = self.op("add").tensor("x", &product).tensor("y", bias);
        Ok(add.finish(name, result.dtype, &result.shape))
    }

    /// Adds a `matmul` under a given name.
    pub(super) fn product(
        &mut self,
        x: &Mil,
        y: &Mil,
        transpose_y: bool,
        name: String,
        shape: &[usize],
    ) -> Mil {
        let matmul = self.op("matmul").tensor("x", x).tensor("y", y);
        let matmul = matmul
            .bool("transpose_x", false)
            .bool("transpose_y", transpose_y);
        matmul.finish(name, x.dtype, shape)
    }

    pub(super) fn matmul(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let (x, y) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let name = self.result_name(node);
        Ok(self.product(&x, &y, false, name, &result.shape))
    }

    pub(super) fn softmax(
        &mut self,
        node: &Node,
        op: &Softmax,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let softmax = self.op("softmax").tensor("x", &x).int("axis", op.axis);
        Ok(softmax.finish(name, result.dtype, &result.shape))
    }

    pub(super) fn reduce_mean(
        &mut self,
        node: &Node,
        op: &ReduceMean,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let mean = self
            .op("reduce_mean")
            .tensor("x", &x)
            .ints("axes", &op.axes);
        Ok(mean
            .bool("keep_dims", true)
            .finish(name, result.dtype, &result.shape))
    }

    /// `reduce_argmax`, which names the result's element type from iOS 17 on.
    pub(super) fn arg_max(
        &mut self,
        node: &Node,
        op: &ArgMax,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let names_dtype = self.level >= Level::Ios17;
        let arg_max = self
            .op("reduce_argmax")
            .tensor("x", &x)
            .int("axis", op.axis);
        let mut arg_max = arg_max.bool("keep_dims", false);
        if names_dtype {
            arg_max = arg_max.text("output_dtype", "int32");
        }
        Ok(arg_max.finish(name, result.dtype, &result.shape))
    }
}
