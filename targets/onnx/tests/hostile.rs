//! Models that are wrong on purpose: the reader names what is wrong and never panics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use prost::Message;
use snapc_ir::{DType, Shape, TensorType, verify};
use snapc_onnx::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, AttributeProto, EXTERNAL, FLOAT, GraphProto,
    INT4, INT8, INT64, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, UINT8, ValueInfoProto,
};
use support::miniature;

/// A node `op(inputs)` whose name and result are `result`.
fn node(op: &str, inputs: &[&str], result: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: vec![result.to_owned()],
        name: Some(result.to_owned()),
        op_type: Some(op.to_owned()),
        ..NodeProto::default()
    }
}

fn with_attribute(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        kind: Some(kind),
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: Some(INT64),
        int64_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(FLOAT),
        float_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

/// A model of `x[2,3]` with the result `y`.
fn model(nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> ModelProto {
    let ty = TensorType::new(DType::F32, Shape::fixed(&[2, 3]));
    ModelProto {
        ir_version: Some(8),
        graph: Some(GraphProto {
            node: nodes,
            name: Some("unet".to_owned()),
            initializer: initializers,
            input: vec![ValueInfoProto::tensor("x", &ty)],
            output: vec![ValueInfoProto::tensor("y", &ty)],
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(17),
        }],
        ..ModelProto::default()
    }
}

/// The message of the error that a model gives, lying in `dir`.
fn error_in(dir: &Path, model: &ModelProto) -> String {
    let path = dir.join("model.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    match snapc_onnx::read(&path, &BTreeMap::new()) {
        Ok(graph) => panic!("read as {} nodes", graph.nodes().len()),
        Err(error) => error.to_string(),
    }
}

fn error(model: &ModelProto) -> String {
    error_in(tempfile::tempdir().unwrap().path(), model)
}

fn assert_error(model: &ModelProto, expected: &str) {
    let found = error(model);
    assert!(found.contains(expected), "{found}");
}

#[test]
fn the_model_of_these_tests_is_read_when_nothing_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let right = model(
        vec![node("Add", &["x", "b"], "y")],
        vec![floats("b", &[3], &[1.0, 2.0, 3.0])],
    );
    fs::write(&path, right.encode_to_vec()).unwrap();
    let graph = snapc_onnx::read(&path, &BTreeMap::new()).unwrap();
    assert_eq!(graph.name(), "unet");
    assert_eq!(graph.nodes().len(), 1);
}

#[test]
fn names_and_order_are_checked() {
    let sigmoid = |from: &str, to: &str| node("Sigmoid", &[from], to);
    let cycle = model(
        vec![sigmoid("b", "a"), sigmoid("a", "b"), sigmoid("b", "y")],
        vec![],
    );
    let message = "graph 'unet', node 'a' (Sigmoid): operand 'b' is not defined before its use";
    assert_error(&cycle, message);
    assert_error(
        &model(vec![sigmoid("y", "y")], vec![]),
        "'y' is not defined before its use",
    );
    let twice = model(vec![sigmoid("x", "y"), sigmoid("x", "y")], vec![]);
    assert_error(&twice, "'y' is defined twice");
    let taken = model(
        vec![sigmoid("x", "y")],
        vec![ints("k", &[1]), ints("k", &[2])],
    );
    assert_error(&taken, "initializer 'k': the name is empty or given twice");
    assert_error(
        &model(vec![sigmoid("x", "z")], vec![]),
        "output 'y': no node defines it",
    );
    assert_error(&model(vec![node("Sigmoid", &[], "y")], vec![]), "operand");
    assert_error(
        &model(vec![node("Add", &["x", ""], "y")], vec![]),
        "operand 1 is missing",
    );
}

#[test]
fn operators_without_a_form_are_named() {
    let refused = |op: &str, expected: &str| {
        let found = error(&model(vec![node(op, &["x"], "y")], vec![]));
        let start = format!("graph 'unet', node 'y': {op} is not supported by this reader: ");
        assert!(
            found.starts_with(&start) && found.contains(expected),
            "{found}"
        );
    };
    refused("Einsum", "does not occur in Stable Diffusion's networks");
    refused("DynamicQuantizeLinear", "quantize statically");
    refused("Loop", "control flow");
    let mut foreign = node("Attention", &["x"], "y");
    foreign.domain = Some("com.microsoft".to_owned());
    assert_error(&model(vec![foreign], vec![]), "the domain 'com.microsoft'");
    let shape = node("ReduceMean", &["x", "x"], "y");
    assert_error(
        &model(vec![shape], vec![]),
        "operand 1 is computed at run time",
    );
}

#[test]
fn attributes_of_the_wrong_kind_are_refused() {
    let softmax = node("Softmax", &["x"], "y");
    let wrong = with_attribute(softmax.clone(), attribute("axis", ATTRIBUTE_FLOAT));
    assert_error(
        &model(vec![wrong], vec![]),
        "attribute 'axis' must be an integer",
    );
    let axis = AttributeProto {
        i: Some(2),
        ..attribute("axis", ATTRIBUTE_INT)
    };
    let outside = with_attribute(softmax, axis.clone());
    assert_error(
        &model(vec![outside.clone()], vec![]),
        "axis 2 does not exist at rank 2",
    );
    let twice = with_attribute(outside, axis);
    assert_error(
        &model(vec![twice], vec![]),
        "attribute 'axis' is given twice",
    );
    let perm = AttributeProto {
        ints: vec![0, 0],
        ..attribute("perm", ATTRIBUTE_INTS)
    };
    let transpose = with_attribute(node("Transpose", &["x"], "y"), perm);
    assert_error(
        &model(vec![transpose], vec![]),
        "not an order of 2 dimensions",
    );
    let mut untyped = attribute("axis", ATTRIBUTE_INT);
    untyped.kind = None;
    let untyped = with_attribute(node("Softmax", &["x"], "y"), untyped);
    assert_error(
        &model(vec![untyped], vec![]),
        "attribute 'axis' must be an integer",
    );
}

#[test]
fn sizes_that_no_memory_holds_are_refused() {
    let add = || vec![node("Add", &["x", "b"], "y")];
    let huge = floats("b", &[1 << 40, 1 << 40], &[]);
    assert_error(&model(add(), vec![huge]), "initializer 'b': shape");
    let empty = floats("b", &[0, 1 << 40, 1 << 40], &[]);
    assert_error(&model(add(), vec![empty]), "too many elements");
    assert_error(&model(add(), vec![floats("b", &[-3], &[])]), "is negative");
    let short = floats("b", &[3], &[1.0]);
    assert_error(
        &model(add(), vec![short]),
        "4 bytes of data, but its shape has 12",
    );
    let mut strange = floats("b", &[3], &[1.0, 2.0, 3.0]);
    strange.data_type = Some(4);
    assert_error(
        &model(add(), vec![strange]),
        "element type 4 is not supported",
    );

    let sized = |op: &str, inputs: &[&str], sizes: &[i64]| {
        model(vec![node(op, inputs, "y")], vec![ints("k", sizes)])
    };
    let large = 1 << 39;
    assert_error(
        &sized("Expand", &["x", "k"], &[large, 1, 1]),
        "repeats axis 0",
    );
    assert_error(
        &sized("Expand", &["x", "k"], &[large, large, 2, 3]),
        "too many elements",
    );
    assert_error(
        &sized("ConstantOfShape", &["k"], &[large]),
        "too large to be computed",
    );
    assert_error(
        &sized("ConstantOfShape", &["k"], &[-1]),
        "a size is negative",
    );
    assert_error(
        &sized("Reshape", &["x", "k"], &[i64::MAX, i64::MAX]),
        "too many elements",
    );
    assert_error(&sized("Reshape", &["x", "k"], &[-1, -1]), "does not fit");
    assert_error(&sized("Reshape", &["x", "k"], &[4, -1]), "does not fit");
    assert_error(&sized("Unsqueeze", &["x", "k"], &[0, 0]), "name one twice");
    let flat = sized("Reshape", &["x", "k"], &[&[2, 3][..], &[1; 20]].concat());
    assert_error(&flat, "22 dimensions are too many");
    let scalar = |name: &str, value: i64| {
        let mut scalar = ints(name, &[value]);
        scalar.dims.clear();
        scalar
    };
    let bounds = vec![scalar("a", i64::MIN), scalar("b", i64::MAX), scalar("c", 1)];
    let range = model(vec![node("Range", &["a", "b", "c"], "y")], bounds);
    assert_error(&range, "too large to be computed");
}

#[test]
fn splits_into_other_numbers_than_there_are_results_are_refused() {
    let mut into_nothing = node("Split", &["x"], "y");
    into_nothing.output.clear();
    let into_nothing = model(vec![into_nothing], vec![]);
    assert_error(&into_nothing, "2 cannot be split into 0 parts");
    for parts in [-1, 0, 2, 1 << 40] {
        let mut stated = attribute("num_outputs", ATTRIBUTE_INT);
        stated.i = Some(parts);
        let split = with_attribute(node("Split", &["x"], "y"), stated);
        let expected = format!("num_outputs is {parts}, but there are 1 results");
        assert_error(&model(vec![split], vec![]), &expected);
    }
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let codes = |name: &str, data_type: i32, dims: &[i64], bytes: &[u8]| TensorProto {
        dims: dims.to_vec(),
        data_type: Some(data_type),
        raw_data: Some(bytes.to_vec().into()),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    };
    let constants = |scale: TensorProto, zero: TensorProto| {
        vec![codes("w", INT8, &[2, 3], &[1; 6]), scale, zero]
    };
    let zeros = |n: usize| codes("z", INT8, &[n as i64], &vec![0; n]);
    let axis = |i: i64| {
        let mut axis = attribute("axis", ATTRIBUTE_INT);
        axis.i = Some(i);
        axis
    };
    let block = |i: i64| {
        let mut block = attribute("block_size", ATTRIBUTE_INT);
        block.i = Some(i);
        block
    };
    let dequantize = |attributes: &[AttributeProto], constants: Vec<TensorProto>| {
        let mut node = node("DequantizeLinear", &["w", "s", "z"], "y");
        node.attribute = attributes.to_vec();
        model(vec![node], constants)
    };
    let scales = |n: usize| floats("s", &[n as i64], &vec![0.5; n]);
    let misfit = "do not fit codes of shape [2, 3]";
    assert_error(
        &dequantize(&[axis(0)], constants(scales(3), zeros(3))),
        misfit,
    );
    assert_error(
        &dequantize(&[axis(7)], constants(scales(3), zeros(3))),
        "axis 7",
    );
    assert_error(
        &dequantize(&[], constants(scales(3), zeros(2))),
        "differ in shape",
    );
    assert_error(
        &dequantize(&[block(-1)], constants(scales(3), zeros(3))),
        misfit,
    );
    let uneven = dequantize(&[block(2)], constants(scales(3), zeros(3)));
    assert_error(&uneven, "blocks of 2 do not divide axis 1");
    assert_error(
        &dequantize(&[block(3)], constants(scales(3), zeros(3))),
        misfit,
    );
    assert_error(
        &dequantize(&[block(i64::MAX)], constants(scales(3), zeros(3))),
        "do not divide",
    );
    let half = codes("s", INT8, &[3], &[1; 3]);
    assert_error(
        &dequantize(&[], constants(half, zeros(3))),
        "the scale must be floats",
    );
    let beyond = codes("z", UINT8, &[3], &[200; 3]);
    assert_error(
        &dequantize(&[], constants(scales(3), beyond)),
        "a zero point is out of range",
    );
    let mut none = constants(floats("s", &[0], &[]), zeros(0));
    none[0] = codes("w", INT8, &[2, 0], &[]);
    assert_error(&dequantize(&[], none), "at least one part");
    let short = vec![codes("w", INT4, &[3, 3], &[0; 4]), scales(3), zeros(3)];
    assert_error(
        &dequantize(&[], short),
        "4 bytes of data, but its shape has 5",
    );

    // Codes may go nowhere but into floats of the same grid.
    let quantize = || node("QuantizeLinear", &["x", "s"], "q");
    let scale = |name: &str, value: f32| floats(name, &[], &[value]);
    let then = |second: NodeProto| {
        model(
            vec![quantize(), second],
            vec![scale("s", 0.5), scale("t", 0.25)],
        )
    };
    let sum = then(node("Add", &["q", "q"], "y"));
    assert_error(&sum, "operand 'q' are codes of QuantizeLinear");
    let other = then(node("DequantizeLinear", &["q", "t"], "y"));
    assert_error(
        &other,
        "its scale, zero point or type is not that of its QuantizeLinear",
    );
    let mut given = then(node("DequantizeLinear", &["q", "s"], "z"));
    given.graph.as_mut().unwrap().output[0].name = Some("q".to_owned());
    assert_error(&given, "codes of QuantizeLinear are no output");
    let negative = model(vec![quantize()], vec![scale("s", -0.5)]);
    assert_error(&negative, "attribute scale is -0.5");
    let computed = vec![node("DequantizeLinear", &["x", "s"], "y")];
    assert_error(
        &model(computed, vec![scale("s", 0.5)]),
        "computed at run time",
    );
}

#[test]
fn many_small_results_do_not_add_up_to_endless_work() {
    let mut nodes = Vec::new();
    for i in 0..200 {
        nodes.push(node("ConstantOfShape", &["k"], &format!("v{i}")));
    }
    let found = error(&model(nodes, vec![ints("k", &[1 << 20])]));
    assert!(found.contains("too large to be computed"), "{found}");
}

#[test]
fn versions_and_missing_parts_are_named() {
    let mut old = model(vec![node("Sigmoid", &["x"], "y")], vec![]);
    old.opset_import[0].version = Some(9);
    assert_error(
        &old,
        "operator set 9 is not supported; export with one from 13 to 23",
    );
    old.opset_import.clear();
    assert_error(&old, "operator set 0");
    assert_error(&ModelProto::default(), "it has no graph");
    let mut silent = model(vec![node("Sigmoid", &["x"], "y")], vec![]);
    silent.graph.as_mut().unwrap().output.clear();
    assert_error(&silent, "output ''");
    let missing = snapc_onnx::read(Path::new("no such model.onnx"), &BTreeMap::new());
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("no such model.onnx")
    );
}

