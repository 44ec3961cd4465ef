//! Attention with every mask that broadcasts.

use std::borrow::Cow;

use snapc_kernels::{Attention, Heads, KernelError, Strided};

use super::{Call, broadcast};

pub(super) fn attention(
    call: &Call<'_>,
    heads: u32,
    scale: f32,
    mask: bool,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (dims, heads) = (call.dims, heads as usize);
    let (channels, keys) = (dims[2], call.dims_of(1)[1]);
    let operands = Operands {
        shape: Attention {
            batch: dims[0],
            heads,
            head_dim: channels / heads,
            queries: dims[1],
            keys,
            scale,
        },
        channels,
        tokens: [call.words(0), call.words(1), call.words(2)],
    };
    if !mask {
        return operands.run(call, [0, 0], operands.shape, None, out);
    }
    operands.masked(call, call.dims_of(3), call.words(3), out)
}

struct Operands<'a> {
    shape: Attention,
    channels: usize,
    /// Queries, keys and values.
    tokens: [&'a [f32]; 3],
}

impl Operands<'_> {
    /// Attention of the sequences and heads of `shape`, which begin at this sequence and head.
    fn run(
        &self,
        call: &Call<'_>,
        [sequence, head]: [usize; 2],
        shape: Attention,
        mask: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let tokens = |operand: usize, tokens: usize| Heads {
            data: &self.tokens[operand]
                [sequence * tokens * self.channels + head * shape.head_dim..],
            stride: self.channels,
        };
        let (q, k, v) = (
            tokens(0, shape.queries),
            tokens(1, shape.keys),
            tokens(2, shape.keys),
        );
        call.kernels.attention(call.pool, shape, q, k, v, mask, out)
    }

    /// The kernel takes one mask `[S,T]` for all that it does, so it is called once for each part with a mask of its own.
    fn masked(
        &self,
        call: &Call<'_>,
        mask_dims: &[usize],
        mask: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let Attention {
            heads,
            head_dim,
            queries,
            keys,
            ..
        } = self.shape;
        let strides = broadcast(mask_dims, 4);
        let scores = |sequence: usize, head: usize| {
            let start = sequence * strides[0] + head * strides[1];
            expand(call, &mask[start..], &strides[2..4], [queries, keys])
        };
        if strides[..2] == [0, 0] {
            return self.run(call, [0, 0], self.shape, Some(&scores(0, 0)?), out);
        }
        let one = Attention {
            batch: 1,
            ..self.shape
        };
        let sequences = out.chunks_exact_mut(queries * self.channels);
        if strides[1] == 0 {
            for (sequence, out) in sequences.enumerate() {
                let mask = scores(sequence, 0)?;
                self.run(call, [sequence, 0], one, Some(&mask), out)?;
            }
            return Ok(());
        }
        let one = Attention { heads: 1, ..one };
        let mut result = vec![0.0; queries * head_dim];
        for (sequence, out) in sequences.enumerate() {
            for head in 0..heads {
                let mask = scores(sequence, head)?;
                self.run(call, [sequence, head], one, Some(&mask), &mut result)?;
                let rows = out.chunks_exact_mut(self.channels);
                for (row, result) in rows.zip(result.chunks_exact(head_dim)) {
                    row[head * head_dim..][..head_dim].copy_from_slice(result);
                }
            }
        }
        Ok(())
    }
}

/// A mask `[S,T]` of which each element is there, borrowed where it is so already.
fn expand<'a>(
    call: &Call<'_>,
    mask: &'a [f32],
    strides: &[usize],
    [queries, keys]: [usize; 2],
) -> Result<Cow<'a, [f32]>, KernelError> {
    let dense = (queries == 1 || strides[0] == keys) && (keys == 1 || strides[1] == 1);
    if dense {
        return Ok(Cow::Borrowed(&mask[..queries * keys]));
    }
    let mut expanded = vec![0.0; queries * keys];
    let input = Strided {
        data: mask,
        strides,
    };
    call.kernels
        .permute(call.pool, &[queries, keys], input, &mut expanded)?;
    Ok(Cow::Owned(expanded))
}
