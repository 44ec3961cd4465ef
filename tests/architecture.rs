//! The rules of `docs/architecture.md` that a machine can hold, numbered as there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use snapc_tests::workspace_root;

/// The crates a crate may use in its product (A1): what is not listed is forbidden.
const ALLOWED: &[(&str, &[&str])] = &[
    ("snapc-ir", &[]),
    ("snapc-import", &["snapc-ir"]),
    ("snapc-passes", &["snapc-ir"]),
    ("snapc-target", &["snapc-ir", "snapc-pipeline"]),
    ("snapc-coreml", &["snapc-ir", "snapc-target"]),
    (
        // An engine over packages, as the command has one: above the targets, beside the command.
        "snapc-coreml-capi",
        &[
            "snapc-coreml",
            "snapc-ffi",
            "snapc-format",
            "snapc-ir",
            "snapc-native",
            "snapc-passes",
            "snapc-pipeline",
            "snapc-runtime",
            "snapc-target",
        ],
    ),
    ("snapc-onnx", &["snapc-ir", "snapc-target"]),
    (
        "snapc-native",
        &["snapc-format", "snapc-ir", "snapc-program", "snapc-target"],
    ),
    ("snapc-onnx-runtime", &["snapc-pipeline"]),
    ("snapc-ffi", &[]),
    ("snapc-format", &[]),
    ("snapc-kernels", &[]),
    ("snapc-pipeline", &[]),
    ("snapc-program", &["snapc-format", "snapc-pipeline"]),
    (
        "snapc-runtime",
        &[
            "snapc-format",
            "snapc-kernels",
            "snapc-pipeline",
            "snapc-program",
        ],
    ),
    (
        "snapc-capi",
        &["snapc-ffi", "snapc-pipeline", "snapc-runtime"],
    ),
    (
        "snapc",
        &[
            "snapc-coreml",
            "snapc-format",
            "snapc-import",
            "snapc-ir",
            "snapc-native",
            "snapc-onnx",
            "snapc-onnx-runtime",
            "snapc-passes",
            "snapc-pipeline",
            "snapc-runtime",
            "snapc-target",
        ],
    ),
    ("snapc-tests", &["snapc", "snapc-ir", "snapc-passes"]),
    ("xtask", &["snapc", "snapc-passes"]),
];

/// Crates in `targets` that are no target: what targets share, and what runs on the device.
const NOT_TARGETS: &[&str] = &["api", "ffi", "format", "kernels", "pipeline", "program"];

/// Files that may hold `unsafe` (A4).
const UNSAFE_FILES: &[&str] = &[
    "converter/import/src/mmap.rs",
    "targets/api/src/mapped.rs",
    "targets/coreml/capi/src/abi.rs",
    "targets/coreml/capi/src/pointer.rs",
    "targets/ffi/src/pointer.rs",
    "targets/format/src/mmap.rs",
    "targets/kernels/src/attention.rs",
    "targets/kernels/src/binary.rs",
    "targets/kernels/src/codes.rs",
    "targets/kernels/src/direct.rs",
    "targets/kernels/src/elementwise.rs",
    "targets/kernels/src/gemm.rs",
    "targets/kernels/src/integers.rs",
    "targets/kernels/src/matmul.rs",
    "targets/kernels/src/norm.rs",
    "targets/kernels/src/permute.rs",
    "targets/kernels/src/pool.rs",
    "targets/kernels/src/result.rs",
    "targets/kernels/src/simd/mod.rs",
    "targets/kernels/src/simd/neon.rs",
    "targets/kernels/src/simd/portable.rs",
    "targets/kernels/src/simd/vnni.rs",
    "targets/kernels/src/simd/x86.rs",
    "targets/kernels/src/table.rs",
    "targets/kernels/src/tile.rs",
    "targets/native/capi/src/abi.rs",
    "targets/native/capi/src/parts.rs",
    "targets/native/capi/src/pointer.rs",
];

/// Lines a source file may have (A5).
const MAX_LINES: usize = 800;

fn metadata() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(workspace_root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    document["packages"]
        .as_array()
        .expect("packages are a list")
        .clone()
}

