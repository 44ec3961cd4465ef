//! `example/generate.c`, built with the C compiler: the picture, cancelling, and valgrind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;
use snapc_pipeline::{Image, InitLatents, Request};
use snapc_runtime::{Options, Runtime};
use support::{build, fixture, here, start, text, valgrind, write_smallest, write_tiny};
use tempfile::TempDir;

/// The request of the tiny fixture's reference file (`fixtures/make_reference.py`).
const PROMPT: &str = "a watercolour of a fox, 3 birds & it's raining";
const NEGATIVE: &str = "blurry";

/// The example, a model for it, and a place for its picture.
struct Example {
    folder: TempDir,
    program: PathBuf,
    model: PathBuf,
}

impl Example {
    fn new(write_model: fn(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = build(&here("example/generate.c"), folder.path());
        let model = write_model(folder.path());
        Example {
            folder,
            program,
            model,
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out.png")
    }

    /// Gives the program its arguments, runs it, and returns exit code, stdout and stderr.
    fn run(&self, mut command: Command, options: &[&str]) -> (i32, String, String) {
        command.arg(&self.model).arg(PROMPT).arg(self.out());
        command.args(["--negative", NEGATIVE]).args(options);
        let output = start(&mut command);
        let code = output.status.code().expect("no signal ends it");
        (code, text(&output.stdout), text(&output.stderr))
    }
}

fn rust_picture(model: &Path, steps: usize) -> Image {
    let runtime = Runtime::open(model, &Options::with_threads(2)).unwrap();
    let mut pipeline = runtime.into_pipeline().unwrap();
    let request = Request {
        prompt: PROMPT.to_owned(),
        negative_prompt: NEGATIVE.to_owned(),
        steps,
        guidance: 7.5,
        init_latents: InitLatents::Seed(0),
    };
    let generation = pipeline.generate(&request, |_| ControlFlow::Continue(()));
    generation.unwrap().image
}

/// The picture of the fixture's reference file, which diffusers made.
fn reference_picture() -> Image {
    let bytes = std::fs::read(fixture("tiny/reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("image").unwrap();
    assert_eq!(tensor.shape(), [1, 3, 128, 128]);
    let chunks = tensor.data().as_chunks().0.iter();
    let values: Vec<f32> = chunks.map(|b| f32::from_le_bytes(*b)).collect();
    Image::from_decoded(&values, 128, 128).unwrap()
}

#[test]
fn the_picture_is_that_of_the_rust_pipeline_and_of_diffusers() {
    let example = Example::new(write_tiny);
    let (code, out, err) = example.run(Command::new(&example.program), &[]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let steps: Vec<String> = (1..=8).map(|n| format!("step {n} of 8")).collect();
    assert_eq!(lines[..8], steps);
    assert!(lines[8].ends_with("out.png, 128 by 128 pixels"), "{out}");

    let picture = rust_picture(&example.model, 8);
    assert!(std::fs::read(example.out()).unwrap() == picture.to_png().unwrap());
    let reference = reference_picture();
    let pairs = picture.pixels().iter().zip(reference.pixels());
    let largest = pairs.map(|(a, b)| a.abs_diff(*b)).max();
    assert!(largest <= Some(1), "{largest:?} levels from diffusers");
}

#[test]
fn a_run_is_cancelled_in_the_middle() {
    let example = Example::new(write_smallest);
    let options = ["--cancel-after", "3"];
    let (code, out, err) = example.run(Command::new(&example.program), &options);
    let expected = "step 1 of 8\nstep 2 of 8\nstep 3 of 8\ncancelled after step 2\n";
    assert_eq!((code, out.as_str(), err.as_str()), (3, expected, ""));
    assert!(!example.out().exists());
}

#[cfg(target_os = "linux")]
#[test]
fn valgrind_finds_nothing() {
    let example = Example::new(write_smallest);
    let under_valgrind = || valgrind(&example.program);
    let options = ["--steps", "2", "--threads", "2"];
    let (code, out, err) = example.run(under_valgrind(), &options);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(example.out().exists());

    let cancelled = [&options[..], &["--cancel-after", "1"]].concat();
    let (code, _, err) = example.run(under_valgrind(), &cancelled);
    assert_eq!((code, err.as_str()), (3, ""));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let example = Example::new(write_smallest);
    std::fs::remove_file(&example.model).unwrap();
    let (code, _, err) = example.run(Command::new(&example.program), &[]);
    assert_eq!(code, 1);
    let start = "error: cannot open the model: ";
    assert!(
        err.starts_with(start) && err.contains("model.snap"),
        "{err}"
    );
}

#[test]
fn the_example_of_the_documentation_works() {
    let example = Example::new(write_smallest);
    let page = std::fs::read_to_string(here("../../../docs/embedding.md")).unwrap();
    let (_, c) = page.split_once("```c\n").unwrap();
    let (c, _) = c.split_once("```").unwrap();
    let source = example.folder.path().join("app.c");
    std::fs::write(&source, c).unwrap();
    let app = build(&source, example.folder.path());
    let mut command = Command::new(app);
    let output = start(command.arg(&example.model).arg(PROMPT).arg(example.out()));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    assert!(out.ends_with("step 8 of 8\n"), "{out}");
    assert!(example.out().exists());
}
