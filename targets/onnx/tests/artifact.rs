//! The whole artifact of a miniature pipeline: layout, text of a model, equal bytes, and what the verifier finds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use prost::Message;
use snapc_onnx::OnnxTarget;
use snapc_onnx::proto::{DimensionValue, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use snapc_target::{EmitOptions, Interface, Target, hash_file};
use support::miniature;

fn text(model: &ModelProto) -> String {
    let graph = model.graph.as_ref().unwrap();
    let mut lines = Vec::new();
    let opset = model.opset_import[0].version.unwrap_or_default();
    lines.push(format!(
        "graph {} ir {} opset {opset}",
        graph.name(),
        model.ir_version()
    ));
    lines.extend(
        graph
            .input
            .iter()
            .map(|v| format!("input {}", value_text(v))),
    );
    lines.extend(graph.initializer.iter().map(initializer_text));
    lines.extend(graph.node.iter().map(node_text));
    lines.extend(
        graph
            .value_info
            .iter()
            .map(|v| format!("value {}", value_text(v))),
    );
    lines.extend(
        graph
            .output
            .iter()
            .map(|v| format!("output {}", value_text(v))),
    );
    lines.join("\n")
}

fn value_text(value: &ValueInfoProto) -> String {
    let tensor = value
        .ty
        .as_ref()
        .and_then(|t| t.tensor_type.as_ref())
        .unwrap();
    let dims = tensor
        .shape
        .as_ref()
        .unwrap()
        .dim
        .iter()
        .map(|d| match d.value.as_ref().unwrap() {
            DimensionValue::Size(n) => n.to_string(),
            DimensionValue::Symbol(symbol) => symbol.clone(),
        });
    format!(
        "{}: {}[{}]",
        value.name(),
        tensor.elem_type(),
        dims.collect::<Vec<_>>().join(",")
    )
}

fn initializer_text(tensor: &TensorProto) -> String {
    let data = match &tensor.raw_data {
        Some(bytes) => format!("{} bytes", bytes.len()),
        None => {
            let entries = tensor
                .external_data
                .iter()
                .map(|e| format!("{}={}", e.key(), e.value()));
            entries.collect::<Vec<_>>().join(" ")
        }
    };
    format!(
        "initializer {}: {}{:?} {data}",
        tensor.name(),
        tensor.data_type(),
        tensor.dims
    )
}

fn node_text(node: &NodeProto) -> String {
    let attributes = node.attribute.iter().map(|a| match a.kind() {
        1 => format!(" {}={}", a.name(), a.f()),
        2 => format!(" {}={}", a.name(), a.i()),
        3 => format!(" {}={}", a.name(), String::from_utf8_lossy(a.s())),
        _ => format!(" {}={:?}", a.name(), a.ints),
    });
    let attributes: String = attributes.collect();
    let (inputs, outputs) = (node.input.join(", "), node.output.join(", "));
    format!(
        "node {}: {outputs} = {}({inputs}){attributes}",
        node.name(),
        node.op_type()
    )
}

fn read_model(path: &Path) -> ModelProto {
    ModelProto::decode(fs::read(path).unwrap().as_slice()).unwrap()
}

#[test]
fn a_model_reads_as_expected() {
    let dir = tempfile::tempdir().unwrap();
    support::emit(miniature::program(), dir.path());
    for graph in ["text_encoder", "unet", "vae_decoder"] {
        let model = read_model(&dir.path().join(graph).join("model.onnx"));
        insta::assert_snapshot!(graph, text(&model));
    }
}

#[test]
fn the_layout_is_optimums_and_the_report_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let emitted = support::emit(miniature::program(), dir.path());
    let paths: Vec<&str> = emitted.files.iter().map(|f| f.path.as_str()).collect();
    let expected = [
        "model_index.json",
        "runtime/README.md",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.onnx",
        "text_encoder/model.onnx_data",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/model.onnx",
        "vae_decoder/config.json",
        "vae_decoder/model.onnx",
    ];
    assert_eq!(paths, expected);
    for file in &emitted.files {
        let path = dir.path().join(&file.path);
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            file.bytes,
            "{}",
            file.path
        );
        assert_eq!(hash_file(&path).unwrap(), file.sha256, "{}", file.path);
    }
    let written: u64 = emitted.files.iter().map(|f| f.bytes).sum();
    let planned = OnnxTarget.artifact_bytes(&miniature::program(), &EmitOptions::default());
    assert_eq!(planned, written);
    let config = fs::read_to_string(dir.path().join("vae_decoder/config.json")).unwrap();
    assert!(
        config.contains("vae/config.json"),
        "the decoder has the configuration of the VAE"
    );
    let index = fs::read_to_string(dir.path().join("model_index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["safety_checker"], serde_json::json!([null, null]));
    let ids = &emitted.graphs[0].inputs[0];
    assert_eq!(
        (ids.name.as_str(), ids.dtype.as_str()),
        ("input_ids", "i64")
    );
}

#[test]
fn two_emissions_have_equal_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = support::emit(miniature::program(), a.path());
    let second = support::emit(miniature::program(), b.path());
    assert_eq!(first, second);
}

