//! Makes all floats of a graph one width.
//!
//! # What it does
//! Inputs, weights, constants, results and outputs become `to`. Timestep embeddings stay in f32: what
//! `timestep_embedding` is computed from (the `timestep` input) keeps its type, and its result is cast. Integers and
//! truth values stay. Weights are cast when they are written.
//!
//! # When it applies
//! To graphs without dead code, so that a weight that nothing uses cannot fail the check: every weight has to fit `to`,
//! and constants have to be finite. All weights that do not are reported at once.
//!
//! # Options
//! `to`: `f16` (default), `bf16` or `f32`.
//!
//! # Effect on accuracy
//! Every value is rounded to nearest even on the grid of `to`. f16 has 11 significant bits and ends at 65504; bf16 has
//! 8 bits. To f32 nothing is lost.
//!
//! # Example
//! ```text
//! before: e = timestep_embedding(timestep: f32) : f32; y = linear(e, w) : f32
//! after:  e = timestep_embedding(timestep: f32) : f32; h = cast(e) : f16; y = linear(h, w) : f16
//! ```

use rayon::prelude::*;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use snapc_ir::ops::Cast;
use snapc_ir::{
    BuildError, DType, Graph, LazyTensor, Node, Op, ValueDef, ValueId, Weight, WeightError,
};

use crate::info::Describe;
use crate::output_values::OutputValues;
use crate::pass::{
    Change, Pass, PassContext, PassError, Property, WeightFault, WeightProblem,
};

/// See the module documentation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CastPrecision {
    /// The float type.
    #[serde(deserialize_with = "float_type")]
    pub to: DType,
}

impl Default for CastPrecision {
    fn default() -> Self {
        CastPrecision { to: DType::F16 }
    }
}

fn float_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DType, D::Error> {
    let word = String::deserialize(deserializer)?;
    match word.parse::<DType>() {
        Ok(dtype) if dtype.is_float() => Ok(dtype),
        _ => Err(D::Error::custom(format!("'to' must be f16, bf16 or f32, is '{word}'"))),
    }
}

impl Describe for CastPrecision {
    const NAME: &'static str = "cast-precision";
    const REQUIRES: &'static [Property] = &[Property::NoDeadCode, Property::PlainWeights];
    const INVALIDATES: &'static [Property] = &[Property::FullPrecision];
}

impl Pass for CastPrecision {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let exact = exact_values(graph);
        if !self.has_work(graph, &exact) {
            return Ok(None);
        }
        self.check_weights(graph, &exact, context)?;
        let mut casting = Casting::new(graph, self.to, &exact);
        let rebuilt = casting.run().map_err(PassError::build(Self::NAME))?;
        Ok(Some(Change::new(rebuilt, vec![("weights cast", casting.weights_cast), ("casts added", casting.casts)])))
    }
}

/// The floats that timestep embeddings are computed from, and their results, by value index.
fn exact_values(graph: &Graph) -> Vec<bool> {
    let mut exact = vec![false; graph.values().len()];
    for node in graph.nodes().iter().rev() {
        if matches!(node.op, Op::TimestepEmbedding(_)) {
            exact[node.result.index()] = true;
        }
        if exact[node.result.index()] {
            let floats = node.operands.iter().filter(|&&v| graph.ty(v).dtype.is_float());
            floats.for_each(|v| exact[v.index()] = true);
        }
    }
    exact
}

impl CastPrecision {
    fn has_work(&self, graph: &Graph, exact: &[bool]) -> bool {
        let differs = |v: ValueId| graph.ty(v).dtype.is_float() && graph.ty(v).dtype != self.to;
        let values = (0..exact.len()).filter(|&i| !exact[i]).map(ValueId::from_index);
        let mut features = values.chain(graph.outputs().iter().map(|o| o.value));
        features.any(differs)
    }

    fn check_weights(
        &self,
        graph: &Graph,
        exact: &[bool],
        context: &PassContext<'_>,
    ) -> Result<(), PassError> {
        let cast = graph.weights().par_iter().filter(|w| {
            let is_cast = w.tensor.dtype().is_float() && !exact[w.value.index()];
            is_cast && w.tensor.is_present()
        });
        let problem = |weight: &Weight| {
            if (context.cancelled)() {
                return Err(PassError::Cancelled);
            }
            Ok(self.fault(weight).map(|source| WeightProblem {
                graph: graph.name().to_owned(),
                weight: weight.name.clone(),
                source,
            }))
        };
        let found: Vec<Option<WeightProblem>> = cast.map(problem).collect::<Result<_, _>>()?;
        let problems: Vec<WeightProblem> = found.into_iter().flatten().collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(PassError::Weights {
            pass: Self::NAME,
            problems,
        })
    }

