//! `convert --if-changed`: nothing is done when nothing changed, and the whole conversion when something did.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use snapc_tests::{Run, Snapc, contents, copy_folder, edit_json, names, workspace_root};

/// Where the record of the artifact `out` is.
const RECORD: &str = ".out.snapc-build.json";

/// A folder with a copy of the small checkpoint, `in`.
struct Scene {
    folder: tempfile::TempDir,
    /// The rest of the command line.
    flags: String,
}

impl Scene {
    fn new(flags: &str) -> Self {
        let scene = Scene {
            folder: tempfile::tempdir().expect("a folder for the test"),
            flags: flags.to_owned(),
        };
        let tiny = workspace_root().join("fixtures/tiny");
        for part in ["scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
            copy_folder(&tiny.join(part), &scene.path(&format!("in/{part}")));
        }
        let index = "model_index.json";
        fs::copy(tiny.join(index), scene.path("in").join(index)).expect("the fixture is there");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn snapc(&self) -> Snapc {
        Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), self.folder.path())
    }

    fn run(&self, more: &str) -> Run {
        let flags = &self.flags;
        self.snapc()
            .run(&format!("convert -o out --if-changed {flags} {more}"))
    }

    /// A run that has to convert, for a reason that says these words; and another that has nothing left to do.
    fn converts(&self, more: &str, reason: &str) {
        let before = states(&self.path("out"));
        let run = self.run(more);
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
        let line = run.stderr.lines().find(|l| l.starts_with("converting: "));
        let line = line.unwrap_or_else(|| panic!("no reason in {}{}", run.stdout, run.stderr));
        assert!(line.contains(reason), "no '{reason}' in {line}");
        assert!(!run.stderr.contains("converts again"), "{}", run.stderr);
        assert_ne!(states(&self.path("out")), before);
        self.does_nothing(more);
    }

    /// A run that has to leave the artifact alone.
    fn does_nothing(&self, more: &str) {
        let before = states(&self.path("out"));
        self.tells_unchanged(more);
        assert_eq!(states(&self.path("out")), before);
    }

    /// The same, where a file that the artifact is made from is newer: the manifest gets a new time, and nothing else.
    fn only_touches(&self, more: &str) {
        let before = states(&self.path("out"));
        self.tells_unchanged(more);
        let mut after = states(&self.path("out"));
        assert!(after["snap.json"].1 > before["snap.json"].1);
        after.insert("snap.json".to_owned(), before["snap.json"]);
        assert_eq!(after, before);
        self.does_nothing(more);
    }

    fn tells_unchanged(&self, more: &str) {
        let run = self.run(more);
        assert_eq!(
            (run.exit, run.stderr.as_str()),
            (Some(0), ""),
            "{}",
            run.stdout
        );
        assert!(run.stdout.starts_with("out: unchanged, "), "{}", run.stdout);
        assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
    }

    fn record(&self) -> Value {
        let text = fs::read(self.path(RECORD)).expect("there is a record");
        serde_json::from_slice(&text).expect("the record is JSON")
    }
}

/// Size and time of every file below a folder; nothing when it is not there.
fn states(folder: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    if !folder.exists() {
        return BTreeMap::new();
    }
    let state = |name: String| {
        let metadata = fs::metadata(folder.join(&name)).expect("the file is there");
        let modified = metadata.modified().expect("files have times");
        (name, (metadata.len(), modified))
    };
    names(folder).into_iter().map(state).collect()
}

/// Changes one byte of a file, this many before its end.
fn alter(path: &Path, from_end: usize) {
    let mut bytes = fs::read(path).expect("the file is there");
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a test file can be written");
}

fn set_modified(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path);
    let file = file.expect("a test file can be opened");
    file.set_times(FileTimes::new().set_modified(time))
        .expect("times can be set");
}

fn any_weights(artifact: &Path) -> PathBuf {
    artifact.join("Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin")
}

#[test]
fn nothing_is_done_when_nothing_changed() {
    let scene = Scene::new("in --target coreml");
    scene.converts("", "there is no artifact 'out' yet");
    // The flag leaves no trace in the artifact.
    let run = scene.snapc().run("convert in --target coreml -o other");
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    assert!(contents(&scene.path("out")) == contents(&scene.path("other")));

    let unchanged: Value = serde_json::from_str(&scene.run("--json").stdout).expect("JSON");
    let files = contents(&scene.path("out"));
    let bytes: usize = files.values().map(Vec::len).sum::<usize>() - files["snap.json"].len();
    assert_eq!(unchanged["unchanged"], true);
    assert_eq!(unchanged["files"], files.len());
    assert_eq!(unchanged["bytes"], bytes);
    assert_eq!(unchanged["output"], "out");
    scene.does_nothing("--force");
    // Without the flag an artifact is in the way as ever.
    assert_eq!(
        scene.snapc().run("convert in --target coreml -o out").exit,
        Some(2)
    );
    // It replaces artifacts only.
    fs::create_dir(scene.path("thesis")).expect("a test folder can be made");
    fs::write(scene.path("thesis/text"), "precious").expect("a test file can be written");
    let run = scene
        .snapc()
        .run("convert in --target coreml -o thesis --if-changed");
    assert_eq!(run.exit, Some(2), "{}", run.stderr);
}

