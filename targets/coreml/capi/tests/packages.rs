//! Packages of the fixtures by the C interface: results against those of diffusers, wrong arguments, damaged files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use half::f16;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use snapc_target::{EmitOptions, Interface, Precision};
use support::{build, fixture, start, text, write_packages, write_sizes};
use tempfile::TempDir;

/// `tests/run.c` with the packages of a checkpoint.
struct Packages {
    folder: TempDir,
    program: PathBuf,
}

impl Packages {
    fn new(checkpoint: &str, options: &EmitOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_packages(checkpoint, options, folder.path());
        let program = build("tests/run.c", folder.path());
        Packages { folder, program }
    }

    /// Runs a package on tensors of tiny's `graphs.safetensors`, each given after its feature; asserts that an output is as close
    /// to a tensor there as `floor` dB.
    fn check(&self, package: &str, inputs: &[(&str, &str)], output: (&str, &str), floor: f64) {
        let given = inputs.iter();
        let given = given.map(|(feature, tensor)| (*feature, reference("graphs", tensor)));
        let given: Vec<(&str, Vec<f32>)> = given.collect();
        let found = self.run(package, None, &given, output.0);
        let psnr = psnr(&reference("graphs", output.1), &found);
        assert!(psnr >= floor, "{package}: {psnr:.1} dB, at least {floor}");
    }

    /// What a function of a package gives for an output.
    fn run(
        &self,
        package: &str,
        function: Option<&str>,
        inputs: &[(&str, Vec<f32>)],
        output: &str,
    ) -> Vec<f32> {
        let path = |name: &str| self.folder.path().join(name);
        let description = self.describe(package, function);
        let mut command = self.command(package, function);
        for (feature, tensor) in inputs {
            let (dtype, values) = feature_of(&description["inputs"], feature);
            let given = encoded(&dtype, tensor);
            assert_eq!(given.len(), values * size(&dtype), "{feature}");
            fs::write(path(feature), given).unwrap();
            command.arg("in").arg(feature).arg(path(feature));
        }
        let (dtype, values) = feature_of(&description["outputs"], output);
        let length = (values * size(&dtype)).to_string();
        command.arg("out").arg(output).arg(path("out")).arg(length);
        let ran = start(&mut command);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        decoded(&dtype, &fs::read(path("out")).unwrap())
    }

    fn command(&self, package: &str, function: Option<&str>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.folder.path().join(package));
        if let Some(name) = function {
            command.arg("function").arg(name);
        }
        command
    }

    fn describe(&self, package: &str, function: Option<&str>) -> Value {
        let output = start(&mut self.command(package, function));
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
    match dtype {
        "u8" => 1,
        "f16" => 2,
        _ => 4,
    }
}

/// A tensor of one of tiny's files, of f32 or i32, as f32, which has all token ids.
fn reference(file: &str, name: &str) -> Vec<f32> {
    let bytes = fs::read(fixture(&format!("tiny/{file}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
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
        "u8" => bytes.iter().map(|&level| f32::from(level)).collect(),
        other => panic!("element type {other}"),
    }
}

/// The level that diffusers makes of a decoder's value: `(x / 2 + 0.5).clamp(0, 1) * 255`, rounded.
fn level(value: f32) -> f32 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even()
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
    let packages = Packages::new("tiny", &EmitOptions::default());
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

    let described = packages.describe("Unet.mlpackage", None);
    assert_eq!(described["specification_version"], 8);
    let metadata = &described["metadata"];
    assert_eq!(metadata["user_defined"]["snapc.graph"], "unet");
}

/// Apple's text encoder takes token ids as floats, and gives f32 whatever it computes in.
#[test]
fn packages_of_f32_compute_what_diffusers_computes() {
    let options = EmitOptions {
        precision: Precision::F32,
        interface: Interface::Apple,
        ..EmitOptions::default()
    };
    let packages = Packages::new("tiny", &options);
    let ids = [("input_ids", "text_encoder.b1.input_ids")];
    let output = ("last_hidden_state", "text_encoder.b1.last_hidden_state");
    packages.check("TextEncoder.mlpackage", &ids, output, 100.0);
    let latent = [("z", "vae_decoder.b1.latent_sample")];
    let output = ("image", "vae_decoder.b1.sample");
    packages.check("VAEDecoder.mlpackage", &latent, output, 100.0);
}

#[test]
fn functions_are_described_and_compute_what_diffusers_computes_at_their_size() {
    let folder = tempfile::tempdir().unwrap();
    write_sizes(&[[128, 128], [64, 64]], folder.path());
    let program = build("tests/run.c", folder.path());
    let packages = Packages { folder, program };

    let unet = "Unet.mlpackage";
    let shape = |function| packages.describe(unet, function)["inputs"][0]["shape"].clone();
    assert_eq!(shape(None), json!([2, 4, 16, 16]));
    assert_eq!(shape(Some("size_128x128")), json!([2, 4, 16, 16]));
    assert_eq!(shape(Some("size_64x64")), json!([2, 4, 8, 8]));
    let refused = |package: &str| {
        let output = start(&mut packages.command(package, Some("size_1x1")));
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let known = "there is no function 'size_1x1'; it has 'size_128x128', 'size_64x64'";
    assert!(refused(unet).contains(known), "{}", refused(unet));
    let single = refused("TextEncoder.mlpackage");
    assert!(single.contains("it has one function"), "{single}");

    let tensor = |name: &str| reference("reference-64x64", name);
    let given = [
        ("sample", tensor("init_latents").repeat(2)),
        ("timestep", vec![876.0]),
        ("encoder_hidden_states", tensor("text_embeddings")),
    ];
    let found = packages.run(unet, Some("size_64x64"), &given, "out_sample");
    let db = psnr(&tensor("step_0.noise_pred"), &found);
    assert!(db >= 65.0, "{db:.1} dB");
}

#[test]
fn an_image_is_given_as_the_levels_that_diffusers_makes() {
    let options = EmitOptions {
        image_output: true,
        ..EmitOptions::default()
    };
    let packages = Packages::new("tiny", &options);
    let decoder = "VAEDecoder.mlpackage";
    let image = json!({"name": "image", "dtype": "u8", "shape": [1, 3, 128, 128]});
    assert_eq!(packages.describe(decoder, None)["outputs"], json!([image]));
    let latents = reference("graphs", "vae_decoder.b1.latent_sample");
    let found = packages.run(decoder, None, &[("latent_sample", latents)], "image");
    let expected = reference("graphs", "vae_decoder.b1.sample");
    assert_eq!(found.len(), expected.len());
    let apart = found.iter().zip(&expected);
    let apart = apart.map(|(found, value)| (found - level(*value)).abs());
    let most = apart.fold(0.0, f32::max);
    assert!(most <= 1.0, "{most} levels");
}

/// `tests/boundary.c` on the smallest text encoder.
fn boundary(command: impl FnOnce(&Path) -> Command) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = "variants/lean";
    write_packages(checkpoint, &EmitOptions::default(), folder.path());
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
    let packages = Packages::new("variants/lean", &EmitOptions::default());
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
