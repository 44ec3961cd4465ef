//! The artifact on disk: its rules, and what the file holds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use snapc_format::{Container, DType, LayoutId, Plan, Stage, TensorPlan};
use snapc_ir::text::parse;
use snapc_ir::verify::verify;
use snapc_ir::{LazyTensor, Program};
use snapc_native::{Activations, Companions, Native, compile};
use snapc_target::{
    EmitOptions, Interface, Progress, Silent, Target, TargetError, VerifiedProgram,
};
use support::program;

fn emit(program: &Program, dir: &Path) {
    let verified = VerifiedProgram::new(program).unwrap();
    let options = EmitOptions::default();
    let emitted = Native.emit(&verified, &options, dir, &Silent).unwrap();
    let files: Vec<&str> = emitted.files.iter().map(|f| f.path.as_str()).collect();
    let runtime = ["README.md", "module.modulemap", "snap.h"].map(|f| format!("runtime/{f}"));
    assert_eq!(files[0], "model.snap");
    assert_eq!(files[1..], runtime);
}

#[test]
fn every_weight_is_there_once_in_the_form_that_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let program = program("tiny", "f16");
    emit(&program, dir.path());
    let container = Container::open(&dir.path().join("model.snap")).unwrap();
    container.verify().unwrap();
    let stages: Vec<Stage> = container.stages().collect();
    assert_eq!(stages, Stage::ALL);
    for stage in Stage::ALL {
        assert!(container.tensors(stage).all(|t| t.variants().len() == 1));
    }
    // A convolution: channels last, in panels, as the checkpoint has the numbers.
    let found = container.tensor(Stage::Unet, "conv_in.weight").unwrap();
    let variant = found.variants()[0];
    assert_eq!(
        (variant.layout, variant.dtype),
        (LayoutId::PANELS, DType::F16)
    );
    assert_eq!(found.shape(), [16, 3, 3, 4]);
    let unet = program.graph("unet").unwrap();
    let weight = |name: &str| -> LazyTensor {
        let weights = unet.weights().iter();
        let weight = weights.clone().find(|w| w.name == name).unwrap();
        weight.tensor.clone()
    };
    let expected = weight("conv_in.weight").permute(&[0, 2, 3, 1]);
    assert!(found.canonical() == expected.bytes().unwrap());
    let linear = container.tensor(Stage::Unet, "time_embedding.linear_1.weight");
    let linear = linear.unwrap().canonical();
    let expected = weight("time_embedding.linear_1.weight");
    assert!(linear == expected.bytes().unwrap());
    // Vectors are f32, embeddings rows as they are.
    let bias = container.tensor(Stage::Unet, "conv_in.bias").unwrap();
    assert_eq!(bias.variants()[0].dtype, DType::F32);
    let name = "text_model.embeddings.token_embedding.weight";
    let rows = container.tensor(Stage::TextEncoder, name).unwrap();
    let variant = rows.variants()[0];
    assert_eq!(
        (variant.layout, variant.dtype),
        (LayoutId::CANONICAL, DType::F16)
    );
    assert_eq!(container.metadata()["precision"], "f16");
}

/// The file of an artifact with its parts changed and its hashes made right again.
fn rewritten(file: &Path, change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let container = Container::open(file).unwrap();
    let mut parts = Parts {
        program: Some(container.program().unwrap().to_vec()),
        tokenizer: container.tokenizer().unwrap().to_vec(),
        schedule: container.schedule().unwrap().to_vec(),
        tensors: BTreeMap::new(),
    };
    for stage in Stage::ALL {
        for tensor in container.tensors(stage) {
            let variant = tensor.variants()[0];
            let (_, data) = tensor.packed(variant.layout).unwrap();
            let key = (stage, tensor.name().to_owned());
            let shape = tensor.shape().to_vec();
            let held = (variant.layout, variant.dtype, shape, data.to_vec());
            parts.tensors.insert(key, held);
        }
    }
    change(&mut parts);
    let mut plan = Plan::new();
    parts
        .program
        .iter()
        .for_each(|p| plan.set_program(p.clone()));
    plan.set_tokenizer(parts.tokenizer);
    plan.set_schedule(parts.schedule);
    for ((stage, name), (layout, dtype, shape, _)) in &parts.tensors {
        let planned = match *layout {
            LayoutId::PANELS => TensorPlan::panels,
            _ => TensorPlan::new,
        };
        plan.add_tensor(*stage, planned(name, shape, *dtype));
    }
    let mut out = Cursor::new(Vec::new());
    let layout = plan.layout().unwrap();
    let written = layout.write(&mut out, |place, out| {
        out.write_all(&parts.tensors[&(place.stage, place.name.clone())].3)
    });
    written.unwrap();
    out.into_inner()
}

/// Layout, type, shape and data of a tensor.
type Held = (LayoutId, DType, Vec<u64>, Vec<u8>);

struct Parts {
    program: Option<Vec<u8>>,
    tokenizer: Vec<u8>,
    schedule: Vec<u8>,
    tensors: BTreeMap<(Stage, String), Held>,
}

impl Parts {
    fn tensor(&mut self, name: &str) -> &mut Held {
        let key = (Stage::Unet, name.to_owned());
        self.tensors.get_mut(&key).unwrap()
    }
}

