//! The Python environments of the tests: one virtual environment per requirements file, under `.cache`, reused until
//! the file changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::fuzz;
use crate::process::{run, say};

/// Name of the file in an environment that says what it was made from.
const STAMP: &str = "snapc-requirements.sha256";

/// Makes the environments that are missing or out of date, sees that valgrind is there, and with `all` installs cargo-fuzz.
///
/// # Errors
/// When Python or valgrind is missing, or a package or cargo-fuzz cannot be installed.
pub fn setup(root: &Path, all: bool) -> Result<()> {
    valgrind()?;
    make(root, "light")?;
    if all {
        make(root, "full")?;
        fuzz::install(root)?;
    }
    Ok(())
}

/// The interpreter of an environment.
pub fn python(root: &Path, name: &str) -> PathBuf {
    folder(root, name).join("bin/python")
}

fn folder(root: &Path, name: &str) -> PathBuf {
    root.join(".cache").join(format!("venv-{name}"))
}

fn make(root: &Path, name: &str) -> Result<()> {
    let requirements = root.join(format!("tests/python/requirements-{name}.txt"));
    let text = fs::read(&requirements).with_context(|| format!("{}", requirements.display()))?;
    let wanted: String = Sha256::digest(&text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let folder = folder(root, name);
    let stamp = folder.join(STAMP);
    let python = python(root, name);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && python.is_file() {
        return Ok(());
    }
    say(&format!(
        "making the Python environment .cache/venv-{name} from tests/python/requirements-{name}.txt"
    ));
    make_venv(&folder)?;
    // Pins are exact, so installing over an older or half-made environment gives the same as a fresh one.
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--requirement",
        ])
        .arg(&requirements))?;
    fs::write(&stamp, wanted).with_context(|| format!("{}", stamp.display()))
}

fn make_venv(folder: &Path) -> Result<()> {
    let venv = || run(Command::new("python3").args(["-m", "venv"]).arg(folder));
    let Err(error) = venv() else { return Ok(()) };
    // Debian and its kin ship the module apart from the interpreter.
    if install_package("python3-venv")? {
        return venv();
    }
    bail!(
        "{error:#}; install Python 3.11 or later with its venv module (Debian: apt install python3-venv)"
    )
}

/// The tests of the C interface run under valgrind, on Linux, where it is to be had.
fn valgrind() -> Result<()> {
    let is_there = || {
        let version = Command::new("valgrind").arg("--version").output();
        version.is_ok_and(|o| o.status.success())
    };
    if !cfg!(target_os = "linux") || is_there() || (install_package("valgrind")? && is_there()) {
        return Ok(());
    }
    bail!("valgrind is missing; install it (Debian: apt install valgrind)")
}

/// Installs a package of Debian or its kin where that may be done without asking; `false` elsewhere.
///
/// # Errors
/// When it cannot be installed.
pub fn install_package(name: &str) -> Result<bool> {
    if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        return Ok(false);
    }
    say(&format!("the package {name} is missing; installing it"));
    run(Command::new("apt-get").args(["install", "--yes", name]))?;
    Ok(true)
}

/// Whether the process may do everything.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}
