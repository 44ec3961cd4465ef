//! Core ML packages by the command: what a level cannot hold, what packages tell people, a picture as an image.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use snapc_tests::{Run, SafetensorsFile, Snapc, copy_folder, names, workspace_root};

fn tiny() -> PathBuf {
    workspace_root().join("fixtures/tiny")
}

fn reference() -> PathBuf {
    tiny().join("reference.safetensors")
}

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

fn manifest(artifact: &Path) -> Value {
    let text = fs::read(artifact.join("snap.json")).expect("an artifact has a manifest");
    serde_json::from_slice(&text).expect("it is JSON")
}

#[test]
fn what_a_level_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let calibration = format!("--weights w8a8 --calibration {}", reference().display());
    let checkpoint = tiny();
    let cases = [
        (
            "--attention sdpa",
            &[16, 17][..],
            "attention is not supported by this target: --attention sdpa needs --min-ios 18",
        ),
        ("--weights int4", &[16, 17], "use --min-ios 18"),
        (
            "--passes O2,cast-precision{to=f16},quantize-weights{form=palette4,group=16}",
            &[16, 17],
            "use --min-ios 18",
        ),
        (
            &calibration,
            &[16],
            "activations of 8 bits need iOS 17; use --min-ios 17",
        ),
    ];
    for (flags, levels, reason) in cases {
        for level in levels {
            let arguments = format!(
                "convert {} --target coreml -o out {flags} --min-ios {level}",
                checkpoint.display()
            );
            let run = snapc(folder.path(), &arguments);
            assert_eq!(run.exit, Some(4), "{arguments}: {}", run.stderr);
            let place = "error: graph '";
            assert!(run.stderr.contains(place), "{}", run.stderr);
            assert!(run.stderr.contains(reason), "{}", run.stderr);
            assert_eq!(names(folder.path()), [""; 0], "left behind by {arguments}");
        }
    }
}

#[test]
fn an_image_is_refused_where_nobody_takes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = tiny();
    for (flags, reason) in [
        (
            "--target coreml --interface apple",
            "choose --interface plain or snap",
        ),
        ("--target onnx", "only Core ML has outputs that are images"),
        (
            "--target native",
            "only Core ML has outputs that are images",
        ),
    ] {
        let arguments = format!(
            "convert {} -o out --image-output {flags}",
            checkpoint.display()
        );
        let run = snapc(folder.path(), &arguments);
        assert_eq!(run.exit, Some(2), "{arguments}: {}", run.stderr);
        assert!(
            run.stderr.contains("option '--image-output'"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains(reason), "{}", run.stderr);
        assert_eq!(names(folder.path()), [""; 0], "left behind by {arguments}");
    }
}

/// A flag wins over the settings file, that over the checkpoint; what nobody states is absent.
#[test]
fn the_manifest_says_what_is_stated_about_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&tiny(), &folder.path().join("model"));
    let convert = |flags: &str| {
        succeeds(
            folder.path(),
            &format!("convert model --target coreml -o out --force {flags}"),
        );
        manifest(&folder.path().join("out"))["about"].clone()
    };
    assert_eq!(convert(""), Value::Null);
    let card = "---\nlicense: creativeml-openrail-m\n---\n# Fox\n";
    fs::write(folder.path().join("model/README.md"), card).expect("a test file can be written");
    assert_eq!(convert(""), json!({ "license": "creativeml-openrail-m" }));
    let settings = "author = 'A. Fox'\nmodel-version = '1'\ndescription = 'Draws  foxes.'\n";
    fs::write(folder.path().join("snapc.toml"), settings).expect("a test file can be written");
    let about = json!({
        "description": "Draws foxes.",
        "author": "A. Fox",
        "license": "MIT",
        "version": "2",
    });
    assert_eq!(
        convert("--config snapc.toml --license MIT --model-version 2"),
        about
    );
    let long = "x".repeat(2001);
    for (flags, reason) in [
        ("--author=", "--author is empty"),
        (
            &format!("--description {long}"),
            "it has 2001 characters, 2000 at most",
        ),
    ] {
        let run = snapc(
            folder.path(),
            &format!("convert model --target coreml -o new {flags}"),
        );
        assert_eq!(run.exit, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    }
}

