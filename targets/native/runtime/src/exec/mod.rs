//! The instructions: one file per family, one function per operation.

mod attention;
mod elementwise;
mod embedding;
mod movement;
mod norm;
mod product;
mod reduction;

use snapc_kernels::{KernelError, Kernels, Pool, Weights};
use snapc_program::{Element, Instruction, MAX_RANK, Op, Operand, Storage};

use crate::arena::Rest;
use crate::run::Prepared;
use crate::runtime::BoundGraph;

/// An instruction with everything it reads. The place of its result is given beside it.
pub(crate) struct Call<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) pool: &'a Pool,
    pub(crate) graph: &'a BoundGraph,
    pub(crate) prepared: &'a Prepared,
    /// The weights of the stage.
    pub(crate) segments: &'a [&'a [u8]],
    /// The arena without the place of the result.
    pub(crate) rest: Rest<'a>,
    pub(crate) instruction: &'a Instruction,
    /// Dimensions of the result.
    pub(crate) dims: &'a [usize],
}

/// Writes the result of an instruction over the whole of `out`. Where it may write over its first operand and does, `out`
/// holds that operand before.
pub(crate) fn run(call: &Call<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    match &call.instruction.op {
        Op::View { .. } => movement::view(call, out),
        Op::Permute { order } => movement::permute(call, order, out),
        Op::Slice { axis, start, .. } => movement::slice(call, *axis, *start, out),
        Op::Concat { axis } => movement::concat(call, *axis, out),
        Op::Gather { axis, batch_dims } => movement::gather(call, *axis, *batch_dims, out),
        Op::UpsampleNearest { scale } => movement::upsample_nearest(call, *scale, out),
        Op::Unary(function) => elementwise::unary(call, *function, out),
        Op::Binary(function) => elementwise::binary(call, *function, out),
        Op::Equal => elementwise::equal(call, out),
        Op::Cast { to } => elementwise::cast(call, *to, out),
        Op::Softmax => reduction::softmax(call, out),
        Op::ReduceMean { axes } => reduction::reduce_mean(call, axes, out),
        Op::ArgMax { axis } => reduction::arg_max(call, *axis, out),
        Op::Linear {
            bias,
            activation,
            residual,
        } => product::linear(call, (*bias, *activation, *residual), out),
        Op::Conv2d {
            strides,
            pads,
            bias,
            activation,
            residual,
        } => product::conv2d(
            call,
            (*strides, *pads),
            (*bias, *activation, *residual),
            out,
        ),
        Op::Geglu => product::geglu(call, out),
        Op::MatMul { transposed } => product::matmul(call, *transposed, out),
        Op::Attention { heads, scale, mask } => {
            attention::attention(call, *heads, *scale, *mask, out)
        }
        Op::GroupNorm {
            groups,
            epsilon,
            activation,
        } => norm::group_norm(call, *groups, *epsilon, *activation, out),
        Op::LayerNorm { epsilon } => norm::layer_norm(call, *epsilon, out),
        Op::TimestepEmbedding {
            dim,
            flip_sin_to_cos,
            freq_shift,
            max_period,
        } => {
            let shape = embedding::Sinusoids {
                dim: *dim as usize,
                flip_sin_to_cos: *flip_sin_to_cos,
                freq_shift: *freq_shift,
                max_period: *max_period,
            };
            embedding::timestep_embedding(call, &shape, out)
        }
        Op::FakeQuantize { scale, zero_point } => {
            elementwise::fake_quantize(call, *scale, *zero_point, out)
        }
    }
}

impl<'a> Call<'a> {
    fn count(&self) -> usize {
        self.instruction.operands.len()
    }

