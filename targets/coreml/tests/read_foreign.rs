//! Packages of coremltools read into the IR: converted networks against torch, single operations against numpy, compressed
//! weights against coremltools' own values.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod reading;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use foreign_reader::{Tensors, psnr, python, read_safetensors, repository};
use reading::evaluate;
use snapc_ir::{Op, Tensor};
use snapc_passes::recognize;

/// The tensors whose names begin with a prefix, without it.
fn below(tensors: &Tensors, prefix: &str) -> Tensors {
    let found = tensors.iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix(prefix)?;
        Some((name.to_owned(), tensor.clone()))
    });
    found.collect()
}

/// Runs a script of `tests/python` that writes packages into a folder.
fn make(script: &str, folder: &Path) {
    let script = repository().join("tests/python").join(script);
    let output = Command::new(python())
        .arg(script)
        .arg(folder)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// Networks of fixtures/make_foreign_coreml.py; in f16, torch computes with the same halves as weights, but in f32.
#[test]
fn networks_that_coremltools_converted_compute_what_torch_computes() {
    let foreign = repository().join("fixtures/foreign");
    let tensors = read_safetensors(&std::fs::read(foreign.join("coreml.safetensors")).unwrap());
    let mut lines = Vec::new();
    let mut passes = true;
    for network in ["text_encoder", "unet", "vae_decoder"] {
        for (target, floor) in [("ios16_f16", 65.0), ("ios18_f32", 110.0)] {
            let package = foreign.join(format!("{network}.{target}.mlpackage"));
            let given = below(&tensors, &format!("{network}."));
            for (name, output) in evaluate(&package, &given) {
                let db = psnr(&given[&name], &output);
                passes &= db >= floor;
                lines.push(format!(
                    "{network} {target} {name}: {db:.1} dB, at least {floor}"
                ));
            }
        }
    }
    assert!(passes, "{}", lines.join("\n"));
    println!("{}", lines.join("\n"));
}

/// The composites of the networks are found in both of coremltools' forms.
#[test]
fn composites_are_found_in_converted_networks() {
    for target in ["ios16_f16", "ios18_f32"] {
        let package = format!("fixtures/foreign/unet.{target}.mlpackage");
        let graph = snapc_coreml::read(&repository().join(package)).unwrap();
        let graph = recognize(&graph).unwrap();
        let count = |f: fn(&Op) -> bool| graph.nodes().iter().filter(|n| f(&n.op)).count();
        // By the fixture's configuration: four transformers (down, middle, two up) of two attentions and three layer
        // normalizations; eight ResNets (two down, two in the middle, four up) of two group normalizations, one in each
        // transformer, one at the end.
        assert_eq!(count(|op| matches!(op, Op::Attention(_))), 8, "{target}");
        assert_eq!(count(|op| matches!(op, Op::LayerNorm(_))), 12, "{target}");
        assert_eq!(count(|op| matches!(op, Op::GroupNorm(_))), 21, "{target}");
        assert_eq!(count(|op| matches!(op, Op::Softmax(_))), 0, "{target}");
        assert_eq!(count(|op| matches!(op, Op::ReduceMean(_))), 0, "{target}");
    }
}

#[test]
fn operations_compute_what_numpy_computes() {
    let dir = tempfile::tempdir().unwrap();
    make("make_mil_operators.py", dir.path());
    let file = std::fs::read(dir.path().join("tensors.safetensors")).unwrap();
    let tensors = read_safetensors(&file);
    let names: BTreeSet<&str> = tensors.keys().filter_map(|k| k.split('.').next()).collect();
    assert!(names.len() >= 38, "{names:?}");
    let mut failures = Vec::new();
    for name in names {
        let inputs = below(&tensors, &format!("{name}.in."));
        let outputs = evaluate(&dir.path().join(format!("{name}.mlpackage")), &inputs);
        for (output, expected) in below(&tensors, &format!("{name}.out.")) {
            let db = psnr(&expected, &outputs[&output]);
            if db < 110.0 {
                failures.push(format!("{name}: {db:.1} dB"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// Values are equal to the last bit, since each is one product of numbers that f32 holds exactly.
#[test]
fn compressed_weights_have_the_values_that_coremltools_gives_them() {
    let dir = tempfile::tempdir().unwrap();
    make("make_constexpr.py", dir.path());
    let file = std::fs::read(dir.path().join("expected.safetensors")).unwrap();
    let expected = read_safetensors(&file);
    assert!(expected.len() >= 34, "{:?}", expected.keys());
    for (name, weight) in &expected {
        let zeros = Tensor::float(&weight.shape, vec![0.0; weight.len()]);
        let inputs = Tensors::from([("x".to_owned(), zeros)]);
        let outputs = evaluate(&dir.path().join(format!("{name}.mlpackage")), &inputs);
        assert_eq!(outputs.len(), 1, "{name}");
        assert_eq!(outputs["y"], *weight, "{name}");
    }
}
