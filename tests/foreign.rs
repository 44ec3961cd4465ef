//! Networks that other tools have exported (`fixtures/foreign`), read, compiled and run by snapc's engine, against torch.

use std::collections::BTreeMap;
use std::path::PathBuf;

use snapc_format::Stage;
use snapc_ir::Graph;
use snapc_ir::verify::verify;
use snapc_native::{Activations, Companions, compile};
use snapc_passes::recognize;
use snapc_pipeline::{Data, Network, PortType};
use snapc_runtime::{Options, Runtime};
use snapc_target::Silent;
use snapc_tests::{SafetensorsFile, psnr, workspace_root};

/// The networks under the names of the fixture's files.
const NETWORKS: [(&str, Stage); 3] = [
    ("text_encoder", Stage::TextEncoder),
    ("unet", Stage::Unet),
    ("vae_decoder", Stage::VaeDecoder),
];

/// Batch of the recorded calls.
const BATCH: usize = 2;

fn foreign(name: &str) -> PathBuf {
    workspace_root().join("fixtures/foreign").join(name)
}

/// The values of an integer tensor of the fixtures.
fn integers(file: &SafetensorsFile, name: &str) -> Vec<i32> {
    let tensor = &file.tensors[name];
    let low = |bytes: &[u8]| i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    match tensor.dtype.as_str() {
        "I32" => tensor.bytes.chunks_exact(4).map(low).collect(),
        "I64" => tensor.bytes.chunks_exact(8).map(low).collect(),
        other => panic!("{name}: elements of type {other}"),
    }
}

/// Compiles and runs a graph on the recorded inputs; the lowest PSNR of its outputs.
fn run(graph: &Graph, stage: Stage, reference: &SafetensorsFile, prefix: &str) -> f64 {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("model.snap");
    let verified = verify(graph).expect("a graph that was read is valid");
    let graphs = [(stage, verified)];
    let companions = Companions::default();
    compile(&graphs, &companions, Activations::Declared, &path, &Silent).expect("it compiles");
    let runtime = Runtime::open(&path, &Options::default()).expect("it opens");
    let mut network = runtime.network(stage).expect("the stage is there");

    let (mut floats, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for port in network.inputs() {
        let name = format!("{prefix}{}", port.name);
        match port.dtype {
            PortType::F32 => drop(floats.insert(port.name.clone(), reference.floats(&name))),
            PortType::I32 => drop(ids.insert(port.name.clone(), integers(reference, &name))),
        }
    }
    let inputs: Vec<Data<'_>> = network
        .inputs()
        .iter()
        .map(|port| match port.dtype {
            PortType::F32 => Data::F32(&floats[&port.name]),
            PortType::I32 => Data::I32(&ids[&port.name]),
        })
        .collect();
    let names: Vec<String> = network.outputs().iter().map(|p| p.name.clone()).collect();
    let expected: Vec<Vec<f32>> = names
        .iter()
        .map(|name| reference.floats(&format!("{prefix}{name}")))
        .collect();
    let mut found: Vec<Vec<f32>> = expected.iter().map(|e| vec![f32::NAN; e.len()]).collect();
    let mut outputs: Vec<Option<&mut [f32]>> =
        found.iter_mut().map(|f| Some(f.as_mut_slice())).collect();
    network.run(BATCH, &inputs, &mut outputs).expect("it runs");
    let figures = found.iter().zip(&expected).map(|(f, e)| psnr(f, e));
    figures.fold(f64::INFINITY, f64::min)
}

#[test]
fn models_of_torch_onnx_run_in_the_engine() {
    let reference = SafetensorsFile::read(&foreign("outputs.safetensors"));
    let symbols = [
        ("batch", BATCH),
        ("height", 8),
        ("width", 8),
        ("sequence", 77),
    ];
    let sizes: BTreeMap<String, usize> = symbols.map(|(s, n)| (s.to_owned(), n)).into();
    for exporter in ["torchscript14", "torchscript17", "dynamo18"] {
        for (network, stage) in NETWORKS {
            let path = foreign(&format!("{network}.{exporter}.onnx"));
            let graph = snapc_onnx::read(&path, &sizes).expect("it is read");
            let graph = recognize(&graph).expect("is a valid graph");
            let db = run(&graph, stage, &reference, &format!("{network}.fixed."));
            assert!(db >= 100.0, "{network} {exporter}: {db:.1} dB");
        }
    }
}

#[test]
fn packages_of_coremltools_run_in_the_engine() {
    let reference = SafetensorsFile::read(&foreign("coreml.safetensors"));
    for (target, bar) in [("ios16_f16", 65.0), ("ios18_f32", 110.0)] {
        for (network, stage) in NETWORKS {
            let path = foreign(&format!("{network}.{target}.mlpackage"));
            let graph = snapc_coreml::read(&path).expect("it is read");
            let graph = recognize(&graph).expect("is a valid graph");
            let db = run(&graph, stage, &reference, &format!("{network}."));
            assert!(db >= bar, "{network} {target}: {db:.1} dB");
        }
    }
}
