//! What the tests share: the artifact of `fixtures/tiny`, its reference files, and the library of ONNX Runtime.

#![allow(dead_code, reason = "every test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::{Dtype, SafeTensors};
use snapc_import::{ImportOptions, open};
use snapc_onnx::OnnxTarget;
use snapc_onnx_runtime::Options;
use snapc_passes::{Pipeline, RunOptions};
use snapc_target::{EmitOptions, Silent, Target, VerifiedProgram, legalize};

/// A path below the root of the workspace.
pub fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .join(path)
}

/// Writes the ONNX artifact of `fixtures/tiny` with a pass pipeline, `f32` or `f16`.
pub fn emit_tiny(passes: &str, dir: &Path) {
    let checkpoint = workspace("fixtures/tiny");
    let checkpoint = open(&checkpoint, &ImportOptions::default()).expect("opens");
    let program = checkpoint.import().expect("imports");
    let passes: Pipeline = passes.parse().expect("is a pipeline");
    let (program, _) = passes.run(program, &RunOptions::default()).expect("runs");

    let options = EmitOptions::default();
    let mut program = OnnxTarget.prepare(program, &options).expect("prepares");
    let capabilities = OnnxTarget.capabilities(&options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &capabilities).expect("legalizes");
    }
    let verified = VerifiedProgram::new(&program).expect("verifies");
    OnnxTarget
        .emit(&verified, &options, dir, &Silent)
        .expect("emits");
}

/// The library in the Python environment of the tests.
pub fn library() -> PathBuf {
    let chosen = std::env::var_os("SNAPC_PYTHON").map(PathBuf::from);
    let python = chosen.unwrap_or_else(|| workspace(".cache/venv-light/bin/python"));
    assert!(
        python.exists(),
        "'{}' does not exist; run 'cargo xtask setup'",
        python.display()
    );
    let script = "import onnxruntime, os; print(os.path.dirname(onnxruntime.__file__))";
    let output = Command::new(&python).args(["-c", script]).output();
    let output = output.expect("python starts");
    assert!(
        output.status.success(),
        "no onnxruntime in '{}'; run 'cargo xtask setup'\n{}",
        python.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let folder = String::from_utf8(output.stdout).expect("a path in UTF-8");
    let folder = Path::new(folder.trim()).join("capi");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the package has a folder capi") {
        let path = entry.expect("can be listed").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let stem = name.trim_start_matches("lib");
        if stem.starts_with("onnxruntime.") && !name.ends_with(".py") {
            found.push(path);
        }
    }
    found.sort();
    found.pop().expect("the package holds a library")
}

/// Two threads of the tests' library.
pub fn options() -> Options {
    Options {
        library: Some(library()),
        threads: std::num::NonZeroUsize::new(2),
        ..Options::default()
    }
}

/// Tensors of a reference file as f32; integers keep their value.
pub fn tensors(path: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(workspace(path)).expect("the fixture is there");
    let file = SafeTensors::deserialize(&bytes).expect("is safetensors");
    let values = |data: &[u8], dtype| -> Vec<f32> {
        match dtype {
            Dtype::F32 => words(data).map(f32::from_le_bytes).collect(),
            Dtype::I32 => words(data).map(|w| i32::from_le_bytes(w) as f32).collect(),
            Dtype::I64 => words(data).map(|w| i64::from_le_bytes(w) as f32).collect(),
            other => panic!("unexpected element type {other:?}"),
        }
    };
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, values(view.data(), view.dtype())))
        .collect()
}

fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.chunks_exact(N).map(|w| w.try_into().expect("exact"))
}

/// 20 log10((max - min of reference) / RMSE), in dB.
pub fn psnr(found: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(found.len(), reference.len());
    let pairs = found.iter().zip(reference);
    let squares: f64 = pairs.map(|(f, r)| f64::from(f - r).powi(2)).sum();
    let high = reference.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let low = reference.iter().copied().fold(f32::INFINITY, f32::min);
    let rmse = (squares / found.len() as f64).sqrt();
    20.0 * (f64::from(high - low) / rmse).log10()
}
