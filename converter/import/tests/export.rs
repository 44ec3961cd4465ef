//! Programs written back as diffusers folders.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

use snapc_import::{ImportOptions, export, open};
use snapc_ir::{DType, Graph, Program, text};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name)
}

fn import(path: &Path) -> Program {
    let checkpoint = open(path, &ImportOptions::default()).unwrap();
    checkpoint.import().unwrap()
}

fn position(program: &Program, name: &str) -> usize {
    program
        .graphs
        .iter()
        .position(|g| g.name() == name)
        .unwrap()
}

/// Text of a graph, and stored type and elements of its weights.
type Content = (String, Vec<(DType, Vec<f32>)>);

/// The text of all graphs and the elements and stored types of all weights.
fn content(program: &Program) -> Vec<Content> {
    let weights = |g: &Graph| {
        let data = g
            .weights()
            .iter()
            .map(|w| (w.tensor.exact_dtype(), w.tensor.to_f32().unwrap()));
        data.collect()
    };
    program
        .graphs
        .iter()
        .map(|g| (text::print(g), weights(g)))
        .collect()
}

#[test]
fn what_is_written_comes_back_in_the_element_types_it_was_stored_in() {
    let folder = tempfile::tempdir().unwrap();
    for (name, changed) in [
        ("tiny", vec!["vae_decoder"]),
        ("variants/lean", vec!["text_encoder", "unet", "vae_decoder"]),
        ("variants/sd2", vec!["unet"]),
        ("variants/blocks", vec!["unet"]),
    ] {
        let program = import(&fixture(name));
        let out = folder.path().join(name.replace('/', "-"));
        export(&program, &fixture(name), &changed, &out).unwrap();
        assert!(content(&import(&out)) == content(&program), "{name}");
        let left = fs::read_dir(folder.path()).unwrap();
        let hidden = left.filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.')
        });
        assert_eq!(
            hidden.count(),
            0,
            "{name}: something is left beside the output"
        );
    }
}

#[test]
fn components_that_have_not_changed_are_copied_as_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    export(
        &import(&fixture("tiny")),
        &fixture("tiny"),
        &["vae_decoder"],
        &out,
    )
    .unwrap();
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.safetensors",
    ] {
        let same =
            fs::read(out.join(file)).unwrap() == fs::read(fixture("tiny").join(file)).unwrap();
        assert!(same, "{file}");
    }
    let file = fs::read(out.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert!(tensors.names().iter().all(|n| !n.starts_with("encoder.")));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn single_files_become_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = fixture("variants/ldm_sd1.safetensors");
    let options = ImportOptions {
        config: Some(fixture("variants/ldm_sd1.config.json")),
        ..ImportOptions::default()
    };
    let program = open(&path, &options).unwrap().import().unwrap();
    let out = folder.path().join("out");
    export(&program, &path, &[], &out).unwrap();
    assert!(content(&import(&out)) == content(&program));
}

#[test]
fn what_cannot_be_exported_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = fixture("tiny");
    let out = folder.path().join("out");
    let refused = |program: &Program, changed: &[&str], expected: &str| {
        let message = export(program, &tiny, changed, &out)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "{expected}"
        );
    };
    let program = import(&tiny);
    refused(&program, &["decoder"], "there is no graph 'decoder'");

    let mut changed = program.clone();
    let at = position(&program, "unet");
    let unet = &program.graphs[at];
    let silu = |node: &snapc_ir::Node| matches!(node.op, snapc_ir::Op::Silu(_));
    let first = unet.nodes().iter().find(|n| silu(n)).unwrap().result;
    let without =
        unet.rebuild::<snapc_ir::BuildError>(|rebuild, node| match node.result == first {
            true => rebuild.operand(node.operands[0]).map(Some),
            false => rebuild.copy(node).map(Some),
        });
    changed.graphs[at] = without.unwrap();
    refused(
        &changed,
        &["unet"],
        "graph 'unet' is not the network that unet/config.json describes",
    );

    let mut absent = program.clone();
    let at = position(&program, "vae_decoder");
    absent.graphs[at] = text::parse(&text::print(&program.graphs[at])).unwrap();
    refused(&absent, &["vae_decoder"], "graph 'vae_decoder', weight");

    let mut bare = program.clone();
    bare.pipeline.files.remove("vae/config.json");
    refused(
        &bare,
        &["vae_decoder"],
        "the program has no vae/config.json",
    );

    fs::create_dir(&out).unwrap();
    let message = export(&program, &tiny, &["unet"], &out)
        .unwrap_err()
        .to_string();
    assert!(message.ends_with("exists already or names no folder; give the name of a new folder"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}
