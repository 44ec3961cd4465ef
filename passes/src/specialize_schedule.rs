//! Replaces what the UNet computes from the timestep alone by a table with a row per step.
//!
//! # What it does
//! A run goes through a few timesteps that are known when the model is compiled. Whatever is computed from `timestep` and
//! weights alone (sinusoids, time MLP, the shift of every ResNet) is evaluated for each of them, in f32. The values that the
//! rest of the graph uses stand side by side in one constant `[steps,values,1,1]`; the input `step` i32 `[1]`, the number of the
//! step from 0, takes its row, and every use its part of that. The weights of the time path go: 27.9 of 859.5 million in
//! SD v1.5, for a table of 0.6 MB.
//!
//! # When it applies
//! To a graph with the input `timestep`, one number for the whole batch. It runs before floats are narrowed, so that the
//! table is rounded once. It changes the interface of the graph: it belongs to `--interface snap`.
//!
//! # Options
//! `timesteps`: those of the run, the first step first, with `/` between them; needed where there is a `timestep`.
//!
//! `other_steps`: `refuse` (default) leaves nothing but the table. `keep` leaves the time path and the input `timestep` as well:
//! at the step number one past the table the shifts are computed from the timestep as before.
//!
//! # Effect on accuracy
//! None: the table holds what the reference evaluator gives. Sinusoids have the angles of diffusers, products rounded to
//! f32: exact angles would be further from the model as it was trained. Narrower floats round the table once in place of
//! every result on the way.
//!
//! # Example
//! ```text
//! before: e = timestep_embedding(timestep); s = linear(silu(linear(e, w1)), w2); y = add(x, reshape(s))
//! after:  row = gather(table, step); s = slice(row); y = add(x, s)
//! ```

mod table;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use snapc_ir::ops::{Cast, Concat, Gather, Reshape, Slice};
use snapc_ir::{BuildError, DType, Dim, Graph, Rebuild, Shape, TensorType, ValueId};

use crate::info::Describe;
use crate::input_cone::{InputCone, parameters};
use crate::pass::{Change, Pass, PassContext, PassError, Property};

use table::Table;

/// The input that goes.
const TIMESTEP: &str = "timestep";

/// The input that comes.
const STEP: &str = "step";

/// Name of the table and of the node that takes a row of it.
const TABLE: &str = "time_table";

/// Largest timestep: what f32 counts to without a gap.
const MAX_TIMESTEP: usize = 1 << 24;

/// Values that one `concat` joins; native programs take up to 64.
const MAX_JOINED: usize = 32;

/// What becomes of runs with other timesteps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherSteps {
    /// The graph cannot run them.
    #[default]
    Refuse,
    /// The graph computes what its table lacks.
    Keep,
}

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecializeSchedule {
    /// The timesteps of the run, the first step first.
    #[serde(deserialize_with = "numbers")]
    pub timesteps: Vec<usize>,
    /// What becomes of runs with other timesteps.
    pub other_steps: OtherSteps,
}

impl SpecializeSchedule {
    /// The text of `timesteps` in a pipeline: `876/751/626`.
    pub fn timesteps_text(timesteps: &[usize]) -> String {
        let words: Vec<String> = timesteps.iter().map(ToString::to_string).collect();
        words.join("/")
    }
}

/// One number, or several with `/` between them.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(usize),
        List(Vec<usize>),
        Text(String),
    }
    let text = match Given::deserialize(deserializer)? {
        Given::One(number) => return Ok(vec![number]),
        Given::List(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join("/"),
        Given::Text(text) => text,
    };
    let number = |word: &str| {
        let expected = "numbers with '/' between them, such as 876/751/626";
        let number = word.parse().ok().filter(|&n: &usize| n <= MAX_TIMESTEP);
        number
            .ok_or_else(|| D::Error::custom(format!("'timesteps' must be {expected}, is '{text}'")))
    };
    text.split('/').map(number).collect()
}

impl Describe for SpecializeSchedule {
    const NAME: &'static str = "specialize-schedule";
    const REQUIRES: &'static [Property] = &[Property::FullPrecision];
}

impl Pass for SpecializeSchedule {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let has = |name: &str| graph.inputs().iter().find(|i| i.name == name);
        let (Some(timestep), None) = (has(TIMESTEP), has(STEP)) else {
            return Ok(None);
        };
        let cone = InputCone::of(graph, timestep.value, |_| true);
        if cone.frontier().is_empty() {
            return Ok(None);
        }
        self.check(graph, timestep.value)?;
        let table = Table::evaluate(graph, &cone, &self.timesteps, context)?;
        let specialized = self.rewrite(graph, &cone, &table, timestep.value);
        let specialized = specialized.map_err(PassError::build(Self::NAME))?;
        let removed = parameters(graph).saturating_sub(parameters(&specialized));
        let counts = vec![
            ("steps tabled", self.timesteps.len()),
            ("values tabled", cone.frontier().len()),
            ("parameters removed", removed),
            ("bytes of the table", table.tensor.byte_len()),
        ];
        Ok(Some(Change::new(specialized, counts)))
    }
}

