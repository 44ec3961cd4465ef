//! Norms, means and softmax, and the embedding of the timestep.

use snapc_ir::ops::{GroupNorm, TimestepEmbedding};
use snapc_ir::{Node, ValueId};
use snapc_program::{Op, Operand};
use snapc_target::TargetError;

use super::fusion::Chain;
use super::order::{channels_last, innermost, plain, position};
use super::{Lowering, Place, site};

impl Lowering<'_> {
    /// `node` is the last of the chain, whose result this is.
    pub(super) fn group_norm(
        &mut self,
        node: &Node,
        head: &Node,
        norm: &GroupNorm,
        chain: &Chain,
    ) -> Result<Place, TargetError> {
        let order = channels_last();
        let operands = vec![
            self.ordered(head.operands[0], &order, site(node))?,
            self.vector(head.operands[1], node)?,
            self.vector(head.operands[2], node)?,
        ];
        let op = Op::GroupNorm {
            groups: self.size(node, norm.groups)?,
            epsilon: norm.epsilon,
            activation: chain.activation,
        };
        self.compute(node, op, operands, order)
    }

    pub(super) fn layer_norm(&mut self, node: &Node, epsilon: f32) -> Result<Place, TargetError> {
        let x = self.with_innermost(node, self.dims(node.result).len() - 1)?;
        let operands = vec![
            x.operand,
            self.vector(node.operands[1], node)?,
            self.vector(node.operands[2], node)?,
        ];
        self.compute(node, Op::LayerNorm { epsilon }, operands, x.order)
    }

    pub(super) fn softmax(&mut self, node: &Node, axis: usize) -> Result<Place, TargetError> {
        let x = self.with_innermost(node, axis)?;
        self.compute(node, Op::Softmax, vec![x.operand], x.order)
    }

    pub(super) fn reduce_mean(
        &mut self,
        node: &Node,
        axes: &[usize],
    ) -> Result<Place, TargetError> {
        let x = self.placed(node.operands[0], node)?;
        let mut axes: Vec<u8> = axes.iter().map(|&a| position(&x.order, a) as u8).collect();
        axes.sort_unstable();
        self.compute(node, Op::ReduceMean { axes }, vec![x.operand], x.order)
    }

    pub(super) fn timestep_embedding(
        &mut self,
        node: &Node,
        embedding: &TimestepEmbedding,
    ) -> Result<Place, TargetError> {
        let t = self.placed(node.operands[0], node)?;
        let op = Op::TimestepEmbedding {
            dim: self.size(node, embedding.dim)?,
            flip_sin_to_cos: embedding.flip_sin_to_cos,
            freq_shift: embedding.freq_shift,
            max_period: embedding.max_period,
        };
        self.compute(node, op, vec![t.operand], plain(2))
    }

    /// Operand 0 with one of its dimensions innermost.
    pub(super) fn with_innermost(
        &mut self,
        node: &Node,
        axis: usize,
    ) -> Result<Place, TargetError> {
        let value = node.operands[0];
        let place = self.placed(value, node)?;
        let order = innermost(&place.order, axis);
        let ty = self.graph.ty(value);
        let operand = self.reorder(&place, &order, ty, site(node))?;
        Ok(Place { operand, order })
    }

    /// A vector, or any other value in plain order.
    pub(super) fn vector(&mut self, value: ValueId, node: &Node) -> Result<Operand, TargetError> {
        let order = plain(self.dims(value).len());
        self.ordered(value, &order, site(node))
    }
}
