//! The reader: a package, ours or converted by coremltools, as a graph of the IR.
//!
//! ```text
//! Manifest.json ─► model ─► function main ─► operations, one by one ─► ir::Graph
//!                               weight.bin, mapped ┘
//! ```
//!
//! * **Weights stay where they are.** The weight file is mapped and weights point into it. Compressed ones
//!   (`constexpr_*`) stay the codes that the file holds; sparse ones, and tables of vectors, are made dense when they are
//!   read.
//! * **Files are not trusted.** Paths stay inside the package, every size is checked before anything is allocated, a name
//!   is defined once and before it is used, and every result must have the type that the program declares for it.
//! * **Integers** of any width are i32 in the graph. A float input that is only cast to integers (Apple's `input_ids`) is
//!   an i32 input, since the IR rounds no floats to integers.
//! * **Operations** are those of Stable Diffusion's networks as snapc and coremltools write them, for iOS 15 to 26. Each
//!   becomes operators of the IR; the passes of the pipeline `recognize` find the composites.
//!
//! No code is shared with the writer but the messages of [`crate::proto`] and the names of a package's parts.

mod builder;
mod call;
mod constant;
mod constexpr;
mod description;
pub(crate) mod element;
mod error;
mod feature;
mod names;
mod ops;
mod package;
mod settings;
#[cfg(test)]
mod tests;
mod weight_file;

use std::collections::BTreeSet;
use std::path::Path;

use snapc_ir::{DType, Graph, Shape, TensorType, ValueId};

use self::builder::{Builder, Entry};
use self::call::Call;
use self::constant::{Constant, Literal, declared, literal};
pub use self::description::{
    ArrayFeature, Description, PackageMetadata, describe, describe_function,
};
use self::error::Fault;
pub use self::error::ReadError;
use self::package::Package;
use self::weight_file::WeightFiles;
use crate::proto::{Block, DataType, Function, Model, NamedValueType, Operation};

/// Reads a package into the IR. All shapes are fixed numbers.
///
/// The files must not be changed while the graph is in use, since its weights point into them.
///
/// # Errors
/// When a file is missing, malformed or outside of the package, or an operation has no form in the IR. The message names
/// the file, input, output or operation.
pub fn read(package: &Path) -> Result<Graph, ReadError> {
    read_one(package, None)
}

/// Reads one function of a package that has several; [`read`] takes the default one.
///
/// # Errors
/// As [`read`], and when there is no such function.
pub fn read_function(package: &Path, function: &str) -> Result<Graph, ReadError> {
    read_one(package, Some(function))
}

fn read_one(package: &Path, function: Option<&str>) -> Result<Graph, ReadError> {
    let mut opened = Package::open(package)?;
    let model = std::mem::take(&mut opened.model);
    let (function, block) = body(&model, function).map_err(|reason| ReadError::File {
        path: opened.model_file.clone(),
        reason,
    })?;
    let mut reader = Reader {
        builder: Builder::new(&graph_name(package, &model)),
        files: WeightFiles::new(opened),
        defined: BTreeSet::new(),
    };
    reader.inputs(function, block)?;
    for operation in &block.operations {
        reader.operation(operation)?;
    }
    reader.outputs(block)?;
    Ok(reader.builder.graph)
}

/// The name of the graph: the one that snapc has put into the package, or the one that goes with the package's name.
fn graph_name(package: &Path, model: &Model) -> String {
    let metadata = model.description.as_ref().and_then(|d| d.metadata.as_ref());
    if let Some(name) = metadata.and_then(|m| m.user_defined.get("snapc.graph")) {
        return name.clone();
    }
    let stem = package.file_stem().map(|s| s.to_string_lossy());
    match stem.as_deref().unwrap_or("graph") {
        "TextEncoder" => "text_encoder".to_owned(),
        "Unet" => "unet".to_owned(),
        "UnetChunk1" => "unet_chunk1".to_owned(),
        "UnetChunk2" => "unet_chunk2".to_owned(),
        "VAEDecoder" => "vae_decoder".to_owned(),
        other => other.to_owned(),
    }
}