    /// The 32-bit words of a value; `None` when it is where the result goes.
    fn shared_words(&self, operand: usize) -> Option<&'a [f32]> {
        match self.instruction.operands[operand] {
            Operand::Value(v) => self.rest.get(self.prepared.plan.place(v)),
            Operand::Weight(w) => Some(self.graph.weights[w as usize].words(self.segments)),
        }
    }

    /// The 32-bit words of a value that is apart from the result.
    fn words(&self, operand: usize) -> &'a [f32] {
        let words = self.shared_words(operand);
        words.expect("the plan keeps a result apart from all but the operand it may replace")
    }

    /// The integers of a value of i32.
    fn integers(&self, operand: usize) -> &'a [i32] {
        bytemuck::cast_slice(self.words(operand))
    }

    /// Whether an operand is of i32.
    fn is_integer(&self, operand: usize) -> bool {
        let graph = &self.graph.graph;
        match self.instruction.operands[operand] {
            Operand::Value(v) => graph.values()[v as usize].element == Element::I32,
            Operand::Weight(w) => graph.weights()[w as usize].storage == Storage::I32,
        }
    }

    /// Dimensions of an operand.
    fn dims_of(&self, operand: usize) -> &'a [usize] {
        match self.instruction.operands[operand] {
            Operand::Value(v) => &self.prepared.dims[v as usize],
            Operand::Weight(w) => &self.graph.weight_dims[w as usize],
        }
    }

    /// The data of a weight of floats; `None` for a value.
    fn weight(&self, operand: usize) -> Option<Weights<'a>> {
        match self.instruction.operands[operand] {
            Operand::Value(_) => None,
            Operand::Weight(w) => Some(self.floats(w)),
        }
    }

    /// The data of the weight with this number, which is one of floats.
    fn floats(&self, weight: u32) -> Weights<'a> {
        self.graph.weights[weight as usize].floats(self.segments)
    }
}

/// Row-major strides, or others, of up to [`MAX_RANK`] dimensions.
type Strides = [usize; MAX_RANK];

/// Strides of row-major data.
fn row_major(dims: &[usize]) -> Strides {
    let mut strides = [0; MAX_RANK];
    let mut step = 1;
    for (stride, &n) in strides[..dims.len()].iter_mut().zip(dims).rev() {
        *stride = step;
        step *= n;
    }
    strides
}

/// Strides with which row-major data of `dims` are read as if they had `rank` dimensions, those they lack and those of
/// size 1 being repeated.
fn broadcast(dims: &[usize], rank: usize) -> Strides {
    let own = row_major(dims);
    let mut strides = [0; MAX_RANK];
    let missing = rank - dims.len();
    for (i, &n) in dims.iter().enumerate() {
        strides[missing + i] = if n == 1 { 0 } else { own[i] };
    }
    strides
}

/// Calls `visit` for every index of `dims`, the last dimension fastest, with its offset by each of the `strides`.
fn for_each_offset<const N: usize>(
    dims: &[usize],
    strides: [&[usize]; N],
    mut visit: impl FnMut([usize; N]),
) {
    let mut index = [0; MAX_RANK];
    let mut offsets = [0; N];
    for _ in 0..dims.iter().product() {
        visit(offsets);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            let wrapped = index[axis] == dims[axis];
            for (offset, strides) in offsets.iter_mut().zip(strides) {
                *offset += strides[axis];
                if wrapped {
                    *offset -= dims[axis] * strides[axis];
                }
            }
            if !wrapped {
                break;
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_those_of_numpy() {
        // numpy: zeros((2, 3, 4)).strides in elements
        assert_eq!(row_major(&[2, 3, 4])[..3], [12, 4, 1]);
        assert_eq!(row_major(&[]), [0; MAX_RANK]);
        // numpy: broadcast_to(zeros((3, 1)), (2, 3, 4)).strides in elements
        assert_eq!(broadcast(&[3, 1], 3)[..3], [0, 1, 0]);
    }

    #[test]
    fn every_offset_is_visited_in_order() {
        let mut seen = Vec::new();
        for_each_offset(&[2, 3], [&[10, 2], &[0, 1]], |offsets| seen.push(offsets));
        assert_eq!(seen, [[0, 0], [2, 1], [4, 2], [10, 0], [12, 1], [14, 2]]);
        seen.clear();
        for_each_offset(&[], [&[], &[]], |offsets| seen.push(offsets));
        assert_eq!(seen, [[0, 0]]);
    }
}
