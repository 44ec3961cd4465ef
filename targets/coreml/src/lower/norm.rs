//! Normalizations.

use half::f16;
use snapc_ir::ops::{GroupNorm, LayerNorm};
use snapc_ir::{DType, Node};
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;

impl Lowering<'_> {
    /// `layer_norm` over the last axis; scale and bias are its parameters when they are constants.
    pub(super) fn layer_norm(
        &mut self,
        node: &Node,
        op: &LayerNorm,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        self.check_epsilon(node, result.dtype, op.epsilon)?;
        let operands = self.operands(node)?;
        let (x, scale, bias) = (&operands[0], &operands[1], &operands[2]);
        let axes = [x.shape.len() - 1];
        if self.weight_of(node, 1).is_none() || self.weight_of(node, 2).is_none() {
            let name = self.inner_name(node, "normalized");
            let normalized = self.normalize(x, &axes, None, op.epsilon, name);
            return Ok(self.affine(node, &normalized, scale, bias, &result.shape));
        }
        let name = self.result_name(node);
        Ok(self.normalize(x, &axes, Some((scale, bias)), op.epsilon, name))
    }

    /// Group normalization as `layer_norm` over the rows and columns of `[N, G, C/G * H, W]`, then scale and bias per
    /// channel (`docs/decisions/0006-coreml-group-norm.md`).
    pub(super) fn group_norm(
        &mut self,
        node: &Node,
        op: &GroupNorm,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        self.check_epsilon(node, result.dtype, op.epsilon)?;
        let x = self.operand(node, 0)?;
        let [n, c, h, w] = x.shape[..] else {
            return Err(self.refuse(node, "the operand must have 4 dimensions"));
        };
        let scale = self.per_channel(node, 1, c)?;
        let bias = self.per_channel(node, 2, c)?;
        let name = self.inner_name(node, "groups");
        let groups = self.reshape_to(&x, &[n, op.groups, c / op.groups * h, w], name);
        let name = self.inner_name(node, "normalized");
        let normalized = self.normalize(&groups, &[2, 3], None, op.epsilon, name);
        let name = self.inner_name(node, "channels");
        let channels = self.reshape_to(&normalized, &result.shape, name);
        Ok(self.affine(node, &channels, &scale, &bias, &result.shape))
    }

    /// Refuses an epsilon that f16 rounds to zero: constant operands would be divided by zero.
    pub(super) fn check_epsilon(
        &self,
        node: &Node,
        dtype: DType,
        epsilon: f32,
    ) -> Result<(), TargetError> {
        if dtype == DType::F16 && epsilon > 0.0 && f16::from_f32(epsilon) == f16::ZERO {
            let reason = format!("epsilon {epsilon:e} is zero in f16; choose --precision f32");
            return Err(self.refuse(node, reason));
        }
        Ok(())
    }

    /// A vector operand as `[1, C, 1, 1]`.
    fn per_channel(&mut self, node: &Node, index: usize, c: usize) -> Result<Mil, TargetError> {
        let shape = [1, c, 1, 1];
        if let Some(weight) = self.weight_of(node, index) {
            let tensor = weight.tensor.clone().reshape(&shape);
            return self.constant(node, &weight.name, &tensor);
        }
        let x = self.operand(node, index)?;
        let name = self.inner_name(node, "per_channel");
        Ok(self.reshape_to(&x, &shape, name))
    }

    /// Adds a `layer_norm` under a given name. Epsilon has the operand's element type, which every opset takes.
    pub(super) fn normalize(
        &mut self,
        x: &Mil,
        axes: &[usize],
        affine: Option<(&Mil, &Mil)>,
        epsilon: f32,
        name: String,
    ) -> Mil {
        let norm = self.op("layer_norm").tensor("x", x).ints("axes", axes);
        let norm = norm.optional("gamma", affine.map(|(scale, _)| scale));
        let norm = norm.optional("beta", affine.map(|(_, bias)| bias));
        norm.float("epsilon", x.dtype, epsilon)
            .finish(name, x.dtype, &x.shape)
    }

    /// `x * scale + bias` as the result of a node.
    fn affine(&mut self, node: &Node, x: &Mil, scale: &Mil, bias: &Mil, shape: &[usize]) -> Mil {
        let name = self.inner_name(node, "scaled");
        let scaled = self
            .op("mul")
            .tensor("x", x)
            .tensor("y", scale)
            .finish(name, x.dtype, shape);
        let name = self.result_name(node);
        self.op("add")
            .tensor("x", &scaled)
            .tensor("y", bias)
            .finish(name, x.dtype, shape)
    }
}
