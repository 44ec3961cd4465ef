//! `validate --engine coreml`, with a stand-in for `snap-run`: what it is asked for, how its record is compared, and what
//! happens when it is missing or fails. The stand-in copies a record that snapc's own engine has made.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use snapc_tests::{Run, Snapc, names, workspace_root};

/// A folder with artifacts and a stand-in.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(targets: &[&str]) -> Self {
        let scene = Scene {
            folder: tempfile::tempdir().expect("a folder for the test"),
        };
        let tiny = workspace_root().join("fixtures/tiny");
        for target in targets {
            let run = scene.run(&format!(
                "convert {} --target {target} -o {target}",
                tiny.display()
            ));
            assert_eq!(run.exit, Some(0), "{}", run.stderr);
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that finds the stand-in by `SNAP_RUN`, if there is one, and no other.
    fn command(&self, arguments: &str) -> Command {
        let snapc = Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), self.folder.path());
        let mut command = snapc.command(arguments);
        command.env_remove("SNAP_RUN").env("PATH", "/usr/bin:/bin");
        let stand_in = self.path("stand-in");
        if stand_in.exists() {
            command.env("SNAP_RUN", stand_in);
        }
        command
    }

    fn run(&self, arguments: &str) -> Run {
        let output = self.command(arguments).output();
        output.expect("the binary under test starts").into()
    }

    /// Puts a shell script in the place of `snap-run`, or another name.
    fn stand_in(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script can be written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).expect("a script can be made executable");
    }

    /// A stand-in that notes its arguments and says that `record` is what it made.
    fn stand_in_with(&self, record: &str) {
        let (record, asked) = (self.path(record), self.path("asked"));
        self.stand_in(
            "stand-in",
            &format!(
                "printf '%s\\n' \"$@\" > '{}'\necho a picture\necho working >&2\n\
                 while [ $# -gt 0 ]; do [ \"$1\" = --save ] && cp '{}' \"$2\"; shift; done; exit 0",
                asked.display(),
                record.display()
            ),
        );
    }

    /// A validation that has to end with `exit`, say all of `expected` on stderr, and leave nothing behind.
    fn fails(&self, arguments: &str, exit: i32, expected: &[&str]) {
        let before = names(self.folder.path());
        let run = self.run(arguments);
        assert_eq!(run.exit, Some(exit), "{arguments}: {}", run.stderr);
        for words in expected {
            assert!(run.stderr.contains(words), "no '{words}' in {}", run.stderr);
        }
        assert_eq!(names(self.folder.path()), before, "left behind");
    }

    /// Has snapc's own engine record the run of the reference, with other flags behind those of the reference.
    fn record(&self, name: &str, flags: &str) {
        let asked = settings();
        let text = |key: &str| asked[key].as_str().expect("a text").to_owned();
        let command = format!("run coreml -o {name}.png --save {name} {flags}");
        let mut command = self.command(&command);
        command.args(["--prompt", &text("prompt"), "--negative", &text("negative")]);
        let run: Run = command.output().expect("the binary starts").into();
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
    }

    fn rows(&self, arguments: &str) -> Value {
        let run = self.run(arguments);
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
    }
}

fn reference() -> String {
    let path = workspace_root().join("fixtures/tiny/reference.safetensors");
    path.display().to_string()
}

/// What the reference says about its run.
fn settings() -> Value {
    let bytes = fs::read(reference()).expect("the fixture is there");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    let header = &rest[..usize::try_from(length).expect("a header fits")];
    let header: Value = serde_json::from_slice(header).expect("the header is JSON");
    let text = header["__metadata__"]["snapc"].as_str().expect("a text");
    serde_json::from_str(text).expect("the settings are JSON")
}

#[test]
fn what_snap_run_records_is_held_against_the_reference() {
    let scene = Scene::new(&["coreml"]);
    let from_reference = format!("--init-latents {} --steps 8 --guidance 7.5", reference());
    scene.record("same.safetensors", &from_reference);
    scene.record("other.safetensors", "--seed 5 --steps 8 --guidance 7.5");
    scene.record("short.safetensors", "--seed 5 --steps 4 --guidance 7.5");
    let validate = format!("validate coreml --reference {}", reference());

    scene.stand_in_with("same.safetensors");
    let by_core_ml = scene.rows(&format!(
        "{validate} --engine coreml --compute-units cpu-ane --json"
    ));
    assert_eq!(
        (&by_core_ml["engine"], &by_core_ml["ok"]),
        (&json!("coreml"), &json!(true))
    );
    // The same run compared in the same way gives the same figures, and the text encoder answers for itself.
    let by_snapc = scene.rows(&format!("{validate} --engine snap --json"));
    let rows = |document: &Value, kinds: &[&str]| -> Vec<Value> {
        let rows = document["rows"].as_array().expect("a list").iter();
        let of_kind = rows.filter(|row| {
            kinds.contains(&row["kind"].as_str().expect("a text")) || row["graph"] == "text_encoder"
        });
        of_kind.cloned().collect()
    };
    let whole = ["tokens", "latents", "final_latents", "picture"];
    assert_eq!(rows(&by_core_ml, &whole).len(), 11);
    assert_eq!(rows(&by_core_ml, &whole), rows(&by_snapc, &whole));
    assert_eq!(by_core_ml["rows"].as_array().map(Vec::len), Some(11));

    let asked = fs::read_to_string(scene.path("asked")).expect("the stand-in was called");
    let asked: Vec<&str> = asked.lines().collect();
    let reference = reference();
    let settings = settings();
    assert_eq!(asked[..2], ["generate", "coreml"]);
    for (flag, value) in [
        ("--prompt", settings["prompt"].as_str().expect("a text")),
        ("--negative", settings["negative"].as_str().expect("a text")),
        ("--steps", "8"),
        ("--guidance", "7.5"),
        ("--init-latents", reference.as_str()),
        ("--compute-units", "cpu-ane"),
    ] {
        let at = asked.iter().position(|word| *word == flag);
        assert_eq!(at.map(|at| asked[at + 1]), Some(value), "{flag}");
    }
    let run_only = scene.rows(&format!("{validate} --engine coreml --run-only --json"));
    assert_eq!(run_only["rows"].as_array().map(Vec::len), Some(10));

    // What departs is found out.
    scene.stand_in_with("other.safetensors");
    let run = scene.run(&format!("{validate} --engine coreml"));
    assert_eq!(run.exit, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("run: final latents: ") && run.stdout.contains("under"));
    assert!(run.stderr.contains("working"), "{}", run.stderr);
    scene.stand_in_with("short.safetensors");
    let command = format!("{validate} --engine coreml");
    scene.fails(
        &command,
        3,
        &["did not make the run of the reference", "its steps are at"],
    );
}

