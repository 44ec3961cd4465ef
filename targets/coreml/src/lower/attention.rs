//! Attention as one operation, from iOS 18 on.

use snapc_ir::Node;
use snapc_ir::ops::Attention;
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;
use crate::level::Level;

impl Lowering<'_> {
    /// `scaled_dot_product_attention` over `[N, heads, S, d]`. Its scale is fixed to `1/sqrt(d)`; another one is put
    /// on the queries beforehand.
    pub(super) fn attention(
        &mut self,
        node: &Node,
        op: &Attention,
        result: &Mil,
    ) -> Result<Mil, TargetError> {
        if self.level < Level::Ios18 {
            return Err(self.refuse(
                node,
                "one operation for attention needs iOS 18; use --attention decomposed",
            ));
        }
        let operands = self.operands(node)?;
        let mut query = self.split_heads(node, &operands[0], op.heads, "query");
        let key = self.split_heads(node, &operands[1], op.heads, "key");
        let value = self.split_heads(node, &operands[2], op.heads, "value");
        let head_dim = query.shape[3];
        let factor = op.scale * (head_dim as f32).sqrt();
        if (factor - 1.0).abs() > f32::EPSILON {
            let name = self.inner_name(node, "scaled_query");
            let (dtype, shape) = (query.dtype, query.shape.clone());
            let mul = self.op("mul").tensor("x", &query).float("y", dtype, factor);
            query = mul.finish(name, dtype, &shape);
        }
        let attended_shape = [query.shape[0], op.heads, query.shape[2], value.shape[3]];
        let name = self.inner_name(node, "attended");
        let attend = self
            .op("scaled_dot_product_attention")
            .tensor("query", &query);
        let attend = attend.tensor("key", &key).tensor("value", &value);
        let attend = attend.optional("attn_mask", operands.get(3));
        let attended = attend.finish(name, result.dtype, &attended_shape);
        let name = self.inner_name(node, "joined");
        let joined = self.transpose_to(&attended, &[0, 2, 1, 3], name);
        let name = self.result_name(node);
        Ok(self.reshape_to(&joined, &result.shape, name))
    }

    /// `[N, S, heads * d]` as `[N, heads, S, d]`.
    fn split_heads(&mut self, node: &Node, x: &Mil, heads: usize, what: &str) -> Mil {
        let (n, s, c) = (x.shape[0], x.shape[1], x.shape[2]);
        let name = self.inner_name(node, &format!("{what}_rows"));
        let rows = self.reshape_to(x, &[n, s, heads, c / heads], name);
        let name = self.inner_name(node, what);
        self.transpose_to(&rows, &[0, 2, 1, 3], name)
    }
}
