//! The reference evaluator as an engine: what a graph means, computed in f32 one operator after the other.

use std::collections::BTreeMap;

use snapc_ir::eval::{self, EvalError};
use snapc_ir::tensor::{Elements, Tensor};
use snapc_ir::{Dim, Graph, Node, TensorType};
use snapc_pipeline::{Data, Network, Port, PortType};

/// A graph as a network.
#[derive(Clone, Debug)]
pub struct EvaluatorNetwork {
    graph: Graph,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// Why a graph could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    /// The evaluator's own reason.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The caller's slices do not fit the graph.
    #[error("graph '{graph}': {port} does not take {found} values at batch {batch}")]
    Values {
        /// Graph name.
        graph: String,
        /// The input or output.
        port: String,
        /// Batch of the call.
        batch: usize,
        /// Values given.
        found: usize,
    },
}

impl EvaluatorNetwork {
    /// The network of a graph.
    pub fn new(graph: Graph) -> Self {
        let inputs = graph.inputs().iter().map(|i| (&i.name, i.value));
        let outputs = graph.outputs().iter().map(|o| (&o.name, o.value));
        EvaluatorNetwork {
            inputs: inputs.map(|(name, v)| port(name, graph.ty(v))).collect(),
            outputs: outputs.map(|(name, v)| port(name, graph.ty(v))).collect(),
            graph,
        }
    }

    /// As [`Network::run`], and shows every node's result to `observer` when it is made.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn run_observed(
        &self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
        mut observer: impl FnMut(&Node, &Tensor),
    ) -> Result<(), EvaluatorError> {
        let mut tensors = BTreeMap::new();
        for (port, data) in self.inputs.iter().zip(inputs) {
            tensors.insert(port.name.clone(), self.tensor(port, batch, data)?);
        }
        for (port, wanted) in self.outputs.iter().zip(outputs.iter()) {
            if let Some(slice) = wanted {
                self.check(port, batch, slice.len())?;
            }
        }
        let nodes = self.graph.nodes().iter();
        let mut nodes = nodes.peekable();
        let results = eval::observe(&self.graph, &tensors, |value, tensor| {
            // Results come in the order of the nodes.
            if let Some(node) = nodes.next_if(|node| node.result == value) {
                observer(node, tensor);
            }
        })?;
        for (port, wanted) in self.outputs.iter().zip(outputs) {
            if let (Some(slice), Some(result)) = (wanted, results.get(&port.name)) {
                copy(&result.elements, slice);
            }
        }
        Ok(())
    }

    fn tensor(&self, port: &Port, batch: usize, data: &Data<'_>) -> Result<Tensor, EvaluatorError> {
        self.check(port, batch, data.len())?;
        let shape: Vec<usize> = port.dims.iter().map(|d| d.unwrap_or(batch)).collect();
        Ok(match (data, port.dtype) {
            (Data::F32(values), PortType::F32) => Tensor::float(&shape, values.to_vec()),
            (Data::I32(values), PortType::I32) => {
                Tensor::int(&shape, values.iter().map(|&v| i64::from(v)).collect())
            }
            // The evaluator refuses the wrong kind of elements with the input's name.
            (Data::F32(values), PortType::I32) => Tensor::float(&shape, values.to_vec()),
            (Data::I32(values), PortType::F32) => {
                Tensor::int(&shape, values.iter().map(|&v| i64::from(v)).collect())
            }
        })
    }

    fn check(&self, port: &Port, batch: usize, found: usize) -> Result<(), EvaluatorError> {
        if port.values(batch) == Some(found) {
            return Ok(());
        }
        Err(EvaluatorError::Values {
            graph: self.graph.name().to_owned(),
            port: port.to_string(),
            batch,
            found,
        })
    }
}

impl Network for EvaluatorNetwork {
    type Error = EvaluatorError;

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), EvaluatorError> {
        self.run_observed(batch, inputs, outputs, |_, _| ())
    }
}

fn copy(elements: &Elements, slice: &mut [f32]) {
    match elements {
        Elements::Float(values) => slice.copy_from_slice(values),
        Elements::Int(values) => {
            for (to, from) in slice.iter_mut().zip(values) {
                *to = *from as f32;
            }
        }
    }
}

fn port(name: &str, ty: &TensorType) -> Port {
    let dims = ty.shape.dims().iter().map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Batch => None,
    });
    let dtype = if ty.dtype.is_float() {
        PortType::F32
    } else {
        PortType::I32
    };
    Port::new(name, dtype, &dims.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::Add;
    use snapc_ir::{DType, LazyTensor, Shape};

    fn network() -> EvaluatorNetwork {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        let w = g.parameter("w", LazyTensor::from_f32(&[2], &[10.0, 100.0]));
        let y = g.add(Add {}, &[x, w], "y").unwrap();
        g.output("y", y);
        EvaluatorNetwork::new(g)
    }

    #[test]
    fn a_graph_runs_at_any_batch() {
        let mut network = network();
        assert_eq!(network.inputs()[0].dims, [None, Some(2)]);
        let mut y = [0.0; 4];
        network
            .run(2, &[Data::F32(&[1.0, 2.0, 3.0, 4.0])], &mut [Some(&mut y)])
            .unwrap();
        assert_eq!(y, [11.0, 102.0, 13.0, 104.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut network = network();
        let error = |network: &mut EvaluatorNetwork, data, y: &mut [f32]| {
            let ran = network.run(1, &[data], &mut [Some(y)]);
            ran.unwrap_err().to_string()
        };
        let text = error(&mut network, Data::F32(&[1.0]), &mut [0.0; 2]);
        assert!(text.contains("'x'") && text.contains("1 values"), "{text}");
        let text = error(&mut network, Data::I32(&[1, 2]), &mut [0.0; 2]);
        assert!(text.contains("input 'x' must be f32"), "{text}");
        let text = error(&mut network, Data::F32(&[1.0, 2.0]), &mut [0.0; 3]);
        assert!(text.contains("'y'"), "{text}");
    }
}
