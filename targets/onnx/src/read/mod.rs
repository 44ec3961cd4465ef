//! The reader: a model, ours or foreign, as a graph of the IR.
//!
//! ```text
//! model.onnx ── map ── scan ── decode ── bind inputs ── nodes, constants folded ─► ir::Graph
//! ```
//!
//! * **Sizes are numbers.** Symbolic dimensions are bound when the model is read, so that the arithmetic that exporters
//!   write on shapes is folded away. What needs a size at run time is refused.
//! * **Weights stay where they are.** The model and its external data are mapped, and constants point into them.
//! * **Files are not trusted.** The number of messages is checked before they are decoded, sizes before anything is
//!   allocated, and external data must lie in the model's folder.
//! * **Codes stay codes.** Weights that `DequantizeLinear` or a table makes floats of are encoded weights of the graph;
//!   activations that go through `QuantizeLinear` and back are `fake_quantize`.
//! * **Operators** are those of Stable Diffusion's networks as snapc and `torch.onnx` write them, operator sets 13 to
//!   23; one that has no form in the IR is an error that names it. Each becomes primitives of the IR; the
//!   passes of the pipeline `recognize` find the composites.
//!
//! No code is shared with the writer but the messages of [`crate::proto`].

mod builder;
mod call;
mod error;
mod external;
mod input;
mod ops;
mod scan;
mod tensor;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;
use snapc_ir::{Graph, LazyTensor};
use snapc_target::MappedFile;

use self::builder::Builder;
use self::call::Call;
use self::error::Fault;
pub use self::error::ReadError;
use self::external::DataFiles;
use crate::proto::{GraphProto, ModelProto, NodeProto};

/// Operator sets that are read. Before 13 the axes of several operators were attributes.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=23;
/// Larger models are refused; protobuf has the same limit.
const MAX_BYTES: usize = 1 << 31;
/// The graphs of a pipeline; a file or folder of such a name names a foreign graph.
const GRAPH_NAMES: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// Reads a model into the IR. `dims` gives sizes to the symbolic dimensions of its inputs, by symbol; symbols that the
/// model does not have are ignored. The graph has fixed shapes.
///
/// The files must not be changed while the graph is in use, since its weights point into them.
///
/// # Errors
/// When a file is missing or malformed, a symbol has no size, or a node has no form in the IR. The message names the
/// input, initializer or node.
pub fn read(model: &Path, dims: &BTreeMap<String, usize>) -> Result<Graph, ReadError> {
    let file = MappedFile::open(model).map_err(|source| ReadError::Io {
        path: model.to_owned(),
        source,
    })?;
    let (opset, graph) = decode(model, Bytes::from_owner(file))?;
    let name = graph_name(model, &graph);
    let mut reader = Reader {
        graph: &graph,
        name: &name,
        opset,
        builder: Builder::new(&name),
        files: DataFiles::beside(model)?,
    };
    reader.constants()?;
    reader.inputs(dims)?;
    let mut unpacked = unpack::find(&graph, &reader.builder);
    for (i, node) in graph.node.iter().enumerate() {
        match unpacked.codes.remove(&i) {
            Some(codes) => reader.codes(i, node, codes)?,
            None if unpacked.inner.contains(&i) => {}
            None => reader.node(i, node)?,
        }
    }
    reader.outputs()?;
    Ok(reader.builder.graph)
}

