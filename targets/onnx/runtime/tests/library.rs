//! Libraries that are none. One test, because a process has one library and the order matters.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::error::Error as _;

use snapc_onnx_runtime::{Error, Options, OrtNetwork};
use snapc_pipeline::NetworkKind;
use support::{emit_tiny, library};

#[test]
fn a_library_that_is_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    emit_tiny("f32", dir.path());
    let open = |library: std::path::PathBuf| {
        let options = Options {
            library: Some(library),
            ..Options::default()
        };
        OrtNetwork::open(dir.path(), NetworkKind::TextEncoder, &options)
    };

    let absent = dir.path().join("libonnxruntime.so");
    let error = open(absent).unwrap_err();
    assert!(matches!(error, Error::OpenLibrary { .. }), "{error:?}");
    assert!(error.to_string().contains("ORT_DYLIB_PATH"), "{error}");

    let error = open("libno-onnxruntime-of-this-name.so".into()).unwrap_err();
    assert!(matches!(error, Error::LoadLibrary { .. }), "{error:?}");

    let text = dir.path().join("model_index.json");
    let error = open(text).unwrap_err();
    assert!(matches!(error, Error::LoadLibrary { .. }), "{error:?}");

    // A library that loads, but has other functions.
    let system = if cfg!(target_os = "macos") {
        "libSystem.B.dylib"
    } else {
        "libc.so.6"
    };
    let error = open(system.into()).unwrap_err();
    let reason = error.source().unwrap().to_string();
    assert!(reason.contains("OrtGetApiBase"), "{error}: {reason}");

    // None of these stands in the way of the right one.
    let network = open(library()).unwrap();
    assert_eq!(network.kind(), NetworkKind::TextEncoder);
    let error = open(dir.path().join("model_index.json")).unwrap_err();
    assert!(matches!(error, Error::OtherLibrary { .. }), "{error:?}");
}