/// A function of the program, the default one when none is named, and its body.
fn body<'m>(model: &'m Model, name: Option<&str>) -> Result<(&'m Function, &'m Block), String> {
    let program = model.ml_program.as_ref();
    let program = program.ok_or("holds no ML Program; convert with convert_to='mlprogram'")?;
    let functions = &program.functions;
    let only = (functions.len() == 1).then(|| functions.values().next());
    let default = model
        .description
        .as_ref()
        .map(|d| d.default_function_name.as_str());
    let wanted = name
        .or(default.filter(|name| !name.is_empty()))
        .unwrap_or("main");
    let only = only.flatten().filter(|_| name.is_none());
    let function = functions.get(wanted).or(only);
    let function = function.ok_or_else(|| format!("the program has no function '{wanted}'"))?;
    let blocks = &function.block_specializations;
    let only = (blocks.len() == 1).then(|| blocks.values().next());
    let block = blocks.get(&function.opset).or(only.flatten());
    let block = block.ok_or_else(|| {
        let opset = &function.opset;
        format!("the function has no body for its operation set '{opset}'")
    })?;
    Ok((function, block))
}

/// The element type in the IR.
fn ir_type(dtype: DataType) -> Option<DType> {
    match dtype {
        DataType::Float16 => Some(DType::F16),
        DataType::Float32 | DataType::Float64 => Some(DType::F32),
        DataType::BFloat16 => Some(DType::BF16),
        DataType::Bool => Some(DType::Bool),
        DataType::String | DataType::Unused => None,
        _ => Some(DType::I32),
    }
}

struct Reader {
    builder: Builder,
    files: WeightFiles,
    /// Names given out so far.
    defined: BTreeSet<String>,
}

