//! What packages tell people, as coremltools shows it, and the decoder whose output is an image.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;
mod reading;

use std::path::{Path, PathBuf};

use foreign_reader::{Job, Tensors, emit_program, run, show};
use networks::{converted, optimized, reference};
use reading::evaluate;
use serde_json::{Value, json};
use snapc_coreml::Level;
use snapc_ir::{About, Tensor};
use snapc_target::{EmitOptions, Interface, Precision};

fn packages(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
    let path = |name: &&str| folder.join(format!("{name}.mlpackage"));
    names.iter().map(path).collect()
}

#[test]
fn packages_say_who_made_the_model_and_what_it_is() {
    let stated = |text: &str| Some(text.to_owned());
    let options = EmitOptions::default();
    let mut program = optimized("tiny", Precision::F16);
    program.pipeline.about = About {
        description: stated("Draws foxes."),
        author: stated("A. Fox"),
        license: stated("creativeml-openrail-m"),
        version: stated("1.5"),
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let (told, silent) = (folder("told"), folder("silent"));
    emit_program(program.clone(), &options, &told);
    program.pipeline.about = About::default();
    emit_program(program, &options, &silent);
    let mut paths = packages(&told, &["TextEncoder", "Unet", "VAEDecoder"]);
    paths.extend(packages(&silent, &["Unet"]));
    let shown = show(&paths);
    let graphs = ["text_encoder", "unet", "vae_decoder"];
    for (package, graph) in shown.iter().zip(graphs) {
        assert_eq!(package["author"], "A. Fox");
        assert_eq!(package["license"], "creativeml-openrail-m");
        assert_eq!(package["version"], "1.5");
        let description = package["description"].as_str().unwrap();
        assert!(description.ends_with(". Draws foxes."), "{description}");
        let facts = json!({
            "snapc.graph": graph,
            "snapc.interface": "plain",
            "snapc.precision": "f16",
            "snapc.version": env!("CARGO_PKG_VERSION"),
        });
        assert_eq!(package["user_defined"], facts);
    }
    // Nobody is made the author of a model that says nothing.
    for field in ["author", "license", "version"] {
        assert_eq!(shown[3][field], "", "{field}");
    }
    let description = "UNet of Stable Diffusion: one denoising step.";
    assert_eq!(shown[3]["description"], description);
}

/// Every feature of every interface is told with its axes: as many as its shape has.
#[test]
fn packages_say_what_every_feature_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for interface in [Interface::Plain, Interface::Apple, Interface::Snap] {
        let options = EmitOptions {
            interface,
            chunk_unet: interface == Interface::Apple,
            ..EmitOptions::default()
        };
        let folder = dir.path().join(interface.name());
        std::fs::create_dir(&folder).unwrap();
        emit_program(converted(&options), &options, &folder);
        paths.extend(packages(&folder, &["TextEncoder", "VAEDecoder"]));
        paths.extend(match options.chunk_unet {
            true => packages(&folder, &["UnetChunk1", "UnetChunk2"]),
            false => packages(&folder, &["Unet"]),
        });
    }
    let shown = show(&paths);
    let mut texts = Vec::new();
    for package in &shown {
        assert_eq!(package["error"], Value::Null);
        let main = &package["functions"]["main"];
        let features = [&main["inputs"], &main["outputs"]];
        let features = features.iter().flat_map(|list| list.as_array().unwrap());
        for feature in features {
            let text = feature["text"].as_str().unwrap();
            let sizes = feature["shape"].as_array().unwrap().iter();
            let sizes: Vec<String> = sizes.map(Value::to_string).collect();
            let shape = format!("[{}]: ", sizes.join(","));
            let (what, axes) = text
                .split_once(&shape)
                .unwrap_or_else(|| panic!("{feature}"));
            assert!(what.len() > 20 && !axes.is_empty(), "{feature}");
            texts.push(format!("{}: {text}", feature["name"].as_str().unwrap()));
        }
    }
    let said = |text: &str| assert!(texts.iter().any(|t| t.contains(text)), "{text}: {texts:#?}");
    said(
        "input_ids: Token ids of a prompt by CLIP's tokenizer: start, text, end, and padding behind it. \
          i32[1,77]: prompts, tokens; whole numbers from 0 to 49407",
    );
    said("timestep: Timestep of the noise schedule, for all rows. f32[1]: one; from 0 to 999");
    said(
        "timestep: Timestep of the noise schedule. f16[2]: rows; the same number from 0 to 999 in every row",
    );
    said("step: Number of the denoising step, for all rows. i32[1]: one; from 0 to 7");
    said(
        "latent_sample: The latents behind the last step, divided by 0.18215. f16[1,4,16,16]: pictures, channels, ",
    );
    said(
        "image: The picture that the latents stand for. f32[1,3,128,128]: pictures, channels (red, green, blue), rows, columns; black is -1",
    );
    said("attn2_to_k: The text encoder's output of this name");
    said("What the first part of the UNet gives under this name");
}

