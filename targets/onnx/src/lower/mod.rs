//! From a legalized graph to the nodes of an ONNX graph.
//!
//! A node of the IR becomes one ONNX node or a few; they are named after it (`conv_in/Conv`), as are the values they
//! define. Weights keep their names. What ONNX takes as operands rather than attributes (shapes, axes, scales) becomes
//! small constants, shared by content.

mod attribute;
mod encoded;
mod names;
mod node;

use std::collections::BTreeMap;

use snapc_ir::{
    DType, Dim, Graph, LazyTensor, Node, Shape, TensorType, ValueDef, ValueId, Verified, WeightId,
};
use snapc_target::TargetError;

use self::names::Names;
pub(crate) use self::node::is_native;
use crate::emit::OPSET;
use crate::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, data_type};

/// A constant of the model.
#[derive(Clone, Debug)]
pub(crate) struct Initializer {
    /// Name of its value.
    pub(crate) name: String,
    /// Its data.
    pub(crate) tensor: LazyTensor,
    /// Element type as `TensorProto.DataType`.
    pub(crate) data_type: i32,
    /// Dimensions.
    pub(crate) dims: Vec<usize>,
}

impl Initializer {
    /// A tensor as it is.
    pub(crate) fn new(name: &str, tensor: LazyTensor) -> Self {
        Initializer {
            name: name.to_owned(),
            data_type: data_type(tensor.dtype()),
            dims: tensor.shape().to_vec(),
            tensor,
        }
    }

    /// Codes, one per byte, as elements of 4 bits: the first of two in the lower half of a byte.
    fn nibbles(name: &str, codes: LazyTensor, data_type: i32) -> Self {
        Initializer {
            name: name.to_owned(),
            data_type,
            dims: codes.shape().to_vec(),
            tensor: codes.pack(4),
        }
    }
}

/// An ONNX graph whose constants are still lazy.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The ONNX operator set that the nodes are of.
    pub(crate) opset: i64,
    /// Everything but the initializers.
    pub(crate) graph: GraphProto,
    /// The initializers in the order of first use.
    pub(crate) initializers: Vec<Initializer>,
}

/// The type under which an input of this type is declared. Token ids are int64, as torch makes them and Optimum's
/// export declares them.
pub(crate) fn declared_input(ty: &TensorType) -> TensorType {
    let dtype = match ty.dtype {
        DType::I32 => DType::I64,
        other => other,
    };
    TensorType::new(dtype, ty.shape.clone())
}

/// Lowers a graph.
///
/// # Errors
/// [`TargetError::Unsupported`] for a composite that legalization should have decomposed, and for the forms of
/// operators that ONNX does not have.
pub(crate) fn lower(graph: &Verified<'_>) -> Result<Lowered, TargetError> {
    let mut lowering = Lowering::new(graph);
    lowering.declare_inputs();
    for node in graph.nodes() {
        node::lower(&mut lowering, node)?;
    }
    lowering.declare_outputs();
    Ok(lowering.lowered)
}

/// The operator set that a graph is written in: [`OPSET`], or the first one that has the forms of its codes.
fn needed_opset(graph: &Graph) -> i64 {
    let weights = graph.weights().iter();
    let weights = weights.map(|w| encoded::needed_opset(&w.tensor));
    let nodes = graph.nodes().iter().map(|n| node::needed_opset(graph, n));
    weights.chain(nodes).fold(OPSET, i64::max)
}

/// How the data of a weight is laid out in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WeightForm {
    /// As in the graph.
    Plain,
    /// A matrix with its dimensions swapped.
    Transposed,
    /// A vector `[C]` as `[C,1,1]`, so that it broadcasts along the channels of an image.
    Channels,
}

