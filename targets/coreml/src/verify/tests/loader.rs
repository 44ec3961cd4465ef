//! What the tools on Linux find or do not find (coremltools' loader of programs, its `MLModel` and `ModelPackage`), row by
//! row; all of it is found here.

use super::super::rules::*;
use super::*;

const MAIN: &str = "function 'main'";

#[test]
fn v12_01_declared_shape_and_element_type_of_a_result() {
    let shape = |m: &mut Model| {
        let ty = tensor_type(DataType::Float16, &[1, 5, 4]);
        operation(m, "softmax").outputs[0].ty = Some(ty);
    };
    let found = findings(Level::Ios17, shape, |_| {});
    let names = [
        MAIN,
        "softmax 'softmax'",
        "declared [1, 5, 4], must be [1, 5, 3]",
        "parameter 'x'",
    ];
    assert_names(&found, SHAPE, &names);
    let dtype = |m: &mut Model| {
        let ty = &mut operation(m, "softmax").outputs[0].ty;
        tensor_of(ty).data_type = DataType::Float32 as i32;
    };
    let found = findings(Level::Ios17, dtype, |_| {});
    assert_names(
        &found,
        SAME_TYPE,
        &[MAIN, "softmax 'softmax'", "Float32, must be Float16"],
    );
}

#[test]
fn v12_02_names_and_operations_that_do_not_exist() {
    let undefined = |m: &mut Model| {
        let inputs = &mut operation(m, "softmax").inputs;
        inputs.insert("x".to_owned(), by_name("nothing"));
    };
    let found = findings(Level::Ios17, undefined, |_| {});
    let names = [
        MAIN,
        "softmax 'softmax'",
        "parameter 'x' is 'nothing', which nothing before defines",
    ];
    assert_names(&found, DEFINED, &names);
    for (level, kind) in [
        (Level::Ios26, "soft_max"),
        (Level::Ios17, "scaled_dot_product_attention"),
        (Level::Ios16, "quantize"),
    ] {
        let rename = |m: &mut Model| operation(m, "softmax").kind = kind.to_owned();
        let found = findings(level, rename, |_| {});
        let place = format!("{kind} 'softmax'");
        assert_names(&found, OPERATION, &[MAIN, &place, "unknown at"]);
    }
}

#[test]
fn v12_03_element_types_that_are_mixed() {
    let mixed = |m: &mut Model| {
        let mut cast = operation(m, "cast").clone();
        let sum = |m: &mut Model| {
            let operations = &block(m).operations;
            operations
                .iter()
                .position(|o| o.outputs[0].name == "sum")
                .unwrap()
        };
        let at = sum(m);
        let gathered = bound(&block(m).operations[at].inputs["y"]);
        cast.inputs.insert("x".to_owned(), by_name(&gathered));
        let shape = [1, 5, 8];
        cast.outputs[0] = NamedValueType {
            name: "wide_tokens".to_owned(),
            ty: Some(tensor_type(DataType::Float32, &shape)),
        };
        // The constant `dtype` of the cast has to stand before it.
        let dtype = constant(m, "cast", "dtype").clone();
        block(m).operations.retain(|o| o != &dtype);
        let at = sum(m);
        block(m).operations.splice(at..at, [dtype, cast]);
        let inputs = &mut block(m).operations[at + 2].inputs;
        inputs.insert("y".to_owned(), by_name("wide_tokens"));
    };
    for level in Level::ALL {
        let found = findings(level, mixed, |_| {});
        let names = [
            MAIN,
            "add 'sum'",
            "parameters 'x', 'y' must have one element type",
        ];
        assert_names(&found, SAME_TYPE, &names);
    }
    let epsilon = |m: &mut Model| {
        let values = vec![1e-5];
        let floats = Elements::Floats(RepeatedFloats { values });
        let value = immediate(DataType::Float32, &[], floats);
        let epsilon = constant(m, "layer_norm", "epsilon");
        epsilon.outputs[0].ty = value.ty.clone();
        epsilon.attributes.insert("val".to_owned(), value);
    };
    let found = findings(Level::Ios16, epsilon, |_| {});
    assert_names(&found, SAME_TYPE, &[MAIN, "layer_norm 'ln'", "'epsilon'"]);
    assert_eq!(findings(Level::Ios17, epsilon, |_| {}), []);
}

