//! The flags of `convert` that choose passes, from the checkpoint to what the artifact computes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snapc_tests::{Run, Snapc, workspace_root};

fn tiny() -> PathBuf {
    workspace_root().join("fixtures/tiny")
}

fn reference() -> PathBuf {
    tiny().join("reference.safetensors")
}

/// Runs the binary in a folder.
fn snapc(folder: &Path, arguments: &str) -> Run {
    Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), folder).run(arguments)
}

fn succeeds(folder: &Path, arguments: &str) -> Run {
    let run = snapc(folder, arguments);
    assert_eq!(
        run.exit,
        Some(0),
        "{arguments}: {}{}",
        run.stdout,
        run.stderr
    );
    run
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Converts the tiny pipeline and gives what `validate` says against diffusers' run, or against `reference`.
fn validated(folder: &Path, convert: &str, validate: &str) -> Value {
    let checkpoint = tiny();
    succeeds(
        folder,
        &format!("convert {} --force -o out {convert}", checkpoint.display()),
    );
    succeeds(folder, "verify out");
    let run = succeeds(folder, &format!("validate out --json {validate}"));
    json(&run.stdout)
}

fn figure(document: &Value, kind: &str) -> f64 {
    let rows = document["rows"].as_array().expect("a list");
    let row = rows
        .iter()
        .find(|row| row["kind"] == kind)
        .expect("the row is there");
    row["psnr_db"].as_f64().expect("a figure")
}

/// Every form of weights in every target; bars are those of `docs/accuracy.md` where there are any.
#[test]
fn weights_of_few_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let against = format!("--reference {}", reference().display());
    let calibration = format!("--calibration {}", reference().display());
    for target in ["onnx", "coreml", "native"] {
        let ios = if target == "coreml" {
            "--min-ios 18"
        } else {
            ""
        };
        let forms = [
            ("int8", "", ""),
            ("palette8", "", ""),
            ("palette6", "", ""),
            ("w8a8", &calibration, "--min-psnr 30"),
            ("int4", ios, "--min-psnr 25"),
            ("palette4", ios, "--min-psnr 25"),
            ("palette2", ios, "--min-psnr 15"),
        ];
        for (form, more, bar) in forms {
            let flags = format!("--target {target} --weights {form} {more}");
            let document = validated(folder.path(), &flags, &format!("{against} {bar}"));
            assert_eq!(document["weights"], form, "{target}");
        }
        let flags =
            format!("--target {target} --weights mixed --weight-budget 40dB {calibration} {ios}");
        validated(folder.path(), &flags, &format!("{against} --min-psnr 30"));
    }
}

/// Layers named by the user compute in f32 among others in f16.
#[test]
fn layers_that_stay_in_f32() {
    let folder = tempfile::tempdir().expect("a folder");
    for target in ["onnx", "coreml", "native"] {
        let flags = format!("--target {target} --keep-f32 mid_block+conv_out");
        let against = format!("--reference {}", reference().display());
        validated(folder.path(), &flags, &against);
    }
}

#[test]
fn the_forms_of_the_neural_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    let against = format!("--reference {}", reference().display());
    let forms = [
        "--attention split-einsum",
        "--attention split-einsum-v2 --chunk-unet --weights palette6",
    ];
    for form in forms {
        validated(folder.path(), &format!("--target coreml {form}"), &against);
    }
    let manifest = fs::read_to_string(folder.path().join("out/snap.json")).expect("it is there");
    let graphs = json(&manifest)["graphs"].as_array().expect("a list").len();
    assert_eq!(graphs, 4, "the UNet is in two packages");
}

/// Every level computes the same, and the manifest tells what the passes changed.
#[test]
fn levels_compute_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let against = format!("--reference {}", reference().display());
    for target in ["onnx", "coreml", "native"] {
        for level in 0..=2 {
            let flags = format!("--target {target} --precision f32 -O {level}");
            let document = validated(folder.path(), &flags, &against);
            assert!(figure(&document, "final_latents") >= 100.0, "{document:#}");
        }
        let run = succeeds(folder.path(), "inspect out");
        assert!(
            run.stdout.contains("eliminate-common-subexpressions"),
            "{}",
            run.stdout
        );
    }
}

/// Blocks and channels go; the exported checkpoint is the network that the artifact computes, and converts again unchanged.
#[test]
fn changed_networks_are_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let convert = |checkpoint: &str, output: &str, more: &str| {
        let flags = format!(
            "convert {checkpoint} --target native --precision f32 -O 1 --force -o {output} {more}"
        );
        succeeds(path, &flags)
    };
    let tiny = tiny().display().to_string();
    let changes = "--plan snapfusion --prune-vae 0.5";
    convert(
        &tiny,
        "out",
        &format!("{changes} --export-checkpoint changed"),
    );
    succeeds(
        path,
        "reference changed -o changed.safetensors --prompt fox --steps 2",
    );
    convert("changed", "again", "");
    for artifact in ["out", "again"] {
        let run = succeeds(
            path,
            &format!("validate {artifact} --json --reference changed.safetensors"),
        );
        let document = json(&run.stdout);
        assert!(figure(&document, "final_latents") >= 100.0, "{document:#}");
        assert!(figure(&document, "picture") >= 100.0, "{document:#}");
    }
    // A block that stands twice is in the artifact once, and in the checkpoint twice.
    let size = |name: &str| {
        fs::metadata(path.join(name).join("model.snap"))
            .expect("it is there")
            .len()
    };
    assert!(size("out") < size("again"));

    let run = snapc(
        path,
        &format!("convert {tiny} --target native -o third {changes} --export-checkpoint changed"),
    );
    assert_eq!(run.exit, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("changed"), "{}", run.stderr);
}

/// Every encoded layer is reported with its own distance from what it was.
#[test]
fn encoded_layers_are_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = succeeds(
        folder.path(),
        &format!(
            "convert {} --target native --weights palette4 --explain --dry-run --json",
            tiny().display()
        ),
    );
    let document = json(&run.stdout);
    let layers = document["encoded_weights"].as_array().expect("a list");
    for graph in ["text_encoder", "unet", "vae_decoder"] {
        assert!(layers.iter().any(|l| l["graph"] == graph), "{graph}");
    }
    for layer in layers {
        let snr = layer["snr_db"].as_f64().expect("a figure");
        // 16 values for weights near a normal distribution: 20 dB by Max's table, more where there are few elements.
        assert!((18.0..40.0).contains(&snr), "{layer}");
        assert!(
            layer["bytes_after"].as_u64() < layer["bytes_before"].as_u64(),
            "{layer}"
        );
    }
}

/// A plan that the skips do not allow names the reason and the choices, and nothing is written.
#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.json");
    fs::write(&plan, r#"{"remove": ["up_blocks.1.resnets.0"]}"#)
        .expect("a test file can be written");
    let flags = format!(
        "convert {} --target native -o out --plan plan.json",
        tiny().display()
    );
    let run = snapc(folder.path(), &flags);
    assert_eq!(run.exit, Some(2), "{}", run.stderr);
    for part in ["up_blocks.1.resnets.0", "down_blocks.2.resnets.1"] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    assert!(!folder.path().join("out").exists());
}
