//! What the command says, as snapshots: stdout, stderr and exit code of each run. `INSTA_UPDATE=always cargo test -p
//! snapc-tests --test cli` takes a change over.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use snapc_tests::{Snapc, copy_folder, workspace_root};

/// The command in the folder of the fixtures.
fn snapc() -> Snapc {
    snapc_in(&workspace_root().join("fixtures"))
}

fn snapc_in(folder: &Path) -> Snapc {
    Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), folder)
}

/// Compares with a snapshot; times and the version are left out.
fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter(r"\d+\.\d+ m?s\b", "[time]");
    settings.add_filter(r"snapc \d+\.\d+\.\d+", "snapc [version]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The document that a run with `--json` prints.
fn document(run: &snapc_tests::Run) -> Value {
    let document: Value =
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout));
    assert_eq!(document["schema_version"], 1);
    document
}

#[test]
fn help() {
    let runs = [
        "--help",
        "--version",
        "convert -h",
        "inspect -h",
        "run -h",
        "validate -h",
        "reference -h",
        "bench -h",
        "verify -h",
        "bundle -h",
        "generate -h",
    ];
    let text: String = runs
        .iter()
        .map(|a| format!("$ snapc {a}\n{}\n", snapc().run(a).transcript(&[])))
        .collect();
    snapshot("help", &text);
}

#[test]
fn wrong_flags() {
    let runs = [
        "",
        "conver",
        "convert",
        "convert tiny --target tflite -o out",
        "convert tiny --target coreml -o out --min-ios 15",
        "convert tiny --target onnx -o out --min-ios 17",
        "convert tiny --target onnx -o out --interface apple",
        "convert tiny --target coreml -o out --size 5x",
        "convert tiny --target coreml -o out --weights int9",
        "convert tiny --target coreml -o out --weights mixed",
        "convert tiny --target coreml -o out --weights mixed --weight-budget 600",
        "convert tiny --target coreml -o out --weights w8a8",
        "convert tiny --target coreml -o out --weights int4 --min-ios 17",
        "convert tiny --target native -o out --plan efficient",
        "convert tiny --target native -o out --prune-vae 0.3",
        "convert tiny --target native -o out --passes O1 --weights int8",
        "convert tiny --target native -o out --export-checkpoint other",
        "convert tiny --target native -o out -O 3",
        "convert tiny -o out",
        "convert tiny --target onnx",
        "passes show fold",
        "targets show ios",
        "inspect tiny --graph une",
        "inspect tiny -q -v",
        "run tiny -o x.png",
        "validate tiny --reference r --per-node",
    ];
    let text: String = runs
        .iter()
        .map(|a| format!("$ snapc {a}\n{}\n", snapc().run(a).transcript(&[])))
        .collect();
    snapshot("wrong_flags", &text);
}

#[test]
fn lists() {
    let runs = [
        "passes list",
        "passes show eliminate-dead-code",
        "targets list",
        "targets list --json",
    ];
    let text: String = runs
        .iter()
        .map(|a| format!("$ snapc {a}\n{}\n", snapc().run(a).transcript(&[])))
        .collect();
    snapshot("lists", &text);
}

#[test]
fn inspect() {
    let run = snapc().run("inspect variants/lean --depth 1");
    snapshot("inspect", &run.transcript(&[]));
}

/// Parameters as diffusers counts them (`sum(p.numel() for p in module.parameters())`), for the decoder with
/// `post_quant_conv`.
#[test]
fn inspect_counts_what_diffusers_counts() {
    let run = snapc().run("inspect tiny --json");
    let document = document(&run);
    let parameters = |name: &str| -> u64 {
        let graphs = document["graphs"].as_array().expect("a list");
        let graph = graphs
            .iter()
            .find(|g| g["name"] == name)
            .expect("the graph is there");
        graph["parameters"].as_u64().expect("a number")
    };
    assert_eq!(parameters("text_encoder"), 1_600_672);
    assert_eq!(parameters("unet"), 715_700);
    assert_eq!(parameters("vae_decoder"), 206_855);
}

#[test]
fn inspect_dumps_graphs() {
    let text = snapc().run("inspect variants/lean --graph text_encoder --format text");
    assert_eq!(text.exit, Some(0), "{}", text.stderr);
    let graph = snapc_ir::text::parse(&text.stdout).expect("the dump is the text form");
    assert_eq!(graph.name(), "text_encoder");
    let dot = snapc().run(
        "inspect variants/lean --graph text_encoder --format dot --stage legalized --target onnx",
    );
    assert!(
        dot.stdout.starts_with("digraph \"text_encoder\" {\n"),
        "{}",
        dot.stderr
    );
    assert!(dot.stdout.contains("last_hidden_state"));
}