#[test]
fn v12_04_scalars_for_vectors_and_unknown_words() {
    let scalar = |m: &mut Model| {
        let groups = operation(m, "conv").inputs["groups"].clone();
        operation(m, "layer_norm")
            .inputs
            .insert("axes".to_owned(), groups);
    };
    let found = findings(Level::Ios17, scalar, |_| {});
    assert_names(
        &found,
        KIND,
        &[MAIN, "layer_norm '", "parameter 'axes' is no vector"],
    );
    let mode = |m: &mut Model| {
        let value = string("TANH");
        constant(m, "gelu", "mode")
            .attributes
            .insert("val".to_owned(), value);
    };
    let found = findings_of(picture(Level::Ios17), mode, |_| {});
    assert_names(
        &found,
        KIND,
        &[MAIN, "gelu 'gelu'", "parameter 'mode' is 'TANH'"],
    );
    let dtype = |m: &mut Model| {
        let value = string("float32");
        constant(m, "cast", "dtype")
            .attributes
            .insert("val".to_owned(), value);
    };
    let found = findings(Level::Ios17, dtype, |_| {});
    assert_names(
        &found,
        KIND,
        &[MAIN, "cast 'y'", "parameter 'dtype' is 'float32'"],
    );
}

#[test]
fn v12_05_version_of_the_program() {
    let version = |m: &mut Model| m.ml_program.as_mut().unwrap().version = 2;
    let found = findings(Level::Ios17, version, |_| {});
    assert_names(
        &found,
        PROGRAM,
        &["model.mlmodel", "the program's version is 2"],
    );
}

#[test]
fn v12_06_blobs_that_are_elsewhere_or_of_another_type() {
    for level in [Level::Ios17, Level::Ios18] {
        let place = match level < Level::Ios18 {
            true => "constexpr_lut_to_dense 'weight'",
            false => "parameter 'indices'",
        };
        let code = |p: &Path| edit_bytes(p, WEIGHTS, |b| b[68] ^= 1);
        let found = findings_of(palette(level), |_| {}, code);
        assert_names(&found, BLOB_DATA, &[MAIN, place, "element type code"]);
        let moved = |p: &Path| edit_bytes(p, WEIGHTS, |b| b[64] = 0);
        let found = findings_of(palette(level), |_| {}, moved);
        assert_names(&found, BLOB_OFFSET, &[MAIN, place, "no blob's metadata"]);
    }
}

#[test]
fn v12_07_unknown_attributes_and_values_in_place() {
    let attribute = |m: &mut Model| {
        let attributes = &mut operation(m, "softmax").attributes;
        attributes.insert("axis".to_owned(), string("2"));
    };
    let found = findings(Level::Ios17, attribute, |_| {});
    assert_names(
        &found,
        NAMED,
        &[MAIN, "softmax 'softmax'", "unknown attribute 'axis'"],
    );
    let inline = |m: &mut Model| {
        let blob = constant(m, "conv", "weight").attributes["val"].clone();
        operation(m, "conv")
            .inputs
            .insert("weight".to_owned(), in_place(blob));
    };
    let found = findings(Level::Ios17, inline, |_| {});
    assert_names(&found, INLINE, &[MAIN, "conv 'conv'", "parameter 'weight'"]);
}

#[test]
fn v12_08_manifest_without_description_or_root() {
    let description = |p: &Path| {
        edit_json(p, |j| {
            let id = item(j, MODEL);
            let entry = j["itemInfoEntries"][&id].as_object_mut().unwrap();
            entry.remove("description");
        });
    };
    let found = findings(Level::Ios17, |_| {}, description);
    assert_names(
        &found,
        MANIFEST_ITEM,
        &["Manifest.json", "'description' is missing"],
    );
    let root = |p: &Path| {
        edit_json(p, |j| {
            j.as_object_mut().unwrap().remove("rootModelIdentifier");
        });
    };
    let found = findings(Level::Ios17, |_| {}, root);
    assert_names(
        &found,
        MANIFEST,
        &["Manifest.json", "rootModelIdentifier is missing"],
    );
}

/// For every operation of the packages and every parameter that has a default in coremltools.
#[test]
fn v12_09_parameters_that_have_defaults() {
    let defaults = [
        ("conv", "pad_type"),
        ("conv", "groups"),
        ("softmax", "axis"),
        ("layer_norm", "epsilon"),
        ("linear", "bias"),
        ("concat", "interleave"),
        ("gather", "axis"),
        ("gather", "batch_dims"),
        ("gather", "validate_indices"),
        ("slice_by_index", "stride"),
        ("gelu", "mode"),
    ];
    for (kind, parameter) in defaults {
        let package = match kind {
            "gelu" => picture(Level::Ios17),
            _ => valid(Level::Ios17),
        };
        let remove = |m: &mut Model| {
            let inputs = &mut operation(m, kind).inputs;
            inputs.remove(parameter).unwrap();
        };
        let found = findings_of(package, remove, |_| {});
        let place = format!("{kind} '");
        let name = format!("parameter '{parameter}' is not written");
        assert_names(&found, MISSING, &[MAIN, &place, &name]);
    }
}

