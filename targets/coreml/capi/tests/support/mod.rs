//! What the tests share: packages of the fixtures, C programs, reference tensors.

#![allow(dead_code, reason = "every test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use snapc_coreml::CoreMl;
use snapc_import::{ImportOptions, open};
use snapc_ir::Program;
use snapc_passes::{Pipeline, RunOptions};
use snapc_target::{EmitOptions, Silent, Target, VerifiedProgram, legalize};

/// A path within this crate.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the fixtures.
pub fn fixture(path: &str) -> PathBuf {
    here("../../../fixtures").join(path)
}

/// The folder of the header.
pub fn include() -> PathBuf {
    here("../runtime/TestSupport/CSnapCoreML/include")
}

/// Writes the packages of a checkpoint of the fixtures to `folder`.
pub fn write_packages(checkpoint: &str, options: &EmitOptions, folder: &Path) {
    let checkpoint = open(&fixture(checkpoint), &ImportOptions::default()).unwrap();
    let program = lowered(checkpoint.import().unwrap(), options);
    let verified = VerifiedProgram::new(&program).unwrap();
    CoreMl.emit(&verified, options, folder, &Silent).unwrap();
}

/// Writes packages of the fixture `tiny` with a function per picture size, in f16.
pub fn write_sizes(sizes: &[[usize; 2]], folder: &Path) {
    let options = EmitOptions {
        sizes: sizes.to_vec(),
        min_ios: Some(18),
        ..EmitOptions::default()
    };
    let checkpoint = open(&fixture("tiny"), &ImportOptions::default()).unwrap();
    let program = |&[height, width]: &[usize; 2]| {
        lowered(checkpoint.import_at((height, width)).unwrap(), &options)
    };
    let programs: Vec<Program> = sizes.iter().map(program).collect();
    let mut verified = programs.iter().map(|p| VerifiedProgram::new(p).unwrap());
    let first = verified.next().unwrap();
    let verified = first.with_other_sizes(verified.collect());
    CoreMl.emit(&verified, &options, folder, &Silent).unwrap();
}

/// A program as packages hold it.
fn lowered(program: Program, options: &EmitOptions) -> Program {
    let passes: Pipeline = options.precision.name().parse().unwrap();
    let program = passes.run(program, &RunOptions::default());
    let mut program = CoreMl.prepare(program.unwrap().0, options).unwrap();
    let capabilities = CoreMl.capabilities(options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &capabilities).unwrap();
    }
    program
}

/// Compiles a C program against the header and the shared library.
pub fn build(source: &str, folder: &Path) -> PathBuf {
    let program = folder.join("program");
    // Cargo puts the library beside the test, which depends on it.
    let test = std::env::current_exe().unwrap();
    let libraries = test.parent().unwrap();
    let mut command = Command::new("cc");
    command.args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-g",
    ]);
    command.arg("-I").arg(include()).arg(here(source));
    command.arg("-L").arg(libraries).arg("-lsnap_coreml");
    command.arg(format!("-Wl,-rpath,{}", libraries.display()));
    let output = start(command.arg("-o").arg(&program));
    assert!(output.status.success(), "{}", text(&output.stderr));
    program
}

/// Runs a program to its end.
pub fn start(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    // Cargo's names the folder of its last build before that of the tests, and comes before the path in the program.
    command.env_remove("LD_LIBRARY_PATH");
    command.output().unwrap_or_else(|error| {
        panic!("{name} does not start ({error}); `cargo xtask setup` installs what is missing")
    })
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
