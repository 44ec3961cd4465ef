//! The reference evaluator: what a graph means, in f32, one operator after the other.
//!
//! It is the oracle that every pass, kernel and target is tested against; clear rather than fast.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::graph::{Graph, Node, ValueDef, ValueId};
use crate::tensor::{Elements, Tensor};
use crate::types::{DType, Dim};
use crate::weight::{LazyTensor, WeightError};

/// Why a graph cannot be evaluated.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// An input of the graph is not given.
    #[error("graph '{graph}': input '{input}' is not given")]
    MissingInput {
        /// Graph name.
        graph: String,
        /// Input name.
        input: String,
    },
    /// An input has the wrong shape, the wrong kind of elements, or another batch size than an earlier one.
    #[error("graph '{graph}': input '{input}' must be {expected}, has shape {found:?}")]
    Input {
        /// Graph name.
        graph: String,
        /// Input name.
        input: String,
        /// The declared type.
        expected: String,
        /// The shape given.
        found: Vec<usize>,
    },
    /// The data of a weight cannot be made.
    #[error("graph '{graph}', weight '{weight}': {source}")]
    Weight {
        /// Graph name.
        graph: String,
        /// Weight name.
        weight: String,
        /// What is wrong.
        source: WeightError,
    },
}

/// The elements of a weight as a tensor.
///
/// # Errors
/// When the data cannot be made.
pub fn weight_tensor(weight: &LazyTensor) -> Result<Tensor, WeightError> {
    if weight.dtype().is_float() {
        Ok(Tensor::float(weight.shape(), weight.to_f32()?))
    } else {
        Ok(Tensor::int(weight.shape(), weight.to_i64()?))
    }
}

/// Evaluates a graph on named inputs and gives its named outputs. Every result is rounded to the element type that the
/// graph states for it. The batch size is that of the inputs.
///
/// # Errors
/// When an input is missing or does not fit its declared type, or a weight has no data.
pub fn run(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, EvalError> {
    observe(graph, inputs, |_, _| {})
}

/// As [`run`], and shows every node's result to `observer` when it is made.
///
/// # Errors
/// As [`run`].
pub fn observe(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    mut observer: impl FnMut(ValueId, &Tensor),
) -> Result<BTreeMap<String, Tensor>, EvalError> {
    let mut evaluation = Evaluation::new(graph, std::slice::from_ref(inputs))?;
    while let Some(node) = evaluation.step()? {
        observer(node.result, evaluation.get(0, node.result));
    }
    Ok(evaluation.outputs()?.remove(0))
}

/// Evaluations of a graph on some samples of its inputs, one node at a time on all of them in parallel, so that every weight
/// is made once, values can be looked at and weights replaced on the way. The values of all samples are held together.
pub struct Evaluation<'g> {
    graph: &'g Graph,
    /// The weights that the last node uses or that were set, by value.
    weights: Vec<Option<Tensor>>,
    /// By sample and value.
    live: Vec<Vec<Option<Tensor>>>,
    /// Uses still to come, by value.
    uses: Vec<usize>,
    /// How many nodes have been evaluated.
    done: usize,
}

impl<'g> Evaluation<'g> {
    /// Evaluations on these samples, before the first node. They may differ in their batch sizes.
    ///
    /// # Errors
    /// When an input is missing or does not fit its declared type.
    pub fn new(graph: &'g Graph, samples: &[BTreeMap<String, Tensor>]) -> Result<Self, EvalError> {
        let values = graph.values().len();
        let mut live = vec![vec![None; values]; samples.len()];
        for (inputs, live) in samples.iter().zip(&mut live) {
            bind_inputs(graph, inputs, live)?;
        }
        Ok(Evaluation {
            graph,
            weights: vec![None; values],
            live,
            uses: graph.use_counts(),
            done: 0,
        })
    }

