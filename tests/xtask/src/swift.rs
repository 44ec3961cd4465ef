//! The Swift package of the Core ML target: its toolchain, the artifacts that its tests run, `swift test`, and a look at what that
//! leaves out.

mod artifacts;
mod manifest;
mod mirror;
mod mounts;
mod syntax;
mod toolchain;
mod trixie;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{run, say};
use crate::steps::{cargo, target_folder};
use toolchain::Toolchain;

/// The package.
const PACKAGE: &str = "targets/coreml/runtime";

/// A package that is converted by the plugins, with the script that tries them.
const BUILD_STEP: &str = "targets/coreml/runtime/Examples/BuildStep";

/// The tests of the Swift package and of its plugins, and checks of what they do not compile, where there is Swift or it can be
/// made; elsewhere it says what is left out.
///
/// # Errors
/// When the toolchain cannot be made, or a test fails.
pub fn test(root: &Path) -> Result<()> {
    let Some(bench) = Bench::new(root)? else {
        return Ok(());
    };
    bench.syntax()?;
    bench.shipped_manifest()?;
    bench.swift("test", &[])?;
    bench.build_step()
}

/// Makes the toolchain and the artifacts, and runs a command of `swift` on the package. Where there can be no Swift, it says so
/// and succeeds.
///
/// # Errors
/// When the toolchain cannot be made, an artifact cannot be written, or the run fails.
pub fn swift(root: &Path, subcommand: &str, arguments: &[String]) -> Result<()> {
    match Bench::new(root)? {
        Some(bench) => bench.swift(subcommand, arguments),
        None => Ok(()),
    }
}

/// All that a run of Swift needs.
struct Bench<'a> {
    root: &'a Path,
    toolchain: Toolchain,
    cache: PathBuf,
    /// Where cargo has put the command and the library of the stand-in for Core ML.
    built: PathBuf,
    artifacts: PathBuf,
    mounts: Vec<PathBuf>,
    scratch: Scratch,
}

impl<'a> Bench<'a> {
    /// `None`, and words about it, where there can be no Swift.
    fn new(root: &'a Path) -> Result<Option<Self>> {
        let toolchain = Toolchain::find(root)?;
        if let Toolchain::Missing(reason) = &toolchain {
            skip(reason);
            return Ok(None);
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
        Ok(Some(Bench {
            root,
            toolchain,
            cache,
            built,
            artifacts,
            mounts,
            scratch,
        }))
    }

    /// `swift SUBCOMMAND` on the package.
    fn swift(&self, subcommand: &str, arguments: &[String]) -> Result<()> {
        let mut command = self.command("swift");
        command.arg(subcommand);
        command.arg("--package-path").arg(self.root.join(PACKAGE));
        command
            .arg("--scratch-path")
            .arg(self.cache.join("swift-build"));
        command
            .arg("-Xlinker")
            .arg(format!("-L{}", self.built.display()));
        command.args(arguments);
        run(&mut command)
    }

    /// Parses all sources, those too that are not compiled on this system.
    fn syntax(&self) -> Result<()> {
        let mut command = self.command("swiftc");
        command.args(["-parse", "-warnings-as-errors"]);
        run(command.args(syntax::sources(&self.root.join(PACKAGE))?))
    }

    /// Compares the manifest of the package in an artifact with the repository's.
    fn shipped_manifest(&self) -> Result<()> {
        let folder = self.artifacts.join("plain/runtime");
        let repository = self.manifest(&self.root.join(PACKAGE))?;
        manifest::check(&self.manifest(&folder)?, &folder, &repository)
    }

    /// What the manifest of a package says.
    fn manifest(&self, package: &Path) -> Result<Value> {
        let mut command = self.command("swift");
        command.args(["package", "--package-path"]).arg(package);
        command
            .arg("--scratch-path")
            .arg(self.scratch.0.join("manifest"));
        let output = command.arg("dump-package").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} is no manifest: {said}",
            package.join("Package.swift").display()
        );
        serde_json::from_slice(&output.stdout).context("swift package dump-package gives no JSON")
    }

    /// Tries the plugins.
    fn build_step(&self) -> Result<()> {
        let mut command = self.command("bash");
        command.arg(self.root.join(BUILD_STEP).join("check.sh"));
        command.env("SCRATCH", self.cache.join("swift-build-step"));
        run(&mut command)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.toolchain.command(self.root, &self.mounts, program);
        command.current_dir(self.root);
        command.env("LD_LIBRARY_PATH", &self.built);
        command.env("SNAPC", self.built.join("snapc"));
        command.env("SNAP_ARTIFACTS", &self.artifacts);
        command.env("SNAP_FIXTURES", self.root.join("fixtures"));
        command.env("TMPDIR", &self.scratch.0);
        command
    }
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
