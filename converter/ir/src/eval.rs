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
    let mut live: Vec<Option<Tensor>> = vec![None; graph.values().len()];
    bind_inputs(graph, inputs, &mut live)?;
    let mut uses = graph.use_counts();
    for node in graph.nodes() {
        for &operand in &node.operands {
            load_weight(graph, operand, &mut live)?;
        }
        let operands: Vec<&Tensor> = node.operands.iter().map(|v| get(&live, *v)).collect();
        let mut result = node.op.eval(&operands);
        result.round_to(graph.ty(node.result).dtype);
        observer(node, &operands, &result);
        live[node.result.index()] = Some(result);
        for &operand in &node.operands {
            uses[operand.index()] -= 1;
            if uses[operand.index()] == 0 {
                live[operand.index()] = None;
            }
        }
    }
    let mut outputs = BTreeMap::new();
    for output in graph.outputs() {
        load_weight(graph, output.value, &mut live)?;
        outputs.insert(output.name.clone(), get(&live, output.value).clone());
    }
    Ok(outputs)
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
    fn wrong_inputs_are_named() {
        let g = graph();
        let missing = run(&g, &BTreeMap::new()).unwrap_err().to_string();
        assert!(missing.contains("input 'x'"), "{missing}");
        let x = Tensor::float(&[3], vec![0.0; 3]);
        let wrong = run(&g, &BTreeMap::from([("x".to_owned(), x)])).unwrap_err();
        assert!(wrong.to_string().contains("must be f32[N,2]"), "{wrong}");
    }
}
