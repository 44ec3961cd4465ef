//! `run`, `validate`, `bench` and `bundle` beside their numbers: refusals, what is left behind, interruption, bundles.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use snapc_tests::{
    Run, SafetensorsFile, Snapc, contents, edit_json, names, onnxruntime_library, python,
    workspace_root,
};

/// A folder with artifacts.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(conversions: &[&str]) -> Self {
        let scene = Scene {
            folder: tempfile::tempdir().expect("a folder for the test"),
        };
        for arguments in conversions {
            let fixtures = workspace_root().join("fixtures");
            let run = scene.run(&format!("convert {}/{arguments}", fixtures.display()));
            assert_eq!(run.exit, Some(0), "{}", run.stderr);
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let snapc = Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), self.folder.path());
        let mut command = snapc.command(arguments);
        command.env_remove("ORT_DYLIB_PATH");
        command
    }

    fn run(&self, arguments: &str) -> Run {
        let output = self.command(arguments).output();
        output.expect("the binary under test starts").into()
    }

    /// Runs a command that has to end with `exit`, say all of `expected` on stderr, and leave nothing behind.
    fn fails(&self, arguments: &str, exit: i32, expected: &[&str]) {
        let before = names(self.folder.path());
        let run = self.run(arguments);
        assert_eq!(run.exit, Some(exit), "{arguments}: {}", run.stderr);
        for words in expected {
            assert!(
                run.stderr.contains(words),
                "{arguments}: no '{words}' in {}",
                run.stderr
            );
        }
        assert_eq!(
            names(self.folder.path()),
            before,
            "left behind by {arguments}"
        );
    }
}

fn reference() -> String {
    let path = workspace_root().join("fixtures/tiny/reference.safetensors");
    path.display().to_string()
}

fn document(run: &Run) -> Value {
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
}

/// The compared tensors of `validate --json`.
fn rows_of(scene: &Scene, arguments: &str) -> Vec<Value> {
    let rows = document(&scene.run(arguments))["rows"].take();
    rows.as_array().expect("rows are a list").clone()
}

#[test]
fn impossible_runs_are_refused() {
    let scene = Scene::new(&[
        "tiny --target onnx -o onnx",
        "tiny --target coreml -o coreml",
    ]);
    fs::write(scene.path("there.png"), "mine").expect("a test file can be written");
    let run = |artifact: &str, flags: &str, exit, expected: &[&str]| {
        scene.fails(
            &format!("run {artifact} --prompt fox {flags}"),
            exit,
            expected,
        );
    };
    run("nowhere", "-o x.png", 3, &["snap.json", "snapc convert"]);
    run(
        "onnx",
        "-o there.png",
        2,
        &["'there.png' exists", "--force"],
    );
    run("onnx", "-o no/x.png", 2, &["there is no folder 'no'"]);
    run("onnx", "-o onnx", 2, &["'onnx' is a folder"]);
    run("onnx", "-o x.png --save x.png", 2, &["the same file"]);
    run("onnx", "-o x.png --preview coreml", 2, &["'coreml' exists"]);
    run("onnx", "-o x.png --steps 0", 2, &["1 or more"]);
    run(
        "onnx",
        "-o x.png --steps 1001",
        2,
        &["cannot take 1001 steps"],
    );
    run(
        "onnx",
        "-o x.png --guidance nan",
        2,
        &["not a finite number"],
    );
    run(
        "onnx",
        "-o x.png --seed 1 --init-latents r",
        2,
        &["cannot be used with"],
    );
    run(
        "onnx",
        "-o x.png --init-latents nowhere",
        3,
        &["cannot read 'nowhere'"],
    );
    run(
        "onnx",
        "-o x.png --init-latents onnx/snap.json",
        3,
        &["not a safetensors file"],
    );
    run("onnx", "-o x.png --engine ort", 2, &["ORT_DYLIB_PATH"]);
    run(
        "coreml",
        "-o x.png --engine ort",
        2,
        &["onnx artifacts", "--engine snap"],
    );
    assert_eq!(
        fs::read(scene.path("there.png")).expect("it is still there"),
        b"mine"
    );
}

