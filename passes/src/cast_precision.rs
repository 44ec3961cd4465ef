//! Makes all floats of a graph one width, but for what that width cannot hold.
//!
//! # What it does
//! Inputs, weights, constants, results and outputs become `to`. Timestep embeddings stay in f32: what
//! `timestep_embedding` is computed from (the `timestep` input) keeps its type, and its result is cast. Integers and
//! truth values stay. Weights are cast when they are written.
//!
//! A kept node computes in the type it had, with the weights it had; casts stand around it. Nodes are kept that `keep`
//! names; with `overflow=keep`, those that use a weight which does not fit `to`; and when there are calibration inputs,
//! those with an operand or result that comes too near the end of `to`. Of `attention`, the largest norms of queries and
//! keys bound the logits inside. The notes name what is kept and why, and weights of which many elements vanish.
//!
//! # When it applies
//! To graphs without dead code, so that a weight that nothing uses cannot fail the check: every weight has to fit `to`,
//! unless `overflow=keep`, and constants have to be finite. All weights that do not are reported at once. What sums of
//! squares inside norms need is known to targets, which compute them in f32.
//!
//! # Options
//! * `to`: `f16` (default), `bf16` or `f32`.
//! * `overflow`: `error` (default) refuses weights that do not fit; `keep` keeps the nodes that use them.
//! * `keep`: names of layers that are kept, joined by `+`, as whole parts of their names; none by default.
//! * `margin`: the share of the largest value of `to` that results on calibration inputs may reach, 0.5.
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

mod casting;
mod kept;
mod weight_check;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use snapc_ir::{DType, Graph, Op, ValueId};

use self::casting::Casting;
use self::kept::Kept;
use self::weight_check::WeightCheck;
use crate::info::Describe;
use crate::name_patterns::NamePatterns;
use crate::pass::{Change, Pass, PassContext, PassError, Property};

/// See the module documentation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CastPrecision {
    /// The float type.
    #[serde(deserialize_with = "float_type")]
    pub to: DType,
    /// What becomes of weights that do not fit.
    pub overflow: Overflow,
    /// The layers that are kept.
    pub keep: NamePatterns,
    /// The share of the largest value that results may reach.
    pub margin: f32,
}

/// What becomes of weights that do not fit the float type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// They are reported, and the pass fails.
    #[default]
    Error,
    /// The nodes that use them are kept as they are.
    Keep,
}

impl Default for CastPrecision {
    fn default() -> Self {
        CastPrecision {
            to: DType::F16,
            overflow: Overflow::Error,
            keep: NamePatterns::default(),
            margin: 0.5,
        }
    }
}

fn float_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DType, D::Error> {
    let word = String::deserialize(deserializer)?;
    match word.parse::<DType>() {
        Ok(dtype) if dtype.is_float() => Ok(dtype),
        _ => Err(D::Error::custom(format!(
            "'to' must be f16, bf16 or f32, is '{word}'"
        ))),
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
        if !(self.margin > 0.0 && self.margin <= 1.0) {
            return Err(PassError::Refused {
                pass: Self::NAME,
                graph: graph.name().to_owned(),
                reason: format!("'margin' is {}, must be above 0 and at most 1", self.margin),
            });
        }
        let exact = exact_values(graph);
        if !self.has_work(graph, &Kept::exact(graph, exact.clone())) {
            return Ok(None);
        }
        let mut kept = Kept::find(self, graph, exact, context)?;
        let check = WeightCheck::of(self.to, graph, &kept, context)?;
        let overflowing = check.refuse(Self::NAME, graph, self.overflow)?;
        kept.add_users(graph, &overflowing);
        if !self.has_work(graph, &kept) {
            return Ok(None);
        }
        let mut casting = Casting::new(graph, self.to, &kept);
        let rebuilt = casting.run().map_err(PassError::build(Self::NAME))?;
        let counts = vec![
            ("weights cast", casting.weights_cast),
            ("casts added", casting.casts),
        ];
        let mut notes = kept.notes(graph, self.to);
        notes.extend(check.underflow_notes(self.to));
        Ok(Some(Change {
            graph: rebuilt,
            counts,
            notes,
        }))
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
            let floats = node
                .operands
                .iter()
                .filter(|&&v| graph.ty(v).dtype.is_float());
            floats.for_each(|v| exact[v.index()] = true);
        }
    }
    exact
}