/// Names of a package's direct dependencies; with those of its tests when `all`.
fn dependencies(package: &Value, all: bool) -> BTreeSet<String> {
    let list = package["dependencies"]
        .as_array()
        .expect("dependencies are a list");
    let used = list.iter().filter(|d| all || d["kind"] != "dev");
    used.map(|d| d["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// Files under version control or on the way there, relative to the root.
fn tracked_files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace_root())
        .output()
        .expect("git starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let files: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(
        files.iter().any(|f| f == "Cargo.toml"),
        "not the workspace: {files:?}"
    );
    files
}

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace_root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn sources() -> BTreeMap<String, String> {
    let files = tracked_files().into_iter().filter(|f| f.ends_with(".rs"));
    files
        .filter(|f| workspace_root().join(f).is_file())
        .map(|f| (f.clone(), read(&f)))
        .collect()
}

#[test]
fn a1_dependencies_point_downwards() {
    let packages = metadata();
    let own: BTreeSet<&str> = packages
        .iter()
        .map(|p| p["name"].as_str().expect("a name"))
        .collect();
    for package in &packages {
        let name = package["name"].as_str().expect("a name");
        let (_, allowed) = ALLOWED.iter().find(|(n, _)| *n == name).unwrap_or_else(|| {
            panic!("crate {name} is not in the list of this test; add it with what it may use")
        });
        for used in dependencies(package, false) {
            let fine = !own.contains(used.as_str()) || allowed.contains(&used.as_str());
            assert!(fine, "{name} must not depend on {used}");
        }
    }
    let listed: BTreeSet<&str> = ALLOWED.iter().map(|(n, _)| *n).collect();
    assert_eq!(
        listed, own,
        "the list of this test names crates that do not exist"
    );
}

#[test]
fn a2_every_dependency_has_its_reason() {
    let page = read("docs/decisions/0002-dependencies.md");
    let reasons: BTreeMap<String, String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, reason)| {
            (
                name.to_owned(),
                reason.trim_end_matches('|').trim().to_owned(),
            )
        })
        .collect();
    let packages = metadata();
    let own: BTreeSet<&str> = packages
        .iter()
        .map(|p| p["name"].as_str().expect("a name"))
        .collect();
    let foreign: BTreeSet<String> = packages
        .iter()
        .flat_map(|p| dependencies(p, true))
        .filter(|d| !own.contains(d.as_str()))
        .collect();
    let listed: BTreeSet<String> = reasons.keys().cloned().collect();
    assert_eq!(
        listed, foreign,
        "docs/decisions/0002-dependencies.md (left) and the manifests (right) differ"
    );
    for (name, reason) in &reasons {
        assert!(
            reason.split_whitespace().count() >= 4,
            "{name}: no reason given"
        );
    }
}

#[test]
fn a3_crates_state_their_purpose_and_lints() {
    for package in metadata() {
        let name = package["name"].as_str().expect("a name");
        let manifest = package["manifest_path"].as_str().expect("a path");
        let text = std::fs::read_to_string(manifest).expect("a manifest can be read");
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{name} does not take the workspace's lints"
        );
        let description = package["description"].as_str().unwrap_or_default();
        assert!(description.len() > 20, "{name} has no description");
        let source = Path::new(manifest).with_file_name("src");
        let root = ["lib.rs", "main.rs"]
            .map(|f| source.join(f))
            .into_iter()
            .find(|f| f.is_file());
        let text =
            std::fs::read_to_string(root.expect("a crate has a root")).expect("it can be read");
        assert!(
            text.starts_with("//! "),
            "the root of {name} has no documentation"
        );
    }
}

#[test]
fn a4_unsafe_stays_where_it_is_allowed() {
    // Put together here so that this file does not match itself.
    let forms = ["{", "fn ", "impl ", "extern "].map(|after| format!("{}safe {after}", "un"));
    let forbid = ["#![forbid(un", "safe_code)]"].concat();
    for (file, text) in sources() {
        let mut code = text
            .lines()
            .map(|l| l.split("//").next().unwrap_or_default());
        let used = code.any(|l| forms.iter().any(|form| l.contains(form.as_str())));
        assert!(
            !used || UNSAFE_FILES.contains(&file.as_str()),
            "{file} uses unsafe code"
        );
    }
    for package in metadata() {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let source = Path::new(manifest).with_file_name("src");
        let holds_unsafe = UNSAFE_FILES
            .iter()
            .any(|f| workspace_root().join(f).starts_with(&source));
        for root in ["lib.rs", "main.rs"].map(|f| source.join(f)) {
            if let (Ok(text), false) = (std::fs::read_to_string(&root), holds_unsafe) {
                assert!(
                    text.contains(&forbid),
                    "{} does not forbid unsafe code",
                    root.display()
                );
            }
        }
    }
}

