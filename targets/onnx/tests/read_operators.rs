//! Single operators as other exporters write them, read and evaluated against ONNX Runtime.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "read_operators/case.rs"]
mod case;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost::Message;
use snapc_ir::{DType, Graph, Shape, Tensor, TensorType, eval};
use snapc_onnx::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRING, ATTRIBUTE_TENSOR,
    AttributeProto, BOOL, Dimension, FLOAT, FLOAT16, GraphProto, INT8, INT32, INT64, ModelProto,
    NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    UINT4, UINT8, ValueInfoProto,
};

use case::*;
use support::{Call, Noise, psnr, run_onnx};

fn elementwise() -> Vec<Case> {
    let ones = || floats("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    vec![
        case("neg", &[2, 3], last("Neg", &["x"], &[])),
        case("reciprocal", &[2, 3], last("Reciprocal", &["x"], &[])),
        case("square", &[2, 3], last("Pow", &["x", "two"], &[])).constants([floats(
            "two",
            &[],
            &[2.0],
        )]),
        case(
            "square_by_integer",
            &[2, 3],
            last("Pow", &["x", "two"], &[]),
        )
        .constants([ints("two", &[], &[2])]),
        case(
            "root",
            &[2, 3],
            vec![
                node("Mul", &["x", "x"], "square", &[]),
                node("Pow", &["square", "half"], "y", &[]),
            ],
        )
        .constants([floats("half", &[], &[0.5])]),
        case("gelu", &[2, 3], last("Gelu", &["x"], &[])).opset(20),
        case("identity", &[2, 3], last("Identity", &["x"], &[])),
        case("dropout", &[2, 3], last("Dropout", &["x"], &[])),
        case(
            "integers",
            &[2, 3],
            vec![
                node("Neg", &["i"], "negative", &[]),
                node("Cast", &["negative"], "small", &[int("to", 6)]),
                node("Cast", &["small"], "float", &[int("to", 1)]),
                node("Add", &["x", "float"], "y", &[]),
            ],
        )
        .indices(&[3]),
        case("sum", &[2, 3], last("Sub", &["w", "x"], &[])).constants([ones()]),
        case(
            "is_equal",
            &[2, 3],
            vec![
                node("Equal", &["i", "two"], "flag", &[]),
                node("Cast", &["flag"], "float", &[int("to", 1)]),
                node("Mul", &["x", "float"], "y", &[]),
            ],
        )
        .indices(&[2, 3])
        .constants([ints("two", &[], &[2])]),
        case(
            "narrow_and_wide",
            &[2, 3],
            vec![
                node("Cast", &["x"], "half", &[int("to", i64::from(FLOAT16))]),
                node("CastLike", &["half", "x"], "y", &[]),
            ],
        ),
    ]
}

