//! Wrong input, end to end through the command: each kind has its message and its exit code, and leaves nothing behind.
//!
//! | kind | exit | kind | exit |
//! |---|---|---|---|
//! | no such path | 3 | weight missing, unknown, misshapen, not finite (one report) | 3 |
//! | folder without `model_index.json` | 3 | weight of an unsupported element type | 3 |
//! | file that is not safetensors | 3 | weights that overflow f16 | 3 |
//! | truncated safetensors | 3 | image size that does not fit | 2 |
//! | header longer than the file | 3 | more steps than the schedule has | 2 |
//! | header that is no JSON | 3 | output that exists | 2 |
//! | tensor outside the file | 3 | `--force` on what is not an artifact | 2 |
//! | configuration that is no JSON | 3 | output below a file | 2 |
//! | component without configuration | 3 | unknown pass, impossible order of passes | 2 |
//! | component without weights | 3 | precision that the passes do not give | 2 |
//! | unsupported network key | 3 | unknown key, wrong value in a settings file | 2 |
//! | unsupported scheduler setting | 3 | option that the target cannot honour | 2 |
//! | pipeline of another kind | 3 | depfile that cannot be written | 2 |
//! | single file with a broken `--component-config` | 3 | folder with `--component-config` | 2 |
//! | tokenizer file missing | 3 | no space for a file | 2 |
//! | shard missing, shard outside the folder | 3 | SIGINT while writing | 130 |

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapc_tests::{
    Run, SafetensorsFile, Snapc, StoredTensor, copy_folder, edit_json, names, workspace_root,
};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// A folder with a copy of a fixture in `in`.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(fixture: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        copy_folder(
            &workspace_root().join("fixtures").join(fixture),
            &folder.path().join("in"),
        );
        Scene { folder }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join("in").join(name)
    }

    fn snapc(&self) -> Snapc {
        Snapc::new(env!("CARGO_BIN_EXE_snapc-under-test"), self.root())
    }

    /// Runs the command, which has to end with `exit`, say all of `expected` on stderr and nothing on stdout, and leave
    /// the folder as it was.
    fn fails(&self, arguments: &str, exit: i32, expected: &[&str]) {
        let before = names(self.root());
        let run = self.snapc().run(arguments);
        check(&run, exit, expected);
        assert_eq!(names(self.root()), before, "left behind by {arguments}");
    }

    /// [`Scene::fails`] for a conversion to ONNX.
    fn convert_fails(&self, flags: &str, exit: i32, expected: &[&str]) {
        self.fails(
            &format!("convert in --target onnx -o out {flags}"),
            exit,
            expected,
        );
    }
}