#[test]
fn options_of_other_targets_are_refused() {
    let options = EmitOptions {
        interface: Interface::Apple,
        ..EmitOptions::default()
    };
    let error = OnnxTarget
        .prepare(miniature::program(), &options)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "option '--interface': 'apple' is for Core ML; choose plain or snap"
    );
}

/// Optimum loads by the index, so none is made up for a checkpoint whose own cannot be used.
#[test]
fn a_checkpoint_without_a_usable_index_is_refused() {
    for (index, reason) in [
        (None, "the checkpoint has none"),
        (Some("{\"unet\": "), "the checkpoint's is not a JSON object"),
        (Some("[]"), "the checkpoint's is not a JSON object"),
    ] {
        let mut program = miniature::program();
        program.pipeline.files.remove("model_index.json");
        if let Some(text) = index {
            let entry = ("model_index.json".to_owned(), text.into());
            program.pipeline.files.extend([entry]);
        }
        let dir = tempfile::tempdir().unwrap();
        let error = support::try_emit(program, dir.path())
            .unwrap_err()
            .to_string();
        let start = format!("'model_index.json' is malformed: {reason}");
        assert!(error.starts_with(&start), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_sound_artifact_has_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    support::emit(miniature::program(), dir.path());
    assert_eq!(OnnxTarget.verify(dir.path()).unwrap(), []);
}

/// Rule and file of what the verifier finds after `damage` has been done to the text encoder's model.
fn findings_after(damage: impl FnOnce(&mut ModelProto)) -> Vec<(&'static str, String)> {
    findings(|dir| {
        let path = dir.join("text_encoder/model.onnx");
        let mut model = read_model(&path);
        damage(&mut model);
        fs::write(&path, model.encode_to_vec()).unwrap();
    })
}

fn findings(damage: impl FnOnce(&Path)) -> Vec<(&'static str, String)> {
    let dir = tempfile::tempdir().unwrap();
    support::emit(miniature::program(), dir.path());
    damage(dir.path());
    let found = OnnxTarget.verify(dir.path()).unwrap();
    found.into_iter().map(|f| (f.rule, f.file)).collect()
}

/// The initializer of the embedding table, which is external.
fn table(model: &mut ModelProto) -> &mut TensorProto {
    let initializers = &mut model.graph.as_mut().unwrap().initializer;
    initializers
        .iter_mut()
        .find(|t| t.name() == "embeddings.weight")
        .unwrap()
}

fn set(tensor: &mut TensorProto, key: &str, value: &str) {
    let entry = tensor
        .external_data
        .iter_mut()
        .find(|e| e.key() == key)
        .unwrap();
    entry.value = Some(value.to_owned());
}

#[test]
fn damaged_models_are_found() {
    let model = |rule| vec![(rule, "text_encoder/model.onnx".to_owned())];
    let nodes = |m: &mut ModelProto| std::mem::take(&mut m.graph.as_mut().unwrap().node);
    type Damage = Box<dyn FnOnce(&mut ModelProto)>;
    let cases: Vec<(&str, Damage)> = vec![
        ("decode", Box::new(|m| m.graph = None)),
        ("version", Box::new(|m| m.ir_version = Some(11))),
        (
            "version",
            Box::new(|m| m.opset_import[0].version = Some(20)),
        ),
        (
            "name",
            Box::new(|m| {
                let nodes = &mut m.graph.as_mut().unwrap().node;
                nodes[1].name = nodes[0].name.clone();
            }),
        ),
        (
            "order",
            Box::new(move |m| {
                let mut reversed = nodes(m);
                reversed.swap(0, 1);
                m.graph.as_mut().unwrap().node = reversed;
            }),
        ),
        (
            "operator",
            Box::new(|m| m.graph.as_mut().unwrap().node[1].op_type = Some("Loop".to_owned())),
        ),
        (
            "operator",
            Box::new(|m| m.graph.as_mut().unwrap().node[1].domain = Some("evil".to_owned())),
        ),
        (
            "operator",
            Box::new(|m| m.graph.as_mut().unwrap().node[1].input.truncate(1)),
        ),
        (
            "attribute",
            Box::new(|m| m.graph.as_mut().unwrap().node[0].attribute[0].kind = Some(5)),
        ),
        (
            "feature",
            Box::new(|m| m.graph.as_mut().unwrap().input[0].ty = None),
        ),
        (
            "feature",
            Box::new(|m| m.graph.as_mut().unwrap().output.truncate(1)),
        ),
        (
            "tensor",
            Box::new(|m| table(m).dims = vec![i64::MAX, i64::MAX]),
        ),
        ("tensor", Box::new(|m| table(m).dims = vec![-1, -6400])),
        ("tensor", Box::new(|m| table(m).data_type = Some(8))),
        ("tensor", Box::new(|m| set(table(m), "length", "64"))),
        (
            "external-path",
            Box::new(|m| set(table(m), "location", "/etc/passwd")),
        ),
        (
            "external-path",
            Box::new(|m| set(table(m), "location", "../unet/model.onnx")),
        ),
        ("external-path", Box::new(|m| set(table(m), "location", ""))),
        (
            "external-path",
            Box::new(|m| set(table(m), "location", "absent")),
        ),
        (
            "external-range",
            Box::new(|m| set(table(m), "offset", "18446744073709551552")),
        ),
        (
            "external-range",
            Box::new(|m| set(table(m), "offset", "-64")),
        ),
        (
            "external-range",
            Box::new(|m| set(table(m), "offset", "64")),
        ),
    ];
    for (i, (rule, damage)) in cases.into_iter().enumerate() {
        assert_eq!(findings_after(damage), model(rule), "case {i}");
    }
}

#[test]
fn damaged_files_are_found() {
    let at = |rule, file: &str| vec![(rule, file.to_owned())];
    let write = |file: &'static str, bytes: &'static [u8]| {
        move |dir: &Path| fs::write(dir.join(file), bytes).unwrap()
    };
    assert_eq!(
        findings(write("unet/model.onnx", &[0xff; 40])),
        at("decode", "unet/model.onnx")
    );
    assert_eq!(
        findings(write("model_index.json", b"[]")),
        at("decode", "model_index.json")
    );
    let remove = |dir: &Path| fs::remove_file(dir.join("unet/config.json")).unwrap();
    assert_eq!(findings(remove), at("file", "unet/config.json"));
    let grow = |dir: &Path| {
        let model = fs::OpenOptions::new()
            .write(true)
            .open(dir.join("unet/model.onnx"));
        model.unwrap().set_len((1 << 28) + 1).unwrap();
    };
    assert_eq!(findings(grow), at("file", "unet/model.onnx"));
    let cut = |dir: &Path| {
        let data = fs::OpenOptions::new()
            .write(true)
            .open(dir.join("text_encoder/model.onnx_data"));
        data.unwrap().set_len(100).unwrap();
    };
    assert_eq!(
        findings(cut),
        at("external-range", "text_encoder/model.onnx")
    );
    let outside = tempfile::tempdir().unwrap();
    let target: PathBuf = outside.path().join("data");
    fs::write(&target, [0; 6400]).unwrap();
    let link = |dir: &Path| {
        let data = dir.join("text_encoder/model.onnx_data");
        fs::remove_file(&data).unwrap();
        symlink(&target, data).unwrap();
    };
    assert_eq!(
        findings(link),
        at("external-path", "text_encoder/model.onnx")
    );
}

#[test]
fn truncated_models_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    support::emit(miniature::program(), dir.path());
    let path = dir.path().join("unet/model.onnx");
    let bytes = fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(
            !OnnxTarget.verify(dir.path()).unwrap().is_empty(),
            "cut at {len}"
        );
    }
}