#[test]
fn broken_artifacts_are_refused() {
    let scene = Scene::new(&[
        "tiny --target onnx -o onnx",
        "tiny --target native -o native",
    ]);
    let run = |artifact: &str, exit, expected: &[&str]| {
        scene.fails(
            &format!("run {artifact} --prompt fox -o x.png"),
            exit,
            expected,
        );
    };
    let manifest = scene.path("onnx/snap.json");
    let whole = fs::read(&manifest).expect("the artifact has a manifest");
    let damaged = |edit: &dyn Fn(&mut Value), expected: &[&str]| {
        edit_json(&manifest, edit);
        run("onnx", 3, expected);
        fs::write(&manifest, &whole).expect("a test file can be written");
    };
    damaged(
        &|m| m["graphs"][1]["file"] = json!("../native/model.snap"),
        &["leads out of it"],
    );
    damaged(
        &|m| m["graphs"][1]["name"] = json!("u"),
        &["no graph 'unet'"],
    );
    damaged(
        &|m| m["graphs"][1]["file"] = json!("vae_decoder/model.onnx"),
        &["unet"],
    );
    damaged(&|m| m["target"] = json!("tflite"), &["'tflite'"]);
    damaged(&|m| m["scheduler"]["kind"] = json!("euler"), &["'euler'"]);
    damaged(
        &|m| m["latent"]["scaling_factor"] = json!(0.0),
        &["scaling factor"],
    );
    damaged(
        &|m| {
            m.as_object_mut().map(|m| m.remove("pad_token_id"));
        },
        &["pad_token_id"],
    );

    fs::remove_file(scene.path("onnx/tokenizer/merges.txt")).expect("it is there");
    run("onnx", 3, &["no merges.txt"]);
    let model = scene.path("native/model.snap");
    let bytes = fs::read(&model).expect("the artifact has a model");
    fs::write(&model, &bytes[..bytes.len() / 2]).expect("a test file can be written");
    run("native", 3, &["model.snap"]);
}

#[test]
fn references_of_something_else_are_refused() {
    let scene = Scene::new(&[
        "tiny --target native -o tiny",
        "tiny --target native -o small --size 64",
        "tiny --target native -o trailing",
    ]);
    edit_json(&scene.path("trailing/snap.json"), |manifest| {
        manifest["scheduler"]["timestep_spacing"] = json!("trailing");
    });
    let validate = |artifact: &str, reference: &str, exit, expected: &[&str]| {
        scene.fails(
            &format!("validate {artifact} --reference {reference}"),
            exit,
            expected,
        );
    };
    validate("tiny", "nowhere", 3, &["cannot read 'nowhere'"]);
    validate("tiny", "tiny/snap.json", 3, &["not a safetensors file"]);
    validate("small", &reference(), 3, &["different sizes"]);
    validate("trailing", &reference(), 1, &["the schedules differ"]);
    let latents = scene.path("latents.safetensors");
    fs::copy(reference(), &latents).expect("a test file can be written");
    // Written back without metadata.
    SafetensorsFile::edit(&latents, |tensors| {
        tensors.retain(|name, _| name == "init_latents")
    });
    validate(
        "tiny",
        "latents.safetensors",
        3,
        &["not a reference file", "metadata"],
    );
    // Which is enough to start from.
    let run =
        scene.run("run tiny --prompt fox --steps 1 --init-latents latents.safetensors -o x.png");
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let wrong = "run small --prompt fox --steps 1 --init-latents latents.safetensors -o y.png";
    scene.fails(wrong, 3, &["initial latents have 1024 values"]);
}

#[test]
fn a_run_writes_what_it_says() {
    let scene = Scene::new(&["tiny --target native -o tiny --steps 3 --guidance 2"]);
    let run = scene
        .run("run tiny/model.snap --prompt fox --preview p --save s.safetensors -o x.png --json");
    let document = document(&run);
    assert_eq!(document["command"], "run");
    assert_eq!(
        (&document["steps"], &document["guidance"]),
        (&json!(3), &json!(2.0))
    );
    let all = names(scene.folder.path());
    let new: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|n| !n.starts_with("tiny/"))
        .collect();
    let expected = [
        "p/step-001.png",
        "p/step-002.png",
        "p/step-003.png",
        "s.safetensors",
        "x.png",
    ];
    assert_eq!(new, expected);
    // The manifest plans three steps, and a record is enough to validate against.
    let run = scene.run("validate tiny --reference s.safetensors");
    assert_eq!(run.exit, Some(0), "{}{}", run.stdout, run.stderr);
    let all = rows_of(&scene, "validate tiny --reference s.safetensors --json");
    let run_only = "validate tiny --reference s.safetensors --run-only --json";
    let (calls, rest): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|row| row["kind"] == "call");
    assert_eq!(calls.len(), 5, "text encoder, three steps, decoder");
    assert_eq!(rows_of(&scene, run_only), rest);
    let before = fs::read(scene.path("x.png")).expect("it is there");
    let again = scene.run("run tiny --prompt fox -o x.png --force --seed 5");
    assert_eq!(again.exit, Some(0), "{}", again.stderr);
    assert_ne!(fs::read(scene.path("x.png")).expect("it is there"), before);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    let scene = Scene::new(&["tiny --target native -o tiny"]);
    let before = names(scene.folder.path());
    let mut child = scene
        .command("run tiny --prompt fox --steps 500 --save s.safetensors --preview p -o x.png -v")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    stderr
        .read_line(&mut line)
        .expect("the run says what it does");
    assert!(line.starts_with("step 1 of 500"), "{line}");
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.expect("kill starts").success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut rest).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest}");
    assert!(rest.contains("interrupted; nothing was written"), "{rest}");
    assert_eq!(names(scene.folder.path()), before);
}

