//! The fuzz targets of `tests/fuzz`, run by cargo-fuzz.
//!
//! cargo-fuzz is installed under `.cache`. Without a sanitizer it works with the stable compiler; what is unsafe is small
//! and has tests of its own, and debug assertions and overflow checks are on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::environment::install_package;
use crate::process::{run, say};
use crate::steps::{cargo, target_folder};

/// The version of cargo-fuzz.
const VERSION: &str = "0.13.2";

/// Runs of each target in a test run: some seconds.
const SHORT_RUNS: u64 = 20_000;

/// Bounds on an input, which are its bytes, the seconds it may take and the MiB in memory; and numbers at the end in place of
/// words about progress.
const OPTIONS: [&str; 6] = [
    "-max_len=4096",
    "-timeout=60",
    "-rss_limit_mb=1024",
    "-verbosity=0",
    "-print_funcs=0",
    "-print_final_stats=1",
];

/// Installs cargo-fuzz unless it is there, and the C++ compiler that libFuzzer is built with.
///
/// # Errors
/// When one of them cannot be installed.
pub fn install(root: &Path) -> Result<()> {
    if Command::new("c++").arg("--version").output().is_err() && !install_package("g++")? {
        bail!(
            "libFuzzer is built with a C++ compiler, and there is no `c++`; install g++ or clang"
        );
    }
    let found = Command::new(binary(root)).arg("--version").output();
    let expected = format!("cargo-fuzz {VERSION}");
    if found.is_ok_and(|o| o.stdout.trim_ascii() == expected.as_bytes()) {
        return Ok(());
    }
    say(&format!("installing {expected} in .cache/cargo-fuzz"));
    let mut command = cargo(root);
    command.args(["install", "cargo-fuzz", "--locked", "--force", "--quiet"]);
    command.args(["--version", &format!("={VERSION}"), "--root"]);
    run(command.arg(root.join(".cache/cargo-fuzz")))
}

/// A short run of every target, the same each time but for what the clock decides.
///
/// # Errors
/// When the seeds are not those of the source, or a target finds something.
pub fn test(root: &Path) -> Result<()> {
    let manifest = root.join("tests/fuzz/Cargo.toml");
    let mut command = cargo(root);
    command.args(["test", "--lib", "--manifest-path"]);
    command.arg(manifest).arg("--target-dir");
    run(command.arg(build_folder(root)))?;
    let corpora = root.join(".cache/fuzz/short");
    if corpora.exists() {
        fs::remove_dir_all(&corpora).with_context(|| format!("{}", corpora.display()))?;
    }
    let options = ["-seed=1".to_owned(), format!("-runs={SHORT_RUNS}")];
    run_targets(root, &targets(root)?, &corpora, &options)
}

/// Runs the named targets, or all; what they learn is kept in `.cache/fuzz/corpus` for the next time.
///
/// # Errors
/// When there is no such target, or one finds something.
pub fn fuzz(root: &Path, named: &[String], runs: u64) -> Result<()> {
    install(root)?;
    let all = targets(root)?;
    for target in named {
        let known = all.join(", ");
        ensure!(
            all.contains(target),
            "there is no fuzz target '{target}'; choose from {known}"
        );
    }
    let chosen = if named.is_empty() { &all } else { named };
    let corpora = root.join(".cache/fuzz/corpus");
    run_targets(root, chosen, &corpora, &[format!("-runs={runs}")])
}

fn run_targets(root: &Path, targets: &[String], corpora: &Path, options: &[String]) -> Result<()> {
    for target in targets {
        run(cargo_fuzz(root, "build").arg(target))?;
    }
    let scratch = scratch(root)?;
    let result = targets.iter().try_for_each(|target| {
        let corpus = corpora.join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("{}", corpus.display()))?;
        let mut command = cargo_fuzz(root, "run");
        command.arg(target).arg(corpus);
        command.arg(root.join("tests/fuzz/seeds").join(target));
        command.arg("--").args(OPTIONS).args(options);
        // One thread: an input is small, and the run is the same each time.
        command.env("RAYON_NUM_THREADS", "1");
        run(command.env("TMPDIR", &scratch))
            .context("tests/fuzz/README.md says what to do with the input that is named above")
    });
    fs::remove_dir_all(&scratch).with_context(|| format!("{}", scratch.display()))?;
    result
}

/// A folder for the files of inputs, in memory where the system has such a place.
fn scratch(root: &Path) -> Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => memory.join(format!("snapc-fuzz-{}", std::process::id())),
        false => root.join(".cache/fuzz/scratch"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    Ok(folder)
}

/// The names of the targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("tests/fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn cargo_fuzz(root: &Path, command: &str) -> Command {
    let mut process = Command::new(binary(root));
    process.current_dir(root).args([command, "--fuzz-dir"]);
    process.arg(root.join("tests/fuzz"));
    process.args(["--sanitizer", "none", "--target-dir"]);
    process.arg(build_folder(root));
    process
}

fn binary(root: &Path) -> PathBuf {
    root.join(".cache/cargo-fuzz/bin/cargo-fuzz")
}

fn build_folder(root: &Path) -> PathBuf {
    target_folder(root).join("fuzz")
}
