//! Puts the operands of layers with int8 weights on a grid of 256 values (W8A8).
//!
//! # What it does
//! In front of every convolution and linear layer that it chooses stands a `fake_quantize` on the data operand, one per
//! value however many layers read it; operators that are not chosen read the value as it was. Scale and zero point are one
//! for the whole value: the grid spans what the value took on the calibration inputs, zero included. Weights of chosen
//! layers that are not encoded become `int8`, as by `quantize-weights`. A target with arithmetic in 8 bits then computes
//! such a layer on codes.
//!
//! # When it applies
//! To convolutions and linear layers whose weight is `int8` with a scale per output channel and no zero point, or becomes
//! so; not to layers that `keep` names, nor to those with another encoding. Needs calibration inputs for every graph that
//! it works on, and is refused without.
//!
//! # Options
//! * `graphs`: names of graphs joined by `+`; default `unet`. Text encoders have single channels so large that their other
//!   values share few steps of the grid.
//! * `percentile`: the share of the elements of a calibration input in percent that the grid spans, 99.99; the rest, half
//!   of it at each end, is clipped. 100 spans all.
//! * `keep`: names of layers joined by `+`, as whole parts of their names; default
//!   `conv_in+conv_out+time_embedding+time_emb_proj`.
//! * `min_elements`: layers whose weight has less elements are kept, 2048.
//!
//! # Effect on accuracy
//! Within its span every operand is within half a scale, a 510th of the span. What is lost depends on how
//! the values spread.
//!
//! # Example
//! ```text
//! before: y = conv2d(x, w: f16[320,320,3,3])
//! after:  q = fake_quantize(x) {scale=0.031, zero_point=9}; y = conv2d(q, w: f16[320,320,3,3] int8 [320,1,1,1])
//! ```

mod ranges;

use std::collections::BTreeMap;

use serde::Deserialize;
use snapc_ir::ops::FakeQuantize;
use snapc_ir::{Codebook, Encoding, Graph, Op, ValueDef, ValueId};

use crate::info::Describe;
use crate::name_patterns::{NamePatterns, shortened};
use crate::pass::{Change, Pass, PassContext, PassError, Property};
use crate::quantize_weights::{
    CodeForm, KEPT_BY_DEFAULT, KeepRules, Layer, Selection, encode_all, layers, with_encodings,
};

use self::ranges::Range;

/// See the module documentation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizeActivations {
    /// The graphs whose activations are put on a grid.
    pub graphs: NamePatterns,
    /// The share of the elements that the grid spans, in percent.
    pub percentile: f64,
    /// The layers that are kept.
    pub keep: NamePatterns,
    /// Layers whose weight has less elements are kept.
    pub min_elements: usize,
}

impl Default for QuantizeActivations {
    fn default() -> Self {
        QuantizeActivations {
            graphs: NamePatterns::of(&["unet"]),
            percentile: 99.99,
            keep: NamePatterns::of(&KEPT_BY_DEFAULT),
            min_elements: 2048,
        }
    }
}

impl Describe for QuantizeActivations {
    const NAME: &'static str = "quantize-activations";
    const INVALIDATES: &'static [Property] = &[Property::PlainWeights];
}