#[test]
fn the_same_content_at_another_time_is_unchanged() {
    let scene = Scene::new("in --target coreml");
    scene.converts("", "no artifact");
    let before = scene.record();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for name in [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ] {
        set_modified(&scene.path("in").join(name), hour_ago);
    }
    scene.does_nothing("");
    // As by a checkout: another file with the same content.
    let path = scene.path("in/vae/config.json");
    let bytes = fs::read(&path).expect("the file is there");
    fs::remove_file(&path).expect("a test file can be removed");
    fs::write(&path, bytes).expect("a test file can be written");
    scene.only_touches("");
    // As from a cache: the artifact was copied.
    fs::rename(scene.path("out"), scene.path("cache")).expect("a folder can be renamed");
    copy_folder(&scene.path("cache"), &scene.path("out"));
    scene.does_nothing("");
    let after = scene.record();
    assert_ne!(
        after["artifact"][0]["stamp"],
        before["artifact"][0]["stamp"]
    );
    assert_eq!(
        after["artifact"][0]["sha256"],
        before["artifact"][0]["sha256"]
    );
    // Another place of the checkpoint is no change either.
    fs::rename(scene.path("in"), scene.path("elsewhere")).expect("a folder can be renamed");
    let run = scene
        .snapc()
        .run("convert elsewhere --target coreml -o out --if-changed");
    assert!(run.stdout.starts_with("out: unchanged"), "{}", run.stderr);
}

#[test]
fn files_with_their_recorded_stamps_are_not_read() {
    let scene = Scene::new("");
    let tiny = workspace_root().join("fixtures/tiny");
    let flags = format!("{} --target coreml", tiny.display());
    scene.converts(&flags, "no artifact");
    // With a wrong hash in the record only a file that is not read can pass.
    let mut inputs = 0;
    edit_json(&scene.path(RECORD), |record| {
        for file in record["inputs"].as_array_mut().expect("a list") {
            assert!(file["stamp"]["inode"].is_u64(), "{file}");
            file["sha256"] = "wrong".into();
            inputs += 1;
        }
    });
    assert_eq!(inputs, 12);
    scene.does_nothing(&flags);
}

#[test]
fn whatever_matters_converts() {
    let scene = Scene::new("in --target coreml");
    scene.converts("", "no artifact");
    let first = contents(&scene.path("out"));

    let weights = scene.path("in/unet/diffusion_pytorch_model.safetensors");
    alter(&weights, 3);
    scene.converts(
        "",
        "the content of 'in/unet/diffusion_pytorch_model.safetensors' has changed",
    );
    assert!(contents(&scene.path("out")) != first);
    alter(&weights, 3);
    scene.converts("", "has changed");
    assert!(contents(&scene.path("out")) == first);

    scene.converts("--steps 4", "'out' was made with another --steps");
    scene.converts("", "another --steps");
    // As f32 it has more digits than every reader of JSON keeps.
    scene.converts("--guidance 0.46", "another --guidance");
    scene.converts("", "another --guidance");
    scene.converts("--pass-limit 1000", "another --pass-limit");
    scene.converts("", "another --pass-limit");

    let extra = scene.path("in/tokenizer/special_tokens_map.json");
    let bytes = fs::read(&extra).expect("the file is there");
    fs::remove_file(&extra).expect("a test file can be removed");
    scene.converts("", "'checkpoint/tokenizer/special_tokens_map.json' is gone");
    fs::write(&extra, bytes).expect("a test file can be written");
    scene.converts("", "'in/tokenizer/special_tokens_map.json' is new");
    // What no conversion reads does not count.
    fs::write(scene.path("in/notes.txt"), "words").expect("a test file can be written");
    scene.does_nothing("");

    let emitted = any_weights(&scene.path("out"));
    alter(&emitted, 1);
    scene.converts("", "weight.bin' has changed");
    File::options()
        .append(true)
        .open(&emitted)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))
        .expect("a test file can be written");
    scene.converts("", "weight.bin' has another size");
    fs::remove_file(&emitted).expect("a test file can be removed");
    scene.converts("", "weight.bin' is missing");
    fs::remove_file(scene.path("out/snap.json")).expect("a test file can be removed");
    fs::remove_dir_all(scene.path("out")).expect("a test folder can be removed");
    scene.converts("", "no artifact");
    assert!(contents(&scene.path("out")) == first);
}

