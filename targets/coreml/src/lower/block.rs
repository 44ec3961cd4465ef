//! A block under construction: operations, their names, and the constants they take.

use std::collections::BTreeMap;

use half::f16;
use prost::Message;
use snapc_ir::{DType, LazyTensor, WeightError};

use crate::blob::{self, WeightFile};
use crate::compressed::{Compressed, Stored};
use crate::level::Level;
use crate::names::Names;
use crate::proto::{
    self, Argument, Binding, BlobFileValue, Bound, Content, DataType, Elements, NamedValueType,
    Operation, RepeatedBools, RepeatedBytes, RepeatedFloats, RepeatedInts, Value,
};

/// Arrays of fewer elements stand in the model file, as coremltools puts them.
const MIN_BLOB_ELEMENTS: usize = 10;

/// A value of the program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mil {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
}

/// The element type in MIL; `None` for those that no program here holds (bfloat16, 64-bit integers).
pub(crate) fn data_type(dtype: DType) -> Option<DataType> {
    match dtype {
        DType::F16 => Some(DataType::Float16),
        DType::F32 => Some(DataType::Float32),
        DType::I32 => Some(DataType::Int32),
        DType::Bool => Some(DataType::Bool),
        DType::I8 => Some(DataType::Int8),
        DType::U8 => Some(DataType::UInt8),
        DType::BF16 | DType::I64 => None,
    }
}

fn mil_type(dtype: DType, shape: &[usize]) -> proto::ValueType {
    let dtype = data_type(dtype).expect("the driver refuses element types that MIL lacks");
    proto::tensor_type(dtype, shape)
}

/// The operations so far.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    level: Level,
    /// Names given out.
    pub names: Names,
    operations: Vec<Operation>,
    /// Names of the constants in place, by parameter and encoded value.
    constants: BTreeMap<(&'static str, Vec<u8>), String>,
    weights: WeightFile,
}

impl BlockBuilder {
    /// An empty block, whose weights join those of `weights`.
    pub(crate) fn new(level: Level, weights: WeightFile) -> Self {
        BlockBuilder {
            level,
            names: Names::default(),
            operations: Vec::new(),
            constants: BTreeMap::new(),
            weights,
        }
    }

    /// The operations, and the weights they refer to.
    pub(crate) fn finish(self) -> (Vec<Operation>, WeightFile) {
        (self.operations, self.weights)
    }