/// The artifact is run, compared with diffusers, and gives the picture that it gives as an array, but for the rounding to
/// 8 bits.
#[test]
fn an_artifact_with_an_image_is_run_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (checkpoint, reference) = (tiny(), reference());
    let run = "--prompt fox --steps 2 --seed 7";
    for (name, flags) in [("array", ""), ("image", "--image-output")] {
        let convert = format!(
            "convert {} --target coreml -o {name} {flags}",
            checkpoint.display()
        );
        succeeds(folder, &convert);
        succeeds(folder, &format!("verify {name}"));
        succeeds(
            folder,
            &format!("run {name} {run} --save {name}.safetensors -o {name}.png"),
        );
    }
    let outputs = manifest(&folder.join("image"))["graphs"][2]["outputs"].clone();
    let image = json!({ "name": "image", "dtype": "u8", "shape": ["1", "3", "128", "128"], "role": "picture-rgb" });
    assert_eq!(outputs, json!([image]));
    let picture = |name: &str| {
        let file = folder.join(format!("{name}.safetensors"));
        SafetensorsFile::read(&file).floats("image")
    };
    let (array, image) = (picture("array"), picture("image"));
    let apart = array
        .iter()
        .zip(&image)
        .map(|(a, b)| (a.clamp(-1.0, 1.0) - b).abs());
    let most = apart.fold(0.0, f32::max);
    // Half a level, and the rounding of the array's own f16.
    assert!(most > 0.0 && most < 0.6 / 127.5, "{most}");

    let validate = |flags: &str| {
        let arguments = format!(
            "validate image --reference {} --json {flags}",
            reference.display()
        );
        let run = succeeds(folder, &arguments);
        serde_json::from_str::<Value>(&run.stdout).expect("a document")
    };
    for engine in ["snap", "evaluator"] {
        let document = validate(&format!("--engine {engine}"));
        let rows = document["rows"].as_array().expect("a list").iter();
        let row = |graph: &str| {
            rows.clone()
                .find(|row| row["graph"] == graph)
                .expect("a row")
        };
        let decoder = row("vae_decoder");
        assert_eq!(decoder["ok"], true, "{decoder}");
        // The bar is a picture that is off by a level everywhere, below the 65 dB of the other graphs.
        let bar = decoder["bar_db"].as_f64().expect("it has a bar");
        assert!((30.0..48.2).contains(&bar), "{bar}");
        assert_eq!(row("unet")["bar_db"], 65.0);
    }
}

/// What every level computes is compared elsewhere; this is the newest one by the command.
#[test]
fn packages_for_ios_26_compute_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (checkpoint, reference) = (tiny(), reference());
    let convert = format!(
        "convert {} --target coreml -o out --min-ios 26 --attention sdpa",
        checkpoint.display()
    );
    succeeds(folder.path(), &convert);
    assert_eq!(manifest(&folder.path().join("out"))["min_ios"], 26);
    succeeds(folder.path(), "verify out");
    succeeds(
        folder.path(),
        &format!("validate out --reference {}", reference.display()),
    );
}

/// One artifact for two sizes is compared with a reference of each, and refuses others.
#[test]
fn an_artifact_for_several_sizes_is_run_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let (folder, checkpoint) = (folder.path(), tiny());
    let checkpoint = checkpoint.display();
    let convert =
        format!("convert {checkpoint} --target coreml -o out --sizes 128,64x128,64 --min-ios 18");
    succeeds(folder, &format!("{convert} --image-output"));
    succeeds(folder, "verify out");
    let manifest = manifest(&folder.join("out"));
    let sizes = json!([
        { "height": 128, "width": 128, "function": "size_128x128" },
        { "height": 64, "width": 128, "function": "size_64x128" },
        { "height": 64, "width": 64, "function": "size_64x64" },
    ]);
    assert_eq!(manifest["sizes"], sizes);
    let shape = &manifest["graphs"][2]["functions"][1]["outputs"][0]["shape"];
    assert_eq!(shape, &json!(["1", "3", "64", "128"]));
    let square = reference();
    let small = square.with_file_name("reference-64x64.safetensors");
    let rows = format!("reference {checkpoint} --prompt fox --size 64x128 -o rows.safetensors");
    succeeds(folder, &rows);
    succeeds(
        folder,
        "validate out --size 64x128 --reference rows.safetensors",
    );
    succeeds(
        folder,
        &format!("validate out --reference {}", square.display()),
    );
    succeeds(
        folder,
        &format!("validate out --size 64 --reference {}", small.display()),
    );
    succeeds(
        folder,
        "run out --prompt fox --steps 1 --size 64x128 -o fox.png",
    );
    let png = fs::read(folder.join("fox.png")).expect("it is written");
    // Width and height in the header of the file.
    assert_eq!(&png[16..24], [0, 0, 0, 128, 0, 0, 0, 64]);

    let fails = |arguments: &str, exit: i32, reason: &str| {
        let run = snapc(folder, arguments);
        assert_eq!(run.exit, Some(exit), "{arguments}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    };
    let run = "run out --prompt fox -o other.png --size 128x64";
    fails(run, 2, "choose 128x128, 64x128 or 64x64");
    let convert = |flags: &str| format!("convert {checkpoint} -o no --sizes 128,64 {flags}");
    for level in [16, 17] {
        let older = convert(&format!("--target coreml --min-ios {level}"));
        fails(
            &older,
            4,
            &format!("several sizes need --min-ios 18, not {level}"),
        );
    }
    fails(
        &convert("--target onnx"),
        2,
        "only Core ML packages have functions",
    );
    fails(
        &convert("--target native"),
        2,
        "only Core ML packages have functions",
    );
    fails(
        &convert("--target coreml --min-ios 18 --chunk-unet"),
        2,
        "takes one size",
    );
    assert!(!folder.join("no").exists());
}
