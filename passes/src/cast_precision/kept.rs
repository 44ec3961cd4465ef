//! Which nodes and values keep their type, and why.

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::ops::Attention;
use snapc_ir::{DType, Graph, Op, Tensor, ValueId};

use super::{CastPrecision, largest};
use crate::info::Describe;
use crate::name_patterns::shortened;
use crate::pass::{PassContext, PassError};

/// Which nodes and values keep their type.
pub(super) struct Kept {
    /// By node: computed in the type it had.
    nodes: Vec<bool>,
    /// By value: keeps its type.
    values: Vec<bool>,
    /// By value: too large for the narrow type.
    too_large: Vec<bool>,
    /// By value: read, or given out, in the narrow type.
    cast_for_some: Vec<bool>,
    by_name: BTreeSet<String>,
    by_size: BTreeMap<String, f32>,
    by_weight: BTreeSet<String>,
}

impl Kept {
    /// Only what timestep embeddings are computed from.
    pub(super) fn exact(graph: &Graph, exact: Vec<bool>) -> Self {
        let nodes = graph.nodes().iter().map(|n| exact[n.result.index()]);
        Kept {
            nodes: nodes.collect(),
            too_large: vec![false; exact.len()],
            cast_for_some: exact.iter().map(|exact| !exact).collect(),
            values: exact,
            by_name: BTreeSet::new(),
            by_size: BTreeMap::new(),
            by_weight: BTreeSet::new(),
        }
    }

    /// That, what the options name, and what the calibration inputs show to be too large.
    ///
    /// # Errors
    /// When the graph cannot be run on the calibration inputs.
    pub(super) fn find(
        pass: &CastPrecision,
        graph: &Graph,
        exact: Vec<bool>,
        context: &PassContext<'_>,
    ) -> Result<Self, PassError> {
        let mut kept = Kept::exact(graph, exact);
        for (node, keeps) in graph.nodes().iter().zip(&mut kept.nodes) {
            if pass.keep.mean(&node.name) && !*keeps {
                *keeps = true;
                kept.by_name.insert(node.name.clone());
            }
        }
        let samples = context
            .calibration
            .map_or(&[][..], |c| c.samples(graph.name()));
        if pass.to != DType::F32 && !samples.is_empty() {
            let limit = pass.margin * largest(pass.to);
            kept.add_too_large(graph, samples, limit, context)?;
        }
        kept.settle(graph);
        Ok(kept)
    }

    /// Keeps the nodes that use some weights, given by their positions.
    pub(super) fn add_users(&mut self, graph: &Graph, weights: &[usize]) {
        if weights.is_empty() {
            return;
        }
        let values: BTreeSet<ValueId> = weights.iter().map(|&w| graph.weights()[w].value).collect();
        for (node, keeps) in graph.nodes().iter().zip(&mut self.nodes) {
            *keeps |= node.operands.iter().any(|v| values.contains(v));
        }
        self.by_weight
            .extend(weights.iter().map(|&w| graph.weights()[w].name.clone()));
        self.settle(graph);
    }

    /// Whether the value keeps its type.
    pub(super) fn stays(&self, value: ValueId) -> bool {
        self.values[value.index()]
    }

    /// Whether the value is needed in the narrow type.
    pub(super) fn is_cast_for_some(&self, value: ValueId) -> bool {
        self.cast_for_some[value.index()]
    }

    /// Whether the value does not fit the narrow type on the calibration inputs.
    pub(super) fn is_too_large(&self, value: ValueId) -> bool {
        self.too_large[value.index()]
    }

    /// Whether the node at this position computes in the type it had.
    pub(super) fn computes_as_before(&self, node: usize) -> bool {
        self.nodes[node]
    }

