//! Dependency files in Makefile syntax, for build systems that call snapc.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every file of a checkpoint, sorted: the file itself, or all files of the folder. A build that depends on all of them
/// runs again at least when it has to.
///
/// # Errors
/// When a folder cannot be read.
pub fn files_of(checkpoint: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![checkpoint.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The rule `target: inputs`, one input a line.
pub fn rule(target: &Path, inputs: &[PathBuf]) -> String {
    let mut text = format!("{}:", escape(target));
    for input in inputs {
        text.push_str(" \\\n  ");
        text.push_str(&escape(input));
    }
    text.push('\n');
    text
}

/// A path as a Makefile word: space, `#` and backslash get a backslash, `$` is doubled.
fn escape(path: &Path) -> String {
    let mut word = String::new();
    for c in path.to_string_lossy().chars() {
        match c {
            ' ' | '#' | '\\' => word.extend(['\\', c]),
            '$' => word.push_str("$$"),
            _ => word.push(c),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        for name in ["b", "a/z", "a/y"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let expected = ["a/y", "a/z", "b"].map(|name| dir.path().join(name));
        assert_eq!(files_of(dir.path()).unwrap(), expected);
        assert_eq!(files_of(&expected[2]).unwrap(), expected[2..]);
    }

    #[test]
    fn words_are_escaped() {
        let text = rule(Path::new("out/snap.json"), &["a b".into(), "c$d#".into()]);
        assert_eq!(text, "out/snap.json: \\\n  a\\ b \\\n  c$$d\\#\n");
    }
}