#[test]
fn bench_times_every_network() {
    let scene = Scene::new(&["tiny --target onnx -o onnx"]);
    let bench = document(&scene.run("bench onnx --iterations 2 --profile --threads 1 --json"));
    let networks = bench["networks"].as_array().expect("a list");
    let names: Vec<_> = networks.iter().map(|n| n["name"].as_str()).collect();
    assert_eq!(
        names,
        [Some("text_encoder"), Some("unet"), Some("vae_decoder")]
    );
    for network in networks {
        let ms = |key: &str| network[key].as_f64().expect("a number");
        assert!(
            0.0 < ms("min_ms") && ms("min_ms") <= ms("median_ms"),
            "{network}"
        );
        let profile = network["profile"].as_array().expect("a list");
        let shares = profile
            .iter()
            .map(|row| row["ms"].as_f64().expect("a number"));
        let (shares, median) = (shares.sum::<f64>(), ms("median_ms"));
        // Instructions are nearly all that a call does; the mean of two calls is not their median to the last digit.
        assert!(0.0 < shares && shares < 1.5 * median, "{shares} {median}");
    }
    let unet = &networks[1]["profile"];
    let counted = |op: &str| {
        unet.as_array()
            .into_iter()
            .flatten()
            .find(|r| r["op"] == op)
            .cloned()
    };
    // As the UNet of the fixture has it: 16 transformer blocks with two attentions each.
    assert_eq!(
        counted("attention").expect("there are some")["instructions"],
        32
    );

    let mut ort = scene.command("bench onnx --iterations 1 --engine ort --json");
    let ort: Run = ort
        .env("ORT_DYLIB_PATH", onnxruntime_library())
        .output()
        .expect("starts")
        .into();
    assert_eq!(document(&ort)["engine"], "ort");
    scene.fails("bench onnx --engine ort --profile", 2, &["--engine snap"]);
    scene.fails("bench onnx --iterations 0", 2, &["1 or more"]);
}

/// Unpacked by Python's own code, a bundle is the artifact.
#[test]
fn bundles_hold_the_artifact() {
    let scene = Scene::new(&["tiny --target coreml -o out"]);
    let bundle = document(&scene.run("bundle out -o a.zip --json"));
    let run = scene.run("bundle ./out -o b.zip");
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let bytes = |name: &str| fs::read(scene.path(name)).expect("it is there");
    assert!(
        bytes("a.zip") == bytes("b.zip"),
        "the same artifact gives the same bundle"
    );
    assert_eq!(bundle["bytes"], bytes("a.zip").len());
    unpack(&scene.path("a.zip"), &scene.path("unpacked"));
    let (packed, unpacked) = (
        contents(&scene.path("out")),
        contents(&scene.path("unpacked")),
    );
    assert_eq!(
        packed.keys().collect::<Vec<_>>(),
        unpacked.keys().collect::<Vec<_>>()
    );
    assert!(packed == unpacked, "a file differs");
    assert_eq!(bundle["files"], packed.len());

    scene.fails("bundle out -o a.zip", 2, &["'a.zip' exists"]);
    assert_eq!(scene.run("bundle out -o a.zip --force").exit, Some(0));
    fs::write(scene.path("out/vocab.json"), "{}").expect("a test file can be written");
    scene.fails("bundle out -o c.zip", 1, &["vocab.json", "file-size"]);
}

fn unpack(zip: &Path, to: &Path) {
    let status = Command::new(python())
        .args(["-m", "zipfile", "-e"])
        .args([zip, to])
        .status();
    assert!(status.expect("the interpreter starts").success());
}
