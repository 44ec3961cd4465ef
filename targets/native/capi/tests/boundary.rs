//! `tests/boundary.c`: every function with arguments that are right, wrong and absent, also under valgrind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::Command;

use support::{build, here, start, text, valgrind, write_smallest};

fn check(command: impl FnOnce(&Path) -> Command) {
    let folder = tempfile::tempdir().unwrap();
    let program = build(&here("tests/boundary.c"), folder.path());
    let model = write_smallest(folder.path());
    let output = start(command(&program).arg(&model));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
}

#[test]
fn every_function_keeps_its_word() {
    check(|program| Command::new(program));
}

#[cfg(target_os = "linux")]
#[test]
fn every_function_is_clean_under_valgrind() {
    check(valgrind);
}