impl CastPrecision {
    fn has_work(&self, graph: &Graph, kept: &Kept) -> bool {
        let differs = |v: ValueId| graph.ty(v).dtype.is_float() && graph.ty(v).dtype != self.to;
        let values = (0..graph.values().len()).map(ValueId::from_index);
        let mut cast = values.filter(|&v| !kept.stays(v));
        let mut outputs = graph.outputs().iter().map(|o| o.value);
        cast.any(differs) || outputs.any(|v| !kept.is_too_large(v) && differs(v))
    }
}

/// The largest finite value of a float type.
fn largest(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 65504.0,
        DType::BF16 => f32::from_bits(0x7f7f_0000),
        _ => f32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::WeightFault;
    use snapc_ir::ops::{Add, Cast, Gather, Linear, Silu, TimestepEmbedding};
    use snapc_ir::{LazyTensor, Shape, TensorType, WeightError};

    fn run(to: DType, graph: &Graph) -> Result<Option<Change>, PassError> {
        CastPrecision {
            to,
            ..CastPrecision::default()
        }
        .run(graph, &PassContext::default())
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
        let nodes: Vec<(&str, DType)> = g
            .nodes()
            .iter()
            .map(|n| (n.op.name(), g.ty(n.result).dtype))
            .collect();
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
        let ids = g.input(
            "input_ids",
            TensorType::new(DType::I32, Shape::batched(&[3])),
        );
        let table = g.parameter("table", LazyTensor::from_f32(&[5, 2], &[1.0; 10]));
        let y = g
            .add(
                Gather {
                    axis: 0,
                    batch_dims: 0,
                },
                &[table, ids],
                "y",
            )
            .unwrap();
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
        assert!(matches!(
            problems[3].source,
            WeightFault::NotFinite { index: 1, .. }
        ));
    }

    #[test]
    fn layers_whose_weights_overflow_may_stay() {
        let tensor = |a: f32| LazyTensor::from_f32(&[2], &[a, 0.5]);
        let keeping = CastPrecision {
            overflow: Overflow::Keep,
            ..CastPrecision::default()
        };
        let keep = |g: &Graph| keeping.run(g, &PassContext::default());
        let g = graph_with(&[("small", tensor(1.0)), ("big", tensor(1e6))], &[]);
        let change = keep(&g).unwrap().unwrap();
        let g = &change.graph;
        let weights: Vec<_> = g
            .weights()
            .iter()
            .map(|w| (w.name.as_str(), w.tensor.dtype()))
            .collect();
        assert_eq!(weights, [("small", DType::F16), ("big", DType::F32)]);
        let nodes: Vec<_> = g
            .nodes()
            .iter()
            .map(|n| (n.op.name(), g.ty(n.result).dtype))
            .collect();
        let expected = [
            ("add", DType::F16),
            ("cast", DType::F32),
            ("add", DType::F32),
            ("cast", DType::F16),
            ("silu", DType::F16),
        ];
        assert_eq!(nodes, expected);
        let note = "layers kept in the type they had, since their weights overflow f16: big";
        assert_eq!(change.notes, [note]);
        assert!(keep(g).unwrap().is_none());
        // Infinity is no overflow.
        let constants = [("mask", tensor(f32::NEG_INFINITY))];
        assert!(keep(&graph_with(&[], &constants)).is_err());
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
        let context = PassContext {
            cancelled: &|| true,
            ..PassContext::default()
        };
        let g = graph_with(&[("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]))], &[]);
        let result = CastPrecision::default().run(&g, &context);
        assert!(matches!(result, Err(PassError::Cancelled)));
    }
}