/// The levels of the picture that diffusers makes: `(x / 2 + 0.5).clamp(0, 1) * 255`, rounded.
fn levels(picture: &Tensor) -> Vec<f32> {
    let level = |x: &f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even();
    picture.floats().iter().map(level).collect()
}

#[test]
fn the_decoder_gives_an_image() {
    let reference = reference("tiny");
    let picture = levels(&reference["vae_decoder.b1.sample"]);
    let latents = reference["vae_decoder.b1.latent_sample"].clone();
    let inputs = Tensors::from([("latent_sample".to_owned(), latents)]);
    let dir = tempfile::tempdir().unwrap();
    let (mut jobs, mut kept) = (Vec::new(), Vec::new());
    for precision in [Precision::F32, Precision::F16] {
        let program = optimized("tiny", precision);
        for level in Level::ALL {
            let options = EmitOptions {
                precision,
                min_ios: Some(level.ios()),
                image_output: true,
                ..EmitOptions::default()
            };
            let name = format!("{precision} {}", level.ios());
            let folder = dir.path().join(&name);
            std::fs::create_dir(&folder).unwrap();
            let (_, emitted) = emit_program(program.clone(), &options, &folder);
            let output = &emitted.graphs[2].outputs[0];
            let told = (
                output.name.as_str(),
                output.dtype.as_str(),
                output.role.as_deref(),
            );
            assert_eq!(told, ("image", "u8", Some("picture-rgb")));
            assert_eq!(output.shape, ["1", "3", "128", "128"]);
            kept.push(precision);
            jobs.push(Job {
                name,
                package: folder.join("VAEDecoder.mlpackage"),
                inputs: inputs.clone(),
            });
        }
    }
    let paths: Vec<PathBuf> = jobs.iter().map(|job| job.package.clone()).collect();
    for shown in show(&paths) {
        let output = &shown["functions"]["main"]["outputs"][0];
        assert_eq!(output["name"], "image");
        assert_eq!(output["kind"], "imageType");
        assert_eq!(
            (&output["type"], &output["shape"]),
            (&json!("RGB"), &json!([128, 128]))
        );
        let text = "The picture, RGB with 8 bits per channel. 128 rows, 128 columns; black is 0, white is 255";
        assert_eq!(output["text"], text);
    }
    let there = run(&jobs.iter().collect::<Vec<_>>());
    for ((job, precision), there) in jobs.iter().zip(kept).zip(there) {
        let here = evaluate(&job.package, &job.inputs);
        for outputs in [&there, &here] {
            let found = outputs["image"].floats();
            assert!(
                found
                    .iter()
                    .all(|v| v.fract() == 0.0 && (0.0..=255.0).contains(v))
            );
            let apart = found.iter().zip(&picture).map(|(a, b)| (a - b).abs());
            let apart: Vec<f32> = apart.collect();
            let most = apart.iter().copied().fold(0.0, f32::max);
            let moved = apart.iter().filter(|d| **d > 0.0).count() as f64 / apart.len() as f64;
            println!(
                "{}: {:.2} % of the levels differ, by {most} at most",
                job.name,
                moved * 100.0
            );
            // One level where a value lies near the middle of two; in f32 that is one in a thousand at most.
            assert!(most <= 1.0, "{}: {most}", job.name);
            assert!(
                precision == Precision::F16 || moved < 0.001,
                "{}: {moved}",
                job.name
            );
        }
    }
}
