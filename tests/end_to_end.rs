//! Every artifact through every engine, against diffusers' recorded run `fixtures/tiny/reference.safetensors`, by the bars
//! of `docs/accuracy.md`; and artifacts that are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snapc_tests::{
    Run, SafetensorsFile, Snapc, contents, onnxruntime_library, psnr, workspace_root,
};

/// Last step of the recorded run.
const LAST: &str = "step_7.latents";

/// A folder with artifacts of the tiny pipeline.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// Converts the tiny pipeline; `flags` name target and options. The artifact is `out`.
    fn new(flags: &str) -> Self {
        let scene = Scene {
            folder: tempfile::tempdir().expect("a folder for the test"),
        };
        let run = scene.snapc(&format!("convert {} -o out {flags}", tiny().display()));
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> std::process::Command {
        let snapc = Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), self.folder.path());
        let mut command = snapc.command(arguments);
        command.env("ORT_DYLIB_PATH", onnxruntime_library());
        command
    }

    fn snapc(&self, arguments: &str) -> Run {
        let output = self.command(arguments).output();
        output.expect("the binary under test starts").into()
    }

    /// `validate` against the recorded run; the document, and whether it passes.
    fn validate(&self, flags: &str) -> (Value, bool) {
        let reference = tiny().join("reference.safetensors");
        let run = self.snapc(&format!(
            "validate out --reference {} --json {flags}",
            reference.display()
        ));
        let document: Value = serde_json::from_str(&run.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr));
        let passes = match run.exit {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("{}", run.stderr),
        };
        assert_eq!(document["ok"], passes);
        (document, passes)
    }
}

fn tiny() -> PathBuf {
    workspace_root().join("fixtures/tiny")
}

fn recorded() -> SafetensorsFile {
    SafetensorsFile::read(&tiny().join("reference.safetensors"))
}

/// Runs the recorded prompt from the recorded latents and compares latents and picture.
fn same_picture(scene: &Scene, engine: &str, bar: f64) {
    let reference = tiny().join("reference.safetensors");
    let mut command = scene.command(&format!(
        "run out --engine {engine} --negative blurry --init-latents {} --save {engine}.safetensors -o {engine}.png",
        reference.display()
    ));
    command.args(["--prompt", "a watercolour of a fox, 3 birds & it's raining"]);
    let run: Run = command
        .output()
        .expect("the binary under test starts")
        .into();
    assert_eq!(run.exit, Some(0), "{engine}: {}", run.stderr);

    let (recorded, found) = (
        recorded(),
        SafetensorsFile::read(&scene.path(&format!("{engine}.safetensors"))),
    );
    assert_eq!(
        found.tensors.keys().collect::<Vec<_>>(),
        recorded.tensors.keys().collect::<Vec<_>>()
    );
    assert_eq!(found.tensors["input_ids"], recorded.tensors["input_ids"]);
    assert_eq!(
        found.floats("init_latents"),
        recorded.floats("init_latents")
    );
    for name in [LAST, "image"] {
        let figure = psnr(&found.floats(name), &recorded.floats(name));
        assert!(figure >= bar, "{engine}, {name}: {figure:.1} dB");
    }

    // The picture file holds the recorded picture: halves of a level may fall either way, and f16 moves by a few levels.
    let pixels = picture(&scene.path(&format!("{engine}.png")));
    let expected = recorded.floats("image");
    let plane = expected.len() / 3;
    assert_eq!(pixels.len(), expected.len());
    let allowed = if bar >= 100.0 { 0.51 } else { 3.0 };
    for (i, level) in pixels.into_iter().enumerate() {
        let value = expected[(i % 3) * plane + i / 3];
        let wanted = (value / 2.0 + 0.5) * 255.0;
        let error = (f32::from(level) - wanted).abs();
        assert!(
            error <= allowed,
            "{engine}: value {i} is {level}, expected {wanted}"
        );
    }
}

fn picture(path: &Path) -> Vec<u8> {
    let file = std::io::BufReader::new(fs::File::open(path).expect("the picture is there"));
    let mut reader = png::Decoder::new(file).read_info().expect("it is a PNG");
    let mut pixels = vec![0; 3 * 128 * 128];
    let info = reader.next_frame(&mut pixels).expect("it is whole");
    assert_eq!((info.width, info.height), (128, 128));
    pixels
}

/// The bar of the final latents.
fn bar(precision: &str) -> f64 {
    match precision {
        "f32" => 100.0,
        _ => 55.0,
    }
}

