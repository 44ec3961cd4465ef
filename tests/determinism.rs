//! The same input, flags and version give the same bytes: wherever it runs, wherever it writes, however many threads.

use std::collections::BTreeMap;
use std::path::Path;

use snapc_tests::{Run, Snapc, contents, copy_folder, workspace_root};

const BINARY: &str = env!("CARGO_BIN_EXE_snapc-under-test");

/// The artifact of a run in `folder` that writes to `output`.
fn artifact(
    folder: &Path,
    checkpoint: &str,
    flags: &str,
    output: &str,
    threads: &str,
) -> BTreeMap<String, Vec<u8>> {
    let mut command =
        Snapc::new(BINARY, folder).command(&format!("convert {checkpoint} -o {output} {flags}"));
    let run: Run = command
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .expect("the binary starts")
        .into();
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    contents(&folder.join(output))
}

/// Hashes rather than bytes, so that a failure can be read.
fn assert_same(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other));
    for (name, bytes) in one {
        assert!(*bytes == other[name], "{name} differs");
    }
}

/// Three artifacts from different places are equal, and have at least so many files.
fn same_everywhere(files: usize, flags: &str) {
    let here = tempfile::tempdir().expect("a folder for the test");
    let there = tempfile::tempdir().expect("a folder for the test");
    let fixture = workspace_root().join("fixtures/tiny");
    copy_folder(&fixture, &here.path().join("in"));
    copy_folder(&fixture, &there.path().join("another/copy"));
    let one = artifact(here.path(), "in", flags, "out", "1");
    let two = artifact(here.path(), "./in", flags, "deep/er/out-2", "2");
    let three = artifact(&there.path().join("another"), "copy", flags, "out", "3");
    assert!(one.contains_key("snap.json"), "{:?}", one.keys());
    assert!(one.len() >= files, "{:?}", one.keys());
    assert_same(&one, &two);
    assert_same(&one, &three);
}

#[test]
fn onnx() {
    same_everywhere(9, "--target onnx --precision f32");
    same_everywhere(9, "--target onnx");
}

#[test]
fn native() {
    same_everywhere(5, "--target native --precision f32");
    same_everywhere(5, "--target native");
}

#[test]
fn coreml() {
    same_everywhere(9, "--target coreml");
    same_everywhere(
        9,
        "--target coreml --interface apple --min-ios 18 --attention sdpa",
    );
    same_everywhere(
        9,
        "--target coreml --min-ios 26 --sizes 128,64x128 --image-output --author Fox --weights int8",
    );
}