/// The size that is asked for is passed on, and the record is held against a reference of that size.
#[test]
fn snap_run_is_told_the_size() {
    let scene = Scene::new(&[]);
    let tiny = workspace_root().join("fixtures/tiny");
    let convert = format!(
        "convert {} --target coreml -o coreml --sizes 128,64 --min-ios 18",
        tiny.display()
    );
    assert_eq!(scene.run(&convert).exit, Some(0));
    let reference = tiny.join("reference-64x64.safetensors");
    let run = |size: &str| format!("--size {size} --seed 0 --steps 8 --guidance 7.5");
    scene.record("small.safetensors", &run("64"));
    scene.record("large.safetensors", &run("128"));

    let validate = format!("validate coreml --reference {}", reference.display());
    let core_ml = format!("{validate} --engine coreml --size 64");
    scene.stand_in_with("small.safetensors");
    let rows = scene.rows(&format!("{core_ml} --json"));
    assert_eq!(rows["ok"], json!(true));
    let asked = fs::read_to_string(scene.path("asked")).expect("the stand-in was called");
    let asked: Vec<&str> = asked.lines().collect();
    assert!(asked.ends_with(&["--size", "64x64"]), "{asked:?}");

    scene.stand_in_with("large.safetensors");
    scene.fails(&core_ml, 3, &["its sizes are", "those of the reference"]);
    let other = format!("{validate} --engine coreml --size 128x64");
    scene.fails(&other, 2, &["choose 128x128 or 64x64"]);
}

#[test]
fn a_snap_run_that_is_missing_or_fails_is_an_error() {
    let scene = Scene::new(&["coreml", "native"]);
    let validate = format!("validate coreml --reference {}", reference());
    let core_ml = format!("{validate} --engine coreml");
    scene.fails(
        &core_ml,
        2,
        &["there is no snap-run on PATH", "swift build", "SNAP_RUN"],
    );
    let mut command = scene.command(&core_ml);
    let run: Run = command
        .env("SNAP_RUN", "/nowhere/snap-run")
        .output()
        .expect("the binary starts")
        .into();
    assert_eq!(run.exit, Some(2));
    assert!(
        run.stderr.contains("cannot start '/nowhere/snap-run'"),
        "{}",
        run.stderr
    );
    // On PATH it is found without the variable.
    fs::create_dir(scene.path("bin")).expect("a test folder can be made");
    scene.stand_in(
        "bin/snap-run",
        "echo 'error: the phone is on fire' >&2; exit 4",
    );
    let mut command = scene.command(&core_ml);
    let output = command.env("PATH", scene.path("bin")).output();
    let run: Run = output.expect("the binary starts").into();
    assert_eq!(run.exit, Some(4), "{}", run.stderr);
    assert!(
        run.stderr.starts_with("error: the phone is on fire\n"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("snap-run' failed (exit status: 4)"),
        "{}",
        run.stderr
    );

    for (script, exit, expected) in [
        ("exit 3", 3, "exit status: 3"),
        ("exit 9", 70, "exit status: 9"),
        ("kill -9 $$", 70, "signal: 9"),
        ("exit 0", 3, "it left no record of the run"),
    ] {
        scene.stand_in("stand-in", script);
        scene.fails(&core_ml, exit, &[expected]);
    }
    for (arguments, expected) in [
        (
            format!(
                "validate native --reference {} --engine coreml",
                reference()
            ),
            "runs coreml artifacts",
        ),
        (
            format!("{core_ml} --threads 2"),
            "chooses its threads itself",
        ),
        (
            format!("{validate} --engine snap --compute-units cpu"),
            "give --engine coreml",
        ),
        (
            "run coreml --engine coreml --prompt fox -o x.png".to_owned(),
            "snap-run generate",
        ),
        (
            "bench coreml --engine coreml".to_owned(),
            "snap-run generate",
        ),
    ] {
        scene.fails(&arguments, 2, &[expected]);
    }
}