/// Runs and validates an artifact in both precisions with all engines that take it.
fn every_engine(flags: &str, engines: &[&str]) {
    for precision in ["f32", "f16"] {
        let scene = Scene::new(&format!("{flags} --precision {precision}"));
        for engine in engines {
            same_picture(&scene, engine, bar(precision));
            let (document, passes) = scene.validate(&format!("--engine {engine}"));
            assert!(passes, "{engine}: {document:#}");
            let rows = document["rows"].as_array().expect("a list");
            // Ten calls; tokens, eight steps and the picture of the run.
            assert_eq!(rows.len(), 20);
            let last = rows
                .iter()
                .find(|r| r["kind"] == "final_latents")
                .expect("it is there");
            assert_eq!(last["bar_db"], bar(precision));
        }
    }
}

#[test]
fn onnx() {
    every_engine("--target onnx", &["snap", "ort", "evaluator"]);
}

#[test]
fn coreml() {
    every_engine("--target coreml", &["snap", "evaluator"]);
}

#[test]
fn coreml_with_apples_interface() {
    every_engine("--target coreml --interface apple", &["snap"]);
}

#[test]
fn native() {
    every_engine("--target native", &["snap"]);
}

#[test]
fn seeds_give_the_noise_of_torch() {
    let scene = Scene::new("--target native");
    let run = scene.snapc(
        "run out --prompt fox --seed 0 --steps 1 --guidance 1 --save s.safetensors -o s.png",
    );
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let found = SafetensorsFile::read(&scene.path("s.safetensors"));
    let (noise, expected) = (
        found.floats("init_latents"),
        recorded().floats("init_latents"),
    );
    for (f, e) in noise.iter().zip(&expected) {
        assert!((f - e).abs() <= 1e-6, "{f} {e}");
    }
    // Without guidance there is one row.
    assert_eq!(found.tensors["step_0.noise_pred"].shape, [1, 4, 16, 16]);
    assert_eq!(found.tensors["input_ids"].shape, [1, 77]);
}

/// The evaluator's record of the checkpoint against that of diffusers.
#[test]
fn the_reference_of_the_evaluator_is_that_of_diffusers() {
    let scene = Scene::new("--target onnx --precision f32");
    let checkpoint = tiny();
    for name in ["a", "b"] {
        let run = scene.snapc(&format!(
            "reference {} -o {name}.safetensors",
            checkpoint.display()
        ));
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
    }
    let bytes = |name| fs::read(scene.path(name)).expect("it is there");
    assert_eq!(bytes("a.safetensors"), bytes("b.safetensors"));
    let (found, recorded) = (
        SafetensorsFile::read(&scene.path("a.safetensors")),
        recorded(),
    );
    assert_eq!(found.tensors["input_ids"], recorded.tensors["input_ids"]);
    assert_eq!(found.tensors.len(), recorded.tensors.len());
    for (name, tensor) in recorded
        .tensors
        .iter()
        .filter(|(name, _)| *name != "input_ids")
    {
        assert_eq!(found.tensors[name].shape, tensor.shape);
        let figure = psnr(&found.floats(name), &tensor.floats());
        assert!(figure >= 100.0, "{name}: {figure:.1} dB");
    }
    let run = scene.snapc("validate out --reference a.safetensors");
    assert_eq!(run.exit, Some(0), "{}", run.stdout);
}

/// Multiplies a weight by 1.5 where its f32 bytes stand in the files of the artifact.
fn scale(artifact: &Path, weight: &[f32]) {
    let needle: Vec<u8> = weight.iter().flat_map(|v| v.to_le_bytes()).collect();
    let scaled: Vec<u8> = weight
        .iter()
        .flat_map(|v| (1.5 * v).to_le_bytes())
        .collect();
    let mut places = 0;
    for (name, mut bytes) in contents(artifact) {
        let found = bytes
            .windows(needle.len())
            .position(|window| window == needle);
        if let Some(at) = found {
            bytes[at..at + needle.len()].copy_from_slice(&scaled);
            fs::write(artifact.join(name), bytes).expect("a test file can be written");
            places += 1;
        }
    }
    assert_eq!(places, 1, "the weight stands in one file");
}

fn weight(file: &str, name: &str) -> Vec<f32> {
    SafetensorsFile::read(&tiny().join(file)).floats(name)
}

/// A damaged artifact fails, and the graph that was damaged is named; the others answer for themselves and are fine.
fn departs(scene: &Scene, engine: &str, graph: &str) -> Value {
    let flags = format!(
        "--engine {engine} --per-node --checkpoint {}",
        tiny().display()
    );
    let (document, passes) = scene.validate(&flags);
    assert!(!passes, "{document:#}");
    assert_eq!(document["departs_first"]["graph"], graph, "{document:#}");
    let rows = document["rows"].as_array().expect("a list");
    for row in rows.iter().filter(|row| row["kind"] == "call") {
        assert_eq!(row["ok"], row["graph"] != graph, "{row}");
    }
    document
}

