//! Models that ONNX Runtime's own tool has quantized, read and evaluated against ONNX Runtime.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use snapc_ir::{Codebook, eval, verify};
use support::{Call, Noise, psnr, python, run_onnx_as_written, workspace};

/// Models by the words of `tests/python/quantize_onnx.py`, with the number of scales of the convolution, the
/// product and the bias of the product; the convolution's bias has 32 bits.
const MODELS: [(&str, [usize; 3]); 3] = [
    ("uint8,channels", [3, 5, 1]),
    ("int8,channels", [3, 5, 1]),
    ("uint8,tensors", [1, 1, 1]),
];

#[test]
fn statically_quantized_models_are_read_as_onnx_runtime_computes_them() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(python())
        .arg(workspace().join("tests/python/quantize_onnx.py"))
        .arg(dir.path())
        .args(MODELS.map(|(word, _)| word))
        .status();
    assert!(
        status.unwrap().success(),
        "quantize_onnx.py failed; its message is above"
    );

    let inputs = BTreeMap::from([(
        "x".to_owned(),
        Noise::new(8).floats(&[2, 4, 6, 6], -2.0, 2.0),
    )]);
    let calls = MODELS.map(|(word, _)| Call {
        model: dir.path().join(format!("{word}.onnx")),
        inputs: inputs.clone(),
    });
    let expected = run_onnx_as_written(&calls, dir.path());
    for (((word, groups), call), expected) in MODELS.iter().zip(&calls).zip(&expected) {
        let graph = snapc_onnx::read(&call.model, &BTreeMap::new()).unwrap();
        verify::verify(&graph).unwrap();
        let found = eval::run(&graph, &inputs).unwrap();
        let db = psnr(&expected["y"], &found["y"]);
        assert!(db >= 100.0, "{word}: {db:.1} dB");

        let grids = graph
            .nodes()
            .iter()
            .filter(|n| n.op.name() == "fake_quantize");
        assert!(grids.count() >= 5, "{word}");
        let encodings = graph.weights().iter().filter_map(|w| w.tensor.encoding());
        let scales = encodings.map(|e| match e.codebook() {
            Codebook::Affine { scale, .. } => scale.len(),
            Codebook::Palette { .. } => 0,
        });
        assert_eq!(scales.collect::<Vec<_>>(), groups, "{word}");
    }
}
