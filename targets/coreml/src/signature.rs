//! Signatures of the operations that packages may hold: parameters, their kinds, since when, and which must be written.
//!
//! From coremltools' operation definitions (`converters/mil/mil/ops/defs/iOS15` to `iOS18`), with one difference: what
//! coremltools calls optional must be written here unless the system's own parser accepts its absence.

use crate::level::Level;
use crate::proto::DataType;

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value of one of these element types, constant or not.
    Tensor(&'static [DataType]),
    /// One or more values of one of these element types.
    Tuple(&'static [DataType]),
    /// A constant of one of these element types.
    Constant(&'static [DataType]),
    /// A value of one of these element types, which must be constant before iOS 17.
    ConstantBefore17(&'static [DataType]),
    /// A constant of one of these element types without dimensions.
    Scalar(&'static [DataType]),
    /// A constant of this element type with one dimension.
    Vector(DataType),
    /// A constant vector with one element per dimension of `x`.
    PerDimension(DataType),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A parameter of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be written.
    pub required: bool,
    /// The first level that knows it.
    pub since: Level,
}

/// Element type of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultType {
    /// That of a parameter.
    Of(&'static str),
    /// Always this one.
    Always(DataType),
    /// The one that the parameter `dtype` names.
    Named,
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signature {
    /// Its name.
    pub operation: &'static str,
    /// The first level that knows it.
    pub since: Level,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Parameters that must have one element type.
    pub same_type: &'static [&'static str],
    /// Parameters that must have the element type of `x` too before iOS 17.
    pub same_type_before_17: &'static [&'static str],
    /// Element type of its result.
    pub result: ResultType,
    /// Largest rank of `x`.
    pub max_rank: usize,
}

const FLOAT: &[DataType] = &[DataType::Float16, DataType::Float32];
const NUMBER: &[DataType] = &[DataType::Float16, DataType::Float32, DataType::Int32];
const ANY: &[DataType] = &[
    DataType::Float16,
    DataType::Float32,
    DataType::Int32,
    DataType::Bool,
];
const INT: &[DataType] = &[DataType::Int32];
const CODE: &[DataType] = &[DataType::UInt8];
const BOOL: &[DataType] = &[DataType::Bool];
const FACTOR: &[DataType] = &[DataType::Float32, DataType::Int32];
const MASK: &[DataType] = &[DataType::Float16, DataType::Float32, DataType::Bool];

/// Largest rank of any value.
pub(crate) const MAX_RANK: usize = 5;

const fn required(name: &'static str, kind: Kind) -> Parameter {
    since(Level::Ios16, name, kind)
}

const fn since(since: Level, name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        required: true,
        since,
    }
}

const fn omittable(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        required: false,
        since: Level::Ios16,
    }
}

const X_ALONE: &[Parameter] = &[required("x", Kind::Tensor(FLOAT))];
const X_AND_Y: &[Parameter] = &[
    required("x", Kind::Tensor(NUMBER)),
    required("y", Kind::Tensor(NUMBER)),
];

const fn signature(operation: &'static str, parameters: &'static [Parameter]) -> Signature {
    Signature {
        operation,
        since: Level::Ios16,
        parameters,
        same_type: &[],
        same_type_before_17: &[],
        result: ResultType::Of("x"),
        max_rank: MAX_RANK,
    }
}

const fn binary(operation: &'static str, result: ResultType) -> Signature {
    Signature {
        same_type: &["x", "y"],
        result,
        ..signature(operation, X_AND_Y)
    }
}

const fn unary(operation: &'static str) -> Signature {
    signature(operation, X_ALONE)
}

/// Every operation that packages may hold, besides `const` and the compressed constants.
pub(crate) const SIGNATURES: &[Signature] = &[
    binary("add", ResultType::Of("x")),
    binary("sub", ResultType::Of("x")),
    binary("mul", ResultType::Of("x")),
    binary("real_div", ResultType::Of("x")),
    binary("equal", ResultType::Always(DataType::Bool)),
    unary("cos"),
    unary("sin"),
    unary("exp"),
    unary("erf"),
    unary("sqrt"),
    unary("sigmoid"),
    unary("silu"),
    unary("round"),
    Signature {
        same_type: &["x", "alpha", "beta"],
        ..signature(
            "clip",
            &[
                required("x", Kind::Tensor(FLOAT)),
                required("alpha", Kind::Scalar(FLOAT)),
                required("beta", Kind::Scalar(FLOAT)),
            ],
        )
    },
    signature("identity", &[required("x", Kind::Tensor(ANY))]),
    signature(
        "gelu",
        &[
            required("x", Kind::Tensor(FLOAT)),
            required(
                "mode",
                Kind::Word(&["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"]),
            ),
        ],
    ),
    Signature {
        result: ResultType::Named,
        ..signature(
            "cast",
            &[
                required("x", Kind::Tensor(ANY)),
                required("dtype", Kind::Word(&["fp16", "fp32", "int32", "bool"])),
            ],
        )
    },
    Signature {
        same_type: &["values"],
        result: ResultType::Of("values"),
        ..signature(
            "einsum",
            &[
                required("values", Kind::Tuple(FLOAT)),
                required(
                    "equation",
                    Kind::Word(&["bkhc,bchq->bkhq", "bchk,bkhq->bchq"]),
                ),
            ],
        )
    },
    signature(
        "softmax",
        &[
            required("x", Kind::Tensor(FLOAT)),
            required("axis", Kind::Scalar(INT)),
        ],
    ),
    signature(
        "reduce_mean",
        &[
            required("x", Kind::Tensor(NUMBER)),
            required("axes", Kind::Vector(DataType::Int32)),
            required("keep_dims", Kind::Scalar(BOOL)),
        ],
    ),
    Signature {
        result: ResultType::Always(DataType::Int32),
        ..signature(
            "reduce_argmax",
            &[
                required("x", Kind::Tensor(NUMBER)),
                required("axis", Kind::Scalar(INT)),
                required("keep_dims", Kind::Scalar(BOOL)),
                since(Level::Ios17, "output_dtype", Kind::Word(&["int32"])),
            ],
        )
    },
    Signature {
        same_type: &["x", "y"],
        ..signature(
            "matmul",
            &[
                required("x", Kind::Tensor(NUMBER)),
                required("y", Kind::Tensor(NUMBER)),
                required("transpose_x", Kind::Scalar(BOOL)),
                required("transpose_y", Kind::Scalar(BOOL)),
            ],
        )
    },
    Signature {
        same_type_before_17: &["weight", "bias"],
        ..signature(
            "conv",
            &[
                required("x", Kind::Tensor(FLOAT)),
                required("weight", Kind::Tensor(FLOAT)),
                omittable("bias", Kind::ConstantBefore17(FLOAT)),
                required("strides", Kind::Vector(DataType::Int32)),
                required(
                    "pad_type",
                    Kind::Word(&["valid", "same", "same_lower", "custom"]),
                ),
                required("pad", Kind::Vector(DataType::Int32)),
                required("dilations", Kind::Vector(DataType::Int32)),
                required("groups", Kind::Scalar(INT)),
            ],
        )
    },
    Signature {
        same_type_before_17: &["weight", "bias"],
        max_rank: 3,
        ..signature(
            "linear",
            &[
                required("x", Kind::Tensor(FLOAT)),
                required("weight", Kind::Constant(FLOAT)),
                required("bias", Kind::Constant(FLOAT)),
            ],
        )
    },
    Signature {
        same_type_before_17: &["gamma", "beta", "epsilon"],
        ..signature(
            "layer_norm",
            &[
                required("x", Kind::Tensor(FLOAT)),
                required("axes", Kind::Vector(DataType::Int32)),
                omittable("gamma", Kind::Constant(FLOAT)),
                omittable("beta", Kind::Constant(FLOAT)),
                required("epsilon", Kind::Scalar(FLOAT)),
            ],
        )
    },
    Signature {
        since: Level::Ios18,
        same_type: &["query", "key", "value"],
        result: ResultType::Of("query"),
        ..signature(
            "scaled_dot_product_attention",
            &[
                required("query", Kind::Tensor(FLOAT)),
                required("key", Kind::Tensor(FLOAT)),
                required("value", Kind::Tensor(FLOAT)),
                omittable("attn_mask", Kind::Tensor(MASK)),
            ],
        )
    },
    Signature {
        since: Level::Ios17,
        same_type: &["input", "scale"],
        result: ResultType::Always(DataType::UInt8),
        ..signature(
            "quantize",
            &[
                required("input", Kind::Tensor(FLOAT)),
                required("scale", Kind::Scalar(FLOAT)),
                required("zero_point", Kind::Scalar(CODE)),
                required("output_dtype", Kind::Word(&["uint8"])),
            ],
        )
    },
    Signature {
        since: Level::Ios17,
        same_type: &["input", "zero_point"],
        result: ResultType::Of("scale"),
        ..signature(
            "dequantize",
            &[
                required("input", Kind::Tensor(CODE)),
                required("scale", Kind::Scalar(FLOAT)),
                required("zero_point", Kind::Scalar(CODE)),
            ],
        )
    },
    signature(
        "reshape",
        &[
            required("x", Kind::Tensor(ANY)),
            required("shape", Kind::Vector(DataType::Int32)),
        ],
    ),
    signature(
        "squeeze",
        &[
            required("x", Kind::Tensor(ANY)),
            required("axes", Kind::Vector(DataType::Int32)),
        ],
    ),
    signature(
        "transpose",
        &[
            required("x", Kind::Tensor(ANY)),
            required("perm", Kind::PerDimension(DataType::Int32)),
        ],
    ),
    Signature {
        same_type: &["values"],
        result: ResultType::Of("values"),
        ..signature(
            "concat",
            &[
                required("values", Kind::Tuple(ANY)),
                required("axis", Kind::Scalar(INT)),
                required("interleave", Kind::Scalar(BOOL)),
            ],
        )
    },
    signature(
        "slice_by_index",
        &[
            required("x", Kind::Tensor(ANY)),
            required("begin", Kind::PerDimension(DataType::Int32)),
            required("end", Kind::PerDimension(DataType::Int32)),
            required("stride", Kind::PerDimension(DataType::Int32)),
            omittable("begin_mask", Kind::PerDimension(DataType::Bool)),
            omittable("end_mask", Kind::PerDimension(DataType::Bool)),
            omittable("squeeze_mask", Kind::PerDimension(DataType::Bool)),
        ],
    ),
    signature(
        "gather",
        &[
            required("x", Kind::Tensor(ANY)),
            required("indices", Kind::Tensor(INT)),
            required("axis", Kind::Scalar(INT)),
            required("batch_dims", Kind::Scalar(INT)),
            since(Level::Ios17, "validate_indices", Kind::Scalar(BOOL)),
        ],
    ),
    Signature {
        same_type: &["scale_factor_height", "scale_factor_width"],
        ..signature(
            "upsample_nearest_neighbor",
            &[
                required("x", Kind::Tensor(FLOAT)),
                required("scale_factor_height", Kind::Scalar(FACTOR)),
                required("scale_factor_width", Kind::Scalar(FACTOR)),
            ],
        )
    },
];

/// The signature of an operation.
pub(crate) fn find(operation: &str) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|s| s.operation == operation)
}

impl Signature {
    /// The parameter of that name at a level.
    pub(crate) fn parameter(&self, name: &str, level: Level) -> Option<&'static Parameter> {
        self.parameters
            .iter()
            .find(|p| p.name == name && p.since <= level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn operations_and_parameters_are_unique_and_refer_to_each_other() {
        let mut operations = BTreeSet::new();
        for s in SIGNATURES {
            assert!(
                operations.insert(s.operation),
                "{} stands twice",
                s.operation
            );
            let names: BTreeSet<&str> = s.parameters.iter().map(|p| p.name).collect();
            assert_eq!(names.len(), s.parameters.len(), "{}", s.operation);
            let mut referred = s.same_type.to_vec();
            referred.extend(s.same_type_before_17);
            if let ResultType::Of(name) = s.result {
                referred.push(name);
            }
            assert!(
                referred.iter().all(|n| names.contains(n)),
                "{}",
                s.operation
            );
        }
    }
}