#[cfg(target_os = "linux")]
#[test]
fn paths_may_be_any_bytes() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let scene = Scene::new("");
    let path = |name: &[u8]| OsString::from_vec([name, b"\xff"].concat());
    let checkpoint = scene.folder.path().join(path(b"in"));
    fs::rename(scene.path("in"), &checkpoint).expect("a folder can be renamed");
    let run = || -> Run {
        let mut command = scene
            .snapc()
            .command("convert --target native --if-changed --json");
        command.arg(path(b"in")).arg("-o").arg(path(b"out"));
        command.arg("--depfile").arg(path(b"depfile"));
        let output = command.output().expect("the binary under test starts");
        output.into()
    };
    for unchanged in [false, true] {
        let run = run();
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
        let document: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(document["unchanged"], unchanged);
        assert_eq!(document["output"], "out\u{fffd}");
    }
    let depfile = fs::read(scene.folder.path().join(path(b"depfile"))).expect("it is written");
    let names_input = |line: &[u8]| line.starts_with(b"  in\xff/unet/config.json");
    assert!(depfile.split(|&b| b == b'\n').any(names_input));
}

#[test]
fn a_record_that_is_missing_damaged_or_of_another_version_converts() {
    let scene = Scene::new("in --target native");
    scene.converts("", "no artifact");
    fs::remove_file(scene.path(RECORD)).expect("a test file can be removed");
    scene.converts("", "no record of what 'out' was made from");
    let text = fs::read(scene.path(RECORD)).expect("there is a record");
    fs::write(scene.path(RECORD), &text[..text.len() / 2]).expect("a test file can be written");
    scene.converts("", "no record");
    edit_json(&scene.path(RECORD), |record| {
        record["snapc_version"] = "0.0.1".into()
    });
    scene.converts("", "made by snapc 0.0.1");
    edit_json(&scene.path(RECORD), |record| {
        let inputs = record["inputs"].as_array_mut().expect("a list");
        inputs.reverse();
    });
    scene.converts("", "lists other files");
}

#[test]
fn files_that_flags_name_count_by_their_content() {
    let scene = Scene::new("--config snapc.toml");
    let plan = |name: &str, block: &str| {
        let text = format!("{{\"remove\": [\"{block}\"]}}");
        fs::write(scene.path(name), text).expect("a test file can be written");
    };
    let settings = |text: &str| {
        let text = format!("checkpoint = 'in'\ntarget = 'native'\n{text}");
        fs::write(scene.path("snapc.toml"), text).expect("a test file can be written");
    };
    plan("plan.json", "mid_block.resnets.1");
    settings("plan = 'plan.json'\n");
    scene.converts("", "no artifact");
    plan("plan.json", "mid_block.attentions.0");
    scene.converts("", "'plan.json' has another size");
    // The settings file counts by what it says, the plan by its content, not by its name.
    plan("other.json", "mid_block.attentions.0");
    settings("# words\nplan = 'other.json'\n");
    scene.only_touches("");
    settings("plan = 'other.json'\nguidance = 3.0\n");
    scene.converts("", "another --guidance");
    settings("guidance = 3.0\n");
    scene.converts("", "'plan' is gone");

    let reference = workspace_root().join("fixtures/tiny/reference.safetensors");
    fs::copy(reference, scene.path("r.safetensors")).expect("the fixture is there");
    settings("calibration = 'r.safetensors'\n");
    scene.converts("", "another --guidance");
    alter(&scene.path("r.safetensors"), 3);
    scene.converts("", "the content of 'r.safetensors' has changed");
}

