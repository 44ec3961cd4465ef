//! One seeded violation for every rule: a small valid package is changed in one place, and exactly that rule fires.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prost::Message;
use snapc_target::{Finding, Silent};

use super::super::rules::*;
use super::super::{RULES, verify};
use super::*;

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
    (RANK, Level::Ios17, with_linear_of_rank_4),
    (IMAGE, Level::Ios17, |m| {
        let output = &mut m.description.as_mut().unwrap().output[0];
        output.ty = Some(FeatureType {
            image: Some(ImageFeatureType {
                width: 3,
                height: 5,
                color_space: ColorSpace::Rgb as i32,
            }),
            ..FeatureType::default()
        });
    }),
    (FEATURE, Level::Ios17, |m| {
        let input = &mut m.description.as_mut().unwrap().input[0];
        input.ty = Some(FeatureType::default());
    }),
    (FUNCTIONS, Level::Ios18, |m| {
        m.description.as_mut().unwrap().default_function_name = "main".to_owned();
    }),
    (FUNCTIONS, Level::Ios18, |m| {
        let functions = &mut m.ml_program.as_mut().unwrap().functions;
        let main = functions["main"].clone();
        functions.insert("size_64x64".to_owned(), main);
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
fn names_of_functions_are_identifiers() {
    let with_function = |name: &'static str| {
        move |m: &mut Model| {
            let functions = &mut m.ml_program.as_mut().unwrap().functions;
            let main = functions["main"].clone();
            functions.insert(name.to_owned(), main);
            let description = m.description.as_mut().unwrap();
            let (input, output) = (
                description.input.split_off(0),
                description.output.split_off(0),
            );
            let functions = ["main", name].map(|name| FunctionDescription {
                name: name.to_owned(),
                input: input.clone(),
                output: output.clone(),
            });
            description.functions = functions.into();
            description.default_function_name = "main".to_owned();
        }
    };
    assert_eq!(
        findings(Level::Ios18, with_function("size_64x64"), |_| {}),
        []
    );
    for name in ["size 64", "64x64", ""] {
        let found = findings(Level::Ios18, with_function(name), |_| {});
        assert_only(IDENTIFIER, name, &found);
    }
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