impl Reader {
    fn define(&mut self, name: &str, entry: Entry) -> Result<(), Fault> {
        if name.is_empty() || !self.defined.insert(name.to_owned()) {
            return Err(Fault::malformed(format!(
                "'{name}' is defined twice or empty"
            )));
        }
        self.builder.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    fn inputs(&mut self, function: &Function, block: &Block) -> Result<(), ReadError> {
        for input in &function.inputs {
            self.input(input, block).map_err(|fault| ReadError::Input {
                graph: self.builder.graph.name().to_owned(),
                input: input.name.clone(),
                reason: fault.reason(),
            })?;
        }
        Ok(())
    }

    fn input(&mut self, input: &NamedValueType, block: &Block) -> Result<(), Fault> {
        let (dtype, shape) = declared(input.ty.as_ref())?;
        let dtype = ir_type(dtype).ok_or_else(|| Fault::unsupported("it is no number"))?;
        let dtype = match dtype.is_float() && feature::only_integers(&input.name, block) {
            true => DType::I32,
            false => dtype,
        };
        if shape.contains(&0) {
            return Err(Fault::malformed(format!("shape {shape:?} is empty")));
        }
        let ty = TensorType::new(dtype, Shape::fixed(&shape));
        let value = self.builder.graph.input(&input.name, ty);
        self.define(&input.name, Entry::Value(value))
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), ReadError> {
        self.read_operation(operation).map_err(|fault| {
            let graph = self.builder.graph.name().to_owned();
            let first = operation.outputs.first().map(|o| o.name.clone());
            let operation_name = first.unwrap_or_default();
            let kind = operation.kind.clone();
            match fault {
                Fault::Malformed(reason) => ReadError::Operation {
                    graph,
                    operation: operation_name,
                    kind,
                    reason,
                },
                Fault::Unsupported(reason) => ReadError::Unsupported {
                    graph,
                    operation: operation_name,
                    kind,
                    reason,
                },
            }
        })
    }

    fn read_operation(&mut self, operation: &Operation) -> Result<(), Fault> {
        if !operation.blocks.is_empty() {
            return Err(Fault::unsupported(
                "control flow has no form in the IR; convert a traced model",
            ));
        }
        let results = self.results(operation)?;
        if results.len() != operation.outputs.len() {
            let (declared, made) = (operation.outputs.len(), results.len());
            return Err(Fault::malformed(format!(
                "it declares {declared} results and has {made}"
            )));
        }
        for (output, entry) in operation.outputs.iter().zip(results) {
            self.check_type(output, &entry)?;
            self.define(&output.name, entry)?;
        }
        Ok(())
    }

    fn results(&mut self, operation: &Operation) -> Result<Vec<Entry>, Fault> {
        if operation.kind == "const" {
            let value = operation.attributes.get("val");
            let value = value.ok_or_else(|| Fault::malformed("it has no value"))?;
            return Ok(vec![match literal(value, &mut self.files)? {
                Literal::Tensor(constant) => Entry::Constant(constant),
                Literal::Word(word) => Entry::Word(word),
            }]);
        }
        let first = operation.outputs.first().map(|o| o.name.as_str());
        let first = first.ok_or_else(|| Fault::unsupported("it has no result"))?;
        let name = names::restored(first);
        let mut call = Call::new(operation, name, &mut self.builder, &mut self.files);
        if let Some(results) = constexpr::read(&mut call)? {
            return Ok(results);
        }
        ops::read(&mut call)
    }

    /// Whether a result has the type that the program declares for it.
    fn check_type(&self, output: &NamedValueType, entry: &Entry) -> Result<(), Fault> {
        let (dtype, shape) = declared(output.ty.as_ref())?;
        let (found, found_shape) = match entry {
            Entry::Value(value) => (Some(self.builder.dtype(*value)), self.builder.shape(*value)),
            Entry::Constant(Constant { dtype, shape, .. }) => (ir_type(*dtype), shape.clone()),
            Entry::Encoded(tensor) => (Some(tensor.dtype()), tensor.shape().to_vec()),
            Entry::Word(_) => (None, Vec::new()),
            Entry::Rounded(value) => (Some(self.builder.dtype(*value)), self.builder.shape(*value)),
            Entry::NotNegative(value) => (Some(DType::Bool), self.builder.shape(*value)),
            Entry::Wrapped { indices, .. } => (Some(DType::I32), self.builder.shape(*indices)),
            Entry::Codes { value, .. } => (Some(DType::I32), self.builder.shape(*value)),
        };
        if ir_type(dtype) == found && shape == found_shape {
            return Ok(());
        }
        let found = found.map_or("a string", DType::name);
        Err(Fault::malformed(format!(
            "'{}' is declared as {dtype:?}{shape:?} but is {found}{found_shape:?}",
            output.name
        )))
    }

    fn outputs(&mut self, block: &Block) -> Result<(), ReadError> {
        let graph = self.builder.graph.name().to_owned();
        let fault = |output: &str, reason: String| ReadError::Output {
            graph: graph.clone(),
            output: output.to_owned(),
            reason,
        };
        if block.outputs.is_empty() {
            return Err(fault("", "there is none".to_owned()));
        }
        let mut given = BTreeSet::new();
        for name in &block.outputs {
            if !given.insert(name) {
                return Err(fault(name, "it is given out twice".to_owned()));
            }
            let value = self.output(name).map_err(|f| fault(name, f.reason()))?;
            self.builder.graph.output(name, value);
        }
        Ok(())
    }

    fn output(&mut self, name: &str) -> Result<ValueId, Fault> {
        match self.builder.entries.get(name).cloned() {
            Some(Entry::Value(value)) => Ok(value),
            Some(Entry::Constant(constant)) => self.builder.weight(name, name, &constant),
            Some(Entry::Encoded(tensor)) => Ok(self.builder.encoded_weight(name, name, &tensor)),
            Some(_) => Err(Fault::unsupported("it is no tensor of numbers")),
            None => Err(Fault::malformed("no operation defines it")),
        }
    }
}