    fn add_too_large(
        &mut self,
        graph: &Graph,
        samples: &[BTreeMap<String, Tensor>],
        limit: f32,
        context: &PassContext<'_>,
    ) -> Result<(), PassError> {
        let mut found = vec![0.0f32; graph.values().len()];
        let mut inside: BTreeMap<ValueId, f32> = BTreeMap::new();
        context.trace(CastPrecision::NAME, graph, samples, |node, evaluation| {
            for sample in 0..evaluation.samples() {
                let slot = &mut found[node.result.index()];
                *slot = slot.max(magnitude(evaluation.result(sample, node)));
                if let Op::Attention(op) = &node.op {
                    let logit = inside.entry(node.result).or_default();
                    *logit = logit.max(largest_logit(op, &evaluation.operands(sample, node)));
                }
            }
            Ok(())
        })?;
        for input in graph.inputs() {
            let slot = &mut found[input.value.index()];
            let sizes = samples.iter().map(|sample| magnitude(&sample[&input.name]));
            *slot = sizes.fold(*slot, f32::max);
        }
        for (i, &size) in found.iter().enumerate() {
            self.too_large[i] = size > limit && graph.values()[i].ty.dtype.is_float();
        }
        for (position, node) in graph.nodes().iter().enumerate() {
            let values = node.operands.iter().chain([&node.result]);
            let large = values
                .filter(|v| self.too_large[v.index()])
                .map(|v| found[v.index()]);
            let logit = inside.get(&node.result).copied().filter(|&l| l > limit);
            let Some(size) = large.chain(logit).reduce(f32::max) else {
                continue;
            };
            if !std::mem::replace(&mut self.nodes[position], true) {
                let most = self.by_size.entry(node.name.clone()).or_default();
                *most = most.max(size);
            }
        }
        Ok(())
    }

    /// What follows for values: results of kept nodes, weights that they use, inputs that are too large. A cast that
    /// only kept nodes read is one of them.
    fn settle(&mut self, graph: &Graph) {
        let mut others = vec![false; graph.values().len()];
        let mut kept = others.clone();
        for output in graph.outputs() {
            others[output.value.index()] = true;
        }
        for (position, node) in graph.nodes().iter().enumerate().rev() {
            let is_cast = matches!(&node.op, Op::Cast(op) if op.to.is_float());
            let result = node.result.index();
            if is_cast && kept[result] && !others[result] {
                self.nodes[position] = true;
            }
            let readers = if self.nodes[position] {
                &mut kept
            } else {
                &mut others
            };
            for operand in &node.operands {
                readers[operand.index()] = true;
            }
            self.values[result] |= self.nodes[position];
        }
        for weight in graph.weights() {
            let value = weight.value.index();
            self.values[value] |= kept[value];
        }
        self.cast_for_some = others;
        for input in graph.inputs() {
            self.values[input.value.index()] |= self.too_large[input.value.index()];
        }
    }

    /// What is kept and why.
    pub(super) fn notes(&self, graph: &Graph, to: DType) -> Vec<String> {
        let mut notes = Vec::new();
        let list = |names: &BTreeSet<String>| shortened(&names.iter().cloned().collect::<Vec<_>>());
        if !self.by_name.is_empty() {
            notes.push(format!(
                "kept in the type they had, as 'keep' says: {}",
                list(&self.by_name)
            ));
        }
        if !self.by_weight.is_empty() {
            let names = list(&self.by_weight);
            notes.push(format!(
                "layers kept in the type they had, since their weights overflow {to}: {names}"
            ));
        }
        if !self.by_size.is_empty() {
            let mut largest: Vec<(&String, &f32)> = self.by_size.iter().collect();
            largest.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(b.0)));
            let named = largest
                .iter()
                .map(|(name, size)| format!("{name} {size:.4e}"));
            let named = shortened(&named.collect::<Vec<_>>());
            notes.push(format!(
                "kept in the type they had, since values come near the end of {to} on the calibration inputs: {named}"
            ));
        }
        let outputs = graph
            .outputs()
            .iter()
            .filter(|o| self.is_too_large(o.value));
        notes.extend(outputs.map(|o| {
            format!(
                "output '{}' is too large for {to} and keeps its type",
                o.name
            )
        }));
        notes
    }
}

