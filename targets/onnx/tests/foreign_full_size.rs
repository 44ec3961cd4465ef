//! Stable Diffusion v1.5's UNet as `torch.onnx` exports it at full size; `tests/python/full/foreign_onnx.py` makes the
//! model and runs this.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use snapc_ir::{Tensor, eval, verify};
use snapc_passes::recognize;
use support::{psnr, read_tensors};

#[test]
#[ignore = "needs an export of 3.4 GB; tests/python/full/foreign_onnx.py makes one"]
fn the_unet_of_sd15_equals_torch() {
    let folder =
        PathBuf::from(std::env::var_os("SNAPC_FOREIGN").expect("SNAPC_FOREIGN is a folder"));
    let sizes = [
        ("batch", 1),
        ("height", 64),
        ("width", 64),
        ("sequence", 77),
    ];
    let sizes: BTreeMap<String, usize> = sizes.map(|(s, n)| (s.to_owned(), n)).into();
    let graph =
        snapc_onnx::read(&folder.join("unet.onnx"), &sizes).unwrap_or_else(|e| panic!("{e}"));
    let graph = recognize(&graph).expect("is a valid graph");
    verify::verify(&graph).expect("verifies");
    let count = |op: &str| graph.nodes().iter().filter(|n| n.op.name() == op).count();
    // 16 transformer blocks: two attentions, three layer norms and a GEGLU each; 22 ResNets and the last norm.
    assert_eq!(count("attention"), 32);
    assert_eq!(count("layer_norm"), 48);
    assert_eq!(count("gelu"), 16);
    assert_eq!(count("group_norm"), 2 * 22 + 16 + 1);
    assert_eq!(count("matmul") + count("softmax") + count("erf"), 0);

    let tensors = read_tensors(&folder.join("outputs.safetensors"));
    let inputs = graph
        .inputs()
        .iter()
        .map(|i| (i.name.clone(), tensors[&i.name].clone()));
    let inputs: BTreeMap<String, Tensor> = inputs.collect();
    let found = eval::run(&graph, &inputs).unwrap();
    let db = psnr(&tensors["out_sample"], &found["out_sample"]);
    assert!(db >= 100.0, "{db:.1} dB");
}
