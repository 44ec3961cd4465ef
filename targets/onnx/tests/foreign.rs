//! Models that `torch.onnx` has exported (`fixtures/make_foreign.py`), read and evaluated against torch.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use snapc_ir::{Graph, Tensor, eval, verify};
use snapc_passes::recognize;
use support::{psnr, read_tensors, workspace};

/// Networks with their inputs and outputs.
const NETWORKS: [(&str, &[&str], &[&str]); 3] = [
    (
        "text_encoder",
        &["input_ids"],
        &["last_hidden_state", "pooler_output"],
    ),
    (
        "unet",
        &["sample", "timestep", "encoder_hidden_states"],
        &["out_sample"],
    ),
    ("vae_decoder", &["latent_sample"], &["sample"]),
];

fn model(network: &str, exporter: &str) -> PathBuf {
    workspace().join(format!("fixtures/foreign/{network}.{exporter}.onnx"))
}

/// The sizes that a call of `outputs.safetensors` gives to the symbols.
fn sizes(call: &str) -> BTreeMap<String, usize> {
    let sizes = match call {
        "fixed" => [("batch", 2), ("height", 8), ("width", 8), ("sequence", 77)],
        _ => [("batch", 3), ("height", 8), ("width", 12), ("sequence", 5)],
    };
    sizes.map(|(symbol, size)| (symbol.to_owned(), size)).into()
}

fn read(network: &str, exporter: &str, call: &str) -> Graph {
    let mut sizes = sizes(call);
    if network == "text_encoder" && call == "other" {
        sizes.insert("sequence".to_owned(), 9);
    }
    let path = model(network, exporter);
    let graph = snapc_onnx::read(&path, &sizes).unwrap_or_else(|e| panic!("{exporter}: {e}"));
    let graph = recognize(&graph).expect("is a valid graph");
    verify::verify(&graph).expect("verifies");
    graph
}

/// Evaluates a model on the operands of a call; every output has at least `bound` dB.
fn assert_equals_torch(exporter: &str, call: &str, bound: f64) {
    let tensors = read_tensors(&workspace().join("fixtures/foreign/outputs.safetensors"));
    for (network, inputs, outputs) in NETWORKS {
        let graph = read(network, exporter, call);
        assert_eq!(graph.name(), network);
        let tensor = |name: &str| tensors[&format!("{network}.{call}.{name}")].clone();
        let inputs = inputs.iter().map(|&name| (name.to_owned(), tensor(name)));
        let inputs: BTreeMap<String, Tensor> = inputs.collect();
        let found = eval::run(&graph, &inputs).unwrap();
        for &output in outputs {
            let db = psnr(&tensor(output), &found[output]);
            assert!(
                db >= bound,
                "{network} {exporter} {call} {output}: {db:.1} dB"
            );
        }
    }
}

#[test]
fn torchscript_of_operator_set_14_equals_torch() {
    assert_equals_torch("torchscript14", "fixed", 100.0);
}

#[test]
fn torchscript_with_symbolic_sizes_equals_torch_at_any() {
    assert_equals_torch("torchscript17", "fixed", 100.0);
    assert_equals_torch("torchscript17", "other", 100.0);
}

#[test]
fn the_newer_exporter_equals_torch() {
    assert_equals_torch("dynamo18", "fixed", 100.0);
}

/// How often each operator occurs.
fn census(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut census = BTreeMap::new();
    for node in graph.nodes() {
        *census.entry(node.op.name()).or_default() += 1;
    }
    census
}

#[test]
fn composites_are_found_again_whatever_the_exporter() {
    // Counted in the module tree of diffusers: 4 transformer blocks in the UNet with two attentions and three layer norms
    // each; 21 group norms; 10 linear layers on time embeddings and 11 in each transformer block.
    for exporter in ["torchscript14", "torchscript17", "dynamo18"] {
        let unet = census(&read("unet", exporter, "fixed"));
        assert_eq!(unet["attention"], 8, "{exporter}: {unet:?}");
        assert_eq!(unet["group_norm"], 21, "{exporter}: {unet:?}");
        assert_eq!(unet["layer_norm"], 12, "{exporter}: {unet:?}");
        assert_eq!(unet["gelu"], 4, "{exporter}: {unet:?}");
        assert_eq!(unet["linear"], 10 + 4 * 11 - 4, "{exporter}: {unet:?}");
        for primitive in [
            "matmul",
            "softmax",
            "sigmoid",
            "erf",
            "reduce_mean",
            "sqrt",
            "div",
        ] {
            assert!(!unet.contains_key(primitive), "{exporter}: {unet:?}");
        }
        let decoder = census(&read("vae_decoder", exporter, "fixed"));
        assert_eq!(decoder["attention"], 1, "{exporter}: {decoder:?}");
        assert_eq!(decoder["group_norm"], 14, "{exporter}: {decoder:?}");
        let text = census(&read("text_encoder", exporter, "fixed"));
        assert_eq!(text["attention"], 2, "{exporter}: {text:?}");
        assert_eq!(text["quick_gelu"], 2, "{exporter}: {text:?}");
        assert_eq!(text["layer_norm"], 5, "{exporter}: {text:?}");
        // Two residual sums in each of two layers, and the positions; none on indices is left.
        assert_eq!(text["add"], 5, "{exporter}: {text:?}");
    }
}

#[test]
fn a_symbol_without_a_size_says_how_to_bind_it() {
    let mut sizes = sizes("fixed");
    sizes.remove("height");
    let error = snapc_onnx::read(&model("unet", "torchscript17"), &sizes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "graph 'unet', input 'sample': axis 2 has the symbolic size 'height'; bind it to a number, such as height=1"
    );
}
