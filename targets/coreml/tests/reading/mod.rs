//! Packages as snapc reads them, evaluated.

#![allow(dead_code, reason = "every test file uses a part")]

use std::path::Path;

use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Graph, Tensor, eval, verify};
use snapc_passes::recognize;

use super::foreign_reader::Tensors;

/// Reads a package, finds the composites, checks the graph, and evaluates it.
pub fn evaluate(package: &Path, inputs: &Tensors) -> Tensors {
    let graph = recognize(&snapc_coreml::read(package).unwrap()).unwrap();
    verify::verify(&graph).unwrap();
    eval::run(&graph, &inputs_of(&graph, inputs)).unwrap()
}

/// The inputs as the graph takes them: whole floats where it has integers.
fn inputs_of(graph: &Graph, inputs: &Tensors) -> Tensors {
    let taken = graph.inputs().iter().map(|input| {
        let given = &inputs[&input.name];
        let value = match (&given.elements, graph.ty(input.value).dtype) {
            (Elements::Float(v), DType::I32) => {
                Tensor::int(&given.shape, v.iter().map(|&x| x as i64).collect())
            }
            _ => given.clone(),
        };
        (input.name.clone(), value)
    });
    taken.collect()
}