fn movement() -> Vec<Case> {
    vec![
        case("reshape", &[2, 3, 4], last("Reshape", &["x", "to"], &[])).constants([ints(
            "to",
            &[3],
            &[0, -1, 2],
        )]),
        case(
            "flatten",
            &[2, 3, 4],
            last("Flatten", &["x"], &[int("axis", -1)]),
        ),
        case(
            "flatten_all",
            &[2, 3],
            last("Flatten", &["x"], &[int("axis", 2)]),
        ),
        case("squeeze", &[1, 3, 1], last("Squeeze", &["x"], &[])),
        case(
            "squeeze_one",
            &[1, 3, 1],
            last("Squeeze", &["x", "axes"], &[]),
        )
        .constants([ints("axes", &[1], &[-1])]),
        case("unsqueeze", &[2, 3], last("Unsqueeze", &["x", "axes"], &[])).constants([ints(
            "axes",
            &[2],
            &[-1, 0],
        )]),
        case("transpose", &[2, 3, 4], last("Transpose", &["x"], &[])),
        case(
            "slice",
            &[4, 5],
            last("Slice", &["x", "from", "to", "axes"], &[]),
        )
        .constants([
            ints("from", &[2], &[-3, 1]),
            ints("to", &[2], &[i64::MAX, -1]),
            ints("axes", &[2], &[1, -2]),
        ]),
        case(
            "split_into_unequal",
            &[2, 5],
            vec![
                node_of(
                    "Split",
                    &["x"],
                    &["a", "b"],
                    &[int("axis", 1), int("num_outputs", 2)],
                ),
                node("Concat", &["b", "a"], "y", &[int("axis", -1)]),
            ],
        )
        .opset(18),
        case(
            "split_by_sizes",
            &[2, 5],
            vec![
                node_of("Split", &["x", "sizes"], &["a", "b"], &[int("axis", -1)]),
                node("Concat", &["b", "a"], "y", &[int("axis", 1)]),
            ],
        )
        .constants([ints("sizes", &[2], &[1, 4])]),
        case(
            "split_in_halves",
            &[4, 2],
            vec![
                node_of("Split", &["x"], &["a", "b"], &[]),
                node("Sub", &["a", "b"], "y", &[]),
            ],
        ),
        case("expand", &[3, 1], last("Expand", &["x", "to"], &[])).constants([ints(
            "to",
            &[3],
            &[2, 1, 4],
        )]),
        case(
            "gather",
            &[4, 3],
            last("Gather", &["x", "i"], &[int("axis", 1)]),
        )
        .indices(&[2, 2]),
        case("gather_a_row", &[4, 3], last("Gather", &["x", "at"], &[])).constants([ints(
            "at",
            &[],
            &[-1],
        )]),
        case("gather_pairs", &[4, 3], last("GatherND", &["x", "at"], &[])).constants([ints(
            "at",
            &[2, 2],
            &[3, 1, -1, 2],
        )]),
        case(
            "gather_rows",
            &[2, 3, 2],
            last("GatherND", &["x", "i"], &[int("batch_dims", 1)]),
        )
        .indices(&[2, 1]),
    ]
}

fn compute() -> Vec<Case> {
    let gemm = |attributes: &[AttributeProto]| last("Gemm", &["x", "w", "bias"], attributes);
    let mut same_conv = case(
        "conv",
        &[1, 4, 6, 6],
        last(
            "Conv",
            &["x", "w", "bias"],
            &[
                int("group", 2),
                int_list("strides", &[2, 1]),
                int_list("pads", &[1, 0, 0, 2]),
            ],
        ),
    );
    same_conv = same_conv.constants([weights("w", &[6, 2, 3, 3]), weights("bias", &[6])]);
    let resize = |name, extra: &[AttributeProto], scales: bool| {
        let operand = if scales {
            vec!["x", "", "scales"]
        } else {
            vec!["x", "", "", "sizes"]
        };
        case(name, &[1, 2, 3, 2], last("Resize", &operand, extra)).constants([
            floats("scales", &[4], &[1.0, 1.0, 3.0, 3.0]),
            ints("sizes", &[4], &[1, 2, 6, 4]),
        ])
    };
    vec![
        same_conv,
        case("gemm", &[4, 3], gemm(&[int("transB", 1)]))
            .constants([weights("w", &[5, 3]), weights("bias", &[5])]),
        case(
            "gemm_scaled",
            &[3, 4],
            gemm(&[int("transA", 1), float("alpha", 0.5), float("beta", -2.0)]),
        )
        .constants([weights("w", &[3, 5]), weights("bias", &[4, 1])]),
        case("gemm_without_bias", &[4, 3], last("Gemm", &["x", "w"], &[]))
            .constants([weights("w", &[3, 5])]),
        case("matmul", &[2, 4, 3], last("MatMul", &["x", "w"], &[]))
            .constants([weights("w", &[3, 5])]),
        case(
            "softmax",
            &[2, 3, 4],
            last("Softmax", &["x"], &[int("axis", 1)]),
        ),
        case(
            "mean_of_axes",
            &[2, 3, 4],
            last(
                "ReduceMean",
                &["x"],
                &[int_list("axes", &[-1, 0]), int("keepdims", 0)],
            ),
        ),
        case(
            "mean_by_operand",
            &[2, 3, 4],
            last("ReduceMean", &["x", "axes"], &[]),
        )
        .opset(18)
        .constants([ints("axes", &[1], &[1])]),
        case(
            "mean_of_all",
            &[2, 3],
            vec![
                node("ReduceMean", &["x"], "mean", &[]),
                node("Sub", &["x", "mean"], "y", &[]),
            ],
        ),
        case(
            "arg_max",
            &[2, 5],
            last("ArgMax", &["x"], &[int("axis", -1)]),
        )
        .gives(INT64),
        resize(
            "resize_by_scales",
            &[
                string("coordinate_transformation_mode", "asymmetric"),
                string("nearest_mode", "floor"),
            ],
            true,
        ),
        resize("resize_to_sizes", &[], false),
    ]
}

