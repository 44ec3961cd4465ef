//! The small pipelines of the fixtures as packages, at every level, precision and interface: features as the contract has
//! them, and results, as coremltools reads and numpy computes them, equal to those of diffusers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;

use foreign_reader::{Job, emit_program, psnr, run};
use networks::{Case, GRAPHS, cases, channels_first, optimized, reference};
use snapc_coreml::{CoreMl, Level};
use snapc_ir::Tensor;
use snapc_target::{AttentionForm, EmitOptions, Emitted, Interface, Precision, Target};

#[test]
fn packages_compute_what_diffusers_computes() {
    let dir = tempfile::tempdir().unwrap();
    let reference = reference("tiny");
    let mut list: Vec<EmitOptions> = Vec::new();
    for precision in [Precision::F32, Precision::F16] {
        let base = EmitOptions {
            precision,
            ..EmitOptions::default()
        };
        for level in Level::ALL {
            for interface in [Interface::Plain, Interface::Apple] {
                list.push(EmitOptions {
                    min_ios: Some(level.ios()),
                    interface,
                    ..base.clone()
                });
            }
        }
        list.push(EmitOptions {
            min_ios: Some(18),
            attention: AttentionForm::Sdpa,
            ..base.clone()
        });
        for interface in [Interface::Plain, Interface::Apple] {
            list.push(EmitOptions {
                min_ios: Some(16),
                attention: AttentionForm::SplitEinsum,
                interface,
                ..base.clone()
            });
        }
        list.push(EmitOptions {
            batch: Some(1),
            ..base.clone()
        });
        list.push(EmitOptions {
            batch: Some(2),
            ..base.clone()
        });
    }
    let mut cases_of_all = Vec::new();
    for precision in [Precision::F32, Precision::F16] {
        let program = optimized("tiny", precision);
        for (i, options) in list
            .iter()
            .enumerate()
            .filter(|(_, o)| o.precision == precision)
        {
            let folder = dir.path().join(i.to_string());
            std::fs::create_dir(&folder).unwrap();
            let (_, emitted) = emit_program(program.clone(), options, &folder);
            assert_eq!(emitted.graphs.len(), GRAPHS.len());
            let level = Level::of(options).unwrap();
            let EmitOptions {
                interface,
                attention,
                batch,
                ..
            } = options;
            let batch = batch.map_or("default".to_owned(), |b| b.to_string());
            let what = format!("{level} {precision} {interface} {attention} batch {batch}");
            cases_of_all.extend(cases(&what, &folder, &emitted, options, &reference));
        }
    }
    println!("{}", figures(&cases_of_all));
}

/// SD 2.x (exact GELU, linear projections, heads per block), fewer layers, a plan of blocks.
#[test]
fn variants_compute_what_diffusers_computes() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for checkpoint in ["variants/sd2", "variants/lean", "variants/blocks"] {
        let reference = reference(checkpoint);
        for precision in [Precision::F32, Precision::F16] {
            let program = optimized(checkpoint, precision);
            for interface in [Interface::Plain, Interface::Apple] {
                let what = format!("{checkpoint} {precision} {interface}");
                let folder = dir.path().join(what.replace('/', " "));
                std::fs::create_dir(&folder).unwrap();
                let options = EmitOptions {
                    precision,
                    interface,
                    ..EmitOptions::default()
                };
                let (_, emitted) = emit_program(program.clone(), &options, &folder);
                assert_eq!(emitted.graphs.len(), GRAPHS.len());
                all.extend(cases(&what, &folder, &emitted, &options, &reference));
            }
        }
    }
    println!("{}", figures(&all));
}

