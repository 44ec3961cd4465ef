//! The table of a schedule: what depends on the timestep alone, for every step.

use std::collections::BTreeMap;
use std::ops::Range;

use snapc_ir::eval::{self, EvalError};
use snapc_ir::{DType, Graph, LazyTensor, Tensor};

use super::{SpecializeSchedule, TIMESTEP, refused};
use crate::info::Describe;
use crate::input_cone::InputCone;
use crate::pass::{PassContext, PassError, WeightFault, WeightProblem};

/// Largest table, in bytes: more than the weights that it replaces in any known model.
const MAX_BYTES: usize = 256 << 20;

/// The values of a cone's frontier for a list of timesteps.
pub(super) struct Table {
    /// `[steps,values,1,1]`. Convolutional shifts are `[1,channels,1,1]`, so that a part of a row needs no other shape.
    pub(super) tensor: LazyTensor,
    /// The columns of each value of the frontier.
    pub(super) parts: Vec<Range<usize>>,
}

impl Table {
    /// Evaluates the cone of `timestep` for every timestep.
    ///
    /// # Errors
    /// When a value is no float, the table is too large, the data of a weight cannot be made, or the user stops the run.
    pub(super) fn evaluate(
        graph: &Graph,
        cone: &InputCone<'_>,
        timesteps: &[usize],
        context: &PassContext<'_>,
    ) -> Result<Self, PassError> {
        let (parts, dtype) = columns(graph, cone)?;
        let width = parts.last().map_or(0, |last| last.end);
        let bytes = width.saturating_mul(timesteps.len()).saturating_mul(4);
        if bytes > MAX_BYTES {
            let reason = format!(
                "the table of {} steps has {bytes} bytes, more than {MAX_BYTES}; use fewer steps or --interface plain",
                timesteps.len()
            );
            return Err(refused(graph, reason));
        }

        let part = part_of(graph, cone).map_err(PassError::build(SpecializeSchedule::NAME))?;
        let ty = part.ty(part.inputs()[0].value);
        let shape = ty.shape.bind(1);
        let mut values = Vec::with_capacity(width * timesteps.len());
        for &timestep in timesteps {
            if (context.cancelled)() {
                return Err(PassError::Cancelled);
            }
            let input = match ty.dtype.is_float() {
                true => Tensor::float(&shape, vec![timestep as f32]),
                false => Tensor::int(&shape, vec![timestep as i64]),
            };
            let inputs = BTreeMap::from([(TIMESTEP.to_owned(), input)]);
            let outputs = eval::run(&part, &inputs);
            let outputs = outputs.map_err(failed)?;
            for output in part.outputs() {
                values.extend_from_slice(outputs[&output.name].floats());
            }
        }
        let tensor = LazyTensor::from_f32(&[timesteps.len(), width, 1, 1], &values);
        Ok(Table {
            tensor: tensor.cast(dtype),
            parts,
        })
    }
}

fn failed(error: EvalError) -> PassError {
    let pass = SpecializeSchedule::NAME;
    match error {
        EvalError::Weight {
            graph,
            weight,
            source,
        } => PassError::Weights {
            pass,
            problems: vec![WeightProblem {
                graph,
                weight,
                source: WeightFault::Data(source),
            }],
        },
        error => PassError::Calibration {
            pass,
            source: Box::new(error),
        },
    }
}

/// The columns of every value of the frontier, and the element type that holds them all.
fn columns(graph: &Graph, cone: &InputCone<'_>) -> Result<(Vec<Range<usize>>, DType), PassError> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut common = None;
    for &value in cone.frontier() {
        let ty = graph.ty(value);
        let size = ty.shape.elements_per_batch();
        let Some(size) = size.filter(|_| ty.dtype.is_float() && !ty.shape.has_batch()) else {
            let name = cone.name(value);
            let reason = format!(
                "'{name}' is {ty} and leaves the time path; only floats without a batch can be tabled; use --interface plain"
            );
            return Err(refused(graph, reason));
        };
        let start = parts.last().map_or(0, |last| last.end);
        parts.push(start..start.saturating_add(size));
        let dtype = *common.get_or_insert(ty.dtype);
        if dtype != ty.dtype {
            common = Some(DType::F32);
        }
    }
    Ok((parts, common.unwrap_or(DType::F32)))
}

/// The cone as a graph of its own, whose outputs are the frontier in its order.
fn part_of(graph: &Graph, cone: &InputCone<'_>) -> Result<Graph, snapc_ir::BuildError> {
    let mut part = Graph::new(graph.name());
    let inputs = graph.inputs().iter().find(|i| i.name == TIMESTEP);
    let timestep = inputs.expect("the cone is that of the timestep");
    let source = part.input(TIMESTEP, graph.ty(timestep.value).clone());
    for (i, value) in cone.copy_into(&mut part, source)?.into_iter().enumerate() {
        part.output(format!("value{i}"), value);
    }
    Ok(part)
}