/// The ONNX graph under construction.
struct Lowering<'a> {
    graph: &'a Graph,
    names: Names,
    /// Names of values, by value index; weights are in `weights`.
    values: Vec<Option<String>>,
    /// The output name that the node defining a value gives to it.
    outputs: BTreeMap<ValueId, String>,
    weights: BTreeMap<(WeightId, WeightForm), String>,
    /// Names of small constants, by their text.
    constants: BTreeMap<String, String>,
    lowered: Lowered,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut names = Names::default();
        for input in graph.inputs() {
            names.unique(&input.name);
        }
        let mut outputs = BTreeMap::new();
        for output in graph.outputs() {
            names.unique(&output.name);
            if graph.node_of(output.value).is_some() {
                outputs
                    .entry(output.value)
                    .or_insert_with(|| output.name.clone());
            }
        }
        Lowering {
            graph,
            names,
            values: vec![None; graph.values().len()],
            outputs,
            weights: BTreeMap::new(),
            constants: BTreeMap::new(),
            lowered: Lowered {
                opset: needed_opset(graph),
                graph: GraphProto {
                    name: Some(graph.name().to_owned()),
                    ..GraphProto::default()
                },
                initializers: Vec::new(),
            },
        }
    }

    fn declare_inputs(&mut self) {
        for input in self.graph.inputs() {
            let ty = self.graph.ty(input.value);
            let declared = declared_input(ty);
            let info = ValueInfoProto::tensor(&input.name, &declared);
            self.lowered.graph.input.push(info);
            let mut name = input.name.clone();
            if declared != *ty {
                let to = attribute::int("to", i64::from(data_type(ty.dtype)));
                name = self.push(&input.name, "Cast", vec![name], vec![to], ty);
            }
            self.values[input.value.index()] = Some(name);
        }
    }

    /// Declares the outputs. Those that no node has defined under their own name are copies.
    fn declare_outputs(&mut self) {
        for output in self.graph.outputs() {
            let ty = self.graph.ty(output.value);
            self.lowered
                .graph
                .output
                .push(ValueInfoProto::tensor(&output.name, ty));
            if self.outputs.get(&output.value) != Some(&output.name) {
                let source = self.value(output.value);
                let node = format!("{}/Identity", output.name);
                let node = self.names.unique(&node);
                self.push_node(
                    node,
                    "Identity",
                    vec![source],
                    output.name.clone(),
                    Vec::new(),
                );
            }
        }
    }

    /// Name of a value; a weight becomes an initializer at its first use.
    fn value(&mut self, id: ValueId) -> String {
        match self.graph.value(id).def {
            ValueDef::Weight(weight) => self.weight(weight, WeightForm::Plain),
            _ => self.values[id.index()]
                .clone()
                .expect("verified: operands are defined before their use"),
        }
    }

    fn operands(&mut self, node: &Node) -> Vec<String> {
        node.operands.iter().map(|&v| self.value(v)).collect()
    }

    fn weight(&mut self, id: WeightId, form: WeightForm) -> String {
        if let Some(name) = self.weights.get(&(id, form)) {
            return name.clone();
        }
        let weight = &self.graph.weights()[id.index()];
        let tensor = weight.tensor.clone();
        let (wanted, tensor) = match form {
            WeightForm::Plain => (weight.name.clone(), tensor),
            WeightForm::Transposed => (
                format!("{}/transposed", weight.name),
                tensor.permute_codes(&[1, 0]),
            ),
            WeightForm::Channels => {
                let channels = tensor.elements();
                (weight.name.clone(), tensor.reshape_codes(&[channels, 1, 1]))
            }
        };
        let name = match tensor.encoding() {
            Some(encoding) => encoded::lower(self, &wanted, &tensor, encoding),
            None => self.add_initializer(&wanted, tensor),
        };
        self.weights.insert((id, form), name.clone());
        name
    }

    fn add_initializer(&mut self, wanted: &str, tensor: LazyTensor) -> String {
        self.add(Initializer::new(wanted, tensor))
    }

    /// Adds a constant under the name that it wants, or the next free one.
    fn add(&mut self, mut initializer: Initializer) -> String {
        let name = self.names.unique(&initializer.name);
        initializer.name.clone_from(&name);
        self.lowered.initializers.push(initializer);
        name
    }

    /// A list of sizes or positions as an operand.
    fn sizes(&mut self, values: &[usize]) -> String {
        let values: Vec<i64> = values.iter().map(|&v| v as i64).collect();
        self.int_list(&values)
    }

    /// A few bytes of these dimensions as an operand.
    fn bytes(&mut self, shape: &[usize], values: &[u8]) -> String {
        let text: Vec<String> = values.iter().map(ToString::to_string).collect();
        let rank = shape.len();
        let tensor = LazyTensor::from_u8(shape, values);
        self.constant(&format!("bytes{rank}/{}", text.join(",")), tensor)
    }

    /// A list of integers as an operand.
    fn int_list(&mut self, values: &[i64]) -> String {
        let tensor = LazyTensor::from_i64(&[values.len()], values);
        let text: Vec<String> = values.iter().map(ToString::to_string).collect();
        self.constant(&format!("ints/{}", text.join(",")), tensor)
    }

    /// A small constant, shared by all uses of the same text.
    fn constant(&mut self, text: &str, tensor: LazyTensor) -> String {
        if let Some(name) = self.constants.get(text) {
            return name.clone();
        }
        let name = self.add_initializer(text, tensor);
        self.constants.insert(text.to_owned(), name.clone());
        name
    }

    /// Adds a node whose result is only used within the lowering of one IR node; gives the name of the result.
    fn push(
        &mut self,
        origin: &str,
        op_type: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
        ty: &TensorType,
    ) -> String {
        let name = self.names.unique(&format!("{origin}/{op_type}"));
        self.push_node(name.clone(), op_type, inputs, name.clone(), attributes);
        self.declare(&name, ty);
        name
    }

    /// States the type of a value in between.
    fn declare(&mut self, name: &str, ty: &TensorType) {
        let info = ValueInfoProto::tensor(name, ty);
        self.lowered.graph.value_info.push(info);
    }

    /// Adds the node that defines the result of an IR node.
    fn define(
        &mut self,
        node: &Node,
        op_type: &str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) {
        let name = match self.outputs.get(&node.result).cloned() {
            Some(output) => {
                let name = self.names.unique(&format!("{}/{op_type}", node.name));
                self.push_node(name, op_type, inputs, output.clone(), attributes);
                output
            }
            None => {
                let ty = self.graph.ty(node.result);
                self.push(&node.name, op_type, inputs, attributes, ty)
            }
        };
        self.values[node.result.index()] = Some(name);
    }

    fn push_node(
        &mut self,
        name: String,
        op_type: &str,
        input: Vec<String>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) {
        self.lowered.graph.node.push(NodeProto {
            input,
            output: vec![output],
            name: Some(name),
            op_type: Some(op_type.to_owned()),
            attribute,
            domain: None,
        });
    }

    /// The second operand of ONNX `Reshape` for `to`: 0 copies a dimension and -1 stands for what is left, so that the
    /// batch stays open.
    fn reshape_target(&mut self, from: &Shape, to: &Shape) -> String {
        let dims = to.dims().iter().enumerate().map(|(i, dim)| match dim {
            Dim::Fixed(n) => *n as i64,
            Dim::Batch if from.dims().get(i) == Some(&Dim::Batch) => 0,
            Dim::Batch => -1,
        });
        let dims: Vec<i64> = dims.collect();
        self.int_list(&dims)
    }
}