/// The largest magnitude of a tensor; infinite when an element is not a number.
fn magnitude(tensor: &Tensor) -> f32 {
    let snapc_ir::tensor::Elements::Float(values) = &tensor.elements else {
        return 0.0;
    };
    let largest = values
        .iter()
        .map(|x| x.to_bits() & 0x7fff_ffff)
        .max()
        .unwrap_or(0);
    let largest = f32::from_bits(largest);
    if largest.is_nan() {
        f32::INFINITY
    } else {
        largest
    }
}

/// A bound of the logits `scale · q · kᵀ` that a target may store: by Cauchy and Schwarz no product of two rows is larger
/// than that of their norms.
fn largest_logit(op: &Attention, operands: &[&Tensor]) -> f32 {
    let norms = |tensor: &Tensor| {
        let channels = tensor.shape[tensor.shape.len() - 1];
        let depth = (channels / op.heads).max(1);
        let squares = tensor
            .floats()
            .chunks(depth)
            .map(|row| row.iter().map(|x| x * x).sum::<f32>());
        squares.fold(0.0, f32::max).sqrt()
    };
    op.scale.abs() * norms(operands[0]) * norms(operands[1])
}

#[cfg(test)]
mod tests {
    use snapc_ir::ops::{Mul, Silu};
    use snapc_ir::{LazyTensor, Shape, TensorType, eval};

    use super::*;
    use crate::Calibration;
    use crate::name_patterns::NamePatterns;
    use crate::pass::{Change, Pass};

    /// `act(down(up(x)))`, where `up` is a factor of 300 and `down` one of a hundredth.
    fn graph() -> Graph {
        let mut g = Graph::new("unet");
        let mut y = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        for (name, factor) in [("up", 300.0), ("down", 0.01)] {
            let w = g.parameter(
                format!("{name}.weight"),
                LazyTensor::from_f32(&[2], &[factor; 2]),
            );
            y = g.add(Mul {}, &[y, w], name).unwrap();
        }
        y = g.add(Silu {}, &[y], "act").unwrap();
        g.output("y", y);
        g
    }

    fn sample(x: f32) -> BTreeMap<String, Tensor> {
        BTreeMap::from([("x".to_owned(), Tensor::float(&[1, 2], vec![x, 1.0]))])
    }

    fn run(
        pass: &CastPrecision,
        graph: &Graph,
        samples: &[BTreeMap<String, Tensor>],
    ) -> Option<Change> {
        let mut calibration = Calibration::default();
        samples
            .iter()
            .for_each(|s| calibration.add("unet", s.clone()));
        let context = PassContext {
            calibration: Some(&calibration),
            ..PassContext::default()
        };
        pass.run(graph, &context).unwrap()
    }

    fn nodes(graph: &Graph) -> Vec<(&str, &str, DType)> {
        let node = |n: &'_ snapc_ir::Node| graph.ty(n.result).dtype;
        graph
            .nodes()
            .iter()
            .map(|n| (n.name.as_str(), n.op.name(), node(n)))
            .collect()
    }

    #[test]
    fn what_calibration_shows_to_overflow_stays_and_what_reads_it() {
        let pass = CastPrecision::default();
        let samples = [sample(1.0), sample(250.0)];
        let change = run(&pass, &graph(), &samples).unwrap();
        let expected = [
            ("up", "cast", DType::F32),
            ("up", "mul", DType::F32),
            ("down", "mul", DType::F32),
            ("down", "cast", DType::F16),
            ("act", "silu", DType::F16),
        ];
        assert_eq!(nodes(&change.graph), expected);
        let note = "kept in the type they had, since values come near the end of f16 on the calibration inputs: \
                    down 7.5000e4, up 7.5000e4";
        assert_eq!(change.notes, [note]);
        assert!(run(&pass, &change.graph, &samples).is_none());
        let value = |g: &Graph| eval::run(g, &sample(250.0)).unwrap()["y"].floats()[0];
        assert!(
            (value(&change.graph) - value(&graph())).abs() < 0.5,
            "750 in steps of a half"
        );
        let all_narrow = run(&pass, &graph(), &[]).unwrap().graph;
        assert!(!value(&all_narrow).is_finite());
    }

