//! What commonly goes wrong in packages that are written by hand, item by item.

use super::super::rules::*;
use super::*;

const MAIN: &str = "function 'main'";

fn set_constant(model: &mut Model, kind: &str, parameter: &str, value: Value) {
    let constant = constant(model, kind, parameter);
    constant.outputs[0].ty = value.ty.clone();
    constant.attributes.insert("val".to_owned(), value);
}

fn float(value: f32) -> Value {
    let values = vec![value];
    immediate(
        DataType::Float32,
        &[],
        Elements::Floats(RepeatedFloats { values }),
    )
}

/// Binds a parameter to the constant of another operation's parameter.
fn rebind(model: &mut Model, (kind, parameter): (&str, &str), from: (&str, &str)) {
    let argument = operation(model, from.0).inputs[from.1].clone();
    operation(model, kind)
        .inputs
        .insert(parameter.to_owned(), argument);
}

#[test]
fn right_packages_have_no_findings() {
    for level in Level::ALL {
        for package in [
            valid(level),
            attention(level),
            picture(level),
            palette(level),
        ] {
            assert_eq!(findings_of(package, |_| {}, |_| {}), [], "{level}");
        }
    }
}

#[test]
fn v11_01_missing_parameter() {
    for parameter in ["pad", "pad_type", "strides", "dilations", "groups"] {
        let remove = |m: &mut Model| {
            operation(m, "conv").inputs.remove(parameter);
        };
        let found = findings(Level::Ios17, remove, |_| {});
        let name = format!("parameter '{parameter}' is not written");
        assert_names(&found, MISSING, &[MAIN, "conv 'conv'", &name]);
    }
}

/// top, bottom, left, right is the order; ONNX has top, left, bottom, right.
#[test]
fn v11_02_pad_in_the_order_of_another_format() {
    let reorder = |m: &mut Model| {
        let pad = ints_of(constant(m, "conv", "pad"));
        assert_eq!(pad, &[0, 1, 0, 1]);
        *pad = vec![0, 0, 1, 1];
    };
    let found = findings_of(picture(Level::Ios16), reorder, |_| {});
    assert_names(
        &found,
        SHAPE,
        &[MAIN, "conv 'conv'", "parameter 'pad' [0, 0, 1, 1]"],
    );
}

#[test]
fn v11_03_vector_for_scalar_and_scalar_for_vector() {
    let vector = |m: &mut Model| rebind(m, ("softmax", "axis"), ("conv", "strides"));
    let found = findings(Level::Ios17, vector, |_| {});
    assert_names(
        &found,
        KIND,
        &[MAIN, "softmax 'softmax'", "parameter 'axis' is no scalar"],
    );
    let scalar = |m: &mut Model| rebind(m, ("conv", "strides"), ("conv", "groups"));
    let found = findings(Level::Ios17, scalar, |_| {});
    assert_names(
        &found,
        KIND,
        &[MAIN, "conv 'conv'", "parameter 'strides' is no vector"],
    );
}

#[test]
fn v11_04_int_for_bool() {
    let number = |m: &mut Model| rebind(m, ("concat", "interleave"), ("conv", "groups"));
    let found = findings(Level::Ios17, number, |_| {});
    let names = [MAIN, "concat 'both'", "parameter 'interleave' is Int32"];
    assert_names(&found, KIND, &names);
}

#[test]
fn v11_05_epsilon_and_bounds_of_another_float_type() {
    let epsilon = |m: &mut Model| set_constant(m, "layer_norm", "epsilon", float(1e-5));
    let found = findings(Level::Ios16, epsilon, |_| {});
    assert_names(&found, SAME_TYPE, &[MAIN, "layer_norm 'ln'", "'epsilon'"]);
    assert_eq!(findings(Level::Ios17, epsilon, |_| {}), []);
    let bound = |m: &mut Model| {
        let bytes = Elements::Bytes(RepeatedBytes { values: vec![0, 0] });
        let half = immediate(DataType::Float16, &[], bytes);
        set_constant(m, "clip", "alpha", half);
    };
    let found = findings_of(picture(Level::Ios16), bound, |_| {});
    assert_names(&found, SAME_TYPE, &[MAIN, "clip 'y'", "'alpha'"]);
}