/// The operator set and the graph of a model.
fn decode(path: &Path, bytes: Bytes) -> Result<(i64, GraphProto), ReadError> {
    let fault = |reason: String| ReadError::Model {
        path: path.to_owned(),
        reason,
    };
    if bytes.len() > MAX_BYTES {
        let size = bytes.len();
        return Err(fault(format!(
            "{size} bytes are too many; move the weights to external data"
        )));
    }
    scan::check(&bytes).map_err(|e| fault(format!("not an ONNX model: {e}")))?;
    let model = ModelProto::decode(bytes).map_err(|e| fault(format!("not an ONNX model: {e}")))?;
    let graph = model
        .graph
        .ok_or_else(|| fault("it has no graph".to_owned()))?;
    let mut opsets = model.opset_import.iter();
    let onnx = opsets.find(|o| is_onnx(o.domain.as_deref()));
    let version = onnx.and_then(|o| o.version).unwrap_or_default();
    if !OPSETS.contains(&version) {
        let (first, last) = OPSETS.into_inner();
        return Err(fault(format!(
            "operator set {version} is not supported; export with one from {first} to {last}"
        )));
    }
    Ok((version, graph))
}

fn is_onnx(domain: Option<&str>) -> bool {
    matches!(domain, None | Some("" | "ai.onnx"))
}

/// The name of a graph: its own, that of the file up to a dot, or that of the folder, whichever is a graph of a
/// pipeline; its own otherwise.
fn graph_name(model: &Path, graph: &GraphProto) -> String {
    let own = graph.name.as_deref().unwrap_or_default();
    let file = model.file_name().and_then(|s| s.to_str());
    let stem = file.and_then(|f| f.split('.').next());
    let folder = model.parent().and_then(|p| p.file_name()?.to_str());
    let mut candidates = [Some(own), stem, folder].into_iter().flatten();
    let known = candidates.find(|name| GRAPH_NAMES.contains(name));
    let name = known.unwrap_or(if own.is_empty() { "graph" } else { own });
    name.to_owned()
}

struct Reader<'a> {
    graph: &'a GraphProto,
    name: &'a str,
    opset: i64,
    builder: Builder,
    files: DataFiles,
}