    /// Evaluates the next node on every sample and gives it; `None` after the last one.
    ///
    /// # Errors
    /// When a weight has no data.
    pub fn step(&mut self) -> Result<Option<&'g Node>, EvalError> {
        let graph = self.graph;
        let last = self.done.checked_sub(1).map(|i| &graph.nodes()[i]);
        for operand in last.iter().flat_map(|node| &node.operands) {
            let i = operand.index();
            self.uses[i] -= 1;
            if self.uses[i] == 0 {
                self.weights[i] = None;
                self.live.iter_mut().for_each(|live| live[i] = None);
            }
        }
        let Some(node) = graph.nodes().get(self.done) else {
            return Ok(None);
        };
        for &operand in &node.operands {
            self.load(operand)?;
        }
        let results = (0..self.live.len()).into_par_iter().map(|sample| {
            let mut result = node.op.eval(&self.operands(sample, node));
            result.round_to(graph.ty(node.result).dtype);
            result
        });
        let results: Vec<Tensor> = results.collect();
        for (live, result) in self.live.iter_mut().zip(results) {
            live[node.result.index()] = Some(result);
        }
        self.done += 1;
        Ok(Some(node))
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.live.len()
    }

    /// Goes on with the first `samples` samples only, where there are more.
    pub fn truncate(&mut self, samples: usize) {
        self.live.truncate(samples);
    }

    /// A value of a sample that has been computed and is still needed. The operands of a node are there until the step after
    /// it.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn value(&self, sample: usize, value: ValueId) -> Option<&Tensor> {
        let i = value.index();
        self.live[sample][i].as_ref().or(self.weights[i].as_ref())
    }

    /// Whether a value has been computed and is still needed.
    pub fn is_known(&self, value: ValueId) -> bool {
        self.weights[value.index()].is_some()
            || self.live.iter().all(|live| live[value.index()].is_some())
    }

    /// The operands of the node that was evaluated last.
    ///
    /// # Panics
    /// When it was another node, or there is no such sample.
    pub fn operands(&self, sample: usize, node: &Node) -> Vec<&Tensor> {
        let operands = node.operands.iter();
        operands.map(|&v| self.get(sample, v)).collect()
    }

    /// The result of the node that was evaluated last.
    ///
    /// # Panics
    /// When it was another node, or there is no such sample.
    pub fn result(&self, sample: usize, node: &Node) -> &Tensor {
        self.get(sample, node.result)
    }

    /// Uses these elements for a weight from here on.
    ///
    /// # Panics
    /// When the value is no weight of this shape.
    pub fn set_weight(&mut self, value: ValueId, tensor: Tensor) {
        let ty = self.graph.ty(value);
        assert!(matches!(self.graph.value(value).def, ValueDef::Weight(_)));
        assert_eq!(ty.shape, crate::Shape::fixed(&tensor.shape));
        self.weights[value.index()] = Some(tensor);
    }

    /// The named outputs of every sample, after the last node.
    ///
    /// # Errors
    /// When an output is a weight without data.
    ///
    /// # Panics
    /// Before the last node.
    pub fn outputs(&mut self) -> Result<Vec<BTreeMap<String, Tensor>>, EvalError> {
        for output in self.graph.outputs() {
            self.load(output.value)?;
        }
        let outputs = |sample| {
            let outputs = self.graph.outputs().iter();
            outputs
                .map(|o| (o.name.clone(), self.get(sample, o.value).clone()))
                .collect()
        };
        Ok((0..self.live.len()).map(outputs).collect())
    }

    fn get(&self, sample: usize, value: ValueId) -> &Tensor {
        self.value(sample, value)
            .expect("operands are defined before their uses and freed after the last")
    }

    /// Makes a weight that is not there; does nothing to other values.
    fn load(&mut self, value: ValueId) -> Result<(), EvalError> {
        let Some(weight) = self.graph.weight_of(value) else {
            return Ok(());
        };
        let slot = &mut self.weights[value.index()];
        if slot.is_none() {
            let tensor = weight_tensor(&weight.tensor).map_err(|source| EvalError::Weight {
                graph: self.graph.name().to_owned(),
                weight: weight.name.clone(),
                source,
            })?;
            *slot = Some(tensor);
        }
        Ok(())
    }
}

