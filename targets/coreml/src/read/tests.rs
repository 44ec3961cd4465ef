//! Packages that are wrong in one place: each is refused with the place and the problem, and none panics.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tempfile::TempDir;

use super::read;
use crate::package::{DATA, MANIFEST, MODEL, WEIGHT_FILE, WEIGHTS};
use crate::proto::{
    Argument, BlobFileValue, Block, Bound, Content, DataType, Dimension, Elements, Extent, Model,
    NamedValueType, Operation, RepeatedInts, UnknownDimension, immediate, tensor_type,
};

/// A text encoder that coremltools has converted.
fn fixture() -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/foreign");
    fixtures.join("text_encoder.ios18_f32.mlpackage")
}

/// A copy of the fixture.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn new() -> Self {
        let copy = Copy {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(copy.path().join(DATA).join(WEIGHTS)).unwrap();
        for file in [PathBuf::from(MANIFEST), model_file(), weight_file()] {
            fs::copy(fixture().join(&file), copy.path().join(&file)).unwrap();
        }
        copy
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("text_encoder.mlpackage")
    }

    fn write(&self, file: &Path, bytes: &[u8]) {
        fs::write(self.path().join(file), bytes).unwrap();
    }

    fn error(&self) -> String {
        read(&self.path()).unwrap_err().to_string()
    }
}

fn model_file() -> PathBuf {
    Path::new(DATA).join(MODEL)
}

fn weight_file() -> PathBuf {
    Path::new(DATA).join(WEIGHTS).join(WEIGHT_FILE)
}

/// The error of the fixture after an edit of its model.
fn edited(edit: impl FnOnce(&mut Model)) -> String {
    let copy = Copy::new();
    let mut model = model();
    edit(&mut model);
    copy.write(&model_file(), &model.encode_to_vec());
    copy.error()
}

fn model() -> Model {
    Model::decode(fs::read(fixture().join(model_file())).unwrap().as_slice()).unwrap()
}

fn block(model: &mut Model) -> &mut Block {
    let functions = &mut model.ml_program.as_mut().unwrap().functions;
    let function = functions.get_mut("main").unwrap();
    function.block_specializations.values_mut().next().unwrap()
}

/// The first operation of a kind.
fn operation<'m>(model: &'m mut Model, kind: &str) -> &'m mut Operation {
    let mut operations = block(model).operations.iter_mut();
    operations.find(|o| o.kind == kind).unwrap()
}

fn input(model: &mut Model) -> &mut NamedValueType {
    let functions = &mut model.ml_program.as_mut().unwrap().functions;
    &mut functions.get_mut("main").unwrap().inputs[0]
}

/// The place of the first weight in the weight file.
fn first_blob(model: &mut Model) -> &mut BlobFileValue {
    let constants = block(model).operations.iter_mut();
    let values = constants.filter_map(|o| o.attributes.get_mut("val"));
    let mut blobs = values.filter_map(|v| match &mut v.content {
        Some(Content::BlobFile(blob)) => Some(blob),
        _ => None,
    });
    blobs.next().unwrap()
}

fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "'{error}' does not say '{part}'");
    }
}

#[test]
fn the_fixture_itself_is_read() {
    let graph = read(&Copy::new().path()).unwrap();
    assert_eq!(graph.name(), "text_encoder");
    snapc_ir::verify::verify(&graph).unwrap();
}

#[test]
fn paths_stay_inside_the_package() {
    let manifest = fs::read_to_string(fixture().join(MANIFEST)).unwrap();
    for path in [
        "../../../etc/hostname",
        "/etc/hostname",
        "com.apple.CoreML/../../../x",
    ] {
        let copy = Copy::new();
        let text = manifest.replace(MODEL, path);
        assert_ne!(text, manifest);
        copy.write(Path::new(MANIFEST), text.as_bytes());
        assert_says(&copy.error(), &[MANIFEST, "leaves the package"]);
    }
    for name in [
        "@model_path/../weight.bin",
        "/etc/hostname",
        "weights/weight.bin",
        "@model_path/",
    ] {
        let error = edited(|m| first_blob(m).file_name = name.to_owned());
        assert_says(
            &error,
            &[
                "graph 'text_encoder', operation",
                "is not named '@model_path/'",
            ],
        );
    }
    let error = edited(|m| first_blob(m).file_name = "@model_path/none.bin".to_owned());
    assert_says(
        &error,
        &["the weight file '@model_path/none.bin': cannot be read"],
    );
    let error = edited(|m| first_blob(m).file_name = "@model_path/weights".to_owned());
    assert_says(&error, &["not a regular file"]);
}

