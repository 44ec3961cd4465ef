//! Graphs as the native engine runs them.

use std::collections::BTreeMap;

use snapc_format::Stage;
use snapc_ir::tensor::Elements;
use snapc_ir::verify::verify;
use snapc_ir::{Graph, Tensor};
use snapc_native::{Activations, Companions, compile};
use snapc_pipeline::{Data, Network, PortType};
use snapc_runtime::{Options, Runtime, RuntimeNetwork};
use snapc_target::{Silent, TargetError};

/// A graph, compiled into a file of its own and opened.
///
/// # Errors
/// When the device has no form for a node.
pub fn network(graph: &Graph, activations: Activations) -> Result<RuntimeNetwork, TargetError> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("graph.snap");
    let stages = [(Stage::Unet, verify(graph).expect("is sound"))];
    compile(&stages, &Companions::default(), activations, &path, &Silent)?;
    let runtime = Runtime::open(&path, &Options::with_threads(1)).expect("opens");
    Ok(runtime.network(Stage::Unet).expect("is there"))
}

/// All outputs by name; integers come as floats.
pub fn run(
    network: &mut RuntimeNetwork,
    batch: usize,
    inputs: &BTreeMap<String, Tensor>,
) -> BTreeMap<String, Vec<f32>> {
    let ports = network.inputs().to_vec();
    let integers: Vec<Vec<i32>> = ports
        .iter()
        .map(|port| match &inputs[&port.name].elements {
            Elements::Int(v) => v.iter().map(|&x| x as i32).collect(),
            Elements::Float(_) => Vec::new(),
        })
        .collect();
    let data: Vec<Data<'_>> = ports
        .iter()
        .zip(&integers)
        .map(|(port, integers)| match port.dtype {
            PortType::F32 => Data::F32(inputs[&port.name].floats()),
            PortType::I32 => Data::I32(integers),
        })
        .collect();
    let ports = network.outputs().to_vec();
    let sizes = ports.iter().map(|p| p.values(batch).expect("fits"));
    let mut results: Vec<Vec<f32>> = sizes.map(|n| vec![f32::NAN; n]).collect();
    let mut outputs: Vec<Option<&mut [f32]>> =
        results.iter_mut().map(|r| Some(r.as_mut_slice())).collect();
    network.run(batch, &data, &mut outputs).expect("runs");
    let names = ports.into_iter().map(|p| p.name);
    names.zip(results).collect()
}
