//! Where the values of a graph lie in memory: one arena, shared by values that are not needed at the same time.

use std::ops::Range;

use crate::graph::{Graph, Instruction, Operand};
use crate::op::{Op, Rounding};

/// Alignment of a place in words of 32 bits: a cache line of 64 bytes.
const ALIGN: usize = 16;

/// Why there is no plan.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// No rows.
    #[error("a batch of 0 has no values; ask for at least 1")]
    EmptyBatch,
    /// A value, or all of them, exceed the address space.
    #[error("'{name}' does not fit the address space at batch {batch}; choose a smaller one")]
    TooLarge {
        /// The input or instruction.
        name: String,
        /// The batch.
        batch: usize,
    },
}

/// The place of every value of a graph at one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    places: Vec<Range<usize>>,
    words: usize,
}

impl Plan {
    /// Where a value lies, in words of 32 bits from the start of the arena; the first is a multiple of 16.
    ///
    /// # Panics
    /// When the graph has no such value.
    pub fn place(&self, value: u32) -> Range<usize> {
        self.places[value as usize].clone()
    }

    /// Size of the arena in words of 32 bits.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Size of the arena in bytes: the most memory that values take at any time, with gaps.
    pub fn len(&self) -> usize {
        self.words * size_of::<f32>()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }
}

/// Memory that one value after the other uses. Time 0 is the start, instruction `i` runs at `i + 1`.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    first: usize,
    last: usize,
    words: usize,
    offset: usize,
}

/// Places all values of a graph at a batch.
///
/// Inputs are there from the start, outputs to the end, everything else from its instruction to its last use. The result of
/// an [`Op::View`] without rounding lies where its operand does. Results of elementwise functions, softmax and norms lie
/// there too when nothing else needs the operand; all other results are apart from what their instruction reads.
///
/// Larger buffers choose first, each the lowest gap that is free for as long as it is needed (greedy by size; Pisarchyk
/// and Lee, 2020).
///
/// # Errors
/// When the batch is 0 or the values exceed the address space.
pub fn plan(graph: &Graph, batch: usize) -> Result<Plan, PlanError> {
    if batch == 0 {
        return Err(PlanError::EmptyBatch);
    }
    let (mut buffers, buffer_of) = share(graph, batch)?;
    let words = arrange(&mut buffers);
    let words = words.ok_or_else(|| too_large(graph, graph.values().len() - 1, batch))?;
    let places = buffer_of.iter().map(|&b| {
        let Buffer { offset, words, .. } = buffers[b];
        offset..offset + words
    });
    Ok(Plan {
        places: places.collect(),
        words,
    })
}

fn too_large(graph: &Graph, value: usize, batch: usize) -> PlanError {
    let inputs = graph.inputs();
    let name = match inputs.get(value) {
        Some(port) => port.name.clone(),
        None => graph.instructions()[value - inputs.len()].name.clone(),
    };
    PlanError::TooLarge { name, batch }
}

/// Words of a value, `None` when their bytes exceed the address space.
fn words(graph: &Graph, value: usize, batch: usize) -> Option<usize> {
    let mut dims = graph.values()[value].dims.iter();
    let words = dims.try_fold(1usize, |n, dim| n.checked_mul(dim.bind(batch)));
    words.filter(|&n| n <= isize::MAX as usize / size_of::<f32>())
}

