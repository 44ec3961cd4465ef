//! Core ML packages: the verifier gives findings and the reader a verified graph or an error, whatever model file and
//! weight file hold.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use snapc_coreml::CoreMl;
use snapc_fuzz::{Folder, check_graph, mutate, split};
use snapc_target::Target;

static ARTIFACT: LazyLock<Folder> = LazyLock::new(|| Folder::new("mlprogram"));

fuzz_target!(|input: &[u8]| {
    let (model, weights) = split(input);
    let package = ARTIFACT.package("Unet.mlpackage", model, weights);
    let findings = CoreMl.verify(ARTIFACT.path());
    let findings = findings.expect("the files can be read");
    assert!(findings.is_sorted());
    if let Ok(graph) = snapc_coreml::read(&package) {
        check_graph(&graph);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &mut fuzzer_mutate)
});