    fn fault(&self, weight: &Weight) -> Option<WeightFault> {
        let of_constant = (!weight.is_parameter).then(|| not_finite(&weight.tensor));
        if let Some(fault) = of_constant.flatten() {
            return Some(fault);
        }
        let fits = weight.tensor.max_abs().is_some_and(|max| max < self.overflow_bound());
        if fits || self.to == DType::F32 {
            return None;
        }
        // Casting is what finds the value that overflows; the bytes themselves are not needed.
        let cast = weight.tensor.clone().cast(self.to);
        cast.stream::<WeightError>(|_| Ok(())).err().map(WeightFault::Data)
    }

    /// Every magnitude below this rounds to a finite value.
    fn overflow_bound(&self) -> f32 {
        match self.to {
            DType::F16 => 65520.0,
            DType::BF16 => half_way_beyond_bf16(),
            _ => f32::INFINITY,
        }
    }
}

/// The middle between the largest bf16 value and the power of two above it: 2^128 - 2^119.
fn half_way_beyond_bf16() -> f32 {
    f32::from_bits(0x7f7f_8000)
}

fn not_finite(tensor: &LazyTensor) -> Option<WeightFault> {
    match tensor.to_f32() {
        Ok(values) => {
            let index = values.iter().position(|v| !v.is_finite())?;
            let value = values[index];
            Some(WeightFault::NotFinite { value, index })
        }
        Err(error) => Some(WeightFault::Data(error)),
    }
}

/// A graph that is being cast. An old value may have two new ones: one of its own type and one of type `to`.
struct Casting<'a> {
    old: &'a Graph,
    to: DType,
    exact: &'a [bool],
    outputs: OutputValues,
    new: Graph,
    own: Vec<Option<ValueId>>,
    cast: Vec<Option<ValueId>>,
    weights_cast: usize,
    casts: usize,
}

impl<'a> Casting<'a> {
    fn new(old: &'a Graph, to: DType, exact: &'a [bool]) -> Self {
        Casting {
            old,
            to,
            exact,
            outputs: OutputValues::of(old),
            new: Graph::new(old.name()),
            own: vec![None; old.values().len()],
            cast: vec![None; old.values().len()],
            weights_cast: 0,
            casts: 0,
        }
    }

    fn run(&mut self) -> Result<Graph, BuildError> {
        for input in self.old.inputs() {
            let mut ty = self.old.ty(input.value).clone();
            ty.dtype = self.result_type(input.value);
            let value = self.new.input(input.name.clone(), ty);
            self.define(input.value, value);
        }
        for node in self.old.nodes() {
            let value = self.node(node)?;
            self.outputs.record(node.result, value);
            self.define(node.result, value);
        }
        for output in self.old.outputs() {
            let value = self.cast(output.value)?;
            self.new.output(output.name.clone(), value);
        }
        Ok(std::mem::replace(&mut self.new, Graph::new(self.old.name())))
    }

    /// Element type of the new value that stands for an old one.
    fn result_type(&self, value: ValueId) -> DType {
        let dtype = self.old.ty(value).dtype;
        let is_cast = dtype.is_float() && !self.exact[value.index()];
        if is_cast { self.to } else { dtype }
    }

    fn define(&mut self, old: ValueId, new: ValueId) {
        let dtype = self.new.ty(new).dtype;
        if dtype == self.old.ty(old).dtype {
            self.own[old.index()] = Some(new);
        }
        if dtype == self.to || !dtype.is_float() {
            self.cast[old.index()] = Some(new);
        }
    }

    fn node(&mut self, node: &Node) -> Result<ValueId, BuildError> {
        if self.exact[node.result.index()] {
            let operands: Vec<ValueId> = node.operands.iter().map(|&v| self.own(v)).collect();
            return self.new.add(node.op.clone(), &operands, node.name.clone());
        }
        let operands = node.operands.iter().map(|&v| self.cast(v));
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        let op = match &node.op {
            Op::Cast(op) if op.to.is_float() => {
                let operand = operands[0];
                let is_there = self.new.ty(operand).dtype == self.to;
                if is_there && self.outputs.may_replace(&self.new, node.result, operand) {
                    return Ok(operand);
                }
                Cast { to: self.to }.into()
            }
            op => op.clone(),
        };
        self.new.add(op, &operands, node.name.clone())
    }