fn bind_inputs(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    live: &mut [Option<Tensor>],
) -> Result<(), EvalError> {
    let mut batch = None;
    for input in graph.inputs() {
        let ty = graph.ty(input.value);
        let tensor = inputs
            .get(&input.name)
            .ok_or_else(|| EvalError::MissingInput {
                graph: graph.name().to_owned(),
                input: input.name.clone(),
            })?;
        let is_float = matches!(tensor.elements, Elements::Float(_));
        let dims = ty.shape.dims();
        let fits = is_float == ty.dtype.is_float()
            && dims.len() == tensor.shape.len()
            && dims.iter().zip(&tensor.shape).all(|(d, &n)| match d {
                Dim::Fixed(f) => *f == n,
                Dim::Batch => *batch.get_or_insert(n) == n,
            });
        if !fits {
            return Err(EvalError::Input {
                graph: graph.name().to_owned(),
                input: input.name.clone(),
                expected: ty.to_string(),
                found: tensor.shape.clone(),
            });
        }
        let mut tensor = tensor.clone();
        if ty.dtype != DType::F32 {
            tensor.round_to(ty.dtype);
        }
        live[input.value.index()] = Some(tensor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Add, Cast, Mul};
    use crate::{Shape, TensorType};

    fn graph() -> Graph {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        let w = g.parameter("w", LazyTensor::from_f32(&[2], &[10.0, 100.0]));
        let y = g.add(Mul {}, &[x, w], "y").unwrap();
        let z = g.add(Add {}, &[y, x], "z").unwrap();
        let h = g.add(Cast { to: DType::F16 }, &[z], "h").unwrap();
        g.output("z", z);
        g.output("h", h);
        g
    }

    #[test]
    fn values_flow_and_are_rounded() {
        let x = Tensor::float(&[1, 2], vec![1.0, 20.31]);
        let out = run(&graph(), &BTreeMap::from([("x".to_owned(), x)])).unwrap();
        // 20.31 * 101 = 2051.31; the f16 grid has step 2 there.
        assert_eq!(out["h"].floats(), [11.0, 2052.0]);
        assert!((out["z"].floats()[1] - 2051.31).abs() < 1e-3);
    }

    #[test]
    fn every_node_is_seen_with_its_operands_on_every_sample() {
        let g = graph();
        let sample = |a, b| BTreeMap::from([("x".to_owned(), Tensor::float(&[1, 2], vec![a, b]))]);
        let samples = [sample(1.0, 2.0), sample(4.0, 3.0)];
        let mut evaluation = Evaluation::new(&g, &samples).unwrap();
        let mut seen = Vec::new();
        while let Some(node) = evaluation.step().unwrap() {
            for sample in 0..evaluation.samples() {
                let operands = evaluation.operands(sample, node);
                let first: Vec<f32> = operands.iter().map(|t| t.floats()[0]).collect();
                let result = evaluation.result(sample, node).floats()[0];
                seen.push((node.name.as_str(), sample, first, result));
            }
        }
        let expected = [
            ("y", 0, vec![1.0, 10.0], 10.0),
            ("y", 1, vec![4.0, 10.0], 40.0),
            ("z", 0, vec![10.0, 1.0], 11.0),
            ("z", 1, vec![40.0, 4.0], 44.0),
            ("h", 0, vec![11.0], 11.0),
            ("h", 1, vec![44.0], 44.0),
        ];
        assert_eq!(seen, expected);
        let outputs = evaluation.outputs().unwrap();
        assert_eq!(outputs[1]["z"].floats(), [44.0, 303.0]);
    }

    #[test]
    fn weights_can_be_replaced_between_nodes() {
        let g = graph();
        let x = Tensor::float(&[1, 2], vec![1.0, 2.0]);
        let samples = [BTreeMap::from([("x".to_owned(), x)])];
        let mut evaluation = Evaluation::new(&g, &samples).unwrap();
        let w = g.weights()[0].value;
        evaluation.set_weight(w, Tensor::float(&[2], vec![3.0, 4.0]));
        let y = evaluation.step().unwrap().unwrap();
        assert_eq!(evaluation.result(0, y).floats(), [3.0, 8.0]);
        assert!(
            evaluation.value(0, w).is_some(),
            "operands stay for one step"
        );
        let z = evaluation.step().unwrap().unwrap();
        assert_eq!(evaluation.result(0, z).floats(), [4.0, 10.0]);
        assert!(evaluation.value(0, w).is_none() && evaluation.value(0, y.result).is_some());
        while evaluation.step().unwrap().is_some() {}
        assert!(evaluation.value(0, y.result).is_none());
        assert_eq!(evaluation.outputs().unwrap()[0]["h"].floats(), [4.0, 10.0]);
    }

    #[test]
    fn wrong_inputs_are_named() {
        let g = graph();
        let missing = run(&g, &BTreeMap::new()).unwrap_err().to_string();
        assert!(missing.contains("input 'x'"), "{missing}");
        let x = Tensor::float(&[3], vec![0.0; 3]);
        let wrong = run(&g, &BTreeMap::from([("x".to_owned(), x)])).unwrap_err();
        assert!(wrong.to_string().contains("must be f32[N,2]"), "{wrong}");
    }
}
