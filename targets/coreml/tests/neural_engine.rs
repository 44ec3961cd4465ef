//! What is written for the Neural Engine: attention one head after the other, in chunks of queries, and the UNet in two
//! packages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;
mod reading;

use foreign_reader::{Job, Tensors, emit_program, program, psnr, run};
use networks::{cases, optimized, reference};
use reading::evaluate;
use snapc_coreml::{CoreMl, read};
use snapc_ir::ops::Attention;
use snapc_ir::verify::verify;
use snapc_ir::{DType, Graph, LazyTensor, Shape, Tensor, TensorType, eval};
use snapc_target::{AttentionForm, EmitOptions, Interface, Precision, Target, join};

/// 1100 queries are three chunks, the last one of 76; the mask has a row per query and differs by head.
#[test]
fn queries_in_chunks_attend_to_the_same() {
    let numbers = |n: usize, seed: usize| -> Vec<f32> {
        let number = |i: usize| ((i * 7919 + seed * 131) % 1013) as f32 / 506.0 - 1.0;
        (0..n).map(number).collect()
    };
    let mut graph = Graph::new("unet");
    let ty = |shape: &[usize]| TensorType::new(DType::F32, Shape::fixed(shape));
    let shapes = [[1, 1100, 6], [1, 5, 6], [1, 5, 6]];
    let mut inputs = Tensors::new();
    let mut operands = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let name = format!("x{i}");
        operands.push(graph.input(&name, ty(shape)));
        let data = numbers(shape.iter().product(), i);
        inputs.insert(name, Tensor::float(shape, data));
    }
    let mask = LazyTensor::from_f32(&[2, 1100, 5], &numbers(11000, 9));
    operands.push(graph.constant("mask", mask));
    let op = Attention {
        heads: 2,
        scale: 0.7,
    };
    let y = graph.add(op, &operands, "attention").unwrap();
    graph.output("y", y);
    let expected = eval::run(&graph, &inputs).unwrap();
    for attention in [AttentionForm::SplitEinsum, AttentionForm::SplitEinsumV2] {
        let dir = tempfile::tempdir().unwrap();
        let options = EmitOptions {
            precision: Precision::F32,
            attention,
            ..EmitOptions::default()
        };
        emit_program(program(vec![graph.clone()]), &options, dir.path());
        let job = Job {
            name: attention.to_string(),
            package: dir.path().join("Unet.mlpackage"),
            inputs: inputs.clone(),
        };
        let there = psnr(&expected["y"], &run(&[&job])[0]["y"]);
        let here = psnr(&expected["y"], &evaluate(&job.package, &inputs)["y"]);
        let lines = format!("{attention}: coremltools {there:.1} dB, read back {here:.1} dB");
        assert!(there >= 110.0 && here >= 110.0, "{lines}");
        // Each head has a softmax per chunk.
        let softmaxes = read(&job.package).unwrap();
        let softmaxes = softmaxes.nodes().iter();
        let count = softmaxes.filter(|n| n.op.name() == "softmax").count();
        let v2 = attention == AttentionForm::SplitEinsumV2;
        assert_eq!(count, if v2 { 6 } else { 2 }, "{attention}");
    }
}

/// The chunks one after the other, as an app runs them, and joined again by snapc.
#[test]
fn a_unet_in_two_packages_computes_what_diffusers_computes() {
    let reference = reference("tiny");
    let mut lines = Vec::new();
    let mut passes = true;
    for precision in [Precision::F32, Precision::F16] {
        let forms = [
            (Interface::Plain, AttentionForm::Auto),
            (Interface::Apple, AttentionForm::SplitEinsum),
        ];
        for (interface, attention) in forms {
            let dir = tempfile::tempdir().unwrap();
            let options = EmitOptions {
                precision,
                interface,
                attention,
                chunk_unet: true,
                ..EmitOptions::default()
            };
            let (legal, emitted) = emit_program(optimized("tiny", precision), &options, dir.path());
            let names: Vec<&str> = emitted.graphs.iter().map(|g| g.name.as_str()).collect();
            let order = ["text_encoder", "unet_chunk1", "unet_chunk2", "vae_decoder"];
            assert_eq!(names, order);
            let files = [&emitted.graphs[1].file, &emitted.graphs[2].file];
            assert_eq!(files, ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"]);
            assert_even(&legal);

            // What the whole UNet takes and gives.
            let mut whole = emitted.clone();
            whole.graphs.truncate(2);
            whole.graphs[1].name = "unet".to_owned();
            let case = cases("", dir.path(), &whole, &options, &reference).remove(1);
            let job = |file: &String, given: &Tensors| {
                let graph = read(&dir.path().join(file)).unwrap();
                let taken = graph.inputs().iter();
                let taken = taken.map(|i| (i.name.clone(), given[&i.name].clone()));
                Job {
                    name: format!("{precision} {interface} {attention} {file}"),
                    package: dir.path().join(file),
                    inputs: taken.collect(),
                }
            };
            let mut given = case.job.inputs.clone();
            given.extend(run(&[&job(files[0], &given)]).remove(0));
            let outputs = run(&[&job(files[1], &given)]).remove(0);
            let chunks = files.map(|file| read(&dir.path().join(file)).unwrap());
            let joined = join(&chunks[0], &chunks[1], "unet").unwrap();
            verify(&joined).unwrap();
            let joined = eval::run(&joined, &case.job.inputs).unwrap();
            assert_eq!(case.expected.len(), 1);
            for (name, expected) in &case.expected {
                let db = [
                    psnr(expected, &outputs[name]),
                    psnr(expected, &joined[name]),
                ];
                passes &= db.iter().all(|db| *db >= case.floor);
                lines.push(format!("{precision} {interface} {attention}: {db:.1?} dB"));
            }
        }
    }
    let lines = lines.join("\n");
    assert!(passes, "{lines}");
    println!("{lines}");
}

/// The larger chunk has at most 60 % of the weights.
fn assert_even(program: &snapc_ir::Program) {
    let bytes = |graph: &Graph| -> usize {
        let weights = graph.weights().iter();
        weights.map(|w| w.tensor.stored_bytes_len()).sum()
    };
    let sizes = ["unet_chunk1", "unet_chunk2"].map(|name| bytes(program.graph(name).unwrap()));
    let larger = sizes[0].max(sizes[1]) as f64;
    assert!(larger <= 0.6 * (sizes[0] + sizes[1]) as f64, "{sizes:?}");
}

#[test]
fn a_graph_that_cannot_be_cut_is_refused() {
    let mut graph = Graph::new("unet");
    let x = graph.input("x", TensorType::new(DType::F32, Shape::fixed(&[3])));
    let y = graph.add(snapc_ir::ops::Silu {}, &[x], "only").unwrap();
    graph.output("y", y);
    let options = EmitOptions {
        chunk_unet: true,
        ..EmitOptions::default()
    };
    let refused = CoreMl.prepare(program(vec![graph]), &options);
    let error = refused.unwrap_err().to_string();
    assert_eq!(error, "option '--chunk-unet': the UNet has no place to cut");
}