    /// The new value with the old one's own type. Only what is computed exactly asks for it, and is computed from
    /// nothing else.
    fn own(&mut self, old: ValueId) -> ValueId {
        if let Some(value) = self.own[old.index()] {
            return value;
        }
        let weight = self.weight_of(old);
        self.weight(weight, weight.tensor.clone())
    }

    /// The new value of type `to`; integers as they are.
    fn cast(&mut self, old: ValueId) -> Result<ValueId, BuildError> {
        if let Some(value) = self.cast[old.index()] {
            return Ok(value);
        }
        if let Some(value) = self.own[old.index()] {
            self.casts += 1;
            let name = self.defined_by(old);
            let value = self.new.add(Cast { to: self.to }, &[value], name)?;
            self.cast[old.index()] = Some(value);
            return Ok(value);
        }
        let weight = self.weight_of(old);
        let mut tensor = weight.tensor.clone();
        if tensor.dtype().is_float() && tensor.dtype() != self.to {
            self.weights_cast += 1;
            tensor = tensor.cast(self.to);
        }
        Ok(self.weight(weight, tensor))
    }

    fn weight_of(&self, value: ValueId) -> &'a Weight {
        let weight = self.old.weight_of(value);
        weight.expect("inputs and results are defined before they are used")
    }

    fn weight(&mut self, weight: &Weight, tensor: LazyTensor) -> ValueId {
        let name = weight.name.clone();
        let value = if weight.is_parameter {
            self.new.parameter(name, tensor)
        } else {
            self.new.constant(name, tensor)
        };
        self.define(weight.value, value);
        value
    }

    /// Name for a cast of a value.
    fn defined_by(&self, value: ValueId) -> String {
        match self.old.value(value).def {
            ValueDef::Node(n) => self.old.nodes()[n.index()].name.clone(),
            ValueDef::Weight(w) => self.old.weights()[w.index()].name.clone(),
            ValueDef::Input(i) => self.old.inputs()[i].name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Gather, Linear, Silu, TimestepEmbedding};
    use snapc_ir::{Shape, TensorType};

    fn run(to: DType, graph: &Graph) -> Result<Option<Change>, PassError> {
        CastPrecision { to }.run(graph, &PassContext::default())
    }

    fn start() -> (Graph, ValueId) {
        let mut g = Graph::new("unet");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        (g, x)
    }

    fn timestep_graph() -> Graph {
        let (mut g, x) = start();
        let t = g.input("timestep", TensorType::new(DType::F32, Shape::default()));
        let op = TimestepEmbedding {
            dim: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            max_period: 10000.0,
        };
        let e = g.add(op, &[t], "time_proj").unwrap();
        let w = g.parameter("time.weight", LazyTensor::from_f32(&[2, 4], &[0.5; 8]));
        let e = g.add(Linear {}, &[e, w], "time").unwrap();
        let y = g.add(Add {}, &[x, e], "y").unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn everything_but_the_timestep_embedding_becomes_narrow() {
        let change = run(DType::F16, &timestep_graph()).unwrap().unwrap();
        let g = &change.graph;
        let input = |i: usize| g.ty(g.inputs()[i].value).dtype;
        assert_eq!((input(0), input(1)), (DType::F16, DType::F32));
        let nodes: Vec<(&str, DType)> =
            g.nodes().iter().map(|n| (n.op.name(), g.ty(n.result).dtype)).collect();
        let expected = [
            ("timestep_embedding", DType::F32),
            ("cast", DType::F16),
            ("linear", DType::F16),
            ("add", DType::F16),
        ];
        assert_eq!(nodes, expected);
        assert_eq!(g.nodes()[1].name, "time_proj");
        assert_eq!(change.counts, [("weights cast", 1), ("casts added", 1)]);
        assert!(run(DType::F16, g).unwrap().is_none());
    }

    #[test]
    fn back_to_f32_no_cast_is_left() {
        let narrow = run(DType::F16, &timestep_graph()).unwrap().unwrap().graph;
        let wide = run(DType::F32, &narrow).unwrap().unwrap().graph;
        let names: Vec<&str> = wide.nodes().iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["timestep_embedding", "linear", "add"]);
        assert!(wide.values().iter().all(|v| v.ty.dtype == DType::F32));
    }

    #[test]
    fn a_graph_of_that_width_stays() {
        assert!(run(DType::F32, &timestep_graph()).unwrap().is_none());
    }

    #[test]
    fn integers_stay() {
        let mut g = Graph::new("text_encoder");
        let ids = g.input("input_ids", TensorType::new(DType::I32, Shape::batched(&[3])));
        let table = g.parameter("table", LazyTensor::from_f32(&[5, 2], &[1.0; 10]));
        let y = g.add(Gather { axis: 0, batch_dims: 0 }, &[table, ids], "y").unwrap();
        g.output("y", y);
        let g = run(DType::F16, &g).unwrap().unwrap().graph;
        assert_eq!(g.ty(g.inputs()[0].value).dtype, DType::I32);
        assert_eq!(g.ty(g.outputs()[0].value).dtype, DType::F16);
    }

    #[test]
    fn a_cast_between_input_and_output_stays() {
        let (mut g, x) = start();
        let y = g.add(Cast { to: DType::BF16 }, &[x], "y").unwrap();
        g.output("y", y);
        let g = run(DType::F16, &g).unwrap().unwrap().graph;
        assert_eq!(g.nodes().len(), 1);
        assert_eq!(g.ty(g.outputs()[0].value).dtype, DType::F16);
    }

    fn graph_with(weights: &[(&str, LazyTensor)], constants: &[(&str, LazyTensor)]) -> Graph {
        let (mut g, mut y) = start();
        for (name, tensor) in weights {
            let w = g.parameter(*name, tensor.clone());
            y = g.add(Add {}, &[y, w], "y").unwrap();
        }
        for (name, tensor) in constants {
            let w = g.constant(*name, tensor.clone());
            y = g.add(Add {}, &[y, w], "y").unwrap();
        }
        let y = g.add(Silu {}, &[y], "y").unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn all_weights_that_do_not_fit_are_reported() {
        let tensor = |a: f32, b: f32| LazyTensor::from_f32(&[2], &[a, b]);
        let weights = [
            ("big", tensor(0.0, 1e6)),
            // 65519 rounds down to 65504, the largest f16 value; 65520 is half way to 65536 and rounds up.
            ("fits", tensor(65519.0, -65519.0)),
            ("just_too_big", tensor(-65520.0, 0.0)),
            ("known_to_fit", tensor(1.0, 1.0).with_max_abs(1.0)),
            ("known_not_to_fit", tensor(1e5, 1.0).with_max_abs(1e5)),
        ];
        let constants = [("mask", tensor(0.0, f32::NEG_INFINITY))];
        let g = graph_with(&weights, &constants);
        let PassError::Weights { problems, .. } = run(DType::F16, &g).unwrap_err() else {
            panic!("not the error about weights");
        };
        let names: Vec<&str> = problems.iter().map(|p| p.weight.as_str()).collect();
        assert_eq!(names, ["big", "just_too_big", "known_not_to_fit", "mask"]);
        let overflow = WeightError::Overflow {
            value: 1e6,
            index: 1,
            dtype: DType::F16,
        };
        assert_eq!(problems[0].source, WeightFault::Data(overflow));
        assert!(matches!(problems[3].source, WeightFault::NotFinite { index: 1, .. }));
    }

    #[test]
    fn values_beyond_f16_fit_bf16() {
        let tensor = |a: f32| LazyTensor::from_f32(&[2], &[a, 0.0]);
        assert!(run(DType::BF16, &graph_with(&[("w", tensor(1e6))], &[])).is_ok());
        // The largest f32 lies beyond the largest bf16 by more than half a step.
        assert!(run(DType::BF16, &graph_with(&[("w", tensor(f32::MAX))], &[])).is_err());
    }

    #[test]
    fn cancelling_ends_the_check() {
        let context = PassContext { cancelled: &|| true, ..PassContext::default() };
        let g = graph_with(&[("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]))], &[]);
        let result = CastPrecision::default().run(&g, &context);
        assert!(matches!(result, Err(PassError::Cancelled)));
    }
}
