//! The Swift package of the Core ML target: its toolchain, the artifacts that its tests run, and `swift test`.

mod artifacts;
mod mirror;
mod mounts;
mod toolchain;
mod trixie;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{run, say};
use crate::steps::{cargo, target_folder};
use toolchain::Toolchain;

/// The package.
const PACKAGE: &str = "targets/coreml/runtime";

/// The tests of the Swift package, where there is Swift or it can be made; elsewhere it says what is left out.
///
/// # Errors
/// When the toolchain cannot be made, or a test fails.
pub fn test(root: &Path) -> Result<()> {
    swift(root, &["test".to_owned()])
}

/// Makes the toolchain and the artifacts, and runs `swift` with these arguments, the first of which is its subcommand, on the
/// package. Where there can be no Swift, it says so and succeeds.
///
/// # Errors
/// When the toolchain cannot be made, an artifact cannot be written, or the run fails.
pub fn swift(root: &Path, arguments: &[String]) -> Result<()> {
    let toolchain = Toolchain::find(root)?;
    if let Toolchain::Missing(reason) = &toolchain {
        skip(reason);
        return Ok(());
    }
    let mut command = cargo(root);
    command.args(["build", "--package", "snapc"]);
    if cfg!(target_os = "linux") {
        command.args(["--package", "snapc-coreml-capi"]);
    }
    run(&mut command)?;
    let built = target_folder(root).join("debug");
    let cache = cache(root)?;
    let artifacts = cache.join("swift-artifacts");
    artifacts::write(root, &built.join("snapc"), &artifacts)?;

    let scratch = Scratch::new(cache.join("swift-tmp"))?;
    let mounts = mounts::outermost(&[root, &cache, &built])?;
    let (subcommand, rest) = arguments.split_first().context("no subcommand of swift")?;
    let mut command = toolchain.command(root, &mounts, "swift");
    command.arg(subcommand);
    command.arg("--package-path").arg(root.join(PACKAGE));
    command.arg("--scratch-path").arg(cache.join("swift-build"));
    command
        .arg("-Xlinker")
        .arg(format!("-L{}", built.display()));
    command.args(rest).current_dir(root);
    command.env("LD_LIBRARY_PATH", &built);
    command.env("SNAPC", built.join("snapc"));
    command.env("SNAP_ARTIFACTS", &artifacts);
    command.env("SNAP_FIXTURES", root.join("fixtures"));
    command.env("TMPDIR", &scratch.0);
    run(&mut command)
}

/// Says what is not run, so that nobody overlooks it.
fn skip(reason: &str) {
    say("");
    say("****************************************************************************************");
    say(&format!(
        "SKIPPED: the tests of the Swift package {PACKAGE}"
    ));
    say(&format!("{reason}."));
    say("Nothing of the Swift runtime has been compiled or run.");
    say("****************************************************************************************");
    say("");
}

/// The workspace's folder for what can be made again, without links on the way.
fn cache(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".cache");
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let real = folder.canonicalize();
    real.with_context(|| format!("{}", folder.display()))
}

/// An empty folder for the temporary files of a run, compiled models above all, which goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: PathBuf) -> Result<Self> {
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes a folder, if there is one, unless something is mounted in it.
///
/// # Errors
/// When something is, or it cannot be removed.
fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    mounts::check_none_below(folder)?;
    fs::remove_dir_all(folder).with_context(|| format!("{}", folder.display()))
}
