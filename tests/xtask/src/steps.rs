//! The test run and the gate.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::environment;
use crate::fuzz;
use crate::process::run;
use crate::swift;

/// Checks in Python that need PyTorch, each run from the workspace's root with the path of the release binary in
/// `SNAPC`; exit code 0 means that the check holds.
const FULL_CHECKS: &[&str] = &[
    "tests/python/full/references.py",
    "tests/python/full/tokenizer_corpus.py",
    "tests/python/full/optimum_pipeline.py",
    "tests/python/full/full_size.py",
];

/// Makes the environments, runs the tests of all crates and of the Swift package, and with `all` the fuzz targets and the checks that need PyTorch.
///
/// # Errors
/// When a test fails.
pub fn test(root: &Path, all: bool) -> Result<()> {
    environment::setup(root, all)?;
    run(cargo(root).args(["test", "--workspace"]))?;
    swift::test(root)?;
    if all {
        fuzz::test(root)?;
        run(cargo(root).args(["build", "--release", "--package", "snapc"]))?;
        for script in FULL_CHECKS {
            run(Command::new(environment::python(root, "full"))
                .arg(script)
                .current_dir(root)
                .env("SNAPC", target_folder(root).join("release/snapc")))?;
        }
    }
    Ok(())
}

/// What `.ci/run` does.
///
/// # Errors
/// When a step fails.
pub fn ci(root: &Path) -> Result<()> {
    run(Command::new("bash").arg(".ci/run").current_dir(root))
}

/// Cargo, in the workspace.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Where cargo builds.
pub fn target_folder(root: &Path) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}
