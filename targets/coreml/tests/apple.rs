//! `--interface apple` against the features of Apple's Stable Diffusion packages, as coremltools shows them: names, element
//! types and shapes, with the sizes of the tiny pipeline in place of 768 and 64.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;

use std::path::PathBuf;

use foreign_reader::{emit_program, show};
use networks::converted;
use serde_json::{Value, json};
use snapc_target::{AttentionForm, EmitOptions, Interface, Precision, WeightForm};

/// Name, element type, shape.
type Row = (String, String, Value);

fn row(name: &str, dtype: &str, shape: &[usize]) -> Row {
    (name.to_owned(), dtype.to_owned(), json!(shape))
}

fn rows(features: &Value) -> Vec<Row> {
    let features = features.as_array().unwrap().iter();
    let rows = features.map(|f| {
        let text = |key: &str| f[key].as_str().unwrap().to_owned();
        assert_eq!(text("kind"), "multiArrayType", "{f}");
        (text("name"), text("type"), f["shape"].clone())
    });
    rows.collect()
}

struct Shown {
    what: String,
    package: &'static str,
    features: Value,
}

impl Shown {
    fn inputs(&self) -> Vec<Row> {
        rows(&self.features["inputs"])
    }

    fn outputs(&self) -> Vec<Row> {
        rows(&self.features["outputs"])
    }

    fn assert(&self, inputs: &[Row], outputs: &[Row]) {
        let what = format!("{} of {}", self.package, self.what);
        assert_eq!(self.inputs(), inputs, "{what}");
        assert_eq!(self.outputs(), outputs, "{what}");
    }
}

/// The inputs of the UNet in order.
fn unet_inputs() -> [Row; 3] {
    [
        row("sample", "FLOAT16", &[2, 4, 16, 16]),
        row("timestep", "FLOAT16", &[2]),
        row("encoder_hidden_states", "FLOAT16", &[2, 32, 1, 77]),
    ]
}

/// Batch 2 for the UNet, because both halves of the guidance run at once, as Apple's converter does it by default.
fn check(shown: &[Shown]) {
    let noise = [row("noise_pred", "FLOAT32", &[2, 4, 16, 16])];
    for package in shown {
        match package.package {
            "TextEncoder" => package.assert(
                &[row("input_ids", "FLOAT32", &[1, 77])],
                &[
                    row("last_hidden_state", "FLOAT32", &[1, 77, 32]),
                    row("pooled_outputs", "FLOAT32", &[1, 32]),
                ],
            ),
            "Unet" => package.assert(&unet_inputs(), &noise),
            "VAEDecoder" => package.assert(
                &[row("z", "FLOAT16", &[1, 4, 16, 16])],
                &[row("image", "FLOAT32", &[1, 3, 128, 128])],
            ),
            "UnetChunk1" => {
                let inputs = package.inputs();
                assert!(
                    inputs.iter().all(|i| unet_inputs().contains(i)),
                    "{inputs:?}"
                );
            }
            "UnetChunk2" => assert_eq!(package.outputs(), noise, "{}", package.what),
            other => panic!("Apple's converter writes no {other}"),
        }
    }
    let chunk = |name: &str| shown.iter().find(|s| s.package == name);
    let (Some(first), Some(second)) = (chunk("UnetChunk1"), chunk("UnetChunk2")) else {
        return;
    };
    let handed = first.outputs();
    assert!(
        handed.iter().all(|(_, dtype, _)| dtype == "FLOAT32"),
        "{handed:?}"
    );
    // The caller gives the second chunk what the first one gives, and the inputs of the UNet again.
    let from_first = |input: &Row| handed.contains(input);
    let inputs = second.inputs();
    assert!(inputs.iter().any(from_first));
    let known = |input: &Row| from_first(input) || unet_inputs().contains(input);
    assert!(inputs.iter().all(known), "{inputs:?}");
}

#[test]
fn features_are_those_of_apples_packages() {
    let base = EmitOptions {
        interface: Interface::Apple,
        attention: AttentionForm::SplitEinsum,
        ..EmitOptions::default()
    };
    let with = |weights: Option<WeightForm>, ios: u32, chunk_unet: bool| EmitOptions {
        weights,
        min_ios: Some(ios),
        chunk_unet,
        ..base.clone()
    };
    let variants = [
        with(None, 16, false),
        with(None, 26, true),
        with(Some(WeightForm::Int8), 16, true),
        with(Some(WeightForm::Palette6), 16, false),
        with(Some(WeightForm::Palette6), 18, true),
        EmitOptions {
            attention: AttentionForm::Auto,
            ..with(None, 17, false)
        },
        EmitOptions {
            attention: AttentionForm::SplitEinsumV2,
            ..with(Some(WeightForm::Int8), 17, false)
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut packages: Vec<(usize, &'static str, PathBuf)> = Vec::new();
    for (i, options) in variants.iter().enumerate() {
        let folder = dir.path().join(i.to_string());
        std::fs::create_dir(&folder).unwrap();
        emit_program(converted(options), options, &folder);
        let unet: &[&str] = match options.chunk_unet {
            true => &["UnetChunk1", "UnetChunk2"],
            false => &["Unet"],
        };
        for &name in [&["TextEncoder", "VAEDecoder"], unet].concat().iter() {
            packages.push((i, name, folder.join(format!("{name}.mlpackage"))));
        }
    }
    let paths: Vec<PathBuf> = packages.iter().map(|(_, _, path)| path.clone()).collect();
    let loaded = show(&paths);
    let mut shown: Vec<Vec<Shown>> = variants.iter().map(|_| Vec::new()).collect();
    for ((i, package, _), loaded) in packages.into_iter().zip(loaded) {
        assert_eq!(loaded["error"], Value::Null, "{package}");
        shown[i].push(Shown {
            what: format!("{:?}", variants[i]),
            package,
            features: loaded["functions"]["main"].clone(),
        });
    }
    shown.iter().for_each(|packages| check(packages));
}

/// In a program of f32 the floats are f32 everywhere; the rest of the table holds.
#[test]
fn a_program_of_f32_differs_in_its_inputs_only() {
    let options = EmitOptions {
        interface: Interface::Apple,
        precision: Precision::F32,
        ..EmitOptions::default()
    };
    let dir = tempfile::tempdir().unwrap();
    emit_program(converted(&options), &options, dir.path());
    let loaded = show(&[
        dir.path().join("Unet.mlpackage"),
        dir.path().join("VAEDecoder.mlpackage"),
    ]);
    let features = |i: usize, side: &str| rows(&loaded[i]["functions"]["main"][side]);
    let wide = unet_inputs().map(|(name, _, shape)| (name, "FLOAT32".to_owned(), shape));
    assert_eq!(features(0, "inputs"), wide);
    assert_eq!(
        features(0, "outputs"),
        [row("noise_pred", "FLOAT32", &[2, 4, 16, 16])]
    );
    assert_eq!(
        features(1, "inputs"),
        [row("z", "FLOAT32", &[1, 4, 16, 16])]
    );
    assert_eq!(
        features(1, "outputs"),
        [row("image", "FLOAT32", &[1, 3, 128, 128])]
    );
}
