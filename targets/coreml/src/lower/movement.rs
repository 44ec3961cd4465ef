//! Operations that move elements without changing them.

use snapc_ir::ops::{Concat, Gather, Slice, Transpose, UpsampleNearest};
use snapc_ir::{DType, Node};
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;
use crate::level::Level;

impl Lowering<'_> {
    /// Adds a `reshape` under a given name.
    pub(super) fn reshape_to(&mut self, x: &Mil, shape: &[usize], name: String) -> Mil {
        self.columns.reshaped(&name, x);
        let op = self.op("reshape").tensor("x", x).ints("shape", shape);
        op.finish(name, x.dtype, shape)
    }

    /// Elements `start..end` along an axis, under a given name.
    pub(super) fn slice_to(
        &mut self,
        x: &Mil,
        axis: usize,
        (start, end): (usize, usize),
        name: String,
    ) -> Mil {
        let rank = x.shape.len();
        let (mut begins, mut ends) = (vec![0; rank], x.shape.clone());
        (begins[axis], ends[axis]) = (start, end);
        let mut shape = x.shape.clone();
        shape[axis] = end - start;
        let none = vec![false; rank];
        let slice = self.op("slice_by_index").tensor("x", x);
        let slice = slice
            .ints("begin", &begins)
            .ints("end", &ends)
            .ints("stride", &vec![1; rank]);
        let slice = slice.bools("begin_mask", &none).bools("end_mask", &none);
        let slice = slice.bools("squeeze_mask", &none);
        slice.finish(name, x.dtype, &shape)
    }

    /// Values one after the other along an axis, under a given name.
    pub(super) fn concat_to(&mut self, values: &[Mil], axis: usize, name: String) -> Mil {
        let mut shape = values[0].shape.clone();
        shape[axis] = values.iter().map(|v| v.shape[axis]).sum();
        let concat = self.op("concat").tuple("values", values);
        let concat = concat.int("axis", axis).bool("interleave", false);
        concat.finish(name, values[0].dtype, &shape)
    }

    /// Adds a `transpose` under a given name.
    pub(super) fn transpose_to(&mut self, x: &Mil, perm: &[usize], name: String) -> Mil {
        let shape: Vec<usize> = perm.iter().map(|&p| x.shape[p]).collect();
        let op = self.op("transpose").tensor("x", x).ints("perm", perm);
        op.finish(name, x.dtype, &shape)
    }

    pub(super) fn reshape(&mut self, node: &Node, result: &Mil) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        if result.shape.is_empty() {
            // `reshape` has no form for a scalar result; every dimension is 1 here.
            let axes: Vec<usize> = (0..x.shape.len()).collect();
            let op = self.op("squeeze").tensor("x", &x).ints("axes", &axes);
            return Ok(op.finish(name, x.dtype, &[]));
        }
        let origin = self.columns.origin(&x);
        Ok(self.reshape_to(&origin, &result.shape, name))
    }

    pub(super) fn transpose(
        &mut self,
        node: &Node,
        op: &Transpose,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        if op.perm == [0, 2, 1]
            && let Some(columns) = self.columns.get(node.operands[0])
        {
            let name = self.result_name(node);
            return Ok(self.reshape_to(&columns, &result.shape, name));
        }
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        Ok(self.transpose_to(&x, &op.perm, name))
    }

    pub(super) fn concat(&mut self, node: &Node, op: &Concat, _: &Mil) -> Result<Mil, TargetError> {
        let values = self.operands(node)?;
        let name = self.result_name(node);
        Ok(self.concat_to(&values, op.axis, name))
    }

    /// `slice_by_index`, with a begin and an end for every dimension.
    pub(super) fn slice(&mut self, node: &Node, op: &Slice, _: &Mil) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        Ok(self.slice_to(&x, op.axis, (op.start, op.end), name))
    }

    /// `gather`. Indices are inside the table by construction (token ids, positions), so they are not validated.
    pub(super) fn gather(
        &mut self,
        node: &Node,
        op: &Gather,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let (x, indices) = (self.operand(node, 0)?, self.operand(node, 1)?);
        let name = self.result_name(node);
        let validates = self.level >= Level::Ios17;
        let gather = self
            .op("gather")
            .tensor("x", &x)
            .tensor("indices", &indices);
        let mut gather = gather.int("axis", op.axis).int("batch_dims", op.batch_dims);
        if validates {
            gather = gather.bool("validate_indices", false);
        }
        Ok(gather.finish(name, result.dtype, &result.shape))
    }

    pub(super) fn upsample_nearest(
        &mut self,
        node: &Node,
        op: &UpsampleNearest,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        let x = self.operand(node, 0)?;
        let name = self.result_name(node);
        let scale = op.scale as f32;
        let upsample = self.op("upsample_nearest_neighbor").tensor("x", &x);
        let upsample = upsample.float("scale_factor_height", DType::F32, scale);
        let upsample = upsample.float("scale_factor_width", DType::F32, scale);
        Ok(upsample.finish(name, result.dtype, &result.shape))
    }
}
