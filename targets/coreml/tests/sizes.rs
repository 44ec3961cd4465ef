//! Packages with a function per picture size, over one weight file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;

use std::path::{Path, PathBuf};

use foreign_reader::{Job, Tensors, emit_sizes, psnr, repository, run_functions, show};
use networks::lowered;
use serde_json::{Value, json};
use snapc_coreml::{CoreMl, read, read_function};
use snapc_import::ImportOptions;
use snapc_ir::{Graph, Program, Tensor, eval};
use snapc_target::{AttentionForm, EmitOptions, Precision, Target, WeightForm};

const SIZES: [[usize; 2]; 3] = [[128, 128], [64, 128], [128, 64]];

/// The tiny pipeline at every size as the importer gives it, from one checkpoint.
fn imported() -> Vec<Program> {
    let path = repository().join("fixtures/tiny");
    let checkpoint = snapc_import::open(&path, &ImportOptions::default()).unwrap();
    let at = |&[height, width]: &[usize; 2]| checkpoint.import_at((height, width)).unwrap();
    SIZES.iter().map(at).collect()
}

/// Values that differ from place to place, between -1 and 1.
fn numbers(shape: &[usize]) -> Tensor {
    let number = |i: usize| (i * 7919 % 1013) as f32 / 506.0 - 1.0;
    Tensor::float(shape, (0..shape.iter().product()).map(number).collect())
}

/// Inputs of a package's function, and what the imported graph gives for them in f32.
fn case(graph: &Graph, batch: usize, timestep: &[usize]) -> (Tensors, Tensors) {
    let (mut given, mut inputs) = (Tensors::new(), Tensors::new());
    for input in graph.inputs() {
        let name = input.name.clone();
        let value = match name.as_str() {
            "timestep" => Tensor::float(timestep, vec![501.0]),
            _ => numbers(&graph.ty(input.value).shape.bind(batch)),
        };
        let scalar = Tensor::float(&[], vec![501.0]);
        inputs.insert(
            name.clone(),
            if name == "timestep" {
                scalar
            } else {
                value.clone()
            },
        );
        given.insert(name, value);
    }
    (given, eval::run(graph, &inputs).unwrap())
}

fn weight_bytes(folder: &Path, package: &str) -> u64 {
    let data = folder
        .join(package)
        .join("Data/com.apple.CoreML/weights/weight.bin");
    std::fs::metadata(data).unwrap().len()
}

