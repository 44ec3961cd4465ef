//! One seeded violation for every rule: a small valid package is changed in one place, and exactly that rule fires.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use snapc_ir::ops::{
    Add, Cast, Concat, Conv2d, Gather, GroupNorm, LayerNorm, Linear, Reshape, Slice, Softmax,
};
use snapc_ir::{DType, Dim, Encoding, Graph, LazyTensor, Shape};
use snapc_target::{AttentionForm, Finding, Silent};

use super::rules::*;
use super::{RULES, verify};
use crate::blob::WeightFile;
use crate::emit::model_of;
use crate::level::Level;
use crate::lower::{IntegerFeatures, lower};
use crate::package;
use crate::proto::*;

const NAME: &str = "Unet.mlpackage";

fn weights(shape: &[usize]) -> LazyTensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect();
    LazyTensor::from_f32(shape, &data).cast(DType::F16)
}

/// A graph with operations of every form: tuples, words, scalars, vectors, large and small constants.
fn graph() -> Graph {
    let mut g = Graph::new("unet");
    let x = g.input(
        "x",
        snapc_ir::TensorType::new(DType::F16, Shape::fixed(&[1, 4, 6, 6])),
    );
    let ids = g.input(
        "ids",
        snapc_ir::TensorType::new(DType::I32, Shape::fixed(&[1, 5])),
    );
    let [weight, bias] = [
        g.parameter("conv.weight", weights(&[8, 4, 3, 3])),
        g.parameter("conv.bias", weights(&[8])),
    ];
    let conv = Conv2d {
        strides: [2, 2],
        pads: [1, 1, 1, 1],
        groups: 1,
    };
    let y = g.add(conv, &[x, weight, bias], "conv").unwrap();
    let [scale, shift] = [
        g.parameter("norm.weight", weights(&[8])),
        g.parameter("norm.bias", weights(&[8])),
    ];
    let y = g
        .add(
            GroupNorm {
                groups: 2,
                epsilon: 1e-5,
            },
            &[y, scale, shift],
            "norm",
        )
        .unwrap();
    let shape = vec![Dim::Fixed(1), Dim::Fixed(9), Dim::Fixed(8)];
    let y = g.add(Reshape { shape }, &[y], "rows").unwrap();
    let y = g
        .add(
            Slice {
                axis: 1,
                start: 0,
                end: 5,
            },
            &[y],
            "some",
        )
        .unwrap();
    // One group per row, which every level has a form for.
    let scale = vec![1.0 / 64.0; 8];
    let rows = Encoding::affine(8, &[8, 1], scale, Vec::new()).unwrap();
    let table = g.parameter("table", weights(&[8, 8]).encode(Arc::new(rows)));
    let z = g
        .add(
            Gather {
                axis: 0,
                batch_dims: 0,
            },
            &[table, ids],
            "tokens",
        )
        .unwrap();
    let y = g.add(Add {}, &[y, z], "sum").unwrap();
    let y = g.add(Concat { axis: 2 }, &[y, z], "both").unwrap();
    let [scale, shift] = [
        g.parameter("ln.weight", weights(&[16])),
        g.parameter("ln.bias", weights(&[16])),
    ];
    let y = g
        .add(LayerNorm { epsilon: 1e-5 }, &[y, scale, shift], "ln")
        .unwrap();
    let [weight, bias] = [
        g.parameter("fc.weight", weights(&[3, 16])),
        g.parameter("fc.bias", weights(&[3])),
    ];
    let y = g.add(Linear {}, &[y, weight, bias], "fc").unwrap();
    let y = g.add(Softmax { axis: 2 }, &[y], "softmax").unwrap();
    let y = g.add(Cast { to: DType::F32 }, &[y], "wide").unwrap();
    g.output("y", y);
    g
}

fn valid(level: Level) -> (Model, WeightFile) {
    let graph = graph();
    let lowered = lower(&graph, level, IntegerFeatures::Int32, AttentionForm::Auto).unwrap();
    (model_of(&graph, &lowered, level, &[]), lowered.weights)
}

