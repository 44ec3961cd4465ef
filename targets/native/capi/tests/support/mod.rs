//! What the tests of the C ABI share: fixtures as `.snap` files, C programs, valgrind.

#![allow(dead_code, reason = "every test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use snapc_format::Stage;
use snapc_import::{ImportOptions, open};
use snapc_ir::Program;
use snapc_ir::verify::verify;
use snapc_native::{Activations, Companions, compile};
use snapc_passes::{Pipeline, RunOptions};
use snapc_program::TokenizerData;
use snapc_target::{EmitOptions, Silent};

/// A path within this crate.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the fixtures.
pub fn fixture(path: &str) -> PathBuf {
    here("../../../fixtures").join(path)
}

/// Writes the tiny fixture, whose pictures have 128 by 128 pixels, with weights of f32.
pub fn write_tiny(folder: &Path) -> PathBuf {
    let (program, companions) = imported("tiny", None);
    write(folder, &program, &companions)
}

/// Writes the smallest fixture for pictures of 64 rows by 128 columns, as valgrind is slow where there is arithmetic. Its
/// text encoder knows 600 tokens, those of CLIP's first merges.
pub fn write_smallest(folder: &Path) -> PathBuf {
    let (program, mut companions) = imported("variants/lean", Some((64, 128)));
    let merges = std::fs::read_to_string(fixture("clip/merges.txt")).unwrap();
    // A line of the version; 256 bytes, each also at the end of a word; the first and the last token.
    let lines = merges.split_inclusive('\n').take(1 + 600 - 2 * 256 - 2);
    companions.tokenizer = Some(TokenizerData {
        pad: 599,
        length: 77,
        merges: lines.collect::<String>().into_bytes(),
    });
    write(folder, &program, &companions)
}

fn imported(checkpoint: &str, size: Option<(usize, usize)>) -> (Program, Companions) {
    let import = ImportOptions {
        size,
        ..ImportOptions::default()
    };
    let program = open(&fixture(checkpoint), &import).unwrap();
    let passes: Pipeline = "f32".parse().unwrap();
    let program = passes.run(program.import().unwrap(), &RunOptions::default());
    let (program, _) = program.unwrap();
    let companions = Companions::of(&program.pipeline, &EmitOptions::default()).unwrap();
    (program, companions)
}

fn write(folder: &Path, program: &Program, companions: &Companions) -> PathBuf {
    let graphs = program.graphs.iter().map(|graph| {
        let stage = Stage::ALL.into_iter().find(|s| s.name() == graph.name());
        (stage.unwrap(), verify(graph).unwrap())
    });
    let graphs: Vec<_> = graphs.collect();
    let path = folder.join("model.snap");
    compile(&graphs, companions, Activations::F32, &path, &Silent).unwrap();
    path
}

/// Compiles a C program against the header and the static library.
pub fn build(source: &Path, folder: &Path) -> PathBuf {
    let program = folder.join("program");
    // Cargo puts the libraries beside the test, which depends on them.
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name("libsnap.a");
    let mut command = Command::new("cc");
    command.args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-g",
        "-I",
    ]);
    command.arg(here("include")).arg(source).arg(library);
    // What `rustc --print native-static-libs` lists beyond the C library.
    command
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program);
    let output = start(&mut command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    program
}

/// Runs a program to its end.
pub fn start(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| {
        panic!("{name} does not start ({error}); `cargo xtask setup` installs what is missing")
    })
}

/// A command that runs a program under valgrind, which exits with 99 when it finds a leak or an invalid access. The kernels
/// are then not those of AVX-512, which valgrind does not know.
pub fn valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--leak-check=full", "--error-exitcode=99"]);
    command.arg("--errors-for-leak-kinds=definite,indirect,possible");
    command.arg(program);
    command
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
