//! The messages of Core ML's model format that an ML Program uses.
//!
//! Field numbers are those of coremltools' `mlmodel/format/{Model,FeatureTypes,MIL}.proto`; fields and alternatives that
//! an ML Program does not use are left out, which does not change the bytes of those that stand. Maps are ordered, so
//! that equal messages encode to equal bytes.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// A model file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int32, tag = "1")]
    pub specification_version: i32,
    #[prost(message, optional, tag = "2")]
    pub description: Option<ModelDescription>,
    #[prost(message, optional, tag = "502")]
    pub ml_program: Option<Program>,
}

/// What a model looks like from outside.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelDescription {
    #[prost(message, repeated, tag = "1")]
    pub input: Vec<FeatureDescription>,
    #[prost(message, repeated, tag = "10")]
    pub output: Vec<FeatureDescription>,
    #[prost(message, repeated, tag = "20")]
    pub functions: Vec<FunctionDescription>,
    #[prost(string, tag = "21")]
    pub default_function_name: String,
    #[prost(message, optional, tag = "100")]
    pub metadata: Option<Metadata>,
}

/// What a function of a model with several of them looks like from outside.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FunctionDescription {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub input: Vec<FeatureDescription>,
    #[prost(message, repeated, tag = "3")]
    pub output: Vec<FeatureDescription>,
}

/// An input or output.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FeatureDescription {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub short_description: String,
    #[prost(message, optional, tag = "3")]
    pub ty: Option<FeatureType>,
}

/// Facts for people.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(string, tag = "1")]
    pub short_description: String,
    #[prost(string, tag = "2")]
    pub version_string: String,
    #[prost(string, tag = "3")]
    pub author: String,
    #[prost(string, tag = "4")]
    pub license: String,
    #[prost(btree_map = "string, string", tag = "100")]
    pub user_defined: BTreeMap<String, String>,
}

/// Type of a feature; only multi-arrays and images are used, of which it has one.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FeatureType {
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageFeatureType>,
    #[prost(message, optional, tag = "5")]
    pub multi_array: Option<ArrayFeatureType>,
    #[prost(bool, tag = "1000")]
    pub is_optional: bool,
}

/// Shape and element type of a multi-array.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ArrayFeatureType {
    #[prost(int64, repeated, tag = "1")]
    pub shape: Vec<i64>,
    #[prost(enumeration = "ArrayDataType", tag = "2")]
    pub data_type: i32,
}

/// Size and channels of an image.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImageFeatureType {
    #[prost(int64, tag = "1")]
    pub width: i64,
    #[prost(int64, tag = "2")]
    pub height: i64,
    #[prost(enumeration = "ColorSpace", tag = "3")]
    pub color_space: i32,
}

/// Channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(crate) enum ColorSpace {
    Invalid = 0,
    Grayscale = 10,
    Rgb = 20,
    Bgr = 30,
    GrayscaleFloat16 = 40,
}

/// Element type of a multi-array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(crate) enum ArrayDataType {
    Invalid = 0,
    Float16 = 65552,
    Float32 = 65568,
    Double = 65600,
    Int32 = 131_104,
    Int8 = 131_080,
}

/// A program in the Model Intermediate Language (MIL).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Program {
    #[prost(int64, tag = "1")]
    pub version: i64,
    #[prost(btree_map = "string, message", tag = "2")]
    pub functions: BTreeMap<String, Function>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub attributes: BTreeMap<String, Value>,
}

/// A function with its body for one opset.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<NamedValueType>,
    #[prost(string, tag = "2")]
    pub opset: String,
    #[prost(btree_map = "string, message", tag = "3")]
    pub block_specializations: BTreeMap<String, Block>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub attributes: BTreeMap<String, Value>,
}

/// Operations in topological order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Block {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<NamedValueType>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub operations: Vec<Operation>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub attributes: BTreeMap<String, Value>,
}

/// An operation.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Operation {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(btree_map = "string, message", tag = "2")]
    pub inputs: BTreeMap<String, Argument>,
    #[prost(message, repeated, tag = "3")]
    pub outputs: Vec<NamedValueType>,
    #[prost(message, repeated, tag = "4")]
    pub blocks: Vec<Block>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub attributes: BTreeMap<String, Value>,
}

/// What a parameter is given: one binding, or several for a tuple.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Argument {
    #[prost(message, repeated, tag = "1")]
    pub arguments: Vec<Binding>,
}

/// A reference to a value, or a value in place.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Binding {
    #[prost(oneof = "Bound", tags = "1, 2")]
    pub bound: Option<Bound>,
}

/// The alternatives of [`Binding`].
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Bound {
    #[prost(string, tag = "1")]
    Name(String),
    #[prost(message, tag = "2")]
    Value(Value),
}

/// A name and its type.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NamedValueType {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub ty: Option<ValueType>,
}

/// Type of a value; only tensors are used.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueType {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

/// Element type and dimensions.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(enumeration = "DataType", tag = "1")]
    pub data_type: i32,
    #[prost(int64, tag = "2")]
    pub rank: i64,
    #[prost(message, repeated, tag = "3")]
    pub dimensions: Vec<Dimension>,
}

/// One dimension.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(oneof = "Extent", tags = "1, 2")]
    pub extent: Option<Extent>,
}

/// The alternatives of [`Dimension`].
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Extent {
    #[prost(message, tag = "1")]
    Constant(ConstantDimension),
    #[prost(message, tag = "2")]
    Unknown(UnknownDimension),
}

/// A size known in advance.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ConstantDimension {
    #[prost(uint64, tag = "1")]
    pub size: u64,
}

/// A size not known in advance.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct UnknownDimension {
    #[prost(bool, tag = "1")]
    pub variadic: bool,
}