/// The findings for the package after changes to the model and to the files.
fn findings(
    level: Level,
    edit: impl FnOnce(&mut Model),
    damage: impl FnOnce(&Path),
) -> Vec<Finding> {
    let dir = tempfile::tempdir().unwrap();
    let (mut model, weights) = valid(level);
    edit(&mut model);
    package::write(dir.path(), NAME, "unet", &model, &weights, &Silent).unwrap();
    damage(&dir.path().join(NAME));
    verify(dir.path()).unwrap()
}

fn main_of(model: &mut Model) -> &mut Function {
    model
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .get_mut("main")
        .unwrap()
}

fn block(model: &mut Model) -> &mut Block {
    main_of(model)
        .block_specializations
        .values_mut()
        .next()
        .unwrap()
}

fn operation<'a>(model: &'a mut Model, kind: &str) -> &'a mut Operation {
    block(model)
        .operations
        .iter_mut()
        .find(|o| o.kind == kind)
        .unwrap()
}

/// The constant that a parameter is bound to.
fn constant<'a>(model: &'a mut Model, kind: &str, parameter: &str) -> &'a mut Operation {
    let name = bound(&operation(model, kind).inputs[parameter]);
    let operations = &mut block(model).operations;
    operations
        .iter_mut()
        .find(|o| o.outputs[0].name == name)
        .unwrap()
}

fn bound(argument: &Argument) -> String {
    match &argument.arguments[0].bound {
        Some(Bound::Name(name)) => name.clone(),
        other => panic!("bound to {other:?}"),
    }
}

fn by_name(name: &str) -> Argument {
    let bound = Some(Bound::Name(name.to_owned()));
    Argument {
        arguments: vec![Binding { bound }],
    }
}

/// Gives a value another name wherever it stands.
fn rename(model: &mut Model, from: &str, to: &str) {
    for op in &mut block(model).operations {
        let bindings = op.inputs.values_mut().flat_map(|a| &mut a.arguments);
        for binding in bindings.filter(|b| b.bound == Some(Bound::Name(from.to_owned()))) {
            binding.bound = Some(Bound::Name(to.to_owned()));
        }
        for output in op.outputs.iter_mut().filter(|o| o.name == from) {
            output.name = to.to_owned();
        }
    }
}

fn named(kind: &str, name: &str, ty: ValueType) -> Operation {
    Operation {
        kind: kind.to_owned(),
        outputs: vec![NamedValueType {
            name: name.to_owned(),
            ty: Some(ty),
        }],
        attributes: [("name".to_owned(), string(name))].into(),
        ..Operation::default()
    }
}

fn tensor_of(ty: &mut Option<ValueType>) -> &mut TensorType {
    ty.as_mut().unwrap().tensor.as_mut().unwrap()
}

/// The form of a compressed constant at iOS 17 as that of iOS 18.
fn to_blockwise(op: &mut Operation) {
    op.kind = "constexpr_blockwise_shift_scale".to_owned();
    let mut attributes = std::mem::take(&mut op.attributes);
    let mut scale = attributes.remove("scale").unwrap();
    scale.ty = Some(tensor_type(DataType::Float16, &[8, 1]));
    let data = attributes.remove("quantized_data").unwrap();
    for (name, value) in [("data", data), ("scale", scale)] {
        let bound = Some(Bound::Value(value));
        let arguments = vec![Binding { bound }];
        op.inputs.insert(name.to_owned(), Argument { arguments });
    }
    let name = attributes.remove_entry("name");
    op.attributes.extend(name);
}

/// The value in place of a parameter.
fn value_of<'a>(op: &'a mut Operation, parameter: &str) -> &'a mut Value {
    let argument = op.inputs.get_mut(parameter).unwrap();
    match &mut argument.arguments[0].bound {
        Some(Bound::Value(value)) => value,
        other => panic!("bound to {other:?}"),
    }
}

