//! Attention for the Neural Engine: one head after the other, as sums of products over `[N,C,1,S]` (apple/ml-stable-diffusion,
//! `SPLIT_EINSUM` and `SPLIT_EINSUM_V2`).

use snapc_ir::Node;
use snapc_ir::ops::Attention;
use snapc_target::TargetError;

use super::Lowering;
use super::block::Mil;

/// Keys times queries: the logits `[N,T,1,S]`. This operand order is the one that Core ML has.
const LOGITS: &str = "bkhc,bchq->bkhq";
/// Values times weights: `[N,d,1,S]`.
const ATTENDED: &str = "bchk,bkhq->bchq";

impl Lowering<'_> {
    /// Per head `softmax(scale · kᵀ · q + mask)` over the keys, times the values. Only the keys are transposed. With more than
    /// `query_chunk` queries, so many at once.
    pub(super) fn split_einsum(
        &mut self,
        node: &Node,
        op: &Attention,
        query_chunk: usize,
    ) -> Result<Mil, TargetError> {
        let [mut query, keys, values] = [
            self.operand(node, 0)?,
            self.operand(node, 1)?,
            self.operand(node, 2)?,
        ];
        if op.scale != 1.0 {
            let name = self.inner_name(node, "scaled_query");
            let (dtype, shape) = (query.dtype, query.shape.clone());
            let mul = self.op("mul").tensor("x", &query);
            query = mul.float("y", dtype, op.scale).finish(name, dtype, &shape);
        }
        let name = self.inner_name(node, "transposed_keys");
        let keys = self.transpose_to(&keys, &[0, 3, 2, 1], name);
        let mask = match node.operands.len() {
            4 => Some(self.mask_in_columns(node)?),
            _ => None,
        };
        let width = query.shape[1] / op.heads;
        let mut heads = Vec::new();
        for head in 0..op.heads {
            let range = (head * width, (head + 1) * width);
            let mut part = |x: &Mil, axis: usize, what: &str| {
                let name = self.inner_name(node, &format!("head_{head}_{what}"));
                self.slice_to(x, axis, range, name)
            };
            let operands = Head {
                query: part(&query, 1, "query"),
                keys: part(&keys, 3, "keys"),
                values: part(&values, 1, "values"),
            };
            let mask = mask.as_ref().map(|mask| match mask.shape[2] {
                1 => mask.clone(),
                _ => {
                    let name = self.inner_name(node, &format!("head_{head}_mask"));
                    self.slice_to(mask, 2, (head, head + 1), name)
                }
            });
            heads.push(self.head(node, &operands, mask.as_ref(), query_chunk));
        }
        if let [only] = heads.as_slice() {
            return Ok(only.clone());
        }
        let name = self.result_name(node);
        Ok(self.concat_to(&heads, 1, name))
    }

    /// One head, in chunks of queries.
    fn head(&mut self, node: &Node, head: &Head, mask: Option<&Mil>, query_chunk: usize) -> Mil {
        let queries = head.query.shape[3];
        if queries <= query_chunk {
            return self.attend(node, &head.query, head, mask);
        }
        let mut chunks = Vec::new();
        for start in (0..queries).step_by(query_chunk) {
            let range = (start, queries.min(start + query_chunk));
            let name = self.inner_name(node, "query_chunk");
            let query = self.slice_to(&head.query, 3, range, name);
            let mask = mask.map(|mask| match mask.shape[3] {
                1 => mask.clone(),
                _ => {
                    let name = self.inner_name(node, "mask_chunk");
                    self.slice_to(mask, 3, range, name)
                }
            });
            chunks.push(self.attend(node, &query, head, mask.as_ref()));
        }
        let name = self.inner_name(node, "head");
        self.concat_to(&chunks, 3, name)
    }

    fn attend(&mut self, node: &Node, query: &Mil, head: &Head, mask: Option<&Mil>) -> Mil {
        let dtype = query.dtype;
        let shape = [query.shape[0], head.keys.shape[1], 1, query.shape[3]];
        let name = self.inner_name(node, "logits");
        let mut logits = self.einsum(LOGITS, [&head.keys, query], name, &shape);
        if let Some(mask) = mask {
            let name = self.inner_name(node, "masked");
            let add = self.op("add").tensor("x", &logits).tensor("y", mask);
            logits = add.finish(name, dtype, &shape);
        }
        let name = self.inner_name(node, "weights");
        let softmax = self.op("softmax").tensor("x", &logits).int("axis", 1);
        let weights = softmax.finish(name, dtype, &shape);
        let shape = [shape[0], head.values.shape[1], 1, shape[3]];
        let name = self.inner_name(node, "attended");
        self.einsum(ATTENDED, [&head.values, &weights], name, &shape)
    }

    fn einsum(
        &mut self,
        equation: &str,
        operands: [&Mil; 2],
        name: String,
        shape: &[usize],
    ) -> Mil {
        let dtype = operands[0].dtype;
        let einsum = self.op("einsum").tuple("values", &operands.map(Mil::clone));
        let einsum = einsum.text("equation", equation);
        einsum.finish(name, dtype, shape)
    }

    /// The mask, which broadcasts to `[N,heads,S,T]`, as one that broadcasts to `[N,T,heads,S]`.
    fn mask_in_columns(&mut self, node: &Node) -> Result<Mil, TargetError> {
        const PERM: [usize; 4] = [0, 3, 1, 2];
        let full = |shape: &[usize]| {
            let mut full = vec![1; 4 - shape.len()];
            full.extend(shape);
            full
        };
        if let Some(weight) = self.weight_of(node, 3) {
            let shape = full(weight.tensor.shape());
            let tensor = weight.tensor.clone().reshape(&shape).permute(&PERM);
            return self.constant(node, &weight.name, &tensor);
        }
        self.columns.is_current = false;
        let mask = self.operand(node, 3);
        self.columns.is_current = true;
        let mask = mask?;
        let name = self.inner_name(node, "mask");
        let mask = self.reshape_to(&mask, &full(&mask.shape), name);
        let name = self.inner_name(node, "transposed_mask");
        Ok(self.transpose_to(&mask, &PERM, name))
    }
}

/// The operands of one head.
struct Head {
    /// `[N,d,1,S]`.
    query: Mil,
    /// `[N,T,1,d]`.
    keys: Mil,
    /// `[N,d,1,T]`.
    values: Mil,
}
