//! The messages of `onnx.proto` (proto2) that snapc writes and reads, with the fields it uses.
//!
//! Names, field numbers and presence are those of the ONNX schema; unknown fields are skipped when decoding. Fields
//! are encoded in the order of their numbers, so equal messages have equal bytes.

use prost::bytes::Bytes;
use snapc_ir::{DType, Dim, TensorType};

/// `TensorProto.DataType.FLOAT`
pub const FLOAT: i32 = 1;
/// `TensorProto.DataType.INT32`
pub const INT32: i32 = 6;
/// `TensorProto.DataType.UINT8`
pub const UINT8: i32 = 2;
/// `TensorProto.DataType.INT8`
pub const INT8: i32 = 3;
/// `TensorProto.DataType.INT64`
pub const INT64: i32 = 7;
/// `TensorProto.DataType.BOOL`
pub const BOOL: i32 = 9;
/// `TensorProto.DataType.FLOAT16`
pub const FLOAT16: i32 = 10;
/// `TensorProto.DataType.DOUBLE`; read, never written.
pub const DOUBLE: i32 = 11;
/// `TensorProto.DataType.BFLOAT16`
pub const BFLOAT16: i32 = 16;

/// `TensorProto.DataType.UINT4`: two elements per byte, the first in the lower half.
pub const UINT4: i32 = 21;
/// `TensorProto.DataType.INT4`, as `UINT4`.
pub const INT4: i32 = 22;

/// `TensorProto.DataLocation.EXTERNAL`
pub const EXTERNAL: i32 = 1;

/// `AttributeProto.AttributeType.FLOAT`
pub const ATTRIBUTE_FLOAT: i32 = 1;
/// `AttributeProto.AttributeType.INT`
pub const ATTRIBUTE_INT: i32 = 2;
/// `AttributeProto.AttributeType.STRING`
pub const ATTRIBUTE_STRING: i32 = 3;
/// `AttributeProto.AttributeType.TENSOR`; read, never written.
pub const ATTRIBUTE_TENSOR: i32 = 4;
/// `AttributeProto.AttributeType.FLOATS`; read, never written.
pub const ATTRIBUTE_FLOATS: i32 = 6;
/// `AttributeProto.AttributeType.INTS`
pub const ATTRIBUTE_INTS: i32 = 7;

/// Name of the symbolic dimension that stands for [`Dim::Batch`].
pub const BATCH_DIM: &str = "batch";

/// The `TensorProto.DataType` of an element type.
pub fn data_type(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => FLOAT,
        DType::F16 => FLOAT16,
        DType::BF16 => BFLOAT16,
        DType::I32 => INT32,
        DType::I64 => INT64,
        DType::Bool => BOOL,
        DType::I8 => INT8,
        DType::U8 => UINT8,
    }
}

/// The element type of a `TensorProto.DataType`; `None` for those that snapc never writes.
pub fn element_type(data_type: i32) -> Option<DType> {
    DType::ALL
        .into_iter()
        .find(|&d| self::data_type(d) == data_type)
}

/// A model: a graph and the operator set it is written in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProto {
    /// Version of the ONNX IR.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// The tool that wrote the model.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// Its version.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Operator sets that the nodes refer to.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
}

/// An operator set and its version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetIdProto {
    /// Domain; empty for the ONNX operators.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// Version.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// Nodes in topological order and the tensors they start from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GraphProto {
    /// Nodes; each uses only values defined before it.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// Name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Constant tensors.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Inputs in order.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// Outputs in order.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of values in between.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
}

/// An operator applied to named values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeProto {
    /// Values it uses; an empty name leaves out an optional one.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Values it defines.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// Operator.
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// Attributes.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// Domain of the operator; empty for the ONNX operators.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
}

/// A named attribute: exactly one of the value fields, said by `kind`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// A float.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// An integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// A string.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    /// A tensor.
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<TensorProto>>,
    /// Floats.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Which field holds the value (`type` in the schema).
    #[prost(int32, optional, tag = "20")]
    pub kind: Option<i32>,
}

/// A constant tensor, its bytes inline or in another file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// Dimensions.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// `DataType`.
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Elements of `FLOAT`, when there is no raw data; read, never written, like the other typed lists.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of `INT32`, `BOOL`, and the bits of `FLOAT16` and `BFLOAT16`.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of `INT64`.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Name of the value it defines.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// Bytes, little-endian and row-major; a part of the decoded buffer.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Elements of `DOUBLE`.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// `location`, `offset` and `length` when the bytes are in another file.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// Where the bytes are.
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntryProto {
    /// Key.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    /// Value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// Name and type of a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfoProto {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Type (`type` in the schema).
    #[prost(message, optional, tag = "2")]
    pub ty: Option<TypeProto>,
}

impl ValueInfoProto {
    /// A tensor of that name and type.
    pub fn tensor(name: &str, ty: &TensorType) -> Self {
        let dim = ty.shape.dims().iter().map(|&d| Dimension {
            value: Some(d.into()),
        });
        let tensor = TensorTypeProto {
            elem_type: Some(data_type(ty.dtype)),
            shape: Some(TensorShapeProto { dim: dim.collect() }),
        };
        ValueInfoProto {
            name: Some(name.to_owned()),
            ty: Some(TypeProto {
                tensor_type: Some(tensor),
            }),
        }
    }
}

/// A type; snapc knows only tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    /// A dense tensor; member of the schema's `value` oneof.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

/// `TypeProto.Tensor`: element type and shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorTypeProto {
    /// `DataType`.
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// Dimensions, outermost first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    /// Dimensions.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    /// Size or symbol.
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
}

/// The `value` oneof of a dimension.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum DimensionValue {
    /// A fixed size.
    #[prost(int64, tag = "1")]
    Size(i64),
    /// A symbol; equal symbols mean equal sizes.
    #[prost(string, tag = "2")]
    Symbol(String),
}

impl From<Dim> for DimensionValue {
    fn from(dim: Dim) -> Self {
        match dim {
            Dim::Fixed(n) => DimensionValue::Size(n as i64),
            Dim::Batch => DimensionValue::Symbol(BATCH_DIM.to_owned()),
        }
    }
}