fn norms() -> Vec<Case> {
    let eps = float("epsilon", 0.01);
    let affine = |n: i64| [weights("scale", &[n]), weights("bias", &[n])];
    vec![
        case(
            "layer_norm",
            &[2, 3, 4],
            last(
                "LayerNormalization",
                &["x", "scale", "bias"],
                std::slice::from_ref(&eps),
            ),
        )
        .constants(affine(4)),
        case(
            "layer_norm_without_bias",
            &[2, 4],
            last("LayerNormalization", &["x", "scale"], &[]),
        )
        .constants([weights("scale", &[4])]),
        case(
            "instance_norm",
            &[2, 3, 5],
            last(
                "InstanceNormalization",
                &["x", "scale", "bias"],
                std::slice::from_ref(&eps),
            ),
        )
        .constants(affine(3)),
        case(
            "group_norm",
            &[2, 4, 3, 2],
            last(
                "GroupNormalization",
                &["x", "scale", "bias"],
                &[int("num_groups", 2), eps],
            ),
        )
        .opset(21)
        .constants(affine(4)),
    ]
}

fn constants() -> Vec<Case> {
    let fill = AttributeProto {
        t: Some(Box::new(ints("", &[1], &[7]))),
        ..attribute("value", ATTRIBUTE_TENSOR)
    };
    let to_float = |from: &str| node("Cast", &[from], "float", &[int("to", 1)]);
    let add = || node("Add", &["x", "float"], "y", &[]);
    vec![
        case(
            "shape_arithmetic",
            &[2, 6],
            vec![
                node("Shape", &["x"], "shape", &[]),
                node("Gather", &["shape", "one"], "columns", &[]),
                node("Div", &["columns", "minus_four"], "quotient", &[]),
                node("Unsqueeze", &["quotient", "zero"], "list", &[]),
                node("Concat", &["list", "three"], "to", &[int("axis", 0)]),
                node("Mul", &["to", "signs"], "target", &[]),
                node("Reshape", &["x", "target"], "y", &[]),
            ],
        )
        .constants([
            ints("one", &[], &[1]),
            ints("minus_four", &[], &[-4]),
            ints("zero", &[1], &[0]),
            ints("three", &[1], &[12]),
            ints("signs", &[2], &[-1, 1]),
        ]),
        case(
            "causal_mask",
            &[3, 3],
            vec![
                node("Range", &["zero", "three", "one"], "columns", &[]),
                node("Unsqueeze", &["columns", "axis"], "rows", &[]),
                node("LessOrEqual", &["columns", "rows"], "past", &[]),
                node("Not", &["past"], "future", &[]),
                node("Where", &["future", "low", "high"], "float", &[]),
                add(),
            ],
        )
        .constants([
            ints("zero", &[], &[0]),
            ints("three", &[], &[3]),
            ints("one", &[], &[1]),
            ints("axis", &[1], &[1]),
            floats("low", &[], &[-100.0]),
            floats("high", &[1, 3], &[0.0, 1.0, 2.0]),
        ]),
        case(
            "triangle",
            &[3, 4],
            vec![
                node("Shape", &["x"], "shape", &[]),
                node("ConstantOfShape", &["shape"], "full", &[fill]),
                node("Trilu", &["full", "k"], "upper", &[]),
                to_float("upper"),
                add(),
            ],
        )
        .constants([ints("k", &[], &[1])]),
        case(
            "lower_triangle",
            &[3, 4],
            vec![node("Trilu", &["w"], "float", &[int("upper", 0)]), add()],
        )
        .constants([weights("w", &[3, 4])]),
        case(
            "part_of_a_shape",
            &[2, 3, 4],
            vec![
                node("Shape", &["x"], "shape", &[int("start", -2)]),
                node("Size", &["x"], "size", &[]),
                node("Add", &["shape", "size"], "sum", &[]),
                node("Slice", &["sum", "from", "to"], "part", &[]),
                to_float("part"),
                add(),
            ],
        )
        .constants([ints("from", &[1], &[-1]), ints("to", &[1], &[9])]),
        case(
            "downward_range",
            &[3],
            vec![
                node("Range", &["from", "to", "step"], "range", &[]),
                to_float("range"),
                add(),
            ],
        )
        .constants([
            ints("from", &[], &[5]),
            ints("to", &[], &[-1]),
            ints("step", &[], &[-2]),
        ]),
        case(
            "numbers",
            &[2],
            vec![
                node("Constant", &[], "list", &[int_list("value_ints", &[4, -5])]),
                node("Constant", &[], "half", &[float("value_float", 0.5)]),
                node("Greater", &["list", "zero"], "flags", &[]),
                node("Where", &["flags", "half", "minus"], "float", &[]),
                add(),
            ],
        )
        .constants([
            ints("zero", &[], &[0]),
            floats("minus", &[2], &[-1.0, -3.0]),
        ]),
        case(
            "decided_choice",
            &[2, 3],
            last("Where", &["always", "x", "w"], &[]),
        )
        .constants([
            TensorProto {
                data_type: Some(BOOL),
                int32_data: vec![1],
                dims: vec![1],
                name: Some("always".to_owned()),
                ..TensorProto::default()
            },
            weights("w", &[4, 1, 1]),
        ]),
    ]
}

