//! Packages of the fixtures by the C interface: results against those of diffusers, wrong arguments, damaged files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use half::f16;
use safetensors::SafeTensors;
use serde_json::Value;
use snapc_target::{Interface, Precision};
use support::{build, fixture, start, text, write_packages};
use tempfile::TempDir;

/// `tests/run.c` with the packages of a checkpoint.
struct Packages {
    folder: TempDir,
    program: PathBuf,
}

impl Packages {
    fn new(checkpoint: &str, precision: Precision, interface: Interface) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_packages(checkpoint, precision, interface, folder.path());
        let program = build("tests/run.c", folder.path());
        Packages { folder, program }
    }

    /// Runs a package on tensors of tiny's `graphs.safetensors`, each given after its feature; asserts that an output is as close
    /// to a tensor there as `floor` dB.
    fn check(&self, package: &str, inputs: &[(&str, &str)], output: (&str, &str), floor: f64) {
        let path = |name: &str| self.folder.path().join(name);
        let bytes = fs::read(fixture("tiny/graphs.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        let description = self.describe(package);
        let mut command = Command::new(&self.program);
        command.arg(path(package));
        for (feature, tensor) in inputs {
            let (dtype, values) = feature_of(&description["inputs"], feature);
            let given = encoded(&dtype, &tensor_values(&reference, tensor));
            assert_eq!(given.len(), values * size(&dtype), "{tensor}");
            fs::write(path(feature), given).unwrap();
            command.arg("in").arg(feature).arg(path(feature));
        }
        let (dtype, values) = feature_of(&description["outputs"], output.0);
        let length = (values * size(&dtype)).to_string();
        command
            .arg("out")
            .arg(output.0)
            .arg(path("out"))
            .arg(length);
        let ran = start(&mut command);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        let found = decoded(&dtype, &fs::read(path("out")).unwrap());
        let psnr = psnr(&tensor_values(&reference, output.1), &found);
        assert!(psnr >= floor, "{package}: {psnr:.1} dB, at least {floor}");
    }

    fn describe(&self, package: &str) -> Value {
        let output = start(Command::new(&self.program).arg(self.folder.path().join(package)));
        // Without arguments it fails when it predicts, after it has described.
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Element type and number of values of a feature in the description.
fn feature_of(features: &Value, name: &str) -> (String, usize) {
    let mut features = features.as_array().unwrap().iter();
    let feature = features.find(|f| f["name"] == name).unwrap();
    let shape = feature["shape"].as_array().unwrap().iter();
    let values: u64 = shape.map(|size| size.as_u64().unwrap()).product();
    let dtype = feature["dtype"].as_str().unwrap().to_owned();
    (dtype, usize::try_from(values).unwrap())
}

fn size(dtype: &str) -> usize {
    if dtype == "f16" { 2 } else { 4 }
}

/// A tensor of f32 or i32 as f32, which has all token ids.
fn tensor_values(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    let words = tensor.data().as_chunks::<4>().0.iter();
    match tensor.dtype() {
        safetensors::Dtype::I32 => words.map(|w| i32::from_le_bytes(*w) as f32).collect(),
        safetensors::Dtype::F32 => words.map(|w| f32::from_le_bytes(*w)).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn encoded(dtype: &str, values: &[f32]) -> Vec<u8> {
    let values = values.iter();
    match dtype {
        "f16" => values
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect(),
        "f32" => values.flat_map(|x| x.to_le_bytes()).collect(),
        "i32" => values.flat_map(|&x| (x as i32).to_le_bytes()).collect(),
        other => panic!("element type {other}"),
    }
}

fn decoded(dtype: &str, bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.as_chunks::<2>().0.iter();
    let words = bytes.as_chunks::<4>().0.iter();
    match dtype {
        "f16" => halves.map(|w| f16::from_le_bytes(*w).to_f32()).collect(),
        "f32" => words.map(|w| f32::from_le_bytes(*w)).collect(),
        other => panic!("element type {other}"),
    }
}

fn psnr(reference: &[f32], found: &[f32]) -> f64 {
    assert_eq!(reference.len(), found.len());
    let pairs = reference.iter().zip(found);
    let squares: f64 = pairs
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    let max = reference.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let min = reference.iter().copied().fold(f32::INFINITY, f32::min);
    20.0 * (f64::from(max - min) / (squares / reference.len() as f64).sqrt()).log10()
}

#[test]
fn packages_of_f16_compute_what_diffusers_computes() {
    let packages = Packages::new("tiny", Precision::F16, Interface::Plain);
    let ids = [("input_ids", "text_encoder.b1.input_ids")];
    let states = "last_hidden_state";
    let expected = "text_encoder.b1.last_hidden_state";
    packages.check("TextEncoder.mlpackage", &ids, (states, expected), 65.0);
    let unet = [
        ("sample", "unet.b2.sample"),
        ("timestep", "unet.b2.timestep"),
        ("encoder_hidden_states", "unet.b2.encoder_hidden_states"),
    ];
    let output = ("out_sample", "unet.b2.out_sample");
    packages.check("Unet.mlpackage", &unet, output, 65.0);
    let latent = [("latent_sample", "vae_decoder.b1.latent_sample")];
    let output = ("sample", "vae_decoder.b1.sample");
    packages.check("VAEDecoder.mlpackage", &latent, output, 65.0);

    let described = packages.describe("Unet.mlpackage");
    assert_eq!(described["specification_version"], 8);
    let metadata = &described["metadata"];
    assert_eq!(metadata["user_defined"]["snapc.graph"], "unet");
}

/// Apple's text encoder takes token ids as floats, and gives f32 whatever it computes in.
#[test]
fn packages_of_f32_compute_what_diffusers_computes() {
    let packages = Packages::new("tiny", Precision::F32, Interface::Apple);
    let ids = [("input_ids", "text_encoder.b1.input_ids")];
    let output = ("last_hidden_state", "text_encoder.b1.last_hidden_state");
    packages.check("TextEncoder.mlpackage", &ids, output, 100.0);
    let latent = [("z", "vae_decoder.b1.latent_sample")];
    let output = ("image", "vae_decoder.b1.sample");
    packages.check("VAEDecoder.mlpackage", &latent, output, 100.0);
}

/// `tests/boundary.c` on the smallest text encoder.
fn boundary(command: impl FnOnce(&Path) -> Command) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = "variants/lean";
    write_packages(checkpoint, Precision::F16, Interface::Plain, folder.path());
    let program = build("tests/boundary.c", folder.path());
    let package = folder.path().join("TextEncoder.mlpackage");
    let no_package = folder.path().join("empty.mlpackage");
    fs::create_dir(&no_package).unwrap();
    let output = start(command(&program).arg(package).arg(no_package));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
}

#[test]
fn every_function_keeps_its_word() {
    boundary(|program| Command::new(program));
}

#[cfg(target_os = "linux")]
#[test]
fn every_function_is_clean_under_valgrind() {
    boundary(|program| {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--leak-check=full", "--error-exitcode=99"]);
        // The compiler's threads live as long as the process, and what they hold is possibly lost.
        command.args(["--show-leak-kinds=definite,indirect"]);
        command.arg("--errors-for-leak-kinds=definite,indirect");
        command.arg(program);
        command
    });
}

#[test]
fn damaged_packages_are_refused_with_what_is_wrong() {
    let packages = Packages::new("variants/lean", Precision::F16, Interface::Plain);
    let package = packages.folder.path().join("Unet.mlpackage");
    let data = package.join("Data/com.apple.CoreML");
    let refused = || {
        let output = start(Command::new(&packages.program).arg(&package));
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let damage = |file: &Path, change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let whole = fs::read(file).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(file, bytes).unwrap();
        let error = refused();
        assert!(error.starts_with("open: "), "{error}");
        assert!(error.contains(expected), "{error}");
        fs::write(file, whole).unwrap();
    };
    let weights = data.join("weights/weight.bin");
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    damage(&weights, &half, "Unet.mlpackage/Data/com.apple.CoreML/");
    let model = data.join("model.mlmodel");
    damage(&model, &half, "is no Model message");
    damage(&model, &Vec::clear, "holds no ML Program");
    let manifest = package.join("Manifest.json");
    damage(&manifest, &half, "Unet.mlpackage/Manifest.json: is no JSON");
    // Without damage it opens, and fails only since it is given no inputs.
    assert!(refused().starts_with("predict: input 'sample' is required"));
}