fn blob_of(op: &mut Operation) -> &mut BlobFileValue {
    match &mut op.attributes.get_mut("val").unwrap().content {
        Some(Content::BlobFile(blob)) => blob,
        other => panic!("not in the weight file: {other:?}"),
    }
}

fn ints_of(op: &mut Operation) -> &mut Vec<i32> {
    let content = &mut op.attributes.get_mut("val").unwrap().content;
    match content {
        Some(Content::Immediate(ImmediateValue {
            tensor:
                Some(TensorValue {
                    elements: Some(Elements::Ints(v)),
                }),
        })) => &mut v.values,
        other => panic!("no ints: {other:?}"),
    }
}

fn edit_json(package: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = package.join("Manifest.json");
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// The item whose path ends as given.
fn item(json: &serde_json::Value, path: &str) -> String {
    let items = json["itemInfoEntries"].as_object().unwrap();
    let found = items
        .iter()
        .find(|(_, i)| i["path"].as_str().unwrap().ends_with(path));
    found.unwrap().0.clone()
}

fn edit_bytes(package: &Path, file: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let path = package.join("Data/com.apple.CoreML").join(file);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A change to the model, for the package of a level.
type ModelSeed = (&'static str, Level, fn(&mut Model));

const MODEL_SEEDS: &[ModelSeed] = &[
    (DECODE, Level::Ios17, |m| m.ml_program = None),
    (SPECIFICATION, Level::Ios17, |m| m.specification_version = 6),
    (PROGRAM, Level::Ios17, |m| {
        m.ml_program.as_mut().unwrap().version = 2
    }),
    (PROGRAM, Level::Ios17, |m| {
        let functions = &mut m.ml_program.as_mut().unwrap().functions;
        let main = functions.remove("main").unwrap();
        functions.insert("other".to_owned(), main);
    }),
    (OPSET, Level::Ios17, |m| {
        main_of(m).opset = "CoreML8".to_owned()
    }),
    (OPSET, Level::Ios17, |m| {
        m.specification_version = 9;
        to_blockwise(operation(m, "constexpr_affine_dequantize"));
    }),
    (IDENTIFIER, Level::Ios17, |m| rename(m, "tokens", "to.kens")),
    (IDENTIFIER, Level::Ios17, |m| rename(m, "softmax", "tensor")),
    (UNIQUE, Level::Ios17, |m| {
        let again = operation(m, "softmax").clone();
        block(m).operations.push(again);
    }),
    (DEFINED, Level::Ios17, |m| {
        operation(m, "softmax")
            .inputs
            .insert("x".to_owned(), by_name("nowhere"));
    }),
    (DEFINED, Level::Ios17, |m| {
        let axis = constant(m, "softmax", "axis").outputs[0].name.clone();
        let operations = &mut block(m).operations;
        let at = operations
            .iter()
            .position(|o| o.outputs[0].name == axis)
            .unwrap();
        let axis = operations.remove(at);
        operations.push(axis);
    }),
    (OUTPUT, Level::Ios17, |m| {
        block(m).outputs[0] = "x".to_owned();
        let description = m.description.as_mut().unwrap();
        description.output[0] = description.input[0].clone();
    }),
    (NAMED, Level::Ios17, |m| {
        operation(m, "softmax").attributes.clear();
    }),
    (NAMED, Level::Ios17, |m| {
        operation(m, "softmax")
            .attributes
            .insert("extra".to_owned(), string("x"));
    }),
    (TYPE, Level::Ios17, |m| {
        tensor_of(&mut operation(m, "softmax").outputs[0].ty).rank = 0
    }),
    (TYPE, Level::Ios17, |m| {
        tensor_of(&mut operation(m, "softmax").outputs[0].ty).dimensions[0].extent =
            Some(Extent::Unknown(UnknownDimension { variadic: false }));
    }),
    (RANK, Level::Ios17, |m| {
        let shape = [1, 1, 1, 4, 6, 6];
        let mut reshape = named("reshape", "deep", tensor_type(DataType::Float16, &shape));
        let ints = Elements::Ints(RepeatedInts {
            values: shape.map(|n| n as i32).to_vec(),
        });
        let value = immediate(DataType::Int32, &[6], ints);
        let mut axes = named("const", "deep_shape", value.ty.clone().unwrap());
        axes.attributes.insert("val".to_owned(), value);
        reshape.inputs = [
            ("x".to_owned(), by_name("x")),
            ("shape".to_owned(), by_name("deep_shape")),
        ]
        .into();
        block(m).operations.extend([axes, reshape]);
    }),
    (RANK, Level::Ios17, |m| {
        let four = [1, 1, 5, 16];
        let before = bound(&operation(m, "linear").inputs["x"]);
        let ints = Elements::Ints(RepeatedInts {
            values: four.map(|n| n as i32).to_vec(),
        });
        let value = immediate(DataType::Int32, &[4], ints);
        let mut shape = named("const", "four", value.ty.clone().unwrap());
        shape.attributes.insert("val".to_owned(), value);
        let mut reshape = named("reshape", "fourth", tensor_type(DataType::Float16, &four));
        reshape.inputs = [
            ("x".to_owned(), by_name(&before)),
            ("shape".to_owned(), by_name("four")),
        ]
        .into();
        let mut linear = operation(m, "linear").clone();
        linear.inputs.insert("x".to_owned(), by_name("fourth"));
        linear.outputs[0] = NamedValueType {
            name: "wide_linear".to_owned(),
            ty: Some(tensor_type(DataType::Float16, &[1, 1, 5, 3])),
        };
        block(m).operations.extend([shape, reshape, linear]);
    }),
    (DESCRIPTION, Level::Ios17, |m| m.description = None),
    (DESCRIPTION, Level::Ios17, |m| {
        m.description.as_mut().unwrap().input[0].name = "z".to_owned()
    }),
    (DESCRIPTION, Level::Ios17, |m| {
        array(&mut m.description.as_mut().unwrap().input[0]).shape[2] = 7;
    }),
    (DESCRIPTION, Level::Ios17, |m| {
        array(&mut m.description.as_mut().unwrap().input[0]).data_type =
            ArrayDataType::Float32 as i32;
    }),
    (DESCRIPTION, Level::Ios17, |m| {
        m.description.as_mut().unwrap().input.reverse()
    }),
    (FEATURE, Level::Ios17, |m| {
        array(&mut m.description.as_mut().unwrap().input[1]).data_type =
            ArrayDataType::Double as i32;
    }),
    (FEATURE, Level::Ios17, |m| {
        let feature = &mut m.description.as_mut().unwrap().input[1];
        feature.ty.as_mut().unwrap().is_optional = true;
    }),
    (OPERATION, Level::Ios17, |m| {
        operation(m, "softmax").kind = "soft_max".to_owned()
    }),
    (OPERATION, Level::Ios17, |m| {
        // Known from iOS 18 on only.
        operation(m, "softmax").kind = "scaled_dot_product_attention".to_owned();
    }),
    (PARAMETER, Level::Ios17, |m| {
        operation(m, "softmax")
            .inputs
            .insert("alpha".to_owned(), by_name("x"));
    }),
    (PARAMETER, Level::Ios16, |m| {
        // A parameter that came with iOS 17.
        let flag = operation(m, "concat").inputs["interleave"].clone();
        let gather = operation(m, "gather");
        gather.inputs.insert("validate_indices".to_owned(), flag);
    }),
    (KIND, Level::Ios17, |m| {
        let vector = operation(m, "conv").inputs["strides"].clone();
        operation(m, "softmax")
            .inputs
            .insert("axis".to_owned(), vector);
    }),
    (KIND, Level::Ios16, |m| computed_bias(m)),
    (KIND, Level::Ios17, |m| {
        let number = operation(m, "conv").inputs["groups"].clone();
        operation(m, "concat")
            .inputs
            .insert("interleave".to_owned(), number);
    }),
    (KIND, Level::Ios17, |m| {
        constant(m, "conv", "pad_type")
            .attributes
            .insert("val".to_owned(), string("around"));
    }),
    (SAME_TYPE, Level::Ios17, |m| {
        constant(m, "cast", "dtype")
            .attributes
            .insert("val".to_owned(), string("fp16"));
    }),
    (SAME_TYPE, Level::Ios16, |m| {
        // From iOS 17 on, epsilon may be fp32 beside an fp16 operand.
        let value = immediate(
            DataType::Float32,
            &[],
            Elements::Floats(RepeatedFloats { values: vec![1e-5] }),
        );
        let epsilon = constant(m, "layer_norm", "epsilon");
        epsilon.outputs[0].ty = value.ty.clone();
        epsilon.attributes.insert("val".to_owned(), value);
    }),
    (CONSTANT, Level::Ios17, |m| {
        ints_of(constant(m, "conv", "strides")).push(1)
    }),
    (CONSTANT, Level::Ios17, |m| {
        // fp16 in the list of f32.
        let floats = Elements::Floats(RepeatedFloats { values: vec![1e-5] });
        let value = immediate(DataType::Float16, &[], floats);
        constant(m, "layer_norm", "epsilon")
            .attributes
            .insert("val".to_owned(), value);
    }),
    (CONSTANT, Level::Ios17, |m| {
        constant(m, "softmax", "axis").outputs[0].ty = Some(tensor_type(DataType::Int64, &[]));
    }),
    (INLINE, Level::Ios17, |m| {
        let value = constant(m, "softmax", "axis").attributes["val"].clone();
        let binding = Binding {
            bound: Some(Bound::Value(value)),
        };
        let argument = Argument {
            arguments: vec![binding],
        };
        operation(m, "softmax")
            .inputs
            .insert("axis".to_owned(), argument);
    }),
    (CONSTEXPR, Level::Ios17, |m| {
        let mut op = named(
            "constexpr_lut_to_dense",
            "palette",
            tensor_type(DataType::Float16, &[2, 2]),
        );
        op.inputs.insert("indices".to_owned(), by_name("x"));
        block(m).operations.push(op);
    }),
    (CONSTEXPR, Level::Ios18, |m| {
        let mut op = named(
            "constexpr_lut_to_dense",
            "palette",
            tensor_type(DataType::Float16, &[2, 2]),
        );
        op.attributes.insert("lut".to_owned(), string("table"));
        block(m).operations.push(op);
    }),
    (CONSTEXPR_PARAMETERS, Level::Ios17, |m| {
        let op = operation(m, "constexpr_affine_dequantize");
        op.attributes.remove("zero_point");
    }),
    (CONSTEXPR_PARAMETERS, Level::Ios17, |m| {
        let op = operation(m, "constexpr_affine_dequantize");
        let two = Elements::Ints(RepeatedInts { values: vec![2] });
        let axis = immediate(DataType::Int32, &[], two);
        op.attributes.insert("axis".to_owned(), axis);
    }),
    (CONSTEXPR_PARAMETERS, Level::Ios18, |m| {
        let op = operation(m, "constexpr_blockwise_shift_scale");
        value_of(op, "scale").ty = Some(tensor_type(DataType::Float16, &[8]));
    }),
    (CONSTEXPR_PARAMETERS, Level::Ios18, |m| {
        let op = operation(m, "constexpr_blockwise_shift_scale");
        op.inputs.insert("scale".to_owned(), by_name("x"));
    }),
    (BLOB_DATA, Level::Ios18, |m| {
        let op = operation(m, "constexpr_blockwise_shift_scale");
        let data = value_of(op, "data");
        tensor_of(&mut data.ty).data_type = DataType::UInt8 as i32;
    }),
    (BLOB_FILE, Level::Ios17, |m| {
        blob_of(constant(m, "conv", "weight")).file_name = "weight.bin".to_owned()
    }),
    (BLOB_OFFSET, Level::Ios17, |m| {
        blob_of(constant(m, "conv", "weight")).offset += 64
    }),
    (BLOB_OFFSET, Level::Ios17, |m| {
        blob_of(constant(m, "conv", "weight")).offset += 8
    }),
    (BLOB_OFFSET, Level::Ios17, |m| {
        blob_of(constant(m, "conv", "weight")).offset = u64::MAX - 63
    }),
    (SHAPE, Level::Ios17, |m| {
        ints_of(constant(m, "concat", "axis"))[0] = 0
    }),
    (SHAPE, Level::Ios17, |m| {
        ints_of(constant(m, "slice_by_index", "end"))[1] = 4
    }),
];

fn array(feature: &mut FeatureDescription) -> &mut ArrayFeatureType {
    feature.ty.as_mut().unwrap().multi_array.as_mut().unwrap()
}

/// Gives the convolution a bias that an operation computes.
fn computed_bias(model: &mut Model) {
    let constant = bound(&operation(model, "conv").inputs["bias"]);
    let mut copy = named("identity", "computed", tensor_type(DataType::Float16, &[8]));
    copy.inputs.insert("x".to_owned(), by_name(&constant));
    let inputs = &mut operation(model, "conv").inputs;
    inputs.insert("bias".to_owned(), by_name("computed"));
    let operations = &mut block(model).operations;
    let at = operations.iter().position(|o| o.kind == "conv").unwrap();
    operations.insert(at, copy);
}

const MODEL: &str = "model.mlmodel";
const WEIGHTS: &str = "weights/weight.bin";

fn replace_by_link(file: &Path) {
    fs::remove_file(file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", file).unwrap();
}

/// A change to the files of a package.
type FileSeed = (&'static str, fn(&Path));

const FILE_SEEDS: &[FileSeed] = &[
    (PACKAGES, |p| fs::remove_dir_all(p).unwrap()),
    (MANIFEST, |p| {
        fs::remove_file(p.join("Manifest.json")).unwrap()
    }),
    (MANIFEST, |p| {
        fs::write(p.join("Manifest.json"), "{").unwrap()
    }),
    (MANIFEST, |p| {
        edit_json(p, |j| j["fileFormatVersion"] = "2.0.0".into())
    }),
    (MANIFEST_ITEM, |p| {
        edit_json(p, |j| {
            let id = item(j, MODEL);
            j["itemInfoEntries"][&id]
                .as_object_mut()
                .unwrap()
                .remove("description");
        });
    }),
    (MANIFEST_ITEM, |p| {
        edit_json(p, |j| {
            let extra = serde_json::json!({"author": "a", "description": "d", "name": "n", "path": "../../out"});
            j["itemInfoEntries"]["extra"] = extra;
        });
    }),
    (MANIFEST_ROOT, |p| {
        edit_json(p, |j| j["rootModelIdentifier"] = item(j, "weights").into())
    }),
    (MANIFEST_WEIGHTS, |p| {
        edit_json(p, |j| {
            let id = item(j, "weights");
            j["itemInfoEntries"].as_object_mut().unwrap().remove(&id);
        });
    }),
    (DECODE, |p| {
        edit_bytes(p, MODEL, |b| b.truncate(b.len() / 2))
    }),
    // A file that never ends.
    (MANIFEST, |p| replace_by_link(&p.join("Manifest.json"))),
    (DECODE, |p| {
        replace_by_link(&p.join("Data/com.apple.CoreML").join(MODEL))
    }),
    (BLOB_FILE, |p| {
        replace_by_link(&p.join("Data/com.apple.CoreML").join(WEIGHTS))
    }),
    (BLOB_FILE, |p| edit_bytes(p, WEIGHTS, |b| b[4] = 1)),
    (BLOB_FILE, |p| edit_bytes(p, WEIGHTS, |b| b[0] += 1)),
    (BLOB_FILE, |p| edit_bytes(p, WEIGHTS, |b| b.truncate(4))),
    // MIL's own code for fp16 in place of the weight file's.
    (BLOB_DATA, |p| edit_bytes(p, WEIGHTS, |b| b[68] = 10)),
    (BLOB_DATA, |p| edit_bytes(p, WEIGHTS, |b| b[72] ^= 1)),
    (BLOB_DATA, |p| edit_bytes(p, WEIGHTS, |b| b[80] = 64)),
    (BLOB_DATA, |p| {
        edit_bytes(p, WEIGHTS, |b| b.truncate(b.len() - 1))
    }),
    (BLOB_OFFSET, |p| edit_bytes(p, WEIGHTS, |b| b[64] = 0)),
];

fn assert_only(rule: &str, what: &str, findings: &[Finding]) {
    let fired: BTreeSet<&str> = findings.iter().map(|f| f.rule).collect();
    assert_eq!(fired, BTreeSet::from([rule]), "{what}: {findings:#?}");
}

#[test]
fn a_valid_package_has_no_findings() {
    for level in Level::ALL {
        assert_eq!(findings(level, |_| {}, |_| {}), []);
    }
}

#[test]
fn a_computed_bias_is_allowed_from_ios_17_on() {
    assert_eq!(findings(Level::Ios17, computed_bias, |_| {}), []);
}

#[test]
fn every_seeded_violation_fires_its_rule_alone() {
    for (i, (rule, level, edit)) in MODEL_SEEDS.iter().enumerate() {
        assert_only(
            rule,
            &format!("model seed {i}"),
            &findings(*level, edit, |_| {}),
        );
    }
    for (i, (rule, damage)) in FILE_SEEDS.iter().enumerate() {
        assert_only(
            rule,
            &format!("file seed {i}"),
            &findings(Level::Ios17, |_| {}, damage),
        );
    }
}

#[test]
fn every_rule_has_a_seed_and_an_id_of_its_own() {
    let ids: BTreeSet<&str> = RULES.iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), RULES.len());
    let model_seeds = MODEL_SEEDS.iter().map(|s| s.0);
    let mut seeded: BTreeSet<&str> = model_seeds.chain(FILE_SEEDS.iter().map(|s| s.0)).collect();
    // Seeded for every parameter by `every_omitted_parameter_is_missed`.
    seeded.insert(MISSING);
    assert_eq!(seeded, ids);
}

#[test]
fn every_omitted_parameter_is_missed() {
    let omittable = [
        "bias",
        "gamma",
        "beta",
        "begin_mask",
        "end_mask",
        "squeeze_mask",
    ];
    let (mut model, _) = valid(Level::Ios17);
    let operations = block(&mut model).operations.clone();
    let mut tried = 0;
    for (i, op) in operations.iter().enumerate() {
        for parameter in op.inputs.keys() {
            if omittable.contains(&parameter.as_str()) && op.kind != "linear" {
                continue;
            }
            let remove = |m: &mut Model| {
                block(m).operations[i].inputs.remove(parameter);
            };
            let what = format!("{} without {parameter}", op.kind);
            assert_only(MISSING, &what, &findings(Level::Ios17, remove, |_| {}));
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried} parameters");
}

/// Bytes of the model and of the weights' metadata are changed at random; what matters is that there is an answer.
#[test]
fn damaged_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (model, weights) = valid(Level::Ios18);
    package::write(dir.path(), NAME, "unet", &model, &weights, &Silent).unwrap();
    let package = dir.path().join(NAME);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let clean = model.encode_to_vec();
    let file = package.join("Data/com.apple.CoreML").join(MODEL);
    let mut with_findings = 0;
    for _ in 0..1000 {
        let mut bytes = clean.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        fs::write(&file, &bytes).unwrap();
        with_findings += usize::from(!verify(dir.path()).unwrap().is_empty());
    }
    assert!(with_findings > 300, "{with_findings}");
    fs::write(&file, &clean).unwrap();
    for _ in 0..200 {
        edit_bytes(&package, WEIGHTS, |b| {
            let at = random(256);
            b[at] = random(256) as u8;
        });
        verify(dir.path()).unwrap();
    }
}