/// The buffers, and for each value its own.
fn share(graph: &Graph, batch: usize) -> Result<(Vec<Buffer>, Vec<usize>), PlanError> {
    let last_uses = last_uses(graph);
    let inputs = graph.inputs().len();
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut buffer_of: Vec<usize> = Vec::with_capacity(graph.values().len());
    for (value, &last) in last_uses.iter().enumerate() {
        let instruction = value
            .checked_sub(inputs)
            .map(|i| (&graph.instructions()[i], i + 1));
        let shared = instruction.and_then(|(instruction, time)| {
            if let Some(operand) = viewed(instruction) {
                return Some(buffer_of[operand]);
            }
            let buffer = overwritten(graph, instruction, value, &buffer_of)?;
            (buffers[buffer].last == time).then_some(buffer)
        });
        let buffer = match shared {
            Some(buffer) => {
                let shared: &mut Buffer = &mut buffers[buffer];
                shared.last = shared.last.max(last);
                buffer
            }
            None => {
                let words = words(graph, value, batch);
                buffers.push(Buffer {
                    first: instruction.map_or(0, |(_, time)| time),
                    last,
                    words: words.ok_or_else(|| too_large(graph, value, batch))?,
                    offset: 0,
                });
                buffers.len() - 1
            }
        };
        buffer_of.push(buffer);
    }
    Ok((buffers, buffer_of))
}

/// The value whose place the result of a view shares. A weight is not in the arena, and what is rounded is not the same.
fn viewed(instruction: &Instruction) -> Option<usize> {
    match (
        &instruction.op,
        instruction.rounding,
        &*instruction.operands,
    ) {
        (Op::View { .. }, Rounding::None, [Operand::Value(x)]) => Some(*x as usize),
        _ => None,
    }
}

/// The buffer that an instruction may write its result to, unless it is needed later.
fn overwritten(
    graph: &Graph,
    instruction: &Instruction,
    value: usize,
    buffer_of: &[usize],
) -> Option<usize> {
    let writes_over = matches!(
        instruction.op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::FakeQuantize { .. }
            | Op::Softmax
            | Op::GroupNorm { .. }
            | Op::LayerNorm { .. }
    );
    let (Operand::Value(x), others) = instruction.operands.split_first()? else {
        return None;
    };
    let values = graph.values();
    let buffer = buffer_of[*x as usize];
    let read_twice = others
        .iter()
        .any(|o| matches!(o, Operand::Value(v) if buffer_of[*v as usize] == buffer));
    (writes_over && values[*x as usize] == values[value] && !read_twice).then_some(buffer)
}

/// For each value the time of the last use of it or of a view of it; its own time when there is none.
fn last_uses(graph: &Graph) -> Vec<usize> {
    let inputs = graph.inputs().len();
    let end = graph.instructions().len() + 1;
    let mut last: Vec<usize> = (0..graph.values().len())
        .map(|value| (value + 1).saturating_sub(inputs))
        .collect();
    for port in graph.outputs() {
        last[port.value as usize] = end;
    }
    // Backwards, so that a view is complete before its operand.
    for (i, instruction) in graph.instructions().iter().enumerate().rev() {
        let time = match viewed(instruction) {
            Some(_) => last[inputs + i],
            None => i + 1,
        };
        for operand in &instruction.operands {
            if let Operand::Value(v) = operand {
                let last = &mut last[*v as usize];
                *last = time.max(*last);
            }
        }
    }
    last
}

/// Sets the offsets and gives the end of the last buffer; `None` when that exceeds the address space.
fn arrange(buffers: &mut [Buffer]) -> Option<usize> {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].words), i));
    // By ascending offset.
    let mut placed: Vec<Buffer> = Vec::with_capacity(buffers.len());
    let mut end = 0;
    for i in order {
        let Buffer {
            first, last, words, ..
        } = buffers[i];
        let mut offset: usize = 0;
        for other in &placed {
            if other.first > last || first > other.last {
                continue;
            }
            if other.offset >= offset.checked_add(words)? {
                break;
            }
            let free = (other.offset + other.words).checked_next_multiple_of(ALIGN)?;
            offset = offset.max(free);
        }
        buffers[i].offset = offset;
        let bytes = offset.checked_add(words)?.checked_mul(size_of::<f32>())?;
        end = end.max(isize::try_from(bytes).ok()? as usize / size_of::<f32>());
        let at = placed.partition_point(|b| b.offset < offset);
        placed.insert(at, buffers[i]);
    }
    Some(end)
}

#[cfg(test)]
mod tests;
