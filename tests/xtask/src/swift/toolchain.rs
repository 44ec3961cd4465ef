//! Where Swift comes from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::trixie::{self, Trixie};

/// Swift, or why there is none.
pub enum Toolchain {
    /// `swift` on the path.
    OnPath,
    /// That of a Debian in a folder.
    Trixie(Trixie),
    /// None, for this reason.
    Missing(String),
}

impl Toolchain {
    /// Finds Swift, and makes the Debian that has it where it can be made and is not on the path.
    ///
    /// # Errors
    /// When it can be made and making it fails.
    pub fn find(root: &Path) -> Result<Self> {
        let version = Command::new("swift").arg("--version").output();
        match version.is_ok_and(|output| output.status.success()) {
            true => Ok(Toolchain::OnPath),
            false => trixie::make(root),
        }
    }

    /// A command that runs a program of the toolchain. `mounts` are the folders that the program needs.
    pub fn command(&self, root: &Path, mounts: &[PathBuf], program: &str) -> Command {
        match self {
            Toolchain::Trixie(trixie) => trixie.command(root, mounts, program),
            Toolchain::OnPath | Toolchain::Missing(_) => Command::new(program),
        }
    }
}
