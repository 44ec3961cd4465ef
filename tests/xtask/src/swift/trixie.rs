//! A Debian trixie with Swift in a folder under `.cache`, for Linux without Swift.
//!
//! Programs run in it by chroot, in a mount namespace of their own: what is mounted for them is seen by nobody else and goes
//! with them, also when a run is interrupted, so that nothing mounted is left that removing the folder would remove.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::toolchain::Toolchain;
use super::{cache, mirror, remove};
use crate::environment::{install_package, is_root};
use crate::process::{run, say};

/// The release, the first whose packages have Swift.
const SUITE: &str = "trixie";

/// What is installed in it.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "git",
    "libc6-dev",
    "libstdc++-14-dev",
    "swiftlang",
    "swiftlang-dev",
];

/// The file in it that says what was installed. It is written last: without it the folder is not complete.
const STAMP: &str = "etc/snapc-packages";

/// The path of programs in it, and of those that enter it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A complete one.
pub struct Trixie {
    folder: PathBuf,
}

/// Makes it, once; says why not where it cannot be made.
///
/// # Errors
/// When a package cannot be fetched or installed.
pub fn make(root: &Path) -> Result<Toolchain> {
    let missing = |reason: &str| Ok(Toolchain::Missing(reason.to_owned()));
    if !cfg!(target_os = "linux") {
        return missing(
            "There is no `swift` on the path; install Xcode or a toolchain of swift.org",
        );
    }
    if !is_root() {
        return missing(
            "There is no `swift` on the path, and only root can make a Debian with it; install a toolchain of swift.org",
        );
    }
    // In many containers root is not allowed to mount.
    let unshare = Command::new("unshare").args(["--mount", "true"]).output();
    if !unshare.is_ok_and(|output| output.status.success()) {
        return missing(
            "There is no `swift` on the path, and this system does not let root mount folders, which the Debian with it needs",
        );
    }
    let trixie = Trixie {
        folder: cache(root)?.join(SUITE),
    };
    let wanted = PACKAGES.join("\n");
    let stamp = trixie.folder.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(Toolchain::Trixie(trixie));
    }
    let mirror = match mirror::debian() {
        Ok(mirror) => mirror,
        Err(reason) => return missing(&format!("There is no `swift` on the path, and {reason}")),
    };
    let debootstrap = || Command::new("debootstrap").arg("--version").output();
    if debootstrap().is_err() && !(install_package("debootstrap")? && debootstrap().is_ok()) {
        return missing("There is neither `swift` nor `debootstrap` on the path; install one");
    }
    say("making a Debian with Swift in .cache/trixie; about 3 GB, and some minutes the first time");
    remove(&trixie.folder)?;
    // It mounts things in the folder, and might leave them behind.
    run(Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .args(["debootstrap", "--variant=minbase", SUITE])
        .arg(&trixie.folder)
        .arg(&mirror))?;
    let mut install = trixie.command(root, &[], "apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]);
    run(install
        .args(PACKAGES)
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    run(trixie.command(root, &[], "apt-get").arg("clean"))?;
    fs::write(&stamp, wanted).with_context(|| format!("{}", stamp.display()))?;
    Ok(Toolchain::Trixie(trixie))
}

impl Trixie {
    /// A command that runs a program in it, with these folders at the places where they are outside.
    pub fn command(&self, root: &Path, mounts: &[PathBuf], program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh"]);
        command.arg(root.join("tests/xtask/src/swift/enter.sh"));
        command
            .arg(&self.folder)
            .args(mounts)
            .arg("--")
            .arg(program);
        command.env("PATH", PATH);
        command
    }
}
