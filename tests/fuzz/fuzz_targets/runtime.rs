//! The native engine: any program that decodes and is small runs on any weights, or is refused.

#![no_main]

use std::io::Cursor;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
// For its bound on memory.
use snapc_format::{Container, DType, Plan, TensorPlan};
use snapc_fuzz as _;
use snapc_pipeline::{Data, Network, Port, PortType};
use snapc_program::{Program, Storage, Weight};
use snapc_runtime::{Options, Runtime};

/// Bytes of a weight or of all values; larger programs are not run.
const MAX_BYTES: u64 = 1 << 15;
/// Bytes of the weights of a program.
const MAX_WEIGHTS: u64 = 1 << 17;
/// A program with more instructions takes too long under a fuzzer.
const MAX_INSTRUCTIONS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Ok(program) = Program::decode(input) else {
        return;
    };
    let Some(file) = container(&program, input) else {
        return;
    };
    let runtime = Runtime::from_container("input.snap", file, &Options::with_threads(1));
    let runtime = runtime.expect("the file has what the program reads");
    for stage in runtime.stages() {
        let mut network = runtime.network(stage).expect("it is listed");
        for batch in [1, 2] {
            let arena = network.arena_bytes(batch);
            if arena.is_ok_and(|bytes| bytes as u64 <= MAX_BYTES) {
                run(&mut network, batch);
            }
        }
    }
});

/// A file with a program and every weight that it reads; `None` when that is too large to run.
fn container(program: &Program, bytes: &[u8]) -> Option<Container> {
    let mut plan = Plan::new();
    plan.set_program(bytes.to_vec());
    let mut total = 0;
    for (stage, graph) in program.graphs() {
        if graph.instructions().len() > MAX_INSTRUCTIONS {
            return None;
        }
        for weight in graph.weights() {
            let (tensor, bytes) = tensor(weight)?;
            total += bytes;
            plan.add_tensor(stage, tensor);
        }
    }
    if total > MAX_WEIGHTS {
        return None;
    }
    let layout = plan.layout().ok()?;
    let mut file = Cursor::new(Vec::new());
    let written = layout.write(&mut file, |place, out| {
        let data: Vec<u8> = (0..place.length).map(|i| (i * 37 / 8) as u8).collect();
        out.write_all(&data)
    });
    written.expect("memory can be written");
    let file = Container::from_bytes("input.snap", Arc::new(file.into_inner()));
    Some(file.expect("it was just written"))
}

/// The plan of a weight and its bytes.
fn tensor(weight: &Weight) -> Option<(TensorPlan, u64)> {
    let shape: Vec<u64> = match weight.storage {
        Storage::Codes(codes) => codes.packed_dims(&weight.dims).to_vec(),
        _ => weight.dims.iter().map(|&n| n.into()).collect(),
    };
    let any = [DType::F32, DType::F16, DType::Bf16][weight.name.len() % 3];
    let dtype = match weight.storage {
        Storage::F32 => DType::F32,
        Storage::I32 => DType::I32,
        Storage::Rows | Storage::Panels => any,
        Storage::Codes(_) => DType::U8,
    };
    let name = weight.name.as_str();
    let (plan, bytes) = match weight.storage {
        Storage::Panels => (
            TensorPlan::panels(name, &shape, dtype),
            dtype.panels_len(&shape),
        ),
        _ => (TensorPlan::new(name, &shape, dtype), dtype.byte_len(&shape)),
    };
    Some((plan, bytes.filter(|&n| n <= MAX_BYTES)?))
}

fn run(network: &mut impl Network, batch: usize) {
    let count = |port: &Port| -> usize {
        let sizes = port.dims.iter().map(|n| n.unwrap_or(batch));
        sizes.product()
    };
    let floats = |port: &Port| (0..count(port)).map(|i| i as f32 - 3.5).collect::<Vec<_>>();
    let integers = |port: &Port| (0..count(port)).map(|i| i as i32 - 2).collect::<Vec<_>>();
    let values: Vec<(Vec<f32>, Vec<i32>)> = network
        .inputs()
        .iter()
        .map(|port| match port.dtype {
            PortType::F32 => (floats(port), Vec::new()),
            PortType::I32 => (Vec::new(), integers(port)),
        })
        .collect();
    let inputs: Vec<Data<'_>> = network
        .inputs()
        .iter()
        .zip(&values)
        .map(|(port, (floats, integers))| match port.dtype {
            PortType::F32 => Data::F32(floats),
            PortType::I32 => Data::I32(integers),
        })
        .collect();
    let mut results: Vec<Vec<f32>> = network.outputs().iter().map(floats).collect();
    let mut outputs: Vec<Option<&mut [f32]>> = results
        .iter_mut()
        .map(|result| Some(result.as_mut_slice()))
        .collect();
    // An output of integers is refused.
    let _ = network.run(batch, &inputs, &mut outputs);
}