#[test]
fn v11_06_blob_offset_of_the_data_and_element_type_of_mil() {
    let place = [
        MAIN,
        "const 'conv_weight'",
        "parameter 'weight' of conv 'conv'",
    ];
    let to_data = |m: &mut Model| blob_of(constant(m, "conv", "weight")).offset += 64;
    let found = findings(Level::Ios17, to_data, |_| {});
    assert_names(&found, BLOB_OFFSET, &place);
    // MIL has 10 for fp16, the weight file 1.
    let code = |p: &Path| edit_bytes(p, WEIGHTS, |b| b[68] = 10);
    let found = findings(Level::Ios17, |_| {}, code);
    assert_names(&found, BLOB_DATA, &place);
    assert_names(&found, BLOB_DATA, &["element type code 10 is not 1"]);
}

#[test]
fn v11_07_parameters_of_compressed_constants_in_the_wrong_place() {
    let to_inputs = |m: &mut Model| {
        let op = operation(m, "constexpr_lut_to_dense");
        let lut = op.attributes.remove("lut").unwrap();
        op.inputs.insert("lut".to_owned(), in_place(lut));
    };
    let found = findings_of(palette(Level::Ios17), to_inputs, |_| {});
    let name = "constexpr_lut_to_dense 'weight'";
    assert_names(
        &found,
        CONSTEXPR,
        &[MAIN, name, "parameters are attributes", "'lut'"],
    );
    let to_attributes = |m: &mut Model| {
        let op = operation(m, "constexpr_lut_to_dense");
        let lut = value_of(op, "lut").clone();
        op.inputs.remove("lut");
        op.attributes.insert("lut".to_owned(), lut);
    };
    for level in [Level::Ios18, Level::Ios26] {
        let found = findings_of(palette(level), to_attributes, |_| {});
        assert_names(
            &found,
            CONSTEXPR,
            &[MAIN, name, "parameters are inputs", "'lut'"],
        );
    }
}

#[test]
fn v11_08_shape_of_a_palette_as_int32() {
    let int32 = |m: &mut Model| {
        let ints = Elements::Ints(RepeatedInts { values: vec![8, 8] });
        let value = immediate(DataType::Int32, &[2], ints);
        let op = operation(m, "constexpr_lut_to_dense");
        op.attributes.insert("shape".to_owned(), value);
    };
    let found = findings_of(palette(Level::Ios16), int32, |_| {});
    let names = [
        MAIN,
        "constexpr_lut_to_dense 'weight'",
        "parameter 'shape'",
        "uint32",
    ];
    assert_names(&found, CONSTEXPR_PARAMETERS, &names);
}

#[test]
fn v11_09_fp16_in_the_list_of_floats() {
    let floats = |m: &mut Model| {
        let floats = Elements::Floats(RepeatedFloats { values: vec![1e-5] });
        let value = immediate(DataType::Float16, &[], floats);
        set_constant(m, "layer_norm", "epsilon", value);
    };
    let found = findings(Level::Ios17, floats, |_| {});
    let names = [
        MAIN,
        "const 'epsilon_0'",
        "parameter 'epsilon' of layer_norm",
        "Float16 elements stand in the field of another type",
    ];
    assert_names(&found, CONSTANT, &names);
}

#[test]
fn v11_10_rank_left_out_and_dimensions_of_a_scalar() {
    let no_rank = |m: &mut Model| tensor_of(&mut operation(m, "softmax").outputs[0].ty).rank = 0;
    let found = findings(Level::Ios17, no_rank, |_| {});
    assert_names(
        &found,
        TYPE,
        &[MAIN, "softmax 'softmax'", "the rank is 0 with 3 dimensions"],
    );
    let dimensions = |m: &mut Model| {
        let ints = Elements::Ints(RepeatedInts { values: vec![2] });
        set_constant(m, "softmax", "axis", immediate(DataType::Int32, &[1], ints));
    };
    let found = findings(Level::Ios17, dimensions, |_| {});
    assert_names(
        &found,
        KIND,
        &[MAIN, "softmax 'softmax'", "parameter 'axis' is no scalar"],
    );
}