fn refused(graph: &Graph, reason: impl Into<String>) -> PassError {
    PassError::Refused {
        pass: SpecializeSchedule::NAME,
        graph: graph.name().to_owned(),
        reason: reason.into(),
    }
}

impl SpecializeSchedule {
    fn check(&self, graph: &Graph, timestep: ValueId) -> Result<(), PassError> {
        if self.timesteps.is_empty() {
            let reason =
                "there are no timesteps; give those of the run, such as timesteps=876/751/626";
            return Err(refused(graph, reason));
        }
        match graph.ty(timestep).shape.dims() {
            [] | [Dim::Fixed(1)] => Ok(()),
            _ => {
                let ty = graph.ty(timestep);
                let reason = format!(
                    "'{TIMESTEP}' is {ty}, a number for every picture; a table needs one for all"
                );
                Err(refused(graph, reason))
            }
        }
    }

    fn rewrite(
        &self,
        graph: &Graph,
        cone: &InputCone<'_>,
        table: &Table,
        timestep: ValueId,
    ) -> Result<Graph, BuildError> {
        let keep = self.other_steps == OtherSteps::Keep;
        let mut rebuild = Rebuild::new(graph);
        let (mut step, mut kept) = (None, None);
        for input in graph.inputs() {
            let ty = graph.ty(input.value).clone();
            if input.value != timestep {
                let new = rebuild.graph.input(input.name.clone(), ty);
                rebuild.bind(input.value, new);
                continue;
            }
            let index = TensorType::new(DType::I32, Shape::fixed(&[1]));
            step = Some(rebuild.graph.input(STEP, index));
            if keep {
                kept = Some(rebuild.graph.input(TIMESTEP, ty));
            }
        }
        let step = step.expect("the timestep is an input");
        let mut rows = rebuild.graph.constant(TABLE, table.tensor.clone());
        if let Some(timestep) = kept {
            let computed = cone.copy_into(&mut rebuild.graph, timestep)?;
            let last = computed_row(&mut rebuild.graph, &computed, table)?;
            rows = rebuild
                .graph
                .add(Concat { axis: 0 }, &[rows, last], TABLE)?;
        }
        let (axis, batch_dims) = (0, 0);
        let row = rebuild
            .graph
            .add(Gather { axis, batch_dims }, &[rows, step], TABLE)?;
        for (&value, range) in cone.frontier().iter().zip(&table.parts) {
            let (start, end) = (range.start, range.end);
            let (ty, name) = (graph.ty(value), cone.name(value));
            let new = &mut rebuild.graph;
            let mut part = new.add(
                Slice {
                    axis: 1,
                    start,
                    end,
                },
                &[row],
                name,
            )?;
            if new.ty(part).shape != ty.shape {
                let shape = ty.shape.0.clone();
                part = new.add(Reshape { shape }, &[part], name)?;
            }
            if ty.dtype != table.tensor.dtype() {
                part = new.add(Cast { to: ty.dtype }, &[part], name)?;
            }
            rebuild.bind(value, part);
        }
        for node in graph.nodes() {
            if !cone.contains(node.result) {
                let new = rebuild.copy(node)?;
                rebuild.bind(node.result, new);
            }
        }
        rebuild.finish()
    }
}

/// Values of the frontier as a row of the table, `[1,values,1,1]`.
fn computed_row(
    graph: &mut Graph,
    values: &[ValueId],
    table: &Table,
) -> Result<ValueId, BuildError> {
    let mut parts = Vec::with_capacity(values.len());
    for (&value, range) in values.iter().zip(&table.parts) {
        let shape = [1, range.len(), 1, 1].map(Dim::Fixed).to_vec();
        let mut part = graph.add(Reshape { shape }, &[value], TABLE)?;
        if graph.ty(part).dtype != table.tensor.dtype() {
            let to = table.tensor.dtype();
            part = graph.add(Cast { to }, &[part], TABLE)?;
        }
        parts.push(part);
    }
    while parts.len() > 1 {
        let joined = parts.chunks(MAX_JOINED);
        let joined = joined.map(|some| graph.add(Concat { axis: 1 }, some, TABLE));
        parts = joined.collect::<Result<_, _>>()?;
    }
    Ok(parts[0])
}

#[cfg(test)]
mod tests;
