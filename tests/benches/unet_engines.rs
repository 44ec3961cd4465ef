//! One UNet call by snapc's engine and by ONNX Runtime, in turn, in one process:
//! `cargo bench -p snapc-tests --bench unet_engines -- NATIVE ONNX [ROUNDS [BATCH]]`.
//!
//! The two artifacts are `snapc convert --precision f32` of one checkpoint; `ORT_DYLIB_PATH` names the library. Both engines
//! have as many threads as there are processors. With `-` for ONNX only snapc's engine runs, so that the peak of memory
//! is its own.

#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use snapc_format::Stage;
use snapc_onnx_runtime::OrtNetwork;
use snapc_pipeline::{Data, Network, NetworkKind};
use snapc_runtime::{Options, Runtime};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [native, onnx, rest @ ..] = arguments.as_slice() else {
        println!("give a native artifact, and an ONNX artifact or -");
        return Ok(());
    };
    let rounds = rest.first().map_or(Ok(5), |n| n.parse())?;
    let batch: usize = rest.get(1).map_or(Ok(1), |n| n.parse())?;

    let start = Instant::now();
    let runtime = Runtime::open(&Path::new(native).join("model.snap"), &Options::default())?;
    let mut ours = runtime.network(Stage::Unet)?;
    println!("open {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let mut theirs = match onnx.as_str() {
        "-" => None,
        folder => Some(OrtNetwork::open(
            Path::new(folder),
            NetworkKind::Unet,
            &snapc_onnx_runtime::Options {
                threads: NonZeroUsize::new(runtime.threads()),
                ..Default::default()
            },
        )?),
    };

    let mut call = Call::new(&ours, batch)?;
    call.time(&mut ours)?;
    let expected = call.output.clone();
    if let Some(theirs) = &mut theirs {
        call.time(theirs)?;
        let pairs = expected.iter().zip(&call.output);
        let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("largest difference {largest:.2e}");
    }
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        own.push(call.time(&mut ours)?);
        if let Some(theirs) = &mut theirs {
            other.push(call.time(theirs)?);
        }
    }
    let own = median(&mut own);
    println!("snap {own:.3} s ({})", runtime.instruction_set());
    if theirs.is_some() {
        let other = median(&mut other);
        println!("onnxruntime {other:.3} s\nratio {:.3}", own / other);
    }
    for line in std::fs::read_to_string("/proc/self/status")?.lines() {
        if ["VmHWM", "RssAnon"].iter().any(|key| line.starts_with(key)) {
            println!("{line}");
        }
    }
    Ok(())
}

/// The operands of a call and its result.
struct Call {
    batch: usize,
    sample: Vec<f32>,
    embeddings: Vec<f32>,
    output: Vec<f32>,
}

impl Call {
    /// Operands like those of a run: latents of unit size, and smooth embeddings.
    fn new(network: &impl Network, batch: usize) -> Result<Self, Box<dyn Error>> {
        let values = |name: &str| {
            let port = network.inputs().iter().find(|p| p.name == name);
            port.and_then(|p| p.values(batch))
                .ok_or_else(|| format!("no input {name}"))
        };
        let wave = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let sample = values("sample")?;
        Ok(Call {
            batch,
            sample: wave(sample),
            embeddings: wave(values("encoder_hidden_states")?),
            output: vec![0.0; sample],
        })
    }

    fn time(&mut self, network: &mut impl Network) -> Result<Duration, Box<dyn Error>> {
        let inputs: Vec<Data<'_>> = network
            .inputs()
            .iter()
            .map(|port| match port.name.as_str() {
                "sample" => Data::F32(&self.sample),
                "timestep" => Data::F32(&[501.0]),
                _ => Data::F32(&self.embeddings),
            })
            .collect();
        let start = Instant::now();
        network.run(self.batch, &inputs, &mut [Some(&mut self.output)])?;
        Ok(start.elapsed())
    }
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}