/// Evaluates the packages, asserts that every output is as close to its reference as it must be, and gives the figures.
fn figures(cases: &[Case]) -> String {
    let jobs: Vec<&Job> = cases.iter().map(|c| &c.job).collect();
    let results = run(&jobs);
    let (mut lines, mut failed) = (Vec::new(), false);
    for (case, outputs) in cases.iter().zip(results) {
        assert!(!case.expected.is_empty());
        for (name, expected) in &case.expected {
            let db = psnr(expected, &outputs[name]);
            failed |= db.is_nan() || db < case.floor;
            lines.push(format!(
                "{} {name}: {db:.1} dB, at least {}",
                case.job.name, case.floor
            ));
        }
    }
    let figures = lines.join("\n");
    assert!(!failed, "{figures}");
    figures
}

/// Apple's UNet takes a timestep per sample. Each row of a batch must be what diffusers gives for that row alone at its
/// timestep, also when the timesteps differ.
#[test]
fn every_row_of_a_batch_has_its_own_timestep() {
    let reference = reference("tiny");
    let one = |name: &str| reference[&format!("unet.b1.{name}")].floats();
    let two = |name: &str| reference[&format!("unet.b2.{name}")].floats();
    assert_ne!(one("timestep"), two("timestep"));
    // Row 0 from the reference of one sample, row 1 from that of two.
    let rows = |name: &str| {
        let mut shape = reference[&format!("unet.b1.{name}")].shape.clone();
        shape[0] = 2;
        let second = &two(name)[one(name).len()..];
        Tensor::float(&shape, [one(name), second].concat())
    };
    let options = EmitOptions {
        precision: Precision::F32,
        interface: Interface::Apple,
        ..EmitOptions::default()
    };
    let dir = tempfile::tempdir().unwrap();
    emit_program(optimized("tiny", Precision::F32), &options, dir.path());
    let timestep = Tensor::float(&[2], [one("timestep"), two("timestep")].concat());
    let inputs = [
        ("sample", rows("sample")),
        ("timestep", timestep),
        (
            "encoder_hidden_states",
            channels_first(&rows("encoder_hidden_states")),
        ),
    ];
    let job = Job {
        name: "two timesteps".to_owned(),
        package: dir.path().join("Unet.mlpackage"),
        inputs: inputs.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    let outputs = run(&[&job]);
    let db = psnr(&rows("out_sample"), &outputs[0]["noise_pred"]);
    assert!(db >= 100.0, "{db:.1} dB");
}

/// `name: type[shape]` of all features of a graph.
fn features(emitted: &Emitted, graph: &str) -> Vec<String> {
    let graph = emitted.graphs.iter().find(|g| g.name == graph).unwrap();
    let all = graph.inputs.iter().chain(&graph.outputs);
    all.map(|f| format!("{}: {}[{}]", f.name, f.dtype, f.shape.join(",")))
        .collect()
}

/// The features of the contract (sizes of the tiny pipeline), and, for `apple`, those of Apple's packages.
#[test]
fn features_are_those_of_the_interface() {
    let program = optimized("tiny", Precision::F16);
    let dir = tempfile::tempdir().unwrap();
    let emitted = |interface: Interface| {
        let folder = dir.path().join(interface.name());
        std::fs::create_dir(&folder).unwrap();
        let options = EmitOptions {
            interface,
            ..EmitOptions::default()
        };
        emit_program(program.clone(), &options, &folder).1
    };
    let plain = emitted(Interface::Plain);
    let text = [
        "input_ids: i32[1,77]",
        "last_hidden_state: f16[1,77,32]",
        "pooler_output: f16[1,32]",
    ];
    assert_eq!(features(&plain, "text_encoder"), text);
    let unet = [
        "sample: f16[2,4,16,16]",
        "timestep: f32[1]",
        "encoder_hidden_states: f16[2,77,32]",
        "out_sample: f16[2,4,16,16]",
    ];
    assert_eq!(features(&plain, "unet"), unet);
    let vae = ["latent_sample: f16[1,4,16,16]", "sample: f16[1,3,128,128]"];
    assert_eq!(features(&plain, "vae_decoder"), vae);

    let apple = emitted(Interface::Apple);
    let text = [
        "input_ids: f32[1,77]",
        "last_hidden_state: f32[1,77,32]",
        "pooled_outputs: f32[1,32]",
    ];
    assert_eq!(features(&apple, "text_encoder"), text);
    let unet = [
        "sample: f16[2,4,16,16]",
        "timestep: f16[2]",
        "encoder_hidden_states: f16[2,32,1,77]",
        "noise_pred: f32[2,4,16,16]",
    ];
    assert_eq!(features(&apple, "unet"), unet);
    let vae = ["z: f16[1,4,16,16]", "image: f32[1,3,128,128]"];
    assert_eq!(features(&apple, "vae_decoder"), vae);
}

#[test]
fn the_artifact_is_complete_reported_and_the_same_every_time() {
    let program = optimized("tiny", Precision::F16);
    let options = EmitOptions::default();
    let dir = tempfile::tempdir().unwrap();
    let once = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        (
            folder.clone(),
            emit_program(program.clone(), &options, &folder),
        )
    };
    let (folder, (legal, emitted)) = once("a");
    let paths = emitted.files.iter().map(|f| f.path.as_str());
    let (runtime, paths): (Vec<&str>, Vec<&str>) = paths.partition(|p| p.starts_with("runtime/"));
    for file in [
        "Package.swift",
        "README.md",
        "Sources/SnapRuntime/Pipeline.swift",
    ] {
        assert!(
            runtime.contains(&format!("runtime/{file}").as_str()),
            "{file}"
        );
    }
    let package = |name: &str| {
        let data = format!("{name}.mlpackage/Data/com.apple.CoreML");
        [
            format!("{data}/model.mlmodel"),
            format!("{data}/weights/weight.bin"),
            format!("{name}.mlpackage/Manifest.json"),
        ]
    };
    let mut expected = ["TextEncoder", "Unet", "VAEDecoder"].map(package).concat();
    expected.extend(["merges.txt".to_owned(), "vocab.json".to_owned()]);
    assert_eq!(paths, expected);
    for file in &emitted.files {
        let path = folder.join(&file.path);
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            file.bytes,
            "{}",
            file.path
        );
        assert_eq!(
            snapc_target::hash_file(&path).unwrap(),
            file.sha256,
            "{}",
            file.path
        );
    }
    assert_eq!(once("b").1.1, emitted);

    // What is planned is what is written, but for the model files and manifests.
    let planned = CoreMl.artifact_bytes(&legal, &options);
    let small = |path: &str| path.ends_with(".mlmodel") || path.ends_with("Manifest.json");
    let written: u64 = emitted
        .files
        .iter()
        .filter(|f| !small(&f.path))
        .map(|f| f.bytes)
        .sum();
    assert!(
        planned.abs_diff(written) <= written / 100,
        "{planned} planned, {written} written"
    );
}

#[test]
fn options_that_no_level_has_are_refused() {
    let prepare = |options: EmitOptions| {
        let program = optimized("tiny", Precision::F16);
        CoreMl.prepare(program, &options).unwrap_err().to_string()
    };
    let sdpa = EmitOptions {
        attention: AttentionForm::Sdpa,
        ..EmitOptions::default()
    };
    assert_eq!(
        prepare(sdpa),
        "graph 'text_encoder', node 'text_model.encoder.layers.0.self_attn': attention is not supported by this target: \
         --attention sdpa needs --min-ios 18, not 17"
    );
    let image = |interface: Interface, batch: Option<usize>| {
        prepare(EmitOptions {
            image_output: true,
            interface,
            batch,
            ..EmitOptions::default()
        })
    };
    let refused = "option '--image-output': Apple's Swift package takes the picture as an array";
    assert!(image(Interface::Apple, None).starts_with(refused));
    let refused = "option '--image-output': an image is one picture";
    assert!(image(Interface::Plain, Some(2)).starts_with(refused));
    let old = EmitOptions {
        min_ios: Some(15),
        ..EmitOptions::default()
    };
    assert!(prepare(old).starts_with("option '--min-ios': iOS 15"));
}