#[test]
fn a_perturbed_weight_is_found() {
    let unet = "unet/diffusion_pytorch_model.safetensors";
    // What a norm follows would hardly show: it divides the factor out again.
    let node = "down_blocks.0.downsamplers.0.conv";
    let conv = weight(unet, &format!("{node}.weight"));
    for (flags, engines) in [
        ("--target onnx", &["snap", "ort", "evaluator"][..]),
        ("--target coreml", &["snap", "evaluator"][..]),
    ] {
        let scene = Scene::new(&format!("{flags} --precision f32"));
        scale(&scene.path("out"), &conv);
        for engine in engines {
            let document = departs(&scene, engine, "unet");
            assert_eq!(document["departs_first"]["step"], 0);
            assert_eq!(document["per_node"]["first"]["node"], node, "{document:#}");
        }
        let run = scene.snapc("verify out");
        assert!(run.stdout.contains("file-hash"), "{}", run.stdout);
    }

    // Matrices of a .snap file are packed; vectors stand as they are.
    let scene = Scene::new("--target native --precision f32");
    scale(&scene.path("out"), &weight(unet, &format!("{node}.bias")));
    let document = departs(&scene, "snap", "unet");
    assert_eq!(document["per_node"]["first"]["node"], node, "{document:#}");
}

#[test]
fn a_perturbed_decoder_is_found() {
    let scene = Scene::new("--target onnx --precision f32");
    let vae = "vae/diffusion_pytorch_model.safetensors";
    scale(&scene.path("out"), &weight(vae, "decoder.conv_in.weight"));
    let document = departs(&scene, "snap", "vae_decoder");
    assert_eq!(document["departs_first"]["step"], Value::Null);
}

/// A tokenizer that differs shows in the run, not in the calls.
#[test]
fn another_tokenizer_is_found() {
    let scene = Scene::new("--target onnx --precision f32");
    let merges = scene.path("out/tokenizer/merges.txt");
    let text = fs::read_to_string(&merges).expect("the artifact has merges");
    let mut lines: Vec<&str> = text.lines().collect();
    let fox = lines.iter().position(|line| *line == "fo x</w>");
    let fox = fox.expect("the word of the prompt is a token");
    // Two neighbours change their ids.
    lines.swap(fox, fox + 1);
    fs::write(&merges, lines.join("\n")).expect("a test file can be written");
    let (document, passes) = scene.validate("");
    assert!(!passes);
    assert_eq!(document["departs_first"]["kind"], "tokens", "{document:#}");
}

/// Flags of an artifact that is specialised to the recorded run.
fn snap(target: &str, precision: &str) -> String {
    let clean = "fold-constants,remove-no-ops,eliminate-common-subexpressions,eliminate-dead-code";
    let timesteps = "876/751/626/501/376/251/126/1";
    let cast = format!("cast-precision{{to={precision}}}");
    format!(
        "--target {target} --interface snap --precision {precision} \
         --passes specialize-schedule{{timesteps={timesteps}}},hoist-text-projections,{clean},{cast}"
    )
}

#[test]
fn specialised_to_a_run() {
    let targets = [
        ("onnx", &["snap", "ort", "evaluator"][..]),
        ("coreml", &["snap", "evaluator"]),
        ("native", &["snap"]),
    ];
    for (target, engines) in targets {
        for precision in ["f32", "f16"] {
            let flags = format!("--target {target} --interface snap --precision {precision}");
            let scene = Scene::new(&flags);
            let manifest = fs::read(scene.path("out/snap.json")).expect("it is there");
            let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
            let features = manifest["graphs"][1]["inputs"].as_array().expect("a list");
            let role = |role: &str| features.iter().filter(|f| f["role"] == role).count();
            // Two projections for each of the tiny UNet's cross-attentions.
            let cross_attentions = 16;
            assert_eq!(
                role("text-projection"),
                2 * cross_attentions,
                "{manifest:#}"
            );
            assert_eq!((role("step-index"), role("timestep")), (1, 0));
            let run = scene.snapc("verify out");
            assert_eq!(run.exit, Some(0), "{}{}", run.stdout, run.stderr);
            for engine in engines {
                same_picture(&scene, engine, bar(precision));
                let (document, passes) = scene.validate(&format!("--engine {engine}"));
                assert!(passes, "{target} {engine}: {document:#}");
            }
            let run = scene.snapc("bench out --iterations 1");
            assert_eq!(run.exit, Some(0), "{}", run.stderr);
        }
    }
}