#[cfg(unix)]
#[test]
fn links_do_not_leave_the_package() {
    for file in [model_file(), weight_file()] {
        let copy = Copy::new();
        let outside = copy.folder.path().join("outside");
        fs::rename(copy.path().join(&file), &outside).unwrap();
        std::os::unix::fs::symlink(&outside, copy.path().join(&file)).unwrap();
        assert_says(&copy.error(), &["a link leads out of the package"]);
    }
}

#[test]
fn blobs_lie_in_the_weight_file() {
    let len = fs::metadata(fixture().join(weight_file())).unwrap().len();
    for offset in [
        0,
        1,
        65,
        128,
        len,
        len + 64,
        len.next_multiple_of(64),
        u64::MAX,
        u64::MAX - 63,
    ] {
        let error = edited(|m| first_blob(m).offset = offset);
        assert_says(
            &error,
            &[&format!("blob at {offset} of"), "no metadata stands there"],
        );
    }
    let weights = fs::read(fixture().join(weight_file())).unwrap();
    let at = edit_offset();
    // Size and place of the data, beyond the file and beyond what can be counted; another element type.
    for (field, value, problem) in [
        (8, len, "not the size of"),
        (8, u64::MAX, "not the size of"),
        (16, len, "outside of the"),
        (16, u64::MAX - 8, "outside of the"),
        (4, 1, "element type code 1 is not 2"),
    ] {
        let copy = Copy::new();
        let mut bytes = weights.clone();
        match field {
            4 => bytes[at + 4] = 1,
            _ => bytes[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes()),
        }
        copy.write(&weight_file(), &bytes);
        assert_says(&copy.error(), &[problem]);
    }
    let copy = Copy::new();
    copy.write(&weight_file(), b"");
    assert_says(&copy.error(), &["is no weight file of version 2"]);
}

/// Where the metadata of the first weight stands.
fn edit_offset() -> usize {
    usize::try_from(first_blob(&mut model()).offset).unwrap()
}

#[test]
fn names_are_defined_once_and_before_they_are_used() {
    let error = edited(|m| {
        let softmax = operation(m, "softmax").clone();
        block(m).operations.push(softmax);
    });
    assert_says(&error, &["(softmax)", "is defined twice"]);
    // An operation on its own result.
    let error = edited(|m| {
        let softmax = operation(m, "softmax");
        let name = softmax.outputs[0].name.clone();
        let x = softmax.inputs.get_mut("x").unwrap();
        x.arguments[0].bound = Some(Bound::Name(name));
    });
    assert_says(&error, &["(softmax)", "is used before it is defined"]);
    let error = edited(|m| block(m).outputs[0] = "nothing".to_owned());
    assert_says(&error, &["output 'nothing': no operation defines it"]);
    let error = edited(|m| {
        let first = block(m).outputs[0].clone();
        block(m).outputs.push(first);
    });
    assert_says(&error, &["it is given out twice"]);
    assert_says(
        &edited(|m| block(m).outputs.clear()),
        &["output '': there is none"],
    );
}

#[test]
fn results_have_the_declared_type() {
    let error = edited(|m| {
        operation(m, "softmax").outputs[0].ty =
            Some(tensor_type(DataType::Float16, &[2, 2, 77, 77]));
    });
    assert_says(
        &error,
        &[
            "(softmax)",
            "is declared as Float16[2, 2, 77, 77] but is f32",
        ],
    );
    let error = edited(|m| {
        operation(m, "softmax").outputs[0].ty = Some(tensor_type(DataType::Float32, &[2, 2, 77]));
    });
    assert_says(
        &error,
        &["is declared as Float32[2, 2, 77] but is f32[2, 2, 77, 77]"],
    );
    let error = edited(|m| operation(m, "softmax").outputs.clear());
    assert_says(&error, &["it has no result"]);
    let error = edited(|m| {
        let softmax = operation(m, "softmax");
        let mut second = softmax.outputs[0].clone();
        second.name = "second".to_owned();
        softmax.outputs.push(second);
    });
    assert_says(&error, &["it declares 2 results and has 1"]);
}

