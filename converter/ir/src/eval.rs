//! The reference evaluator: what a graph means, in f32, one operator after the other.
//!
//! It is the oracle that every pass, kernel and target is tested against; clear rather than fast.

use std::collections::BTreeMap;

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
    trace(graph, inputs, |node, _, result| {
        observer(node.result, result)
    })
}

/// As [`run`], and shows every node with its operands and its result to `observer` when it is made.
///
/// # Errors
/// As [`run`].
pub fn trace(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    mut observer: impl FnMut(&Node, &[&Tensor], &Tensor),
) -> Result<BTreeMap<String, Tensor>, EvalError> {
    let mut evaluation = Evaluation::new(graph, inputs)?;
    for node in graph.nodes() {
        evaluation.step()?;
        let value = |v: &ValueId| get(&evaluation.live, *v);
        let operands: Vec<&Tensor> = node.operands.iter().map(value).collect();
        observer(node, &operands, value(&node.result));
    }
    evaluation.outputs()
}

/// An evaluation that stops after every node, so that values can be looked at and weights replaced on the way.
pub struct Evaluation<'g> {
    graph: &'g Graph,
    live: Vec<Option<Tensor>>,
    /// Uses still to come, by value.
    uses: Vec<usize>,
    /// How many nodes have been evaluated.
    done: usize,
}

impl<'g> Evaluation<'g> {
    /// An evaluation on these inputs, before the first node.
    ///
    /// # Errors
    /// When an input is missing or does not fit its declared type.
    pub fn new(graph: &'g Graph, inputs: &BTreeMap<String, Tensor>) -> Result<Self, EvalError> {
        let mut live = vec![None; graph.values().len()];
        bind_inputs(graph, inputs, &mut live)?;
        Ok(Evaluation {
            graph,
            live,
            uses: graph.use_counts(),
            done: 0,
        })
    }

    /// Evaluates the next node and gives its result; `None` after the last one.
    ///
    /// # Errors
    /// When a weight has no data.
    pub fn step(&mut self) -> Result<Option<(ValueId, &Tensor)>, EvalError> {
        let graph = self.graph;
        let last = self.done.checked_sub(1).map(|i| &graph.nodes()[i]);
        for operand in last.iter().flat_map(|node| &node.operands) {
            self.uses[operand.index()] -= 1;
            if self.uses[operand.index()] == 0 {
                self.live[operand.index()] = None;
            }
        }
        let Some(node) = graph.nodes().get(self.done) else {
            return Ok(None);
        };
        for &operand in &node.operands {
            load_weight(graph, operand, &mut self.live)?;
        }
        let operands: Vec<&Tensor> = node.operands.iter().map(|v| get(&self.live, *v)).collect();
        let mut result = node.op.eval(&operands);
        result.round_to(graph.ty(node.result).dtype);
        self.done += 1;
        let result = self.live[node.result.index()].insert(result);
        Ok(Some((node.result, result)))
    }

    /// A value that has been computed and is still needed. The operands of a node are there until the step after it.
    pub fn value(&self, value: ValueId) -> Option<&Tensor> {
        self.live[value.index()].as_ref()
    }

    /// Uses these elements for a weight from here on.
    ///
    /// # Panics
    /// When the value is no weight of this shape.
    pub fn set_weight(&mut self, value: ValueId, tensor: Tensor) {
        let ty = self.graph.ty(value);
        assert!(matches!(self.graph.value(value).def, ValueDef::Weight(_)));
        assert_eq!(ty.shape, crate::Shape::fixed(&tensor.shape));
        self.live[value.index()] = Some(tensor);
    }

    /// The named outputs, after the last node.
    ///
    /// # Errors
    /// When an output is a weight without data.
    ///
    /// # Panics
    /// Before the last node.
    pub fn outputs(&mut self) -> Result<BTreeMap<String, Tensor>, EvalError> {
        let mut outputs = BTreeMap::new();
        for output in self.graph.outputs() {
            load_weight(self.graph, output.value, &mut self.live)?;
            let tensor = get(&self.live, output.value).clone();
            outputs.insert(output.name.clone(), tensor);
        }
        Ok(outputs)
    }
}

fn get(live: &[Option<Tensor>], value: ValueId) -> &Tensor {
    live[value.index()]
        .as_ref()
        .expect("operands are defined before their uses and freed after the last")
}

fn load_weight(
    graph: &Graph,
    value: ValueId,
    live: &mut [Option<Tensor>],
) -> Result<(), EvalError> {
    if live[value.index()].is_some() || !matches!(graph.value(value).def, ValueDef::Weight(_)) {
        return Ok(());
    }
    if let Some(weight) = graph.weight_of(value) {
        let tensor = weight_tensor(&weight.tensor).map_err(|source| EvalError::Weight {
            graph: graph.name().to_owned(),
            weight: weight.name.clone(),
            source,
        })?;
        live[value.index()] = Some(tensor);
    }
    Ok(())
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
    fn nodes_are_shown_with_their_operands() {
        let x = Tensor::float(&[1, 2], vec![1.0, 2.0]);
        let mut seen = Vec::new();
        trace(
            &graph(),
            &BTreeMap::from([("x".to_owned(), x)]),
            |node, operands, result| {
                let first = operands.iter().map(|t| t.floats()[0]).collect();
                seen.push((node.name.clone(), first, result.floats()[0]));
            },
        )
        .unwrap();
        let expected: [(&str, &[f32], f32); 3] = [
            ("y", &[1.0, 10.0], 10.0),
            ("z", &[10.0, 1.0], 11.0),
            ("h", &[11.0], 11.0),
        ];
        assert_eq!(
            seen,
            expected.map(|(n, o, r)| (n.to_owned(), o.to_vec(), r))
        );
    }

    #[test]
    fn weights_can_be_replaced_between_nodes() {
        let g = graph();
        let x = Tensor::float(&[1, 2], vec![1.0, 2.0]);
        let mut evaluation = Evaluation::new(&g, &BTreeMap::from([("x".to_owned(), x)])).unwrap();
        let w = g.weights()[0].value;
        evaluation.set_weight(w, Tensor::float(&[2], vec![3.0, 4.0]));
        let (y, result) = evaluation.step().unwrap().unwrap();
        assert_eq!(result.floats(), [3.0, 8.0]);
        assert!(evaluation.value(w).is_some(), "operands stay for one step");
        let (_, result) = evaluation.step().unwrap().unwrap();
        assert_eq!(result.floats(), [4.0, 10.0]);
        assert!(evaluation.value(w).is_none() && evaluation.value(y).is_some());
        while evaluation.step().unwrap().is_some() {}
        assert!(evaluation.value(y).is_none());
        assert_eq!(evaluation.outputs().unwrap()["h"].floats(), [4.0, 10.0]);
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