/// Every step of the specialised graphs gives the numbers of the plain ones, to the last bit.
#[test]
fn specialised_graphs_compute_the_same() {
    let record = |flags: &str| {
        let scene = Scene::new(flags);
        same_picture(&scene, "evaluator", 100.0);
        SafetensorsFile::read(&scene.path("evaluator.safetensors"))
    };
    let plain = record("--target onnx --precision f32");
    let snap = record(&snap("onnx", "f32"));
    for (name, tensor) in &plain.tensors {
        assert_eq!(snap.tensors[name], *tensor, "{name}");
    }
}

#[test]
fn other_steps_than_those_of_the_table_are_refused() {
    let scene = Scene::new(&snap("native", "f32"));
    let run = scene.snapc("run out --prompt fox --steps 4 -o four.png");
    assert_eq!(run.exit, Some(2), "{}", run.stderr);
    let told = "the model was converted for 8 steps";
    let advice = "convert again with --steps 4 or with --interface plain";
    assert!(
        run.stderr.contains(told) && run.stderr.contains(advice),
        "{}",
        run.stderr
    );
    assert!(!scene.path("four.png").exists());
    let run = scene.snapc(&format!(
        "reference {} --steps 2 -o two.safetensors",
        tiny().display()
    ));
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let run = scene.snapc("validate out --reference two.safetensors");
    assert_eq!(run.exit, Some(2), "{}", run.stderr);
    assert!(
        run.stderr.contains("convert again with --steps 2"),
        "{}",
        run.stderr
    );
}

#[test]
fn other_steps_may_be_kept() {
    let flags = snap("onnx", "f32").replace("/126/1}", "/126/1,other_steps=keep}");
    let scene = Scene::new(&flags);
    same_picture(&scene, "ort", 100.0);
    let run = scene.snapc(&format!(
        "reference {} --steps 3 -o three.safetensors",
        tiny().display()
    ));
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    for engine in ["snap", "ort"] {
        let run = scene.snapc(&format!(
            "validate out --reference three.safetensors --engine {engine}"
        ));
        assert_eq!(run.exit, Some(0), "{}{}", run.stdout, run.stderr);
    }
}

#[test]
fn an_interface_that_the_passes_have_not_made_is_refused() {
    let scene = Scene::new("--target native");
    let refused = |flags: &str, reason: &str| {
        let run = scene.snapc(&format!("convert {} -o other {flags}", tiny().display()));
        assert_eq!(run.exit, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
        assert!(!scene.path("other").exists());
    };
    let specialised = |target: &str| snap(target, "f32");
    for target in ["onnx", "coreml", "native"] {
        let flags = specialised(target);
        let plain = flags.replace("--interface snap", "--interface plain");
        refused(&plain, "the passes have specialised the UNet to a run");
        let passes = flags.find("--passes").expect("it names passes");
        refused(
            &format!("{} --passes f32", &flags[..passes]),
            "'snap' needs a UNet with a table of its timesteps",
        );
        refused(
            &format!("{flags} --steps 4"),
            "has 8 steps, but --steps is 4",
        );
    }
}

/// The encoding of the empty prompt that the artifact keeps is the one that its text encoder gives, and is used.
#[test]
fn the_empty_prompt_is_kept_with_the_artifact() {
    let scene = Scene::new(&snap("onnx", "f32"));
    let latents = |name: &str| {
        let run = scene.snapc(&format!(
            "run out --engine evaluator --prompt fox --seed 3 --save {name}.safetensors -o {name}.png"
        ));
        assert_eq!(run.exit, Some(0), "{}", run.stderr);
        SafetensorsFile::read(&scene.path(&format!("{name}.safetensors"))).floats(LAST)
    };
    let kept = latents("kept");
    let path = scene.path("out/empty_prompt.bin");
    let mut bytes = fs::read(&path).expect("it is there");
    fs::remove_file(&path).expect("a test file can be removed");
    let encoded = latents("encoded");
    let figure = psnr(&kept, &encoded);
    assert!(figure >= 100.0, "{figure:.1} dB");
    // Behind the number of ids and the ids are values.
    bytes[4 * 78..].fill(0);
    fs::write(&path, bytes).expect("a test file can be written");
    let figure = psnr(&latents("zeros"), &encoded);
    assert!(figure < 60.0, "{figure:.1} dB");
}