impl Pass for QuantizeActivations {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, context: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        if !(self.percentile > 50.0 && self.percentile <= 100.0) {
            let reason = format!(
                "'percentile' is {}, must be above 50 and at most 100",
                self.percentile
            );
            return Err(refused(graph, reason));
        }
        if !self.graphs.mean(graph.name()) {
            return Ok(None);
        }
        let rules = KeepRules {
            keep: &self.keep,
            min_elements: self.min_elements,
            all: false,
        };
        let mut plain = Selection::of(graph, &rules);
        plain
            .chosen
            .retain(|layer| !operands(graph, std::slice::from_ref(layer)).is_empty());
        let encoded: Vec<Layer> = layers(graph)
            .into_iter()
            .filter(|l| self.has_codes(graph, l))
            .collect();
        let values = operands(graph, &[plain.chosen.clone(), encoded].concat());
        if values.is_empty() {
            return Ok(None);
        }
        let samples = context
            .calibration
            .map_or(&[][..], |c| c.samples(graph.name()));
        if samples.is_empty() {
            let reason = "the span of activations is measured on calibration inputs, and there are none for this graph; \
                          give some, or leave the pass out";
            return Err(refused(graph, reason));
        }
        let ranges = ranges::measure(
            Self::NAME,
            graph,
            &values,
            samples,
            self.percentile,
            context,
        )?;
        let forms = vec![CodeForm::Int8; plain.chosen.len()];
        let encodings = encode_all(Self::NAME, graph, &plain.chosen, &forms, context)?;
        let with_codes = with_encodings(graph, &plain.chosen, &encodings)
            .map_err(PassError::build(Self::NAME))?;
        self.insert(&with_codes, &ranges, plain).map(Some)
    }
}

fn refused(graph: &Graph, reason: impl Into<String>) -> PassError {
    PassError::Refused {
        pass: QuantizeActivations::NAME,
        graph: graph.name().to_owned(),
        reason: reason.into(),
    }
}

/// The values that layers read and that are on no grid yet, with the nodes that are to read them from one.
fn operands(graph: &Graph, layers: &[Layer]) -> BTreeMap<ValueId, Vec<usize>> {
    let mut readers: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
    for &position in layers.iter().flat_map(|l| &l.nodes) {
        let data = graph.nodes()[position].operands[0];
        let is_on_grid = graph
            .node_of(data)
            .is_some_and(|n| matches!(n.op, Op::FakeQuantize(_)));
        let is_weight = matches!(graph.value(data).def, ValueDef::Weight(_));
        if !is_on_grid && !is_weight {
            readers.entry(data).or_default().push(position);
        }
    }
    readers
}

/// Whether arithmetic in 8 bits takes the codes: signed, a scale per output channel, zero at zero.
fn is_int8(encoding: &Encoding) -> bool {
    let per_channel = encoding.groups()[1..].iter().all(|&g| g == 1);
    let symmetric =
        matches!(encoding.codebook(), Codebook::Affine { zero_point, .. } if zero_point.is_empty());
    encoding.bits() == 8 && per_channel && symmetric
}

impl QuantizeActivations {
    /// Whether the layer's weight is stored so that its operand is worth a grid.
    fn has_codes(&self, graph: &Graph, layer: &Layer) -> bool {
        let weight = &graph.weights()[layer.weight];
        let mut names = layer.nodes.iter().map(|&n| &graph.nodes()[n].name);
        let is_kept = self.keep.mean(&weight.name) || names.any(|n| self.keep.mean(n));
        let is_small = weight.tensor.elements() < self.min_elements;
        !is_kept && !is_small && weight.tensor.encoding().is_some_and(|e| is_int8(e))
    }

    /// The graph with a grid in front of every reader.
    fn insert(
        &self,
        graph: &Graph,
        ranges: &BTreeMap<ValueId, (Range, Vec<usize>)>,
        plain: Selection,
    ) -> Result<Change, PassError> {
        let mut reads = vec![None; graph.nodes().len()];
        for (&value, (range, readers)) in ranges {
            readers
                .iter()
                .for_each(|&reader| reads[reader] = Some((value, *range)));
        }
        let mut grids: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut position = 0;
        let changed = graph.rebuild(|rebuild, node| {
            let read = reads[position];
            position += 1;
            let Some((value, range)) = read else {
                return rebuild.copy(node).map(Some);
            };
            let mut operands = rebuild.operands(node)?;
            operands[0] = match grids.get(&value) {
                Some(&grid) => grid,
                None => {
                    let op = FakeQuantize {
                        scale: range.scale(),
                        zero_point: range.zero_point(),
                    };
                    let grid = rebuild.graph.add(op, &operands[..1], node.name.clone())?;
                    grids.insert(value, grid);
                    grid
                }
            };
            rebuild
                .graph
                .add(node.op.clone(), &operands, node.name.clone())
                .map(Some)
        });
        let counts = vec![
            ("values on a grid", grids.len()),
            (
                "layers read them",
                ranges.values().map(|(_, readers)| readers.len()).sum(),
            ),
            ("weights encoded", plain.chosen.len()),
        ];
        let mut notes = plain.notes();
        notes.extend(widest(graph, ranges));
        Ok(Change {
            graph: changed.map_err(PassError::build(Self::NAME))?,
            counts,
            notes,
        })
    }
}