/// A model whose constant lies in another file.
fn external(entries: &[(&str, &str)]) -> ModelProto {
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let mut b = floats("b", &[3], &[]);
    b.data_location = Some(EXTERNAL);
    b.external_data = entries.iter().map(entry).collect();
    model(vec![node("Add", &["x", "b"], "y")], vec![b])
}

#[test]
fn external_data_stays_in_its_folder_and_its_file() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("data"), [0; 64]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), [0; 64]).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    symlink(outside.path().join("data"), dir.path().join("link")).unwrap();
    symlink(outside.path(), dir.path().join("elsewhere")).unwrap();
    let absolute = outside.path().join("data").display().to_string();

    let not_inside = "is not a path inside the folder of the model";
    let leaves = "is a link that leaves the folder of the model";
    let cases: [(&[(&str, &str)], &str); 15] = [
        (&[], "external data without a location"),
        (&[("location", "")], not_inside),
        (&[("location", &absolute)], not_inside),
        (&[("location", "../data")], not_inside),
        (&[("location", "folder/../../data")], not_inside),
        (&[("location", "..\\data")], not_inside),
        (
            &[("location", "missing")],
            "cannot be found beside the model",
        ),
        (&[("location", "folder")], "not a regular file"),
        (&[("location", "link")], leaves),
        (&[("location", "elsewhere/data")], leaves),
        (
            &[("location", "data"), ("offset", "60")],
            "12 bytes at 60 of 'data', which has 64",
        ),
        (
            &[("location", "data"), ("offset", "18446744073709551615")],
            "12 bytes at 18446744073709551615",
        ),
        (
            &[("location", "data"), ("offset", "-4")],
            "offset '-4' of its external data is no number",
        ),
        (
            &[("location", "data"), ("length", "64")],
            "64 bytes of external data, but its shape has 12",
        ),
        (&[("location", "data"), ("length", "")], "is no number"),
    ];
    for (entries, expected) in cases {
        let found = error_in(dir.path(), &external(entries));
        let start = "graph 'unet', initializer 'b': ";
        assert!(
            found.starts_with(start) && found.contains(expected),
            "{found}"
        );
    }

    let path = dir.path().join("model.onnx");
    let right = external(&[("location", "data"), ("offset", "52"), ("length", "12")]);
    fs::write(&path, right.encode_to_vec()).unwrap();
    snapc_onnx::read(&path, &BTreeMap::new()).unwrap();
}

