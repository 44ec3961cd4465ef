//! Which folders a program with another root needs, and what is mounted where.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folders without links on the way, and without those that lie in another one.
///
/// # Errors
/// When a folder does not exist.
pub fn outermost(folders: &[&Path]) -> Result<Vec<PathBuf>> {
    let real = folders.iter().map(|folder| {
        let real = folder.canonicalize();
        real.with_context(|| format!("{}", folder.display()))
    });
    let mut real = real.collect::<Result<Vec<PathBuf>>>()?;
    // A folder sorts before what lies in it.
    real.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for folder in real {
        if !kept.iter().any(|outer| folder.starts_with(outer)) {
            kept.push(folder);
        }
    }
    Ok(kept)
}

/// Refuses a folder in which something is mounted, since removing it would remove what is mounted.
///
/// # Errors
/// When something is.
pub fn check_none_below(folder: &Path) -> Result<()> {
    let real = folder.canonicalize();
    let real = real.with_context(|| format!("{}", folder.display()))?;
    // Linux alone lists mounts there, and the folders in question are made on Linux alone.
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else {
        return Ok(());
    };
    let found = below(&table, &real);
    ensure!(
        found.is_empty(),
        "'{}' has mounts in it ({}); unmount them first",
        folder.display(),
        found.join(", ")
    );
    Ok(())
}

/// The mount points of a table of mounts that lie in a folder.
fn below(table: &str, folder: &Path) -> Vec<String> {
    // proc(5): the fifth field is the mount point, with blanks and the like as octal numbers.
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| point.replace("\\040", " ").replace("\\011", "\t"));
    let inside = points.filter(|point| Path::new(point).starts_with(folder));
    inside.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:5 / /proc rw - proc proc rw
23 21 8:1 /ws /ws/.cache/trixie/ws rw - ext4 /dev/sda1 rw
24 21 8:1 /a /ws/with\\040blank/proc rw - proc proc rw
";

    #[test]
    fn mounts_in_a_folder_are_found() {
        let find = |folder: &str| below(TABLE, Path::new(folder));
        assert_eq!(find("/ws/.cache"), ["/ws/.cache/trixie/ws"]);
        assert_eq!(find("/ws/with blank"), ["/ws/with blank/proc"]);
        assert!(find("/ws/.cac").is_empty());
    }

    #[test]
    fn folders_within_others_are_dropped() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = here.join("src");
        let kept = outermost(&[&source, here, &source.join("swift")]).unwrap();
        assert_eq!(kept, [here.canonicalize().unwrap()]);
        assert!(outermost(&[&here.join("none")]).is_err());
    }
}