/// The coarsest grids, which are where accuracy goes.
fn widest(graph: &Graph, ranges: &BTreeMap<ValueId, (Range, Vec<usize>)>) -> Option<String> {
    let mut all: Vec<(f32, &str)> = ranges
        .values()
        .map(|(range, readers)| (range.scale(), graph.nodes()[readers[0]].name.as_str()))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let named: Vec<String> = all
        .iter()
        .take(5)
        .map(|(scale, name)| format!("{name} {scale:.3}"))
        .collect();
    (!named.is_empty()).then(|| {
        format!(
            "largest steps of a grid, in front of: {}",
            shortened(&named)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Calibration;
    use snapc_ir::ops::{Add, Linear, Silu};
    use snapc_ir::{DType, LazyTensor, Shape, Tensor, TensorType, eval};

    const SIZE: usize = 64;

    fn weight(seed: usize) -> LazyTensor {
        let number = |i: usize| ((i * 37 + seed * 11) % 101) as f32 / 500.0 - 0.1;
        LazyTensor::from_f32(
            &[SIZE, SIZE],
            &(0..SIZE * SIZE).map(number).collect::<Vec<_>>(),
        )
    }

    /// `silu` read by two linear layers and a sum, and a layer of the time path.
    fn graph() -> Graph {
        let mut g = Graph::new("unet");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[SIZE])));
        let h = g.add(Silu {}, &[x], "act").unwrap();
        let mut sum = h;
        for (i, name) in ["to_q", "to_k", "time_emb_proj"].into_iter().enumerate() {
            let w = g.parameter(format!("{name}.weight"), weight(i));
            let y = g.add(Linear {}, &[h, w], name).unwrap();
            sum = g.add(Add {}, &[sum, y], name).unwrap();
        }
        g.output("y", sum);
        g
    }

    fn sample(seed: usize) -> BTreeMap<String, Tensor> {
        let number = |i: usize| ((i * 17 + seed * 29) % 97) as f32 / 12.0 - 4.0;
        let x = Tensor::float(&[2, SIZE], (0..2 * SIZE).map(number).collect());
        BTreeMap::from([("x".to_owned(), x)])
    }

    fn run(pass: &QuantizeActivations, graph: &Graph) -> Option<Change> {
        let mut calibration = Calibration::default();
        calibration.add("unet", sample(0));
        calibration.add("unet", sample(1));
        let context = PassContext {
            calibration: Some(&calibration),
            ..PassContext::default()
        };
        pass.run(graph, &context).unwrap()
    }

    fn all() -> QuantizeActivations {
        QuantizeActivations {
            percentile: 100.0,
            ..QuantizeActivations::default()
        }
    }

    #[test]
    fn one_grid_serves_all_layers_that_read_the_value() {
        let change = run(&all(), &graph()).unwrap();
        let expected = [
            ("values on a grid", 1),
            ("layers read them", 2),
            ("weights encoded", 2),
        ];
        assert_eq!(change.counts, expected);
        let g = &change.graph;
        let ops: Vec<&str> = g.nodes().iter().map(|n| n.op.name()).collect();
        let expected = [
            "silu",
            "fake_quantize",
            "linear",
            "add",
            "linear",
            "add",
            "linear",
            "add",
        ];
        assert_eq!(ops, expected);
        let data = |name: &str| {
            g.nodes()
                .iter()
                .find(|n| n.name == name && n.op.name() == "linear")
                .unwrap()
                .operands[0]
        };
        let (act, grid) = (g.nodes()[0].result, g.nodes()[1].result);
        assert_eq!(
            ["to_q", "to_k", "time_emb_proj"].map(data),
            [grid, grid, act]
        );
        // The sum reads the value as it was.
        assert_eq!(g.nodes()[3].operands[0], act);
        let encoded = g.weights().iter().filter(|w| w.tensor.encoding().is_some());
        assert_eq!(
            encoded.map(|w| w.name.as_str()).collect::<Vec<_>>(),
            ["to_q.weight", "to_k.weight"]
        );
        assert!(run(&all(), g).is_none());
    }

    #[test]
    fn a_calibration_run_stops_between_nodes() {
        let asked = AtomicUsize::new(0);
        let mut calibration = Calibration::default();
        calibration.add("unet", sample(0));
        let context = PassContext {
            calibration: Some(&calibration),
            cancelled: &|| asked.fetch_add(1, Ordering::Relaxed) == 1,
            ..PassContext::default()
        };
        let error = all().run(&graph(), &context).unwrap_err();
        assert!(matches!(error, PassError::Cancelled), "{error}");
        assert!(graph().nodes().len() > 2, "it could have gone on");
        assert_eq!(asked.into_inner(), 2);
    }

    #[test]
    fn the_grid_spans_what_was_seen_and_zero() {
        let g = run(&all(), &graph()).unwrap().graph;
        let Op::FakeQuantize(op) = &g.nodes()[1].op else {
            panic!("a grid follows the activation");
        };
        let mut span = (0.0f32, 0.0f32);
        for seed in [0, 1] {
            eval::observe(&graph(), &sample(seed), |value, result| {
                if value == graph().nodes()[0].result {
                    for &x in result.floats() {
                        span = (span.0.min(x), span.1.max(x));
                    }
                }
            })
            .unwrap();
        }
        assert!((op.scale - (span.1 - span.0) / 255.0).abs() < 1e-7);
        assert_eq!(op.zero_point, (-span.0 / op.scale).round() as usize);
    }

    #[test]
    fn what_is_computed_stays_near() {
        let (before, after) = (graph(), run(&all(), &graph()).unwrap().graph);
        let values = |g: &Graph| eval::run(g, &sample(1)).unwrap()["y"].floats().to_vec();
        let (expected, found) = (values(&before), values(&after));
        let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let error = expected
            .iter()
            .zip(&found)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(
            error > 0.0 && error < 0.01 * largest,
            "{error} of {largest}"
        );
    }

    #[test]
    fn layers_with_other_codes_and_other_graphs_are_left_alone() {
        let palette = "quantize-weights{form=palette4}"
            .parse::<crate::Pipeline>()
            .unwrap();
        let palette = palette.passes()[0]
            .run(&graph(), &PassContext::default())
            .unwrap()
            .unwrap();
        assert!(run(&all(), &palette.graph).is_none());
        let int8 = crate::QuantizeWeights::default();
        let int8 = int8
            .run(&graph(), &PassContext::default())
            .unwrap()
            .unwrap()
            .graph;
        let expected = [
            ("values on a grid", 1),
            ("layers read them", 2),
            ("weights encoded", 0),
        ];
        assert_eq!(run(&all(), &int8).unwrap().counts, expected);
        let other = QuantizeActivations {
            graphs: NamePatterns::of(&["vae_decoder"]),
            ..all()
        };
        assert!(run(&other, &graph()).is_none());
    }

    #[test]
    fn without_calibration_it_is_refused() {
        let error = all()
            .run(&graph(), &PassContext::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("measured on calibration inputs, and there are none"),
            "{error}"
        );
        let pass = QuantizeActivations {
            percentile: 0.0,
            ..all()
        };
        let error = pass
            .run(&graph(), &PassContext::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("'percentile' is 0"), "{error}");
    }
}
