//! One run of a network, instruction by instruction.

use std::time::{Duration, Instant};

use snapc_pipeline::{Data, Port, PortType};
use snapc_program::{Element, Instruction, Plan, Rounding};

use crate::arena::{Arena, split};
use crate::error::RuntimeError;
use crate::exec::{self, Call};
use crate::runtime::{BoundGraph, Shared};

/// An instruction that has run, as an observer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Number of the instruction.
    pub index: usize,
    /// The instruction.
    pub instruction: &'a Instruction,
    /// Dimensions of its result.
    pub dims: &'a [usize],
    /// The result, row-major.
    pub data: Data<'a>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a graph needs to run at one batch.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    /// Dimensions of every value.
    pub(crate) dims: Vec<Vec<usize>>,
}

/// One run.
pub(crate) struct Run<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) graph: &'a BoundGraph,
    pub(crate) prepared: &'a Prepared,
}

impl Run<'_> {
    /// Checks what is given against the ports.
    pub(crate) fn check_ports(
        &self,
        ports_in: &[Port],
        inputs: &[Data<'_>],
        ports_out: &[Port],
        outputs: &[Option<&mut [f32]>],
    ) -> Result<(), RuntimeError> {
        let stage = self.graph.stage;
        let counts = [
            ("inputs", ports_in.len(), inputs.len()),
            ("outputs", ports_out.len(), outputs.len()),
        ];
        for (what, expected, found) in counts {
            if expected != found {
                return Err(RuntimeError::PortCount {
                    stage,
                    what,
                    expected,
                    found,
                });
            }
        }
        let name = |dtype| match dtype {
            PortType::F32 => "f32",
            PortType::I32 => "i32",
        };
        let graph = &self.graph.graph;
        let unfit = |port: &Port, dtype: PortType, expected: usize, found: String| {
            let (port, dtype) = (port.name.clone(), name(dtype));
            Err(RuntimeError::Port {
                stage,
                port,
                dtype,
                expected,
                found,
            })
        };
        for ((port, data), value) in ports_in.iter().zip(inputs).zip(graph.inputs()) {
            let expected = self.prepared.plan.place(value.value).len();
            if (data.dtype(), data.len()) != (port.dtype, expected) {
                let found = format!("{} of {}", data.len(), name(data.dtype()));
                return unfit(port, port.dtype, expected, found);
            }
        }
        for ((port, data), value) in ports_out.iter().zip(outputs).zip(graph.outputs()) {
            let expected = self.prepared.plan.place(value.value).len();
            if let Some(found) = data.as_ref().map(|d| d.len()).filter(|n| *n != expected) {
                // Whatever the element, a caller takes numbers of f32.
                return unfit(port, PortType::F32, expected, found.to_string());
            }
        }
        Ok(())
    }

    /// Runs all instructions. What is given goes with the ports.
    pub(crate) fn run(
        &self,
        arena: &mut Arena,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
        observer: &mut dyn FnMut(Observation<'_>),
    ) -> Result<(), RuntimeError> {
        let (graph, plan) = (&self.graph.graph, &self.prepared.plan);
        let stage = self.graph.stage;
        let words = arena.words(plan.words());
        let words = words.ok_or(RuntimeError::Memory {
            stage,
            bytes: plan.len(),
        })?;
        for (port, data) in graph.inputs().iter().zip(inputs) {
            let place = &mut words[plan.place(port.value)];
            match data {
                Data::F32(data) => place.copy_from_slice(data),
                Data::I32(data) => place.copy_from_slice(bytemuck::cast_slice(data)),
            }
        }
        let segments = self.shared.container.segments(stage);
        for (index, instruction) in graph.instructions().iter().enumerate() {
            let value = graph.inputs().len() + index;
            let place = plan.place(value as u32);
            let dims = &self.prepared.dims[value];
            let started = Instant::now();
            let (result, rest) = split(words, place.clone());
            let call = Call {
                kernels: self.shared.kernels,
                pool: &self.shared.pool,
                graph: self.graph,
                prepared: self.prepared,
                segments: &segments,
                rest,
                instruction,
                dims,
            };
            let ran = exec::run(&call, result);
            ran.map_err(|source| RuntimeError::Instruction {
                stage,
                index,
                op: instruction.op.name(),
                name: instruction.name.clone(),
                source,
            })?;
            let is_float = graph.values()[value].element == Element::F32;
            self.round(instruction.rounding, is_float, result);
            let elapsed = started.elapsed();
            observer(Observation {
                index,
                instruction,
                dims,
                data: match is_float {
                    true => Data::F32(result),
                    false => Data::I32(bytemuck::cast_slice(result)),
                },
                elapsed,
            });
        }
        for (port, out) in graph.outputs().iter().zip(outputs) {
            let Some(out) = out else { continue };
            let place = &words[plan.place(port.value)];
            match graph.values()[port.value as usize].element {
                Element::F32 => out.copy_from_slice(place),
                Element::I32 => {
                    let integers: &[i32] = bytemuck::cast_slice(place);
                    for (out, &x) in out.iter_mut().zip(integers) {
                        *out = x as f32;
                    }
                }
            }
        }
        Ok(())
    }

    fn round(&self, rounding: Rounding, is_float: bool, result: &mut [f32]) {
        let storage = match rounding {
            Rounding::F16 if is_float => snapc_kernels::Storage::F16,
            Rounding::Bf16 if is_float => snapc_kernels::Storage::Bf16,
            _ => return,
        };
        let Shared { kernels, pool, .. } = self.shared;
        kernels.round_to(pool, storage, result);
    }
}