#[test]
fn every_function_computes_what_the_network_of_its_size_computes() {
    let dir = tempfile::tempdir().unwrap();
    let imported = imported();
    let variants = [
        (Precision::F32, None, 18, AttentionForm::Auto, 100.0),
        (Precision::F16, None, 26, AttentionForm::Sdpa, 65.0),
        (
            Precision::F16,
            Some(WeightForm::Int8),
            18,
            AttentionForm::SplitEinsum,
            40.0,
        ),
    ];
    for (precision, weights, ios, attention, floor) in variants {
        let one = EmitOptions {
            precision,
            weights,
            attention,
            min_ios: Some(ios),
            ..EmitOptions::default()
        };
        let options = EmitOptions {
            sizes: SIZES.to_vec(),
            ..one.clone()
        };
        let programs: Vec<Program> = imported.iter().map(|p| lowered(p.clone(), &one)).collect();
        let what = format!("{precision} {weights:?} {attention}");
        let (folder, alone) = (
            dir.path().join(&what),
            dir.path().join(format!("{what} one")),
        );
        for folder in [&folder, &alone] {
            std::fs::create_dir(folder).unwrap();
        }
        emit_sizes(programs[..1].to_vec(), &one, &alone);
        let (_, emitted) = emit_sizes(programs, &options, &folder);

        // The text encoder has one function; the weights are stored once.
        assert!(emitted.graphs[0].functions.is_empty());
        let names = ["size_128x128", "size_64x128", "size_128x64"];
        for graph in &emitted.graphs[1..] {
            let functions: Vec<&str> = graph.functions.iter().map(|f| f.name.as_str()).collect();
            assert_eq!(functions, names);
            assert_eq!(graph.inputs, graph.functions[0].inputs);
            let [one, all] = [&alone, &folder].map(|f| weight_bytes(f, &graph.file));
            assert!(
                all < one + one / 20,
                "{what} {}: {one} bytes, {all} for all sizes",
                graph.name
            );
        }

        let (mut jobs, mut expected) = (Vec::new(), Vec::new());
        for (program, function) in imported.iter().zip(names) {
            for (graph, file, batch) in [("unet", "Unet", 2), ("vae_decoder", "VAEDecoder", 1)] {
                let (inputs, outputs) = case(program.graph(graph).unwrap(), batch, &[1]);
                let package: PathBuf = folder.join(format!("{file}.mlpackage"));
                let name = format!("{what} {graph} {function}");
                jobs.push((
                    Job {
                        name,
                        package,
                        inputs,
                    },
                    function,
                ));
                expected.push(outputs);
            }
        }
        let list: Vec<(&Job, &str)> = jobs.iter().map(|(job, f)| (job, *f)).collect();
        for (((job, function), there), expected) in
            jobs.iter().zip(run_functions(&list)).zip(expected)
        {
            let graph = read_function(&job.package, function).unwrap();
            let here = eval::run(&graph, &job.inputs).unwrap();
            assert_eq!(expected.len(), 1);
            for (name, expected) in &expected {
                let db = [psnr(expected, &there[name]), psnr(expected, &here[name])];
                println!(
                    "{}: coremltools {:.1} dB, read back {:.1} dB",
                    job.name, db[0], db[1]
                );
                assert!(db.iter().all(|db| *db >= floor), "{}: {db:.1?}", job.name);
            }
        }
        // Whoever does not choose gets the first.
        let unet = folder.join("Unet.mlpackage");
        let default = read(&unet).unwrap();
        let shape = default.ty(default.inputs()[0].value).shape.bind(1);
        assert_eq!(shape, [2, 4, 16, 16]);
        let missing = read_function(&unet, "size_1x1").unwrap_err().to_string();
        assert!(missing.contains("no function 'size_1x1'"), "{missing}");
        assert_shown(&folder);
    }
}

/// What coremltools shows of the functions.
fn assert_shown(folder: &Path) {
    let paths = ["Unet", "VAEDecoder"].map(|name| folder.join(format!("{name}.mlpackage")));
    let sizes = [
        ("size_128x128", [16, 16]),
        ("size_64x128", [8, 16]),
        ("size_128x64", [16, 8]),
    ];
    for (shown, batch) in show(&paths).iter().zip([2, 1]) {
        assert_eq!(shown["error"], Value::Null);
        assert_eq!(shown["default_function"], "size_128x128");
        let functions = shown["functions"].as_object().unwrap();
        assert_eq!(functions.len(), 3);
        for (name, [rows, columns]) in sizes {
            let latents = json!([batch, 4, rows, columns]);
            assert_eq!(functions[name]["inputs"][0]["shape"], latents, "{name}");
        }
    }
}

#[test]
fn several_sizes_are_refused_where_there_are_no_functions() {
    let refused = |options: EmitOptions| {
        let program = foreign_reader::program(Vec::new());
        CoreMl.prepare(program, &options).unwrap_err().to_string()
    };
    let sizes = EmitOptions {
        sizes: SIZES.to_vec(),
        ..EmitOptions::default()
    };
    let error = refused(EmitOptions {
        min_ios: Some(17),
        ..sizes.clone()
    });
    assert!(
        error.ends_with("several sizes need --min-ios 18, not 17"),
        "{error}"
    );
    let error = refused(EmitOptions {
        min_ios: Some(18),
        chunk_unet: true,
        ..sizes
    });
    assert!(
        error.starts_with("option '--sizes': each size would have its own cut"),
        "{error}"
    );
}