#[test]
fn v12_10_description_that_is_not_the_functions() {
    type Edit = fn(&mut FeatureDescription);
    let edits: [(Edit, &str); 3] = [
        (
            |f| f.name = "z".to_owned(),
            "the description has [\"z\", \"ids\"], the function [\"x\", \"ids\"]",
        ),
        (
            |f| array(f).data_type = ArrayDataType::Float32 as i32,
            "input 'x': the description says Float32, the function Float16",
        ),
        (
            |f| array(f).shape[2] = 7,
            "input 'x': the description has shape Some([1, 4, 7, 6]), the function [1, 4, 6, 6]",
        ),
    ];
    for (edit, text) in edits {
        let edit = |m: &mut Model| edit(&mut m.description.as_mut().unwrap().input[0]);
        let found = findings(Level::Ios17, edit, |_| {});
        assert_names(&found, DESCRIPTION, &[MAIN, text]);
    }
    let size = |m: &mut Model| {
        let output = &mut m.description.as_mut().unwrap().output[0];
        let image = ImageFeatureType {
            width: 3,
            height: 4,
            color_space: ColorSpace::Rgb as i32,
        };
        output.ty = Some(FeatureType {
            image: Some(image),
            ..FeatureType::default()
        });
    };
    let found = findings_of(picture(Level::Ios16), size, |_| {});
    assert_names(&found, IMAGE, &[MAIN, "output 'y'", "4 rows and 3 columns"]);
}

#[test]
fn v12_11_opset_that_is_not_of_the_specification() {
    for level in Level::ALL {
        let other = match level {
            Level::Ios26 => "CoreML8",
            _ => "CoreML9",
        };
        let found = findings(level, |m| main_of(m).opset = other.to_owned(), |_| {});
        assert_names(&found, OPSET, &[MAIN, other, level.opset()]);
    }
}

#[test]
fn v12_12_identifiers_duplicates_and_names_of_operations() {
    let found = findings(Level::Ios17, |m| rename(m, "conv", "conv-out"), |_| {});
    assert_names(&found, IDENTIFIER, &[MAIN, "conv 'conv-out'"]);
    let found = findings(Level::Ios17, |m| rename(m, "conv", "x"), |_| {});
    assert_names(&found, UNIQUE, &[MAIN, "conv 'x'", "defined twice"]);
    let nameless = |m: &mut Model| {
        operation(m, "conv").attributes.clear();
    };
    let found = findings(Level::Ios17, nameless, |_| {});
    assert_names(&found, NAMED, &[MAIN, "conv 'conv'", "no name attribute"]);
}

#[test]
fn v12_13_output_that_is_an_input() {
    let forward = |m: &mut Model| {
        block(m).outputs[0] = "x".to_owned();
    };
    let found = findings(Level::Ios17, forward, |_| {});
    assert_names(
        &found,
        OUTPUT,
        &[MAIN, "output 'x'", "it is an input of the function"],
    );
}

#[test]
fn v12_14_compressed_constant_with_attributes_at_coreml_8() {
    for level in [Level::Ios18, Level::Ios26] {
        let to_attributes = |m: &mut Model| {
            let op = operation(m, "constexpr_lut_to_dense");
            for parameter in ["indices", "lut"] {
                let value = value_of(op, parameter).clone();
                op.attributes.insert(parameter.to_owned(), value);
            }
            op.inputs.clear();
        };
        let found = findings_of(palette(level), to_attributes, |_| {});
        let names = [
            MAIN,
            "constexpr_lut_to_dense 'weight'",
            "'indices', 'lut'",
            "parameters are inputs",
        ];
        assert_names(&found, CONSTEXPR, &names);
    }
}

#[test]
fn v12_15_manifest_without_the_weights() {
    let remove = |p: &Path| {
        edit_json(p, |j| {
            let id = item(j, "weights");
            j["itemInfoEntries"].as_object_mut().unwrap().remove(&id);
        });
    };
    let found = findings(Level::Ios17, |_| {}, remove);
    assert_names(
        &found,
        MANIFEST_WEIGHTS,
        &["Manifest.json", "com.apple.CoreML/weights"],
    );
}