#[test]
fn a_conversion_that_fails_changes_nothing() {
    let scene = Scene::new("in --target native");
    let listed = |scene: &Scene| names(scene.folder.path());
    let config = scene.path("in/unet/config.json");
    let good = fs::read(&config).expect("the file is there");
    let spoil = || fs::write(&config, "{").expect("a test file can be written");
    spoil();
    let before = listed(&scene);
    assert_eq!(scene.run("").exit, Some(3));
    assert_eq!(listed(&scene), before, "left behind");

    fs::write(&config, &good).expect("a test file can be written");
    scene.converts("", "no artifact");
    spoil();
    let (before, record) = (contents(&scene.path("out")), scene.record());
    assert_eq!(scene.run("").exit, Some(3));
    assert!(contents(&scene.path("out")) == before);
    assert_eq!(scene.record(), record);
    fs::write(&config, &good).expect("a test file can be written");
    scene.only_touches("");

    for inside in ["out/x.d", "./out/deeper/x.d"] {
        let run = scene.run(&format!("--depfile {inside}"));
        assert_eq!(run.exit, Some(2), "{}", run.stderr);
        assert!(
            run.stderr.contains("lies in the artifact"),
            "{}",
            run.stderr
        );
    }
    // A name that is mistaken for one of the depfile costs no input.
    fs::write(scene.path("snapc.toml"), "guidance = 3.0\n").expect("a test file can be written");
    let inputs = contents(&scene.path("in"));
    for input in [
        "in/model_index.json",
        "in/unet/../unet/config.json",
        "snapc.toml",
    ] {
        let run = scene.run(&format!("--config snapc.toml --depfile {input}"));
        assert_eq!(run.exit, Some(2), "{}", run.stderr);
        assert!(
            run.stderr.contains("which is the depfile"),
            "{}",
            run.stderr
        );
    }
    assert!(contents(&scene.path("in")) == inputs);
    let run = scene.run("--plan snapfusion --export-checkpoint exported");
    assert_eq!(run.exit, Some(2), "{}", run.stderr);
    assert!(
        run.stderr.contains("--if-changed may write nothing"),
        "{}",
        run.stderr
    );
}

/// Names that a Makefile has to escape.
#[test]
fn make_runs_the_rule_when_it_has_to() {
    let scene = Scene::new("");
    let checkpoint = scene.path("a b#c$d:e");
    fs::rename(scene.path("in"), &checkpoint).expect("a folder can be renamed");
    let plan = "{\"remove\": [\"mid_block.attentions.0\"]}";
    fs::write(scene.path("my plan.json"), plan).expect("a test file can be written");
    let settings = "checkpoint = 'a b#c$d:e'\ntarget = 'native'\noutput = 'out'\nplan = 'my plan.json'\n\
        if-changed = true\ndepfile = 'out.d'\n";
    fs::write(scene.path("snapc.toml"), settings).expect("a test file can be written");
    let binary = env!("CARGO_BIN_EXE_snapc-under-test");
    let makefile =
        format!("out/snap.json:\n\t\"{binary}\" convert --config snapc.toml\n\n-include out.d\n");
    fs::write(scene.path("Makefile"), makefile).expect("a test file can be written");
    let make = || -> Run {
        let mut command = Command::new("make");
        let output = command.current_dir(scene.folder.path()).output();
        let run: Run = output.expect("make is installed").into();
        assert_eq!(run.exit, Some(0), "{}{}", run.stdout, run.stderr);
        run
    };
    let rests = || {
        let run = make();
        assert!(run.stdout.contains("is up to date"), "{}", run.stdout);
    };
    assert!(make().stderr.contains("no artifact"));
    rests();
    // Every input is in the rule: the checkpoint's, the plan and the settings.
    let depfile = fs::read_to_string(scene.path("out.d")).expect("there is a depfile");
    assert_eq!(depfile.matches(" \\\n  ").count(), 14, "{depfile}");

    // Touched only: the rule runs once, and all but the manifest stays as it is.
    let inputs = [
        checkpoint.join("unet/diffusion_pytorch_model.safetensors"),
        scene.path("my plan.json"),
        scene.path("snapc.toml"),
    ];
    for input in &inputs {
        let before = states(&scene.path("out"));
        set_modified(input, SystemTime::now());
        let run = make();
        assert!(
            run.stdout.contains("out: unchanged"),
            "{}{}",
            run.stdout,
            run.stderr
        );
        let mut after = states(&scene.path("out"));
        assert!(after["snap.json"].1 > before["snap.json"].1);
        after.insert("snap.json".to_owned(), before["snap.json"]);
        assert_eq!(after, before);
        rests();
    }
    // A time that lies ahead must not make the rule run for ever. (make warns of it.)
    set_modified(&inputs[0], SystemTime::now() + Duration::from_secs(3600));
    assert!(make().stdout.contains("out: unchanged"));
    rests();

    // The depfile comes back where a build system has taken it away, and is not touched otherwise.
    fs::remove_file(scene.path("out.d")).expect("a test file can be removed");
    let run = scene.snapc().run("convert --config snapc.toml");
    assert!(run.stdout.starts_with("out: unchanged"), "{}", run.stderr);
    assert_eq!(
        fs::read_to_string(scene.path("out.d")).expect("it is back"),
        depfile
    );

    // An input that is gone is no error of make's.
    fs::remove_file(checkpoint.join("tokenizer/special_tokens_map.json"))
        .expect("a test file can be removed");
    assert!(make().stderr.contains("special_tokens_map.json' is gone"));
    rests();
}