impl Reader<'_> {
    fn constants(&mut self) -> Result<(), ReadError> {
        for initializer in &self.graph.initializer {
            let name = initializer.name.as_deref().unwrap_or_default();
            let fault = |reason: String| ReadError::Initializer {
                graph: self.name.to_owned(),
                initializer: name.to_owned(),
                reason,
            };
            let tensor = tensor::constant(initializer, &mut self.files).map_err(fault)?;
            if name.is_empty() || self.builder.values.contains_key(name) {
                return Err(fault("the name is empty or given twice".to_owned()));
            }
            let is_weight = tensor.dtype().is_float() && !tensor.shape().is_empty();
            let operand = if is_weight {
                self.builder.parameter(name, tensor)
            } else {
                self.builder.constant(name, tensor)
            };
            self.builder.values.insert(name.to_owned(), operand);
        }
        Ok(())
    }

    fn inputs(&mut self, dims: &BTreeMap<String, usize>) -> Result<(), ReadError> {
        let mut declared = BTreeSet::new();
        for input in &self.graph.input {
            let name = input.name.as_deref().unwrap_or_default();
            let fault = |reason: String| ReadError::Input {
                graph: self.name.to_owned(),
                input: name.to_owned(),
                reason,
            };
            if name.is_empty() || !declared.insert(name) {
                return Err(fault("the name is empty or given twice".to_owned()));
            }
            // An initializer of the same name is the input's default value.
            if self.builder.values.contains_key(name) {
                continue;
            }
            let ty = input::bound_type(input, dims).map_err(fault)?;
            let value = self.builder.graph.input(name, ty);
            let operand = builder::Operand::Computed(value);
            self.builder.values.insert(name.to_owned(), operand);
        }
        Ok(())
    }

    fn node(&mut self, index: usize, node: &NodeProto) -> Result<(), ReadError> {
        let name = node_name(index, node);
        let read = self.call(&name, node);
        read.map_err(|fault| self.node_error(node, fault))
    }

    /// The node in which unpacked codes end.
    fn codes(
        &mut self,
        index: usize,
        node: &NodeProto,
        codes: LazyTensor,
    ) -> Result<(), ReadError> {
        let operand = self.builder.constant(&node_name(index, node), codes);
        let output = node.output.first().cloned().unwrap_or_default();
        match self.builder.values.insert(output, operand) {
            None => Ok(()),
            Some(_) => Err(self.node_error(node, Fault::malformed("its result is defined twice"))),
        }
    }

    fn call(&mut self, name: &str, node: &NodeProto) -> Result<(), Fault> {
        if !is_onnx(node.domain.as_deref()) {
            let domain = node.domain.as_deref().unwrap_or_default();
            return Err(Fault::unsupported(format!(
                "it belongs to the domain '{domain}'; export with the operators of ONNX alone"
            )));
        }
        let mut call = Call::new(node, name, self.opset, &self.builder, &mut self.files)?;
        let results = ops::read(&mut self.builder, &mut call)?;
        let named = node
            .output
            .iter()
            .enumerate()
            .filter(|(_, o)| !o.is_empty());
        for (i, output) in named {
            let Some(&result) = results.get(i) else {
                return Err(Fault::unsupported(format!(
                    "result {i} '{output}' is asked for"
                )));
            };
            if self.builder.values.insert(output.clone(), result).is_some() {
                return Err(Fault::malformed(format!("'{output}' is defined twice")));
            }
        }
        Ok(())
    }

    fn node_error(&self, node: &NodeProto, fault: Fault) -> ReadError {
        let graph = self.name.to_owned();
        let op = node.op_type.clone().unwrap_or_default();
        // The full name, as other tools show it.
        let first = node.output.first().map(String::as_str).unwrap_or_default();
        let given = node.name.as_deref().filter(|n| !n.is_empty());
        let node = given.unwrap_or(first).to_owned();
        match fault {
            Fault::Malformed(reason) => ReadError::Node {
                graph,
                node,
                op,
                reason,
            },
            Fault::Unsupported(reason) => ReadError::Unsupported {
                graph,
                node,
                op,
                reason,
            },
        }
    }

    fn outputs(&mut self) -> Result<(), ReadError> {
        let fault = |output: &str, reason: &str| ReadError::Output {
            graph: self.name.to_owned(),
            output: output.to_owned(),
            reason: reason.to_owned(),
        };
        if self.graph.output.is_empty() {
            return Err(fault("", "there is none"));
        }
        let mut declared = BTreeSet::new();
        for output in &self.graph.output {
            let name = output.name.as_deref().unwrap_or_default();
            if name.is_empty() || !declared.insert(name) {
                return Err(fault(name, "the name is empty or given twice"));
            }
            if self.builder.codes.contains_key(name) {
                return Err(fault(
                    name,
                    "codes of QuantizeLinear are no output of the IR",
                ));
            }
            let operand = self.builder.values.get(name).copied();
            let operand = operand.ok_or_else(|| fault(name, "no node defines it"))?;
            let value = self.builder.value(operand);
            self.builder.graph.output(name, value);
        }
        Ok(())
    }
}

/// The name of what a node becomes: without the last part when that is the operator, as exporters name nodes
/// `module/Operator`; that of its result when it has none.
fn node_name(index: usize, node: &NodeProto) -> String {
    let given = node.name.iter().chain(node.output.first());
    let Some(name) = given.into_iter().find(|n| !n.is_empty()) else {
        return format!("node_{index}");
    };
    let op = node.op_type.as_deref().unwrap_or_default();
    match name.rsplit_once('/') {
        Some((module, last)) if !module.is_empty() && is_numbered(last, op) => module.to_owned(),
        _ => name.clone(),
    }
}

/// Whether a word is `op`, possibly numbered: `Add`, `Add_3`.
fn is_numbered(word: &str, op: &str) -> bool {
    let Some(rest) = word.strip_prefix(op) else {
        return false;
    };
    let number = rest.strip_prefix('_').unwrap_or(rest);
    rest.is_empty() || (rest != number && number.bytes().all(|b| b.is_ascii_digit()))
}
