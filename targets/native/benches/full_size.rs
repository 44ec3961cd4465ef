//! Seconds to convert a checkpoint, to open the file and to run each network, and how far the results are from a reference
//! made by `fixtures/make_graph_reference.py`:
//! `cargo bench -p snapc-native -- CHECKPOINT [f16|f32 [REFERENCE]]`.

#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use safetensors::SafeTensors;
use snapc_format::Stage;
use snapc_import::{ImportOptions, open};
use snapc_native::Native;
use snapc_passes::{Pipeline, RunOptions};
use snapc_pipeline::{Data, Network, PortType};
use snapc_runtime::{Options, Runtime};
use snapc_target::{EmitOptions, Silent, Target, VerifiedProgram, legalize};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [checkpoint, rest @ ..] = arguments.as_slice() else {
        println!("give a checkpoint");
        return Ok(());
    };
    let precision = rest.first().map_or("f16", String::as_str);
    let dir = tempfile::tempdir()?;
    convert(Path::new(checkpoint), precision, dir.path())?;

    let start = Instant::now();
    let runtime = Runtime::open(&dir.path().join("model.snap"), &Options::default())?;
    println!("open {:?}", start.elapsed());
    let Some(reference) = rest.get(1) else {
        return Ok(());
    };
    let bytes = std::fs::read(reference)?;
    let reference = SafeTensors::deserialize(&bytes)?;
    for stage in Stage::ALL {
        for batch in [1, 2] {
            run(&runtime, stage, batch, &reference)?;
        }
    }
    Ok(())
}

fn convert(checkpoint: &Path, precision: &str, dir: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let program = open(checkpoint, &ImportOptions::default())?.import()?;
    println!("import {:?}", start.elapsed());
    let pipeline: Pipeline = precision.parse()?;
    let (mut program, _) = pipeline.run(program, &RunOptions::default())?;
    let options = EmitOptions::default();
    let capabilities = Native.capabilities(&options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &capabilities)?;
    }
    let verified = VerifiedProgram::new(&program)?;
    let start = Instant::now();
    let emitted = Native.emit(&verified, &options, dir, &Silent)?;
    let gigabytes = emitted.files[0].bytes as f64 / 1e9;
    println!("emit {:?}, {gigabytes:.2} GB", start.elapsed());
    let start = Instant::now();
    let findings = Native.verify(dir)?;
    println!("verify {:?}, {} findings", start.elapsed(), findings.len());
    Ok(())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let values = bytes.as_chunks().0.iter();
    values.map(|b| f32::from_le_bytes(*b)).collect()
}

fn run(
    runtime: &Runtime,
    stage: Stage,
    batch: usize,
    reference: &SafeTensors<'_>,
) -> Result<(), Box<dyn Error>> {
    let mut network = runtime.network(stage)?;
    let tensor = |name: &str| reference.tensor(&format!("{stage}.b{batch}.{name}"));
    let (mut numbers, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for port in network.inputs() {
        let view = tensor(&port.name)?;
        match port.dtype {
            PortType::F32 => {
                numbers.insert(port.name.clone(), floats(view.data()));
            }
            PortType::I32 => {
                let size = view.data().len() / view.shape().iter().product::<usize>();
                let low = view.data().chunks(size).map(|b| [b[0], b[1], b[2], b[3]]);
                let values: Vec<i32> = low.map(i32::from_le_bytes).collect();
                ids.insert(port.name.clone(), values);
            }
        }
    }
    let inputs: Vec<Data<'_>> = network
        .inputs()
        .iter()
        .map(|port| match port.dtype {
            PortType::F32 => Data::F32(&numbers[&port.name]),
            PortType::I32 => Data::I32(&ids[&port.name]),
        })
        .collect();
    let ports = network.outputs().to_vec();
    let mut results: Vec<Vec<f32>> = Vec::new();
    for port in &ports {
        let size = port.values(batch).ok_or("the output is too large")?;
        results.push(vec![0.0; size]);
    }
    for attempt in ["first", "second"] {
        let start = Instant::now();
        let mut outputs: Vec<Option<&mut [f32]>> =
            results.iter_mut().map(|r| Some(r.as_mut())).collect();
        network.run(batch, &inputs, &mut outputs)?;
        println!(
            "{stage}, batch {batch}, {attempt} run {:?}",
            start.elapsed()
        );
    }
    for (port, result) in ports.iter().zip(&results) {
        let db = psnr(&floats(tensor(&port.name)?.data()), result);
        println!("{stage}, batch {batch}, {}: {db:.1} dB", port.name);
    }
    println!("values {:.0} MB", network.arena_bytes(batch)? as f64 / 1e6);
    Ok(())
}

/// PSNR in dB of the contract: 20 log10((max(ref) - min(ref)) / RMSE).
fn psnr(reference: &[f32], found: &[f32]) -> f64 {
    let (mut low, mut high, mut squares) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
    for (&a, &b) in reference.iter().zip(found) {
        let (a, b) = (f64::from(a), f64::from(b));
        low = low.min(a);
        high = high.max(a);
        squares += (a - b) * (a - b);
    }
    20.0 * ((high - low) / (squares / reference.len() as f64).sqrt()).log10()
}