#[test]
fn v11_11_description_of_another_type_and_int64_inputs() {
    let wide = |m: &mut Model| {
        let feature = &mut m.description.as_mut().unwrap().input[0];
        array(feature).data_type = ArrayDataType::Float32 as i32;
    };
    let found = findings(Level::Ios17, wide, |_| {});
    assert_names(
        &found,
        DESCRIPTION,
        &[MAIN, "input 'x'", "Float32", "Float16"],
    );
    let int64 = |m: &mut Model| {
        let input = &mut main_of(m).inputs[1];
        tensor_of(&mut input.ty).data_type = DataType::Int64 as i32;
    };
    let found = findings(Level::Ios17, int64, |_| {});
    assert_names(
        &found,
        DESCRIPTION,
        &[MAIN, "input 'ids'", "Int32", "Int64"],
    );
    assert_names(
        &found,
        KIND,
        &[MAIN, "gather 'tokens'", "parameter 'indices' is Int64"],
    );
}

#[test]
fn v11_12_names_that_are_no_identifiers() {
    for name in ["conv.out", "conv/out", "1conv", "", "tensor"] {
        let found = findings(Level::Ios17, |m| rename(m, "conv", name), |_| {});
        let place = format!("conv '{name}'");
        assert_names(
            &found,
            IDENTIFIER,
            &[MAIN, &place, "the name is no identifier"],
        );
    }
}

/// The description has fp32, the function gives its fp16 without a cast.
#[test]
fn v11_13_output_that_is_converted_by_nobody() {
    let without_cast = |m: &mut Model| {
        let operations = &mut block(m).operations;
        operations.retain(|o| o.kind != "cast");
        rename(m, "softmax", "y");
    };
    let found = findings(Level::Ios17, without_cast, |_| {});
    assert_names(
        &found,
        DESCRIPTION,
        &[MAIN, "output 'y'", "Float32", "Float16"],
    );
}

#[test]
fn v11_14_order_of_einsum_and_rank_of_linear() {
    let swap = |m: &mut Model| {
        let values = operation(m, "einsum").inputs.get_mut("values").unwrap();
        values.arguments.reverse();
    };
    let found = findings_of(attention(Level::Ios17), swap, |_| {});
    assert_names(
        &found,
        SHAPE,
        &[MAIN, "einsum '", "'bkhc,bchq->bkhq' is no sum of"],
    );
    let order_of_torch = |m: &mut Model| {
        set_constant(m, "einsum", "equation", string("bchq,bkhc->bkhq"));
    };
    let found = findings_of(attention(Level::Ios17), order_of_torch, |_| {});
    let names = [
        MAIN,
        "einsum '",
        "parameter 'equation' is 'bchq,bkhc->bkhq'",
    ];
    assert_names(&found, KIND, &names);
    let found = findings(Level::Ios17, with_linear_of_rank_4, |_| {});
    assert_names(
        &found,
        RANK,
        &[
            MAIN,
            "linear '",
            "parameter 'x' has 4 dimensions, 3 at most",
        ],
    );
}

#[test]
fn v11_15_attention_before_ios_18_and_with_a_scale() {
    let older = |m: &mut Model| {
        m.specification_version = Level::Ios17.specification();
        let main = main_of(m);
        main.opset = Level::Ios17.opset().to_owned();
        let block = std::mem::take(&mut main.block_specializations);
        let block = block.into_values().next().unwrap();
        let key = Level::Ios17.opset().to_owned();
        main.block_specializations.insert(key, block);
    };
    let found = findings_of(attention(Level::Ios18), older, |_| {});
    let place = "scaled_dot_product_attention '";
    assert_names(&found, OPERATION, &[MAIN, place, "unknown at iOS 17"]);
    let scaled = |m: &mut Model| {
        let op = operation(m, "scaled_dot_product_attention");
        op.inputs.insert("scale".to_owned(), by_name("q"));
    };
    let found = findings_of(attention(Level::Ios26), scaled, |_| {});
    assert_names(&found, PARAMETER, &[MAIN, place, "no parameter 'scale'"]);
}