#[test]
fn convert_verify_inspect_and_replace() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(
        &workspace_root().join("fixtures/tiny"),
        &folder.path().join("tiny"),
    );
    let snapc = snapc_in(folder.path());
    for target in ["coreml", "native", "onnx"] {
        let run = snapc.run(&format!(
            "convert tiny --target {target} -o out/{target} --depfile {target}.d --json"
        ));
        assert_eq!((run.exit, run.stderr.as_str()), (Some(0), ""));
        let report = document(&run);
        assert_eq!(report["target"], target);
        assert_eq!(report["graphs"].as_array().map(Vec::len), Some(3));

        let depfile = fs::read_to_string(folder.path().join(format!("{target}.d"))).unwrap();
        assert!(
            depfile.starts_with(&format!("out/{target}/snap.json: \\\n  tiny/")),
            "{depfile}"
        );
        assert!(
            depfile.contains("  tiny/unet/config.json \\\n"),
            "{depfile}"
        );

        let verify = snapc.run(&format!("verify out/{target}"));
        assert_eq!(verify.exit, Some(0), "{}{}", verify.stdout, verify.stderr);
        assert!(
            verify.stdout.ends_with("no findings\n"),
            "{}",
            verify.stdout
        );
        let inspect = document(&snapc.run(&format!("inspect out/{target} --json")));
        assert_eq!(inspect["manifest"]["steps"], 8);
        // runtimes.md gives these as diffusers' leading timesteps of 8 steps with offset 1.
        let timesteps: Value = serde_json::json!([876, 751, 626, 501, 376, 251, 126, 1]);
        assert_eq!(inspect["manifest"]["timesteps"], timesteps);

        let again = snapc.run(&format!("convert tiny --target {target} -o out/{target}"));
        assert_eq!(again.exit, Some(2), "{}", again.stderr);
        let forced = snapc.run(&format!(
            "convert tiny --target {target} -o out/{target} --force --steps 4"
        ));
        assert_eq!(forced.exit, Some(0), "{}", forced.stderr);
        let inspect = document(&snapc.run(&format!("inspect out/{target} --json")));
        assert_eq!(inspect["manifest"]["steps"], 4);
    }
    let mut left: Vec<_> = fs::read_dir(folder.path().join("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["coreml", "native", "onnx"]);
}

#[test]
fn dry_run_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = workspace_root().join("fixtures/tiny");
    let snapc = snapc_in(folder.path());
    let run = snapc.run(&format!(
        "convert {} --target onnx -o out --dry-run --json",
        tiny.display()
    ));
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let estimate = document(&run)["bytes"].as_u64().expect("a number");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let run = snapc.run(&format!(
        "convert {} --target onnx -o out --json",
        tiny.display()
    ));
    let written = document(&run)["bytes"].as_u64().expect("a number");
    // Weights dominate even this small a pipeline; the graphs themselves are what the estimate leaves out.
    assert!(
        estimate <= written && written < estimate + estimate / 4,
        "{estimate} {written}"
    );
}

#[test]
fn settings_come_from_a_file_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let lean = workspace_root().join("fixtures/variants/lean");
    fs::create_dir(folder.path().join("settings")).unwrap();
    let settings =
        "target = 'onnx'\noutput = '../out'\nprecision = 'f32'\nsteps = 20\nguidance = 3\n";
    fs::write(folder.path().join("settings/snapc.toml"), settings).unwrap();
    let snapc = snapc_in(folder.path());
    let run = snapc.run(&format!(
        "convert {} --config settings/snapc.toml --steps 5",
        lean.display()
    ));
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let manifest = &document(&snapc.run("inspect out --json"))["manifest"];
    assert_eq!(
        (&manifest["steps"], &manifest["guidance"]),
        (&Value::from(5), &Value::from(3.0))
    );
    assert_eq!(manifest["precision"], "f32");
}

#[test]
fn passes_can_be_watched_and_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let lean = workspace_root().join("fixtures/variants/lean");
    let command = format!("convert {} --target onnx --dry-run", lean.display());
    let snapc = snapc_in(folder.path());
    let printed = snapc.run(&format!("{command} --print-after fold-constants"));
    assert_eq!(
        printed.stderr.matches("\ngraph \"").count(),
        3,
        "{}",
        printed.stderr
    );
    let timed = snapc.run(&format!("{command} --time-passes --json"));
    let reports = document(&timed)["pass_reports"]
        .as_array()
        .expect("a list")
        .len();
    assert_eq!(reports % 3, 0, "each pass runs on three graphs");
    let cut = snapc.run(&format!("{command} --time-passes --pass-limit 4 --json"));
    assert_eq!(
        document(&cut)["pass_reports"].as_array().map(Vec::len),
        Some(4)
    );
}

#[test]
fn failures_are_documents_with_json() {
    let run = snapc().run("inspect nowhere --json");
    assert_eq!(run.exit, Some(3));
    let document = document(&run);
    assert_eq!(document["error"]["exit_code"], 3);
    let message = document["error"]["message"].as_str().expect("a message");
    assert!(run.stderr.contains(message) && message.contains("nowhere"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = snapc()
        .command("inspect variants/lean --format text")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    drop(child.stdout.take());
    let run: snapc_tests::Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    assert!(!run.stderr.contains("error"), "{}", run.stderr);
}

#[test]
fn generated_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = snapc_in(folder.path()).run("generate man man");
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let page = fs::read_to_string(folder.path().join("man/snapc-convert.1")).unwrap();
    assert!(
        page.contains("--min\\-ios") || page.contains("\\-\\-min\\-ios"),
        "{page}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let run = snapc().run(&format!("generate completions {shell}"));
        assert!(run.stdout.contains("component-config"), "{shell}");
    }
}