fn check(run: &Run, exit: i32, expected: &[&str]) {
    assert_eq!(run.exit, Some(exit), "{}", run.stderr);
    assert!(
        run.stderr.starts_with("error: ") || run.stderr.starts_with("note: "),
        "{}",
        run.stderr
    );
    for words in expected {
        assert!(
            run.stderr.contains(words),
            "no '{words}' in: {}",
            run.stderr
        );
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

fn f32s(tensor: &mut StoredTensor, at: usize, value: f32) {
    tensor.bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn no_such_path() {
    let scene = Scene::new("variants/lean");
    scene.fails("convert nowhere --target onnx -o out", 3, &["nowhere"]);
    scene.fails("inspect nowhere", 3, &["nowhere"]);
    scene.fails(
        "verify nowhere",
        3,
        &[
            "nowhere",
            "help: give the folder that `snapc convert -o` wrote",
        ],
    );
}

#[test]
fn folder_without_model_index() {
    let scene = Scene::new("variants/lean");
    fs::remove_file(scene.path("model_index.json")).unwrap();
    scene.convert_fails("", 3, &["model_index.json"]);
}

#[test]
fn file_that_is_not_safetensors() {
    let scene = Scene::new("variants/lean");
    fs::write(
        scene.root().join("notes.txt"),
        "no weights here, just words",
    )
    .unwrap();
    fs::write(
        scene.root().join("model.safetensors"),
        "no weights here, just words",
    )
    .unwrap();
    scene.fails("convert notes.txt --target onnx -o out", 3, &["notes.txt"]);
    scene.fails(
        "convert model.safetensors --target onnx -o out",
        3,
        &["not a valid safetensors file"],
    );
}

#[test]
fn truncated_safetensors() {
    let scene = Scene::new("variants/lean");
    let bytes = fs::read(scene.path(UNET)).unwrap();
    fs::write(scene.path(UNET), &bytes[..bytes.len() - 1]).unwrap();
    scene.convert_fails("", 3, &[UNET, "not a valid safetensors file"]);
    fs::write(scene.path(UNET), &bytes[..5]).unwrap();
    scene.convert_fails("", 3, &[UNET, "not a valid safetensors file"]);
    fs::write(scene.path(UNET), b"").unwrap();
    scene.convert_fails("", 3, &[UNET]);
}

#[test]
fn headers_that_lie() {
    let scene = Scene::new("variants/lean");
    let bytes = fs::read(scene.path(UNET)).unwrap();
    let mut longer = bytes.clone();
    longer[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(scene.path(UNET), longer).unwrap();
    scene.convert_fails("", 3, &[UNET, "not a valid safetensors file"]);

    let mut words = bytes.clone();
    words[8] = b'?';
    fs::write(scene.path(UNET), words).unwrap();
    scene.convert_fails("", 3, &[UNET, "not a valid safetensors file"]);

    let header = r#"{"conv_in.weight":{"dtype":"F32","shape":[16,4,3,3],"data_offsets":[0,9223372036854775807]}}"#;
    let mut outside = (header.len() as u64).to_le_bytes().to_vec();
    outside.extend(header.as_bytes());
    fs::write(scene.path(UNET), outside).unwrap();
    scene.convert_fails("", 3, &[UNET, "not a valid safetensors file"]);
}

#[test]
fn configurations_that_are_not_json_or_not_there() {
    let scene = Scene::new("variants/lean");
    let config = scene.path("unet/config.json");
    let text = fs::read(&config).unwrap();
    fs::write(&config, &text[..text.len() / 2]).unwrap();
    scene.convert_fails("", 3, &["unet/config.json", "invalid JSON", "line"]);
    fs::remove_file(&config).unwrap();
    scene.convert_fails("", 3, &["unet/config.json is missing"]);
}

#[test]
fn component_configurations_that_are_not_json() {
    let scene = Scene::new("variants/lean");
    let fixtures = workspace_root().join("fixtures/variants");
    fs::copy(
        fixtures.join("ldm_sd1.safetensors"),
        scene.root().join("one.safetensors"),
    )
    .unwrap();
    let convert = "convert one.safetensors --target onnx -o out --component-config parts.json";
    scene.fails(convert, 3, &["parts.json"]);
    fs::write(scene.root().join("parts.json"), "{\"unet\": ").unwrap();
    scene.fails(convert, 3, &["parts.json", "invalid JSON"]);
    // The sizes of the weights are not those of any release.
    scene.fails(
        "convert one.safetensors --target onnx -o out",
        3,
        &["error: "],
    );
}

#[test]
fn component_without_weights() {
    let scene = Scene::new("variants/lean");
    fs::remove_file(scene.path(VAE)).unwrap();
    scene.convert_fails("", 3, &["vae/", "missing"]);
}

#[test]
fn weights_that_do_not_fit_are_told_in_one_run() {
    let scene = Scene::new("variants/lean");
    SafetensorsFile::edit(&scene.path(UNET), |tensors| {
        let bias = tensors.remove("conv_in.bias").expect("every UNet has it");
        tensors.insert("conv_in.bais".to_owned(), bias);
        let out = tensors
            .get_mut("conv_norm_out.weight")
            .expect("every UNet has it");
        f32s(out, 3, f32::NAN);
        f32s(out, 5, f32::INFINITY);
    });
    SafetensorsFile::edit(&scene.path(VAE), |tensors| {
        tensors
            .get_mut("decoder.conv_in.bias")
            .expect("every decoder has it")
            .shape
            .insert(0, 1);
    });
    let expected = [
        "1 missing, 1 extra, 1 misshapen, 1 not finite",
        "conv_in.bias: missing",
        "conv_in.bais: not used by the network",
        "conv_norm_out.weight: 2 elements are not finite, the first at 3",
        "decoder.conv_in.bias: shape [1, ",
    ];
    scene.convert_fails("", 3, &expected);
    scene.fails("inspect in", 3, &expected);
}

#[test]
fn unsupported_element_type() {
    let scene = Scene::new("variants/lean");
    SafetensorsFile::edit(&scene.path(UNET), |tensors| {
        let bias = tensors.get_mut("conv_in.bias").expect("every UNet has it");
        bias.dtype = "I32".to_owned();
    });
    scene.convert_fails("", 3, &["conv_in.bias", "I32", "F32, F16 or BF16"]);
}

#[test]
fn weights_that_overflow_f16_are_all_named() {
    let scene = Scene::new("variants/lean");
    SafetensorsFile::edit(&scene.path(UNET), |tensors| {
        f32s(
            tensors.get_mut("conv_in.bias").expect("every UNet has it"),
            1,
            1e6,
        );
        f32s(
            tensors
                .get_mut("conv_out.weight")
                .expect("every UNet has it"),
            0,
            -7e4,
        );
    });
    scene.convert_fails(
        "",
        3,
        &[
            "conv_in.bias",
            "1000000",
            "conv_out.weight",
            "-70000",
            "--precision f32",
        ],
    );
    let run = scene
        .snapc()
        .run("convert in --target onnx --precision f32 -o out");
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    for target in ["onnx", "coreml", "native"] {
        let run = scene.snapc().run(&format!(
            "convert in --target {target} --keep-f32 auto --explain -o {target}"
        ));
        assert_eq!(run.exit, Some(0), "{target}: {}", run.stderr);
        for kept in ["conv_in", "conv_out"] {
            assert!(run.stdout.contains(kept), "{target}: {}", run.stdout);
        }
    }
}

#[test]
fn unsupported_configuration() {
    let scene = Scene::new("variants/lean");
    let set = |file: &str, key: &str, value: Value| {
        let path = scene.path(file);
        let text = fs::read(&path).unwrap();
        edit_json(&path, |config| config[key] = value);
        (path, text)
    };
    let (path, text) = set("unet/config.json", "class_embed_type", json!("timestep"));
    scene.convert_fails(
        "",
        3,
        &[
            "unet/config.json",
            "'class_embed_type' is \"timestep\"",
            "supported: null",
        ],
    );
    fs::write(path, text).unwrap();
    let (path, text) = set(
        "scheduler/scheduler_config.json",
        "beta_schedule",
        json!("squaredcos_cap_v2"),
    );
    scene.convert_fails(
        "",
        3,
        &[
            "scheduler/scheduler_config.json",
            "'beta_schedule'",
            "scaled_linear",
        ],
    );
    fs::write(path, text).unwrap();
    set(
        "model_index.json",
        "text_encoder_2",
        json!(["transformers", "CLIPTextModelWithProjection"]),
    );
    scene.convert_fails(
        "",
        3,
        &[
            "model_index.json",
            "'text_encoder_2'",
            "Stable Diffusion 1.x and 2.x",
        ],
    );
}

#[test]
fn tokenizer_file_missing() {
    let scene = Scene::new("tiny");
    fs::remove_file(scene.path("tokenizer/vocab.json")).unwrap();
    scene.convert_fails("", 3, &["tokenizer/vocab.json"]);
}

#[test]
fn shards_missing_or_outside() {
    let scene = Scene::new("variants/sd2");
    let shard = "diffusion_pytorch_model-00002-of-00003.safetensors";
    let bytes = fs::read(scene.path("unet").join(shard)).unwrap();
    fs::remove_file(scene.path("unet").join(shard)).unwrap();
    scene.convert_fails("", 3, &[shard]);
    fs::write(scene.root().join("outside.safetensors"), &bytes).unwrap();
    edit_json(
        &scene.path("unet/diffusion_pytorch_model.safetensors.index.json"),
        |index| {
            let map = index["weight_map"].as_object_mut().expect("an object");
            for name in map.values_mut().filter(|name| **name == shard) {
                *name = json!("../../outside.safetensors");
            }
        },
    );
    scene.convert_fails("", 3, &["../../outside.safetensors"]);
}

#[test]
fn values_of_flags_that_do_not_fit_the_checkpoint() {
    let scene = Scene::new("variants/lean");
    scene.convert_fails("--size 100", 2, &["100x100", "multiples of"]);
    scene.convert_fails("--steps 2000", 2, &["2000 steps", "help: --steps"]);
    scene.convert_fails("--steps 0", 2, &["0 steps"]);
    fs::write(scene.root().join("parts.json"), "{}").unwrap();
    scene.convert_fails(
        "--component-config parts.json",
        2,
        &["parts.json", "single-file checkpoint"],
    );
    scene.convert_fails("--interface apple", 2, &["--interface", "plain"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let scene = Scene::new("variants/lean");
    fs::create_dir(scene.root().join("out")).unwrap();
    fs::write(scene.root().join("out/thesis.txt"), "precious").unwrap();
    scene.convert_fails("", 2, &["'out' exists", "help: choose another -o"]);
    scene.convert_fails("--force", 2, &["'out' exists and is not an artifact"]);
    scene.fails(
        "convert in --target onnx -o out/thesis.txt/below",
        2,
        &["cannot write"],
    );
    scene.fails("convert in --target onnx -o in --force", 2, &["error: "]);
    scene.fails(
        "convert in --target onnx -o a/b --depfile no/where",
        2,
        &["cannot write 'no/where'"],
    );
    scene.fails("convert in --target onnx", 2, &["no output is given"]);
}

#[test]
fn pipelines_that_cannot_run() {
    let scene = Scene::new("variants/lean");
    scene.convert_fails(
        "--passes fold-constant",
        2,
        &["unknown pass 'fold-constant'", "fold-constants"],
    );
    scene.convert_fails("--passes fold-constants{", 2, &["at byte"]);
    scene.convert_fails(
        "--passes cast-precision{to=f16}",
        2,
        &["needs no-dead-code"],
    );
    scene.convert_fails(
        "--passes f32",
        2,
        &["the passes leave the weights in f32, but the precision is f16"],
    );
    scene.convert_fails("--print-after fold", 2, &["no pass is called 'fold'"]);
}

#[test]
fn settings_files_that_are_wrong() {
    let scene = Scene::new("variants/lean");
    let settings = scene.root().join("snapc.toml");
    for (text, expected) in [
        ("precison = 'f16'", "did you mean 'precision'?"),
        (
            "precision = 'f8'",
            "unknown precision 'f8'; choose one of f16, f32",
        ),
        ("steps = 'many'", "invalid type"),
        ("min-ios = 12", "choose 16, 17, 18 or 26"),
        ("steps = ", "line 1"),
    ] {
        fs::write(&settings, text).unwrap();
        scene.convert_fails("--config snapc.toml", 2, &[expected]);
    }
    scene.convert_fails("--config missing.toml", 2, &["missing.toml"]);
}

#[test]
fn artifacts_that_were_touched() {
    let scene = Scene::new("variants/lean");
    let run = scene.snapc().run("convert in --target onnx -o out");
    assert_eq!(run.exit, Some(0), "{}", run.stderr);
    let data = scene.root().join("out/unet/model.onnx_data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[100] ^= 1;
    fs::write(&data, bytes).unwrap();
    fs::remove_file(scene.root().join("out/model_index.json")).unwrap();
    let run = scene.snapc().run("verify out");
    assert_eq!(run.exit, Some(1), "{}", run.stderr);
    for words in [
        "unet/model.onnx_data: ",
        "[file-hash]",
        "model_index.json: ",
        "[file-missing]",
    ] {
        assert!(run.stdout.contains(words), "{}", run.stdout);
    }
    fs::write(scene.root().join("out/snap.json"), "{").unwrap();
    scene.fails("verify out", 3, &["snap.json"]);
}

/// The limit makes every write beyond 64 KiB fail, as a full disk does.
#[test]
#[cfg(unix)]
fn no_space() {
    let scene = Scene::new("variants/lean");
    let before = names(scene.root());
    for target in ["onnx", "coreml", "native"] {
        let output = Command::new("bash")
            .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "limited"])
            .arg(env!("CARGO_BIN_EXE_snapc-under-test"))
            .args(["convert", "in", "--target", target, "-o", "made/out"])
            .current_dir(scene.root())
            .output();
        let run: Run = output.expect("bash starts").into();
        check(&run, 2, &["File too large", "help: "]);
        assert_eq!(names(scene.root()), before);
    }
}

#[test]
#[cfg(unix)]
fn interrupt_while_writing() {
    let scene = Scene::new("variants/lean");
    // Large enough that the writing takes a while: only zeros are added.
    let rows = 1 << 20;
    edit_json(&scene.path("text_encoder/config.json"), |config| {
        config["vocab_size"] = json!(rows)
    });
    SafetensorsFile::edit(&scene.path("text_encoder/model.safetensors"), |tensors| {
        let table = tensors
            .get_mut("text_model.embeddings.token_embedding.weight")
            .expect("every text encoder has it");
        let row = table.bytes.len() / table.shape[0];
        table.bytes.resize(rows * row, 0);
        table.shape[0] = rows;
    });
    let before = names(scene.root());
    let mut child = scene
        .snapc()
        .command("convert in --target onnx --precision f32 -o out")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    let is_partial = |e: fs::DirEntry| {
        e.file_name()
            .to_string_lossy()
            .starts_with(".out.snapc-partial-")
    };
    let started = Instant::now();
    while !fs::read_dir(scene.root())
        .unwrap()
        .flatten()
        .any(is_partial)
    {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended before it wrote anything"
        );
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "does not begin to write"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill starts").success());
    let run: Run = child.wait_with_output().unwrap().into();
    check(&run, 130, &["interrupted"]);
    assert_eq!(names(scene.root()), before);
}