    #[test]
    fn the_margin_is_a_share_of_the_largest_value() {
        let narrow = |margin: f32, x: f32| {
            let pass = CastPrecision {
                margin,
                ..CastPrecision::default()
            };
            let change = run(&pass, &graph(), &[sample(x)]).unwrap();
            change.notes.is_empty()
        };
        // 300 · 109 = 32700, and half of 65504 is 32752.
        assert!(narrow(0.5, 109.0) && !narrow(0.5, 110.0));
        assert!(narrow(1.0, 218.0) && !narrow(1.0, 219.0));
    }

    #[test]
    fn inputs_and_outputs_that_are_too_large_keep_their_type() {
        let mut g = Graph::new("unet");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        let y = g.add(Silu {}, &[x], "act").unwrap();
        g.output("y", y);
        let pass = CastPrecision::default();
        // Silu keeps a large number as it is.
        assert!(run(&pass, &g, &[sample(1e5)]).is_none());
        let change = run(&pass, &g, &[sample(-1e5)]).unwrap();
        let expected = [("act", "silu", DType::F32), ("act", "cast", DType::F16)];
        assert_eq!(nodes(&change.graph), expected);
        assert_eq!(
            change.graph.ty(change.graph.inputs()[0].value).dtype,
            DType::F32
        );
    }

    #[test]
    fn layers_stay_by_name() {
        let pass = CastPrecision {
            keep: NamePatterns::of(&["down"]),
            ..CastPrecision::default()
        };
        let change = run(&pass, &graph(), &[]).unwrap();
        let expected = [
            ("up", "mul", DType::F16),
            ("down", "cast", DType::F32),
            ("down", "mul", DType::F32),
            ("down", "cast", DType::F16),
            ("act", "silu", DType::F16),
        ];
        assert_eq!(nodes(&change.graph), expected);
        let weights = change.graph.weights().iter().map(|w| w.tensor.dtype());
        assert_eq!(weights.collect::<Vec<_>>(), [DType::F16, DType::F32]);
        assert!(run(&pass, &change.graph, &[]).is_none());
    }

    #[test]
    fn logits_of_attention_are_bounded_by_norms() {
        let tensor = |v: &[f32]| Tensor::float(&[1, 2, 4], v.to_vec());
        let q = tensor(&[3.0, 4.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0]);
        let k = tensor(&[1.0, 0.0, 6.0, 8.0, 0.0, 0.0, 0.0, 1.0]);
        let op = Attention {
            heads: 2,
            scale: 0.5,
        };
        // Halves of rows: norms 5 and 10.
        assert_eq!(largest_logit(&op, &[&q, &k, &k]), 25.0);
        let mut g = Graph::new("unet");
        let ty = TensorType::new(DType::F32, Shape::fixed(&[1, 2, 4]));
        let [x, y] = ["q", "k"].map(|name| g.input(name, ty.clone()));
        let a = g
            .add(
                Attention {
                    heads: 2,
                    scale: 2000.0,
                },
                &[x, y, y],
                "attn",
            )
            .unwrap();
        g.output("y", a);
        let sample = BTreeMap::from([("q".to_owned(), q), ("k".to_owned(), k)]);
        let change = run(&CastPrecision::default(), &g, &[sample]).unwrap();
        assert!(nodes(&change.graph).contains(&("attn", "attention", DType::F32)));
    }
}
