//! A program from bytes that may all be wrong. Types are derived again, so that what is read is what can run.

use std::collections::BTreeSet;

use snapc_format::Stage;
use snapc_format::wire::{Cursor, Ended};

use crate::codes::{Coded, op, storage};
use crate::graph::{Graph, GraphError, Instruction, Operand};
use crate::op::Op;
use crate::program::{
    MAX_CONCAT, MAX_INSTRUCTIONS, MAX_NAME, MAX_OPERANDS, MAX_PORTS, MAX_WEIGHTS, Program, VERSION,
    WEIGHT_BIT,
};
use crate::types::{Codebook, Codes, Dim, MAX_RANK, Storage, Type, Weight};

/// Why bytes are not a section that this crate writes.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("cut short: {0}")]
    Ended(#[from] Ended),
    /// The encoding is of another version.
    #[error("encoding {found}, and this reader knows {VERSION}; convert the checkpoint again")]
    Version {
        /// Version of the bytes.
        found: u16,
    },
    /// A count or length is over its limit.
    #[error("{what} before byte {at} is {value}, over the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// Where its number ends.
        at: usize,
        /// The number.
        value: u64,
        /// The most it may be.
        limit: u64,
    },
    /// A number stands for nothing.
    #[error("{code} before byte {at} is no {what}")]
    Code {
        /// What it should stand for.
        what: &'static str,
        /// Where it ends.
        at: usize,
        /// The number.
        code: u32,
    },
    /// A name or text is not UTF-8.
    #[error("the name at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Where it begins.
        at: usize,
    },
    /// The graphs are not by ascending stage.
    #[error("the graph of {stage} is there twice or stands behind a later one")]
    Stages {
        /// The later one of the two.
        stage: Stage,
    },
    /// A weight is there twice.
    #[error("graph {stage}: weight '{name}' is there twice")]
    Repeated {
        /// The graph.
        stage: Stage,
        /// The weight.
        name: String,
    },
    /// A part of a graph does not go with what is before it.
    #[error("graph {stage}: {source}")]
    Graph {
        /// The graph.
        stage: Stage,
        /// What is wrong.
        source: Box<GraphError>,
    },
    /// A number is outside of what it may be.
    #[error("{what} is {value}, must be {expected}")]
    Value {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// Bytes are left.
    #[error("{0} bytes are left behind the end")]
    TrailingBytes(usize),
}

impl Program {
    /// Reads the bytes of a program section.
    ///
    /// # Errors
    /// When they are not a program: cut, of another version, over a limit, not well typed, or longer than they should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes)?;
        let count = reader.cursor.u16()?;
        let mut program = Program::new();
        let mut last = None;
        for _ in 0..count {
            let code = reader.cursor.u16()?;
            let stage = Stage::from_code(code);
            let stage = stage.ok_or_else(|| reader.no("stage", code.into()))?;
            if last >= Some(stage) {
                return Err(DecodeError::Stages { stage });
            }
            last = Some(stage);
            program.insert(stage, reader.graph(stage)?);
        }
        reader.end()?;
        Ok(program)
    }
}

/// Reads values and names what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) cursor: Cursor<'a>,
}