    /// Begins an operation.
    pub(crate) fn operation(&mut self, kind: &'static str) -> OperationBuilder<'_> {
        OperationBuilder {
            block: self,
            kind,
            inputs: BTreeMap::new(),
        }
    }

    /// Adds a constant tensor, in the weight file when it is large enough.
    ///
    /// # Errors
    /// When the data of a small constant cannot be made.
    pub(crate) fn weight(&mut self, name: &str, tensor: &LazyTensor) -> Result<Mil, WeightError> {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let stored = Stored {
            dtype: data_type(dtype).expect("the driver refuses element types that MIL lacks"),
            shape: shape.clone(),
            bytes: tensor.clone(),
        };
        let value = self.value(name, &stored)?;
        let name = self.names.fresh(name);
        self.push_const(name.clone(), value);
        Ok(Mil { name, dtype, shape })
    }

    /// Adds an encoded weight whose values are of type `dtype`.
    ///
    /// # Errors
    /// When the data of a small part cannot be made.
    pub(crate) fn compressed(
        &mut self,
        name: &str,
        tensor: &LazyTensor,
        form: &Compressed,
    ) -> Result<Mil, WeightError> {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let mut parameters = Vec::new();
        for (parameter, stored) in &form.parameters {
            parameters.push(((*parameter).to_owned(), self.value(name, stored)?));
        }
        let name = self.names.fresh(name);
        let mut operation = Operation {
            kind: form.operation.to_owned(),
            outputs: vec![NamedValueType {
                name: name.clone(),
                ty: Some(mil_type(dtype, &shape)),
            }],
            attributes: BTreeMap::from([("name".to_owned(), proto::string(&name))]),
            ..Operation::default()
        };
        if self.level < Level::Ios18 {
            operation.attributes.extend(parameters);
        } else {
            operation.inputs.extend(parameters.into_iter().map(in_line));
        }
        self.operations.push(operation);
        Ok(Mil { name, dtype, shape })
    }

    /// A constant, in the weight file when it is large enough.
    fn value(&mut self, name: &str, stored: &Stored) -> Result<Value, WeightError> {
        let is_large = stored.elements() >= MIN_BLOB_ELEMENTS;
        let content = if is_large && self.has_blobs_of(stored.dtype) {
            Content::BlobFile(BlobFileValue {
                file_name: blob::FILE_NAME.to_owned(),
                offset: self.weights.add(name, stored),
            })
        } else {
            in_place(stored)?
        };
        Ok(Value {
            ty: Some(proto::tensor_type(stored.dtype, &stored.shape)),
            content: Some(content),
        })
    }

    /// Whether arrays of an element type may stand in the weight file, as coremltools decides it.
    fn has_blobs_of(&self, dtype: DataType) -> bool {
        match dtype {
            DataType::Float16 | DataType::Float32 | DataType::Int8 | DataType::UInt8 => true,
            _ => self.level >= Level::Ios18 && blob::code_and_bits(dtype).is_some(),
        }
    }

    fn push_const(&mut self, name: String, value: Value) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), proto::string(&name)),
            ("val".to_owned(), value.clone()),
        ]);
        let outputs = vec![NamedValueType { name, ty: value.ty }];
        self.operations.push(Operation {
            kind: "const".to_owned(),
            outputs,
            attributes,
            ..Operation::default()
        });
    }

    /// The constant of that value for a parameter; equal ones are shared.
    fn parameter(&mut self, parameter: &'static str, value: Value) -> String {
        let key = (parameter, value.encode_to_vec());
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.names.fresh(&format!("{parameter}_0"));
        self.constants.insert(key, name.clone());
        self.push_const(name.clone(), value);
        name
    }
}

/// A parameter that is bound to a constant in place.
fn in_line((parameter, value): (String, Value)) -> (String, Argument) {
    let bound = Some(Bound::Value(value));
    let arguments = vec![Binding { bound }];
    (parameter, Argument { arguments })
}

/// The elements of a constant for the model file.
fn in_place(stored: &Stored) -> Result<Content, WeightError> {
    let bytes = stored.bytes.bytes()?;
    let words = || bytes.as_chunks::<4>().0.iter();
    let elements = match stored.dtype {
        DataType::Float32 => Elements::Floats(RepeatedFloats {
            values: words().map(|b| f32::from_le_bytes(*b)).collect(),
        }),
        DataType::Int32 => Elements::Ints(RepeatedInts {
            values: words().map(|b| i32::from_le_bytes(*b)).collect(),
        }),
        DataType::Bool => Elements::Bools(RepeatedBools {
            values: bytes.iter().map(|b| *b != 0).collect(),
        }),
        _ => Elements::Bytes(RepeatedBytes {
            values: bytes.to_vec(),
        }),
    };
    Ok(Content::Immediate(proto::ImmediateValue {
        tensor: Some(proto::TensorValue {
            elements: Some(elements),
        }),
    }))
}

/// An operation under construction. Every parameter that its signature demands is given before
/// [`OperationBuilder::finish`]; the verifier holds this.
#[derive(Debug)]
pub(crate) struct OperationBuilder<'b> {
    block: &'b mut BlockBuilder,
    kind: &'static str,
    inputs: BTreeMap<String, Argument>,
}

