//! ONNX artifacts: the verifier gives findings and the reader a verified graph or an error, whatever model and data file
//! hold.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use snapc_fuzz::{Folder, check_graph, mutate, split};
use snapc_onnx::OnnxTarget;
use snapc_target::Target;

/// A graph has a folder of its own, so that what an input does not write is absent.
static ARTIFACTS: LazyLock<[(&str, Folder); 3]> = LazyLock::new(|| {
    ["text_encoder", "unet", "vae_decoder"].map(|graph| {
        let artifact = Folder::new(&format!("onnx-{graph}"));
        artifact.write("model_index.json", b"{}");
        artifact.write(&format!("{graph}/config.json"), b"{}");
        (graph, artifact)
    })
});

fuzz_target!(|input: &[u8]| {
    let (model, rest) = split(input);
    let (&graph, data) = rest.split_first().unwrap_or((&0, &[]));
    let (graph, artifact) = &ARTIFACTS[usize::from(graph) % ARTIFACTS.len()];
    let model = artifact.write(&format!("{graph}/model.onnx"), model);
    artifact.write(&format!("{graph}/model.onnx_data"), data);
    let findings = OnnxTarget.verify(artifact.path());
    let findings = findings.expect("the files can be read");
    assert!(findings.is_sorted());
    let dims = BTreeMap::from([("batch".to_owned(), 2)]);
    if let Ok(graph) = snapc_onnx::read(&model, &dims) {
        check_graph(&graph);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, &mut fuzzer_mutate)
});