#[test]
fn a5_files_are_short() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{file} has {lines} lines, at most {MAX_LINES} are allowed"
        );
    }
}

/// The entries of a list macro or array, from the line that contains `start` to the one that is `end`.
fn list_entries(file: &str, start: &str, end: &str) -> Vec<String> {
    let text = read(file);
    let lines = text.lines().skip_while(|l| !l.starts_with(start)).skip(1);
    let entries: Vec<String> = lines
        .take_while(|l| *l != end)
        .map(|l| l.trim().trim_end_matches(',').to_owned())
        .filter(|l| !l.is_empty() && !l.starts_with("//"))
        .collect();
    assert!(
        !entries.is_empty(),
        "{file}: no list that starts with '{start}'"
    );
    entries
}

/// Rust files of a folder without the given ones, by name without extension.
fn modules(folder: &str, except: &[&str]) -> BTreeSet<String> {
    let entries = std::fs::read_dir(workspace_root().join(folder)).expect("the folder exists");
    let names = entries.map(|e| {
        e.expect("an entry can be read")
            .file_name()
            .into_string()
            .expect("UTF-8")
    });
    names
        .filter_map(|n| n.strip_suffix(".rs").map(str::to_owned))
        .filter(|n| !except.contains(&n.as_str()))
        .collect()
}

#[test]
fn a6_an_operator_is_one_file_and_one_line() {
    let entries = list_entries("converter/ir/src/ops/mod.rs", "ops! {", "}");
    let listed: BTreeSet<String> = entries
        .iter()
        .map(|e| e.split(' ').next().expect("a module").to_owned())
        .collect();
    assert_eq!(listed.len(), entries.len(), "an operator is listed twice");
    let files = modules(
        "converter/ir/src/ops",
        &["mod", "attribute", "check", "elementwise"],
    );
    assert_eq!(listed, files);
    let mut sorted = entries.clone();
    sorted.sort();
    assert_eq!(entries, sorted, "the list is alphabetical");
}

#[test]
fn a7_a_pass_is_one_file_and_one_line() {
    let entries = list_entries("passes/src/lib.rs", "passes! {", "}");
    let listed: BTreeSet<String> = entries
        .iter()
        .map(|e| e.split(' ').next().expect("a module").to_owned())
        .collect();
    assert_eq!(listed.len(), entries.len(), "a pass is listed twice");
    for pass in &listed {
        let file = format!("passes/src/{pass}.rs");
        let name = format!("\"{}\"", pass.replace('_', "-"));
        assert!(
            read(&file).contains(&name),
            "{file} does not hold the pass {name}"
        );
    }
}

#[test]
fn a7_a_target_is_one_folder_and_one_word() {
    let list = read("converter/cli/src/targets.rs");
    let (_, line) = list
        .split_once("pub static TARGETS")
        .expect("the list is there");
    let (line, _) = line.split_once("];").expect("the list ends");
    let listed = line.matches("&snapc_").count();
    let folders = std::fs::read_dir(workspace_root().join("targets")).expect("the folder exists");
    let folders = folders
        .flatten()
        .filter(|e| e.path().join("Cargo.toml").is_file());
    let targets: Vec<String> = folders
        .map(|e| e.file_name().into_string().expect("UTF-8"))
        .filter(|n| !NOT_TARGETS.contains(&n.as_str()))
        .collect();
    assert_eq!(listed, targets.len(), "{targets:?}");
    for target in &targets {
        assert_eq!(
            line.matches(&format!("&snapc_{target}::")).count(),
            1,
            "{target} is not listed once"
        );
    }
}

#[test]
fn a8_no_traces_of_a_machine() {
    // Put together here so that this file does not match itself.
    let words = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/tm", "p/"],
    ]
    .map(|w| w.concat());
    for file in tracked_files() {
        let Ok(text) = std::fs::read_to_string(workspace_root().join(&file)) else {
            continue; // a binary fixture
        };
        for word in &words {
            assert!(!text.contains(word.as_str()), "{file} contains '{word}'");
        }
    }
}
