//! A program as the bytes of a container's program section; `docs/native-format.md` has the tables.

use snapc_format::wire::{put_u16, put_u32};

use crate::codes::{Coded, op, storage};
use crate::graph::{Graph, Instruction, Operand};
use crate::op::Op;
use crate::program::{
    MAX_CONCAT, MAX_INSTRUCTIONS, MAX_NAME, MAX_OPERANDS, MAX_PORTS, MAX_WEIGHTS, Program, VERSION,
    WEIGHT_BIT,
};
use crate::types::{Codebook, Dim, Storage, Type, Weight};

/// Why a program cannot be written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{name}': {what} is {value}, and the format holds at most {limit}; split the graph")]
pub struct EncodeError {
    /// The graph, instruction or weight.
    pub name: String,
    /// What is too much.
    pub what: &'static str,
    /// How much it is.
    pub value: usize,
    /// How much the format holds.
    pub limit: usize,
}

impl Program {
    /// The bytes of the program section.
    ///
    /// # Errors
    /// When a graph has more parts, an instruction more operands, or a name more bytes than the format holds.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        put_u16(&mut out, VERSION);
        put_u16(&mut out, self.graphs().len() as u16);
        for (stage, graph) in self.graphs() {
            put_u16(&mut out, stage.code());
            encode_graph(&mut out, stage.name(), graph)?;
        }
        Ok(out)
    }
}

/// Appends a count after comparing it with its limit.
fn put_count(
    out: &mut Vec<u8>,
    name: &str,
    what: &'static str,
    value: usize,
    limit: usize,
) -> Result<(), EncodeError> {
    if value > limit {
        let name = name.to_owned();
        return Err(EncodeError {
            name,
            what,
            value,
            limit,
        });
    }
    put_u32(out, value as u32);
    Ok(())
}

fn encode_graph(out: &mut Vec<u8>, name: &str, graph: &Graph) -> Result<(), EncodeError> {
    let inputs = graph.inputs();
    put_count(out, name, "number of inputs", inputs.len(), MAX_PORTS)?;
    for port in inputs {
        put_name(out, &port.name)?;
        put_type(out, &graph.values()[port.value as usize]);
    }
    let weights = graph.weights();
    put_count(out, name, "number of weights", weights.len(), MAX_WEIGHTS)?;
    for weight in weights {
        put_weight(out, weight)?;
    }
    let instructions = graph.instructions();
    let count = instructions.len();
    put_count(out, name, "number of instructions", count, MAX_INSTRUCTIONS)?;
    for instruction in instructions {
        put_instruction(out, instruction)?;
    }
    let outputs = graph.outputs();
    put_count(out, name, "number of outputs", outputs.len(), MAX_PORTS)?;
    for port in outputs {
        put_name(out, &port.name)?;
        put_u32(out, port.value);
    }
    Ok(())
}