/// Elements of 8 or 4 bits, or of 32 when they are biases.
fn codes_of(name: &str, data_type: i32, dims: &[i64], bytes: &[u8]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(data_type),
        raw_data: Some(bytes.to_vec().into()),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

/// Bytes that look random.
fn some_bytes(count: usize) -> Vec<u8> {
    let ints = Noise::new(41).ints(&[count], 256);
    ints.ints().iter().map(|&i| i as u8).collect()
}

fn codes() -> Vec<Case> {
    let add = || node("Add", &["x", "float"], "y", &[]);
    let through = |op: &str| {
        vec![
            node(
                "DequantizeLinear",
                &["w", "s", "z"],
                "floats",
                &[int("axis", 0)],
            ),
            node(op, &["x", "floats"], "y", &[]),
        ]
    };
    let biases: Vec<u8> = [-70_000i32, 3, 500_000]
        .iter()
        .flat_map(|b| b.to_le_bytes())
        .collect();
    vec![
        case("unsigned_codes", &[2, 3], through("MatMul")).constants([
            codes_of("w", UINT8, &[3, 4], &some_bytes(12)),
            floats("s", &[3], &[0.25, 0.5, 1.0]),
            codes_of("z", UINT8, &[3], &[0, 128, 255]),
        ]),
        case("one_scale_in_a_list", &[2, 3], through("MatMul")).constants([
            codes_of("w", INT8, &[3, 4], &some_bytes(12)),
            floats("s", &[], &[0.25]),
            codes_of("z", INT8, &[], &[0xfd]),
        ]),
        case("unsigned_blocks_of_4_bits", &[2, 4], through("MatMul"))
            .opset(21)
            .constants([
                codes_of("w", UINT4, &[4, 3], &some_bytes(6)),
                floats("s", &[2, 3], &[0.25, 0.5, 1.0, 2.0, 0.125, 3.0]),
                codes_of("z", UINT4, &[2, 3], &[0x80, 0xf3, 0x17]),
            ])
            .blocks(2),
        case(
            "bias_in_32_bits",
            &[2, 3],
            vec![
                node("DequantizeLinear", &["w", "s"], "float", &[int("axis", 0)]),
                add(),
            ],
        )
        .constants([
            codes_of("w", INT32, &[3], &biases),
            floats("s", &[3], &[1e-4, 0.25, 1e-5]),
        ]),
        case(
            "weights_quantized_in_the_model",
            &[2, 3],
            vec![
                node(
                    "QuantizeLinear",
                    &["v", "s", "z"],
                    "codes",
                    &[int("axis", 1)],
                ),
                node(
                    "DequantizeLinear",
                    &["codes", "s", "z"],
                    "floats",
                    &[int("axis", 1)],
                ),
                node("MatMul", &["x", "floats"], "y", &[]),
            ],
        )
        .constants([
            weights("v", &[3, 2]),
            floats("s", &[2], &[0.01, 0.005]),
            codes_of("z", UINT8, &[2], &[128, 100]),
        ]),
        case(
            "signed_activations",
            &[2, 3],
            vec![
                node("QuantizeLinear", &["x", "s", "z"], "codes", &[]),
                node("DequantizeLinear", &["codes", "s", "z"], "y", &[]),
            ],
        )
        .constants([
            floats("s", &[], &[0.011]),
            codes_of("z", INT8, &[], &[0xf6]),
        ]),
        case(
            "activations_without_zero_point",
            &[2, 3],
            vec![
                node("QuantizeLinear", &["x", "s"], "codes", &[]),
                node("DequantizeLinear", &["codes", "s"], "y", &[]),
            ],
        )
        .constants([floats("s", &[], &[0.011])]),
        // Five entries are no palette of whole bits.
        case(
            "small_table",
            &[2, 3],
            vec![
                node("Cast", &["w"], "indices", &[int("to", i64::from(INT64))]),
                node("Gather", &["table", "indices"], "float", &[]),
                add(),
            ],
        )
        .constants([
            codes_of("w", UINT8, &[2, 3], &[4, 0, 1, 3, 2, 4]),
            weights("table", &[5]),
        ]),
        case(
            "bits_of_bytes",
            &[2, 3],
            vec![
                node(
                    "BitShift",
                    &["w", "by"],
                    "low",
                    &[string("direction", "RIGHT")],
                ),
                node(
                    "BitShift",
                    &["w", "by"],
                    "high",
                    &[string("direction", "LEFT")],
                ),
                node("BitwiseOr", &["low", "high"], "either", &[]),
                node("BitwiseAnd", &["either", "mask"], "part", &[]),
                node("Cast", &["part"], "float", &[int("to", i64::from(FLOAT))]),
                add(),
            ],
        )
        .opset(18)
        .constants([
            codes_of("w", UINT8, &[2, 3], &some_bytes(6)),
            codes_of("by", UINT8, &[3], &[1, 3, 7]),
            codes_of("mask", UINT8, &[], &[0x5a]),
        ]),
    ]
}

#[test]
fn operators_are_read_as_onnx_runtime_computes_them() {
    let groups = [
        elementwise(),
        movement(),
        compute(),
        norms(),
        constants(),
        codes(),
    ];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    let dir = tempfile::tempdir().unwrap();
    let path = |case: &Case| {
        dir.path()
            .join(format!("{}.{}.onnx", case.name, case.opset))
    };
    let graphs: Vec<Graph> = cases.iter().map(|case| case.read(&path(case))).collect();
    let calls = cases.iter().map(|case| Call {
        model: path(case),
        inputs: case.inputs(),
    });
    let expected = run_onnx(&calls.collect::<Vec<_>>(), dir.path());
    for ((case, graph), expected) in cases.iter().zip(&graphs).zip(&expected) {
        let found = eval::run(graph, &case.inputs()).unwrap();
        if case.y == INT64 {
            assert_eq!(found["y"], expected["y"], "{}", case.name);
            continue;
        }
        let db = psnr(&expected["y"], &found["y"]);
        assert!(db >= 120.0, "{}: {db:.1} dB", case.name);
    }
}
