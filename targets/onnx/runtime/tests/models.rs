//! Models that snapc did not write as they are: open axes as in Optimum's exports, and what cannot be run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::error::Error as _;
use std::path::{Path, PathBuf};

use prost::Message;
use snapc_onnx::proto::{DimensionValue, ModelProto, ValueInfoProto};
use snapc_onnx_runtime::{CoreMl, Error, Options, OrtNetwork, Provider, open_engine};
use snapc_pipeline::{Data, Engine, Geometry, Network, NetworkKind, Port};
use support::{emit_tiny, options};

fn model(artifact: &Path, kind: NetworkKind) -> PathBuf {
    artifact.join(kind.name()).join("model.onnx")
}

/// Opens every axis of a feature behind the first.
fn open_axes(values: &mut [ValueInfoProto], name: &str) {
    let value = values.iter_mut().find(|v| v.name() == name).unwrap();
    let ty = value.ty.as_mut().unwrap().tensor_type.as_mut().unwrap();
    for (axis, dim) in ty
        .shape
        .as_mut()
        .unwrap()
        .dim
        .iter_mut()
        .enumerate()
        .skip(1)
    {
        dim.value = Some(DimensionValue::Symbol(format!("{name}_{axis}")));
    }
}

/// Rewrites a model so that its features have open axes behind the batch.
fn open_model(artifact: &Path, kind: NetworkKind, inputs: &[&str], outputs: &[&str]) {
    let path = model(artifact, kind);
    let mut decoded = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
    let graph = decoded.graph.as_mut().unwrap();
    inputs
        .iter()
        .for_each(|name| open_axes(&mut graph.input, name));
    outputs
        .iter()
        .for_each(|name| open_axes(&mut graph.output, name));
    std::fs::write(path, decoded.encode_to_vec()).unwrap();
}

#[test]
fn open_axes_take_their_sizes_from_the_configurations() {
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    let unet = ["sample", "encoder_hidden_states"];
    open_model(dir.path(), NetworkKind::Unet, &unet, &["out_sample"]);
    let (ids, states) = (["input_ids"], ["last_hidden_state"]);
    open_model(dir.path(), NetworkKind::TextEncoder, &ids, &states);
    open_model(
        dir.path(),
        NetworkKind::VaeDecoder,
        &["latent_sample"],
        &["sample"],
    );

    let engine = open_engine(dir.path(), &options()).unwrap();
    let geometry = Geometry {
        text_length: 77,
        text_width: 32,
        latent_channels: 4,
        latent_height: 16,
        latent_width: 16,
        pixels_per_latent: 8,
    };
    assert_eq!(engine.geometry(), geometry);

    std::fs::remove_file(dir.path().join("unet/config.json")).unwrap();
    let error = OrtNetwork::open(dir.path(), NetworkKind::Unet, &options()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unet: axis 1 of 'sample' is open"),
        "{error}"
    );
    std::fs::write(dir.path().join("unet/config.json"), "{").unwrap();
    let error = OrtNetwork::open(dir.path(), NetworkKind::Unet, &options()).unwrap_err();
    assert!(
        matches!(error, Error::ParseConfiguration { .. }),
        "{error:?}"
    );
}

#[test]
fn a_model_that_cannot_be_loaded_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = open_engine(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, Error::MissingModel { .. }), "{error:?}");

    emit_tiny("f32", dir.path());
    let path = model(dir.path(), NetworkKind::Unet);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = open_engine(dir.path(), &options()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with("unet: ONNX Runtime does not load"),
        "{message}"
    );
    assert!(error.source().is_some());
}

#[test]
fn a_type_without_use_is_refused() {
    /// `TensorProto.DataType.BFLOAT16`.
    const BFLOAT16: i32 = 16;
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    let path = model(dir.path(), NetworkKind::Unet);
    let mut decoded = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
    let graph = decoded.graph.as_mut().unwrap();
    // An input that nothing reads.
    let mut unread = graph.input[0].clone();
    unread.name = Some("mask".to_owned());
    let ty = unread.ty.as_mut().unwrap().tensor_type.as_mut().unwrap();
    ty.elem_type = Some(BFLOAT16);
    graph.input.push(unread);
    std::fs::write(path, decoded.encode_to_vec()).unwrap();
    let error = OrtNetwork::open(dir.path(), NetworkKind::Unet, &options()).unwrap_err();
    assert!(error.to_string().starts_with("unet: 'mask' is "), "{error}");
}

#[test]
fn arguments_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    let mut network = OrtNetwork::open(dir.path(), NetworkKind::VaeDecoder, &options()).unwrap();
    let values = |ports: &[Port]| ports[0].values(1).unwrap();
    let latents = vec![0.0; values(network.inputs())];
    let mut image = vec![0.0; values(network.outputs())];
    let mut run = |batch, inputs: &[Data<'_>], image: &mut [f32]| {
        network
            .run(batch, inputs, &mut [Some(image)])
            .map_err(|error| error.to_string())
    };

    run(1, &[Data::F32(&latents)], &mut image).unwrap();
    assert!(image.iter().all(|v| v.is_finite()));
    let error = run(1, &[], &mut image).unwrap_err();
    assert_eq!(error, "vae_decoder: 0 inputs given, but the model has 1");
    let error = run(2, &[Data::F32(&latents)], &mut image).unwrap_err();
    assert!(
        error.contains("1024 values of F32 given, but 2048"),
        "{error}"
    );
    let error = run(1, &[Data::I32(&[0; 1024])], &mut image).unwrap_err();
    assert!(error.contains("1024 values of I32 given"), "{error}");
    let error = run(1, &[Data::F32(&latents)], &mut image[1..]).unwrap_err();
    assert!(error.contains("room for 49151 values"), "{error}");
}

#[cfg(not(target_vendor = "apple"))]
#[test]
fn a_provider_that_the_library_lacks_is_an_error() {
    assert!(Provider::of_this_system().is_empty());
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    let options = Options {
        providers: vec![Provider::CoreMl(CoreMl::default())],
        ..options()
    };
    let error = OrtNetwork::open(dir.path(), NetworkKind::Unet, &options).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("has no CoreMLExecutionProvider"),
        "{message}"
    );
}