fn put_name(out: &mut Vec<u8>, name: &str) -> Result<(), EncodeError> {
    if name.len() > MAX_NAME {
        return Err(EncodeError {
            name: name.to_owned(),
            what: "length of the name",
            value: name.len(),
            limit: MAX_NAME,
        });
    }
    put_u16(out, name.len() as u16);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

/// Appends the rank and the dimensions; the batch is 0, which no size is.
fn put_dims(out: &mut Vec<u8>, dims: impl ExactSizeIterator<Item = Dim>) {
    out.push(dims.len() as u8);
    for dim in dims {
        put_u32(
            out,
            match dim {
                Dim::Batch => 0,
                Dim::Fixed(n) => n,
            },
        );
    }
}

fn put_type(out: &mut Vec<u8>, ty: &Type) {
    out.push(ty.element.code());
    put_dims(out, ty.dims.iter().copied());
}

fn put_weight(out: &mut Vec<u8>, weight: &Weight) -> Result<(), EncodeError> {
    put_name(out, &weight.name)?;
    put_storage(out, weight.storage);
    put_dims(out, weight.dims.iter().map(|&n| Dim::Fixed(n)));
    Ok(())
}

fn put_storage(out: &mut Vec<u8>, stored: Storage) {
    match stored {
        Storage::F32 => out.push(storage::F32),
        Storage::I32 => out.push(storage::I32),
        Storage::Rows => out.push(storage::ROWS),
        Storage::Panels => out.push(storage::PANELS),
        Storage::Codes(codes) => match codes.book {
            Codebook::Scales { scale, zero_point } => {
                out.extend([storage::SCALED_CODES, codes.bits]);
                put_u32(out, scale);
                out.push(u8::from(zero_point.is_some()));
                zero_point.into_iter().for_each(|zero| put_u32(out, zero));
            }
            Codebook::Palette { table } => {
                out.extend([storage::PALETTE_CODES, codes.bits]);
                put_u32(out, table);
            }
        },
    }
}

fn put_instruction(out: &mut Vec<u8>, instruction: &Instruction) -> Result<(), EncodeError> {
    let Instruction {
        name,
        op,
        operands,
        rounding,
    } = instruction;
    let limit = match op {
        Op::Concat { .. } => MAX_CONCAT,
        _ => MAX_OPERANDS,
    };
    if operands.len() > limit {
        return Err(EncodeError {
            name: name.clone(),
            what: "number of operands",
            value: operands.len(),
            limit,
        });
    }
    put_name(out, name)?;
    put_op(out, op);
    out.push(rounding.code());
    out.push(operands.len() as u8);
    for operand in operands {
        // The graph has fewer than 2^17 of each, by the limits above.
        put_u32(
            out,
            match operand {
                Operand::Value(v) => *v,
                Operand::Weight(w) => *w | WEIGHT_BIT,
            },
        );
    }
    Ok(())
}

/// Appends the number of an instruction and its attributes in the order of the fields.
fn put_op(out: &mut Vec<u8>, instruction: &Op) {
    match instruction {
        Op::View { dims } => {
            out.push(op::VIEW);
            put_dims(out, dims.iter().copied());
        }
        Op::Permute { order } => {
            out.extend([op::PERMUTE, order.len() as u8]);
            out.extend(order);
        }
        Op::Slice { axis, start, end } => {
            out.extend([op::SLICE, *axis]);
            put_u32(out, *start);
            put_u32(out, *end);
        }
        Op::Concat { axis } => out.extend([op::CONCAT, *axis]),
        Op::Gather { axis, batch_dims } => out.extend([op::GATHER, *axis, *batch_dims]),
        Op::UpsampleNearest { scale } => {
            out.push(op::UPSAMPLE_NEAREST);
            put_u32(out, *scale);
        }
        Op::Unary(function) => out.extend([op::UNARY, function.code()]),
        Op::Binary(function) => out.extend([op::BINARY, function.code()]),
        Op::Equal => out.push(op::EQUAL),
        Op::Cast { to } => out.extend([op::CAST, to.code()]),
        Op::Softmax => out.push(op::SOFTMAX),
        Op::ReduceMean { axes } => {
            out.extend([op::REDUCE_MEAN, axes.len() as u8]);
            out.extend(axes);
        }
        Op::ArgMax { axis } => out.extend([op::ARG_MAX, *axis]),
        Op::Linear {
            bias,
            activation,
            residual,
        } => out.extend([
            op::LINEAR,
            u8::from(*bias),
            activation.code(),
            u8::from(*residual),
        ]),
        Op::Conv2d {
            strides,
            pads,
            bias,
            activation,
            residual,
        } => {
            out.push(op::CONV2D);
            for n in strides.iter().chain(pads) {
                put_u32(out, *n);
            }
            out.extend([u8::from(*bias), activation.code(), u8::from(*residual)]);
        }
        Op::Geglu => out.push(op::GEGLU),
        Op::MatMul { transposed } => out.extend([op::MAT_MUL, u8::from(*transposed)]),
        Op::Attention { heads, scale, mask } => {
            out.push(op::ATTENTION);
            put_u32(out, *heads);
            put_f32(out, *scale);
            out.push(u8::from(*mask));
        }
        Op::GroupNorm {
            groups,
            epsilon,
            activation,
        } => {
            out.push(op::GROUP_NORM);
            put_u32(out, *groups);
            put_f32(out, *epsilon);
            out.push(activation.code());
        }
        Op::LayerNorm { epsilon } => {
            out.push(op::LAYER_NORM);
            put_f32(out, *epsilon);
        }
        Op::TimestepEmbedding {
            dim,
            flip_sin_to_cos,
            freq_shift,
            max_period,
        } => {
            out.push(op::TIMESTEP_EMBEDDING);
            put_u32(out, *dim);
            out.push(u8::from(*flip_sin_to_cos));
            put_f32(out, *freq_shift);
            put_f32(out, *max_period);
        }
        Op::FakeQuantize { scale, zero_point } => {
            out.push(op::FAKE_QUANTIZE);
            put_f32(out, *scale);
            out.push(*zero_point);
        }
    }
}

/// Appends the bits of a number.
pub(crate) fn put_f32(out: &mut Vec<u8>, value: f32) {
    put_u32(out, value.to_bits());
}