/// Element type in MIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum DataType {
    Unused = 0,
    Bool = 1,
    String = 2,
    Float16 = 10,
    Float32 = 11,
    Float64 = 12,
    BFloat16 = 13,
    Int8 = 21,
    Int16 = 22,
    Int32 = 23,
    Int64 = 24,
    Int4 = 25,
    UInt8 = 31,
    UInt16 = 32,
    UInt32 = 33,
    UInt64 = 34,
    UInt4 = 35,
    UInt2 = 36,
    UInt1 = 37,
    UInt6 = 38,
    UInt3 = 39,
}

/// A constant: in place, or in the weight file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(message, optional, tag = "2")]
    pub ty: Option<ValueType>,
    #[prost(oneof = "Content", tags = "3, 5")]
    pub content: Option<Content>,
}

/// The alternatives of [`Value`].
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Content {
    #[prost(message, tag = "3")]
    Immediate(ImmediateValue),
    #[prost(message, tag = "5")]
    BlobFile(BlobFileValue),
}

/// A constant in place; only tensors are used.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ImmediateValue {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorValue>,
}

/// A constant in the weight file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BlobFileValue {
    #[prost(string, tag = "1")]
    pub file_name: String,
    /// Where the blob's metadata begins, 64 bytes before the data.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// Elements of a tensor in place.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorValue {
    #[prost(oneof = "Elements", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub elements: Option<Elements>,
}

/// The alternatives of [`TensorValue`].
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Elements {
    #[prost(message, tag = "1")]
    Floats(RepeatedFloats),
    #[prost(message, tag = "2")]
    Ints(RepeatedInts),
    #[prost(message, tag = "3")]
    Bools(RepeatedBools),
    #[prost(message, tag = "4")]
    Strings(RepeatedStrings),
    #[prost(message, tag = "5")]
    LongInts(RepeatedLongInts),
    #[prost(message, tag = "6")]
    Doubles(RepeatedDoubles),
    #[prost(message, tag = "7")]
    Bytes(RepeatedBytes),
}

/// f32 elements.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedFloats {
    #[prost(float, repeated, tag = "1")]
    pub values: Vec<f32>,
}

/// i32 elements.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedInts {
    #[prost(int32, repeated, tag = "1")]
    pub values: Vec<i32>,
}

/// Truth values.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedBools {
    #[prost(bool, repeated, tag = "1")]
    pub values: Vec<bool>,
}

/// Strings.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedStrings {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// i64 elements.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedLongInts {
    #[prost(int64, repeated, tag = "1")]
    pub values: Vec<i64>,
}

/// f64 elements.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedDoubles {
    #[prost(double, repeated, tag = "1")]
    pub values: Vec<f64>,
}

/// Elements of types without a list of their own (fp16, int8, uint8, uint32), little-endian.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepeatedBytes {
    #[prost(bytes = "vec", tag = "1")]
    pub values: Vec<u8>,
}

/// The value type of a tensor with these dimensions; rank and dimensions stay unset for a scalar.
pub(crate) fn tensor_type(dtype: DataType, shape: &[usize]) -> ValueType {
    let dimension = |&size: &usize| Dimension {
        extent: Some(Extent::Constant(ConstantDimension { size: size as u64 })),
    };
    ValueType {
        tensor: Some(TensorType {
            data_type: dtype as i32,
            rank: shape.len() as i64,
            dimensions: shape.iter().map(dimension).collect(),
        }),
    }
}

/// A constant in place.
pub(crate) fn immediate(dtype: DataType, shape: &[usize], elements: Elements) -> Value {
    Value {
        ty: Some(tensor_type(dtype, shape)),
        content: Some(Content::Immediate(ImmediateValue {
            tensor: Some(TensorValue {
                elements: Some(elements),
            }),
        })),
    }
}

/// A string in place.
pub(crate) fn string(text: &str) -> Value {
    let values = vec![text.to_owned()];
    immediate(
        DataType::String,
        &[],
        Elements::Strings(RepeatedStrings { values }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wire bytes put together by hand from the protobuf encoding rules.
    #[test]
    fn messages_have_the_field_numbers_of_the_format() {
        let model = Model {
            specification_version: 8,
            description: None,
            ml_program: Some(Program {
                version: 1,
                ..Program::default()
            }),
        };
        // 1: varint 8; 502: length-delimited (502 << 3 | 2 = 0xFB2), 2 bytes: 1: varint 1.
        assert_eq!(model.encode_to_vec(), [0x08, 8, 0xB2, 0x1F, 2, 0x08, 1]);
        let scalar = tensor_type(DataType::Float16, &[]);
        assert_eq!(scalar.encode_to_vec(), [0x0A, 2, 0x08, 10]);
        let vector = tensor_type(DataType::Int32, &[2]);
        assert_eq!(
            vector.encode_to_vec(),
            [0x0A, 10, 0x08, 23, 0x10, 1, 0x1A, 4, 0x0A, 2, 0x08, 2]
        );
        let value = Value {
            ty: None,
            content: Some(Content::BlobFile(BlobFileValue {
                file_name: "w".to_owned(),
                offset: 64,
            })),
        };
        assert_eq!(value.encode_to_vec(), [0x2A, 5, 0x0A, 1, b'w', 0x10, 64]);
    }

    #[test]
    fn packed_lists_and_bytes_are_told_apart() {
        let ints = Elements::Ints(RepeatedInts { values: vec![1, 2] });
        let value = immediate(DataType::Int32, &[2], ints);
        let bytes = value.encode_to_vec();
        // … 3: immediate, 1: tensor, 2: ints, 1: packed 01 02.
        assert!(bytes.ends_with(&[0x1A, 8, 0x0A, 6, 0x12, 4, 0x0A, 2, 1, 2]));
    }
}