#[test]
fn broken_rules_are_found() {
    let dir = tempfile::tempdir().unwrap();
    emit(&program("tiny", "f16"), dir.path());
    let file = dir.path().join("model.snap");
    let original = std::fs::read(&file).unwrap();
    let findings = |bytes: &[u8]| -> Vec<(&str, String)> {
        std::fs::write(&file, bytes).unwrap();
        let found = Native.verify(dir.path()).unwrap();
        let found = found
            .into_iter()
            .map(|f| (f.rule, format!("{}: {}", f.place, f.message)));
        found.collect()
    };
    let only = |bytes: &[u8], rule: &str, words: &str| {
        let found = findings(bytes);
        assert!(found.len() == 1 && found[0].0 == rule, "{rule}: {found:?}");
        assert!(found[0].1.contains(words), "{found:?}");
    };
    let changed = |change: fn(&mut Parts)| {
        std::fs::write(&file, &original).unwrap();
        rewritten(&file, change)
    };
    assert_eq!(findings(&original), []);
    assert_eq!(findings(&changed(|_| {})), []);

    only(&original[..1000], "snap-container", "bytes long");
    let mut damaged = original.clone();
    let last = damaged.iter().rposition(|&b| b != 0).unwrap();
    damaged[last] ^= 1;
    only(&damaged, "snap-hash", "is damaged");
    only(
        &changed(|p| p.program = None),
        "snap-program",
        "section 'program' is missing",
    );
    let cut = changed(|p| p.program.as_mut().unwrap().truncate(100));
    let found = findings(&cut);
    assert_eq!((found.len(), found[0].0), (1, "snap-program"));
    only(&changed(|p| p.schedule.truncate(3)), "snap-schedule", "");
    only(&changed(|p| p.tokenizer.push(0xff)), "snap-tokenizer", "");

    const BIAS: &str = "conv_in.bias";
    let lost = changed(|p| {
        p.tensors.remove(&(Stage::Unet, BIAS.to_owned()));
    });
    only(
        &lost,
        "snap-weight",
        "graph 'unet', weight 'conv_in.bias': ",
    );
    let reshaped = changed(|p| p.tensor(BIAS).2.insert(0, 1));
    only(&reshaped, "snap-weight", "the program reads [");
    let unpacked = changed(|p| {
        let weight = p.tensor("conv_in.weight");
        weight.0 = LayoutId::CANONICAL;
        let elements: u64 = weight.2.iter().product();
        weight.3.truncate(elements as usize * 2);
    });
    only(&unpacked, "snap-weight", "layout 1 is not there");
    let narrowed = changed(|p| {
        let bias = p.tensor(BIAS);
        bias.1 = DType::F16;
        bias.3.truncate(bias.3.len() / 2);
    });
    only(&narrowed, "snap-weight", "the type is f16");
    let extra = changed(|p| {
        let bias = p.tensor(BIAS).clone();
        p.tensors.insert((Stage::Unet, "another".to_owned()), bias);
    });
    only(
        &extra,
        "snap-unused",
        "weight 'another': the program does not read it",
    );
}

#[test]
fn a_file_that_is_not_there_cannot_be_verified() {
    let dir = tempfile::tempdir().unwrap();
    let error = Native.verify(dir.path()).unwrap_err();
    assert!(matches!(error, TargetError::Io { .. }), "{error}");
}

#[test]
fn options_of_other_formats_are_refused() {
    let refused = |options: EmitOptions| {
        let program = program("variants/lean", "f16");
        Native.prepare(program, &options).unwrap_err().to_string()
    };
    let apple = refused(EmitOptions {
        interface: Interface::Apple,
        ..EmitOptions::default()
    });
    assert_eq!(
        apple,
        "option '--interface': 'apple' is for Core ML; choose plain or snap"
    );
    let min_ios = refused(EmitOptions {
        min_ios: Some(17),
        ..EmitOptions::default()
    });
    assert!(min_ios.starts_with("option '--min-ios'"), "{min_ios}");
}

#[test]
fn a_weight_that_cannot_be_made_and_a_stop_are_errors() {
    struct Stopped;
    impl Progress for Stopped {
        fn start(&self, _: &str, _: u64) {}
        fn advance(&self, _: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let write = |weight: &str, progress: &dyn Progress| {
        let text = format!(
            "graph \"one\" {{\n  %0 = input \"x\" : f32[N,2]\n  {weight}\n  \
             %2 = linear(%0, %1) : f32[N,1] \"l\"\n  output \"y\" = %2\n}}\n"
        );
        let graph = parse(&text).unwrap();
        let graphs = [(Stage::Unet, verify(&graph).unwrap())];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.snap");
        let written = compile(
            &graphs,
            &Companions::default(),
            Activations::F32,
            &path,
            progress,
        );
        // What is left behind is not taken for a file.
        assert!(written.is_ok() || Container::open(&path).is_err());
        written
    };
    let present = "%1 = parameter \"w\" : f32[1,2] = [0.5,1.5]";
    write(present, &Silent).unwrap();
    assert!(matches!(
        write(present, &Stopped),
        Err(TargetError::Cancelled)
    ));
    // More elements than the text form holds: no data.
    let text = "%1 = parameter \"w\" : f32[1,2]";
    let error = write(text, &Silent).unwrap_err().to_string();
    assert_eq!(
        error,
        "graph 'one', weight 'w': the weight has a type but no data"
    );
}