impl OperationBuilder<'_> {
    fn bind(mut self, parameter: &str, names: Vec<String>) -> Self {
        let arguments = names.into_iter().map(|name| Binding {
            bound: Some(Bound::Name(name)),
        });
        let arguments = arguments.collect();
        self.inputs
            .insert(parameter.to_owned(), Argument { arguments });
        self
    }

    fn constant(
        self,
        parameter: &'static str,
        dtype: DataType,
        shape: &[usize],
        elements: Elements,
    ) -> Self {
        let value = proto::immediate(dtype, shape, elements);
        let name = self.block.parameter(parameter, value);
        self.bind(parameter, vec![name])
    }

    /// Gives a parameter a value.
    pub(crate) fn tensor(self, parameter: &str, value: &Mil) -> Self {
        self.bind(parameter, vec![value.name.clone()])
    }

    /// Gives a parameter a value if there is one.
    pub(crate) fn optional(self, parameter: &str, value: Option<&Mil>) -> Self {
        match value {
            Some(value) => self.tensor(parameter, value),
            None => self,
        }
    }

    /// Gives a parameter several values in order.
    pub(crate) fn tuple(self, parameter: &str, values: &[Mil]) -> Self {
        self.bind(parameter, values.iter().map(|v| v.name.clone()).collect())
    }

    /// Gives a parameter an int32 vector.
    pub(crate) fn ints(self, parameter: &'static str, values: &[usize]) -> Self {
        let values: Vec<i32> = values.iter().map(|&v| int32(v)).collect();
        let shape = [values.len()];
        self.constant(
            parameter,
            DataType::Int32,
            &shape,
            Elements::Ints(RepeatedInts { values }),
        )
    }

    /// Gives a parameter an int32 scalar.
    pub(crate) fn int(self, parameter: &'static str, value: usize) -> Self {
        let values = vec![int32(value)];
        self.constant(
            parameter,
            DataType::Int32,
            &[],
            Elements::Ints(RepeatedInts { values }),
        )
    }

    /// Gives a parameter a uint8 scalar.
    pub(crate) fn byte(self, parameter: &'static str, value: u8) -> Self {
        let values = vec![value];
        let elements = Elements::Bytes(RepeatedBytes { values });
        self.constant(parameter, DataType::UInt8, &[], elements)
    }

    /// Gives a parameter a vector of truth values.
    pub(crate) fn bools(self, parameter: &'static str, values: &[bool]) -> Self {
        let (shape, values) = ([values.len()], values.to_vec());
        self.constant(
            parameter,
            DataType::Bool,
            &shape,
            Elements::Bools(RepeatedBools { values }),
        )
    }

    /// Gives a parameter a truth value.
    pub(crate) fn bool(self, parameter: &'static str, value: bool) -> Self {
        let values = vec![value];
        self.constant(
            parameter,
            DataType::Bool,
            &[],
            Elements::Bools(RepeatedBools { values }),
        )
    }

    /// Gives a parameter a word.
    pub(crate) fn text(self, parameter: &'static str, value: &str) -> Self {
        let name = self.block.parameter(parameter, proto::string(value));
        self.bind(parameter, vec![name])
    }

    /// Gives a parameter a float scalar of element type `dtype`, which is f16 or f32.
    pub(crate) fn float(self, parameter: &'static str, dtype: DType, value: f32) -> Self {
        match dtype {
            DType::F16 => {
                let values = f16::from_f32(value).to_le_bytes().to_vec();
                let elements = Elements::Bytes(RepeatedBytes { values });
                self.constant(parameter, DataType::Float16, &[], elements)
            }
            _ => {
                let elements = Elements::Floats(RepeatedFloats {
                    values: vec![value],
                });
                self.constant(parameter, DataType::Float32, &[], elements)
            }
        }
    }

    /// Adds the operation and gives its result, which has the name `name` (from [`Names`]).
    pub(crate) fn finish(self, name: String, dtype: DType, shape: &[usize]) -> Mil {
        let outputs = vec![NamedValueType {
            name: name.clone(),
            ty: Some(mil_type(dtype, shape)),
        }];
        self.block.operations.push(Operation {
            kind: self.kind.to_owned(),
            inputs: self.inputs,
            outputs,
            blocks: Vec::new(),
            attributes: BTreeMap::from([("name".to_owned(), proto::string(&name))]),
        });
        let shape = shape.to_vec();
        Mil { name, dtype, shape }
    }
}

fn int32(value: usize) -> i32 {
    i32::try_from(value).expect("the driver refuses dimensions beyond 31 bits")
}