impl<'a> Reader<'a> {
    /// Begins behind the version, which it compares.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        match cursor.u16()? {
            VERSION => Ok(Reader { cursor }),
            found => Err(DecodeError::Version { found }),
        }
    }

    /// Fails when bytes are left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.cursor.remaining() {
            0 => Ok(()),
            n => Err(DecodeError::TrailingBytes(n)),
        }
    }

    fn no(&self, what: &'static str, code: u32) -> DecodeError {
        let at = self.cursor.position();
        DecodeError::Code { what, at, code }
    }

    pub(crate) fn coded<T: Coded>(&mut self) -> Result<T, DecodeError> {
        let code = self.cursor.u8()?;
        T::from_code(code).ok_or_else(|| self.no(T::WHAT, code.into()))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.cursor.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(self.no("truth value", code.into())),
        }
    }

    pub(crate) fn f32(&mut self) -> Result<f32, DecodeError> {
        Ok(f32::from_bits(self.cursor.u32()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.cursor.u64()?))
    }

    /// Compares a number with its limit.
    fn within(&self, what: &'static str, value: u32, limit: usize) -> Result<usize, DecodeError> {
        let (value, limit) = (u64::from(value), limit as u64);
        if value > limit {
            let at = self.cursor.position();
            return Err(DecodeError::Limit {
                what,
                at,
                value,
                limit,
            });
        }
        Ok(value as usize)
    }

    pub(crate) fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let value = self.cursor.u32()?;
        self.within(what, value, limit)
    }

    fn short_count(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let value = self.cursor.u8()?;
        self.within(what, value.into(), limit)
    }

    fn name(&mut self) -> Result<String, DecodeError> {
        let length = self.cursor.u16()?;
        let length = self.within("length of a name", length.into(), MAX_NAME)?;
        let at = self.cursor.position();
        let name = std::str::from_utf8(self.cursor.bytes(length)?);
        name.map(str::to_owned)
            .map_err(|_| DecodeError::NotUtf8 { at })
    }

    fn sizes(&mut self) -> Result<Vec<u32>, DecodeError> {
        let rank = self.short_count("rank", MAX_RANK)?;
        let sizes = (0..rank).map(|_| self.cursor.u32());
        Ok(sizes.collect::<Result<_, _>>()?)
    }

    fn dims(&mut self) -> Result<Vec<Dim>, DecodeError> {
        let dim = |n| if n == 0 { Dim::Batch } else { Dim::Fixed(n) };
        Ok(self.sizes()?.into_iter().map(dim).collect())
    }

    fn axes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let count = self.short_count("number of axes", MAX_RANK)?;
        Ok(self.cursor.bytes(count)?.to_vec())
    }

    fn graph(&mut self, stage: Stage) -> Result<Graph, DecodeError> {
        let invalid = |source| DecodeError::Graph {
            stage,
            source: Box::new(source),
        };
        let mut graph = Graph::new();
        for _ in 0..self.count("number of inputs", MAX_PORTS)? {
            let name = self.name()?;
            let element = self.coded()?;
            let dims = self.dims()?;
            graph.input(name, Type { element, dims }).map_err(invalid)?;
        }
        let mut names = BTreeSet::new();
        for _ in 0..self.count("number of weights", MAX_WEIGHTS)? {
            let weight = Weight {
                name: self.name()?,
                storage: self.storage()?,
                dims: self.sizes()?,
            };
            if !names.insert(weight.name.clone()) {
                let name = weight.name;
                return Err(DecodeError::Repeated { stage, name });
            }
            graph.weight(weight).map_err(invalid)?;
        }
        for _ in 0..self.count("number of instructions", MAX_INSTRUCTIONS)? {
            let instruction = self.instruction()?;
            graph.push(instruction).map_err(invalid)?;
        }
        for _ in 0..self.count("number of outputs", MAX_PORTS)? {
            let name = self.name()?;
            let value = self.cursor.u32()?;
            graph.output(name, value).map_err(invalid)?;
        }
        Ok(graph)
    }

    fn storage(&mut self) -> Result<Storage, DecodeError> {
        Ok(match self.cursor.u8()? {
            storage::F32 => Storage::F32,
            storage::I32 => Storage::I32,
            storage::ROWS => Storage::Rows,
            storage::PANELS => Storage::Panels,
            storage::SCALED_CODES => Storage::Codes(Codes {
                bits: self.cursor.u8()?,
                book: Codebook::Scales {
                    scale: self.cursor.u32()?,
                    zero_point: match self.bool()? {
                        true => Some(self.cursor.u32()?),
                        false => None,
                    },
                },
            }),
            storage::PALETTE_CODES => Storage::Codes(Codes {
                bits: self.cursor.u8()?,
                book: Codebook::Palette {
                    table: self.cursor.u32()?,
                },
            }),
            code => return Err(self.no("storage", code.into())),
        })
    }

    fn instruction(&mut self) -> Result<Instruction, DecodeError> {
        let name = self.name()?;
        let op = self.op()?;
        let rounding = self.coded()?;
        let limit = match op {
            Op::Concat { .. } => MAX_CONCAT,
            _ => MAX_OPERANDS,
        };
        let count = self.short_count("number of operands", limit)?;
        let operands = (0..count).map(|_| {
            let code = self.cursor.u32()?;
            Ok(match code & WEIGHT_BIT {
                0 => Operand::Value(code),
                _ => Operand::Weight(code & !WEIGHT_BIT),
            })
        });
        Ok(Instruction {
            operands: operands.collect::<Result<_, Ended>>()?,
            name,
            op,
            rounding,
        })
    }

    /// Fields stand in the order of the file, which is that of evaluation.
    fn op(&mut self) -> Result<Op, DecodeError> {
        Ok(match self.cursor.u8()? {
            op::VIEW => Op::View { dims: self.dims()? },
            op::PERMUTE => Op::Permute {
                order: self.axes()?,
            },
            op::SLICE => Op::Slice {
                axis: self.cursor.u8()?,
                start: self.cursor.u32()?,
                end: self.cursor.u32()?,
            },
            op::CONCAT => Op::Concat {
                axis: self.cursor.u8()?,
            },
            op::GATHER => Op::Gather {
                axis: self.cursor.u8()?,
                batch_dims: self.cursor.u8()?,
            },
            op::UPSAMPLE_NEAREST => Op::UpsampleNearest {
                scale: self.cursor.u32()?,
            },
            op::UNARY => Op::Unary(self.coded()?),
            op::BINARY => Op::Binary(self.coded()?),
            op::EQUAL => Op::Equal,
            op::CAST => Op::Cast { to: self.coded()? },
            op::SOFTMAX => Op::Softmax,
            op::REDUCE_MEAN => Op::ReduceMean { axes: self.axes()? },
            op::ARG_MAX => Op::ArgMax {
                axis: self.cursor.u8()?,
            },
            op::LINEAR => Op::Linear {
                bias: self.bool()?,
                activation: self.coded()?,
                residual: self.bool()?,
            },
            op::CONV2D => Op::Conv2d {
                strides: [self.cursor.u32()?, self.cursor.u32()?],
                pads: [
                    self.cursor.u32()?,
                    self.cursor.u32()?,
                    self.cursor.u32()?,
                    self.cursor.u32()?,
                ],
                bias: self.bool()?,
                activation: self.coded()?,
                residual: self.bool()?,
            },
            op::GEGLU => Op::Geglu,
            op::MAT_MUL => Op::MatMul {
                transposed: self.bool()?,
            },
            op::ATTENTION => Op::Attention {
                heads: self.cursor.u32()?,
                scale: self.f32()?,
                mask: self.bool()?,
            },
            op::GROUP_NORM => Op::GroupNorm {
                groups: self.cursor.u32()?,
                epsilon: self.f32()?,
                activation: self.coded()?,
            },
            op::LAYER_NORM => Op::LayerNorm {
                epsilon: self.f32()?,
            },
            op::TIMESTEP_EMBEDDING => Op::TimestepEmbedding {
                dim: self.cursor.u32()?,
                flip_sin_to_cos: self.bool()?,
                freq_shift: self.f32()?,
                max_period: self.f32()?,
            },
            op::FAKE_QUANTIZE => Op::FakeQuantize {
                scale: self.f32()?,
                zero_point: self.cursor.u8()?,
            },
            code => return Err(self.no("instruction", code.into())),
        })
    }
}