#[test]
fn sizes_are_bounded() {
    let error = edited(|m| {
        input(m).ty = Some(tensor_type(DataType::Int32, &[1 << 40, 1 << 40]));
    });
    assert_says(&error, &["input 'input_ids'", "cannot be counted"]);
    let error = edited(|m| input(m).ty = Some(tensor_type(DataType::Int32, &[0, usize::MAX])));
    assert_says(&error, &["input 'input_ids'", "is empty"]);
    let error = edited(|m| {
        let tensor = input(m).ty.as_mut().unwrap().tensor.as_mut().unwrap();
        let extent = Some(Extent::Unknown(UnknownDimension { variadic: false }));
        tensor.dimensions[0] = Dimension { extent };
    });
    assert_says(&error, &["input 'input_ids'", "convert with fixed shapes"]);
    // A vector that says it is long.
    let error = edited(|m| {
        let values = vec![1, 2];
        let reshape = operation(m, "reshape");
        let shape = immediate(
            DataType::Int32,
            &[1 << 40],
            Elements::Ints(RepeatedInts { values }),
        );
        set(reshape, "shape", shape);
    });
    assert_says(&error, &["(reshape)", "8 bytes do not hold Int32"]);
    // A shape of very many elements.
    let error = edited(|m| {
        let values = vec![i32::MAX; 4];
        let shape = immediate(
            DataType::Int32,
            &[4],
            Elements::Ints(RepeatedInts { values }),
        );
        set(operation(m, "reshape"), "shape", shape);
    });
    assert_says(&error, &["(reshape)"]);
}

/// Gives a parameter a value in place.
fn set(operation: &mut Operation, parameter: &str, value: crate::proto::Value) {
    let bound = Some(Bound::Value(value));
    let arguments = vec![crate::proto::Binding { bound }];
    let argument = Argument { arguments };
    operation.inputs.insert(parameter.to_owned(), argument);
}

#[test]
fn what_the_ir_cannot_say_is_named() {
    let error = edited(|m| operation(m, "softmax").kind = "lstm".to_owned());
    assert_says(&error, &["lstm is not supported by this reader"]);
    let error = edited(|m| operation(m, "softmax").blocks.push(Block::default()));
    assert_says(&error, &["softmax is not supported", "control flow"]);
    let error = edited(|m| {
        operation(m, "softmax").inputs.remove("x");
    });
    assert_says(&error, &["(softmax)", "'x' is missing"]);
    let error = edited(|m| {
        let x = operation(m, "softmax").inputs.get_mut("x").unwrap();
        let again = x.arguments[0].clone();
        x.arguments.push(again);
    });
    assert_says(&error, &["'x' has several values"]);
    let error = edited(|m| {
        set(
            operation(m, "softmax"),
            "axis",
            crate::proto::string("last"),
        )
    });
    assert_says(&error, &["(softmax)", "'axis' is no number"]);
    assert_says(
        &edited(|m| m.ml_program = None),
        &["model.mlmodel", "holds no ML Program"],
    );
    let error = edited(|m| {
        m.ml_program.as_mut().unwrap().functions.clear();
    });
    assert_says(&error, &["no function 'main'"]);
}

/// Blocks nested deeper than any program's: the decoder stops before the stack ends.
#[test]
fn nested_blocks_end_the_decoding() {
    let copy = Copy::new();
    let mut inner = Operation::default();
    for _ in 0..5000 {
        let block = Block {
            operations: vec![inner],
            ..Block::default()
        };
        let blocks = vec![block];
        inner = Operation {
            blocks,
            ..Operation::default()
        };
    }
    // Taken apart on a stack of its own, as its own encoder and destructor recurse.
    let bytes = std::thread::Builder::new()
        .stack_size(1 << 28)
        .spawn(move || {
            let mut model = model();
            block(&mut model).operations.push(inner);
            model.encode_to_vec()
        })
        .unwrap()
        .join()
        .unwrap();
    copy.write(&model_file(), &bytes);
    assert_says(&copy.error(), &["is no Core ML model", "recursion limit"]);
}

/// Every prefix of the model, and the model with bytes changed, gives a graph or an error.
#[test]
fn damaged_models_do_not_panic() {
    let bytes = fs::read(fixture().join(model_file())).unwrap();
    let copy = Copy::new();
    let mut refused = 0;
    let mut try_bytes = |bytes: &[u8]| {
        copy.write(&model_file(), bytes);
        refused += usize::from(read(&copy.path()).is_err());
    };
    for len in (0..bytes.len()).step_by(61) {
        try_bytes(&bytes[..len]);
    }
    // A sequence of places and values that is the same everywhere.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for _ in 0..1500 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + next(3) {
            let at = next(damaged.len());
            damaged[at] = u8::try_from(next(256)).unwrap();
        }
        try_bytes(&damaged);
    }
    assert!(refused > 1000, "only {refused} were refused");
}