/// Many truncations of a model, and many bytes of it changed: an error, or a graph that verifies.
#[test]
fn damaged_models_are_errors_or_valid_graphs() {
    let dir = tempfile::tempdir().unwrap();
    support::emit(miniature::program(), dir.path());
    let sizes = BTreeMap::from([("batch".to_owned(), 1)]);
    let (mut refused, mut accepted) = (0, 0);
    for graph in ["text_encoder", "unet"] {
        let path = dir.path().join(graph).join("model.onnx");
        let bytes = fs::read(&path).unwrap();
        let mut check = |damaged: &[u8]| {
            fs::write(&path, damaged).unwrap();
            match snapc_onnx::read(&path, &sizes) {
                Ok(graph) => {
                    verify::verify(&graph).expect("verifies");
                    accepted += 1;
                }
                Err(_) => refused += 1,
            }
        };
        for end in (0..bytes.len()).step_by(11) {
            check(&bytes[..end]);
        }
        for (i, change) in (0..bytes.len())
            .step_by(5)
            .zip([0x01, 0x80, 0xff].into_iter().cycle())
        {
            let mut damaged = bytes.clone();
            damaged[i] ^= change;
            check(&damaged);
        }
    }
    // Names of nodes and elements of weights may be anything.
    assert!(
        refused > 300 && accepted > 30,
        "{refused} refused, {accepted} accepted"
    );
}
