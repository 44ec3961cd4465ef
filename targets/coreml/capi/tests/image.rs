//! A decoder whose output is an image, by the C interface.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::process::Command;

use half::f16;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use snapc_coreml::CoreMl;
use snapc_import::{ImportOptions, open};
use snapc_passes::{Pipeline, RunOptions};
use snapc_target::{EmitOptions, Silent, Target, VerifiedProgram, legalize};
use support::{build, fixture, start, text};

/// Values of a tensor in tiny's `graphs.safetensors`.
fn reference(name: &str) -> Vec<f32> {
    let bytes = fs::read(fixture("tiny/graphs.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    let words = tensor.data().as_chunks::<4>().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

/// The level that diffusers makes of a decoder's value: `(x / 2 + 0.5).clamp(0, 1) * 255`, rounded.
fn level(value: f32) -> f32 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even()
}

#[test]
fn an_image_is_given_as_levels() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmitOptions {
        image_output: true,
        ..EmitOptions::default()
    };
    let checkpoint = open(&fixture("tiny"), &ImportOptions::default()).unwrap();
    let passes: Pipeline = options.precision.name().parse().unwrap();
    let program = passes.run(checkpoint.import().unwrap(), &RunOptions::default());
    let mut program = CoreMl.prepare(program.unwrap().0, &options).unwrap();
    let capabilities = CoreMl.capabilities(&options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &capabilities).unwrap();
    }
    let verified = VerifiedProgram::new(&program).unwrap();
    CoreMl
        .emit(&verified, &options, folder.path(), &Silent)
        .unwrap();

    let latents = reference("vae_decoder.b1.latent_sample");
    let latents = latents.iter().map(|&x| f16::from_f32(x).to_le_bytes());
    let (given, found) = (folder.path().join("in"), folder.path().join("out"));
    fs::write(&given, latents.collect::<Vec<_>>().concat()).unwrap();
    let expected = reference("vae_decoder.b1.sample");
    let mut command = Command::new(build("tests/run.c", folder.path()));
    command.arg(folder.path().join("VAEDecoder.mlpackage"));
    command.args(["in", "latent_sample"]).arg(given);
    command.args(["out", "image"]).arg(&found);
    let output = start(command.arg(expected.len().to_string()));
    assert!(output.status.success(), "{}", text(&output.stderr));

    let described: Value = serde_json::from_slice(&output.stdout).unwrap();
    let image = json!({"name": "image", "dtype": "u8", "shape": [1, 3, 128, 128]});
    assert_eq!(described["outputs"], json!([image]));
    let found = fs::read(found).unwrap();
    let apart = found.iter().zip(&expected);
    let apart = apart.map(|(found, value)| (f32::from(*found) - level(*value)).abs());
    let most = apart.fold(0.0, f32::max);
    assert!(most <= 1.0, "{most} levels");
}
