//! Lowering: a legalized graph becomes a function of a MIL program, with one block.
//!
//! Every parameter of every operation is written, also those that coremltools' builder calls optional, because the
//! system's parser wants them. Constants are `const` operations, bound by name.

mod attention;
mod block;
mod columns;
mod compute;
mod elementwise;
mod movement;
mod norm;
mod quantize;
mod split_einsum;

use std::collections::BTreeMap;

use snapc_ir::{DType, Graph, LazyTensor, Node, Op, Shape, TensorType, ValueDef, ValueId};
use snapc_target::{AttentionForm, Feature, TargetError};

use crate::blob::WeightFile;
use crate::compressed::compressed;
use crate::level::Level;
use crate::proto::{self, Block, Function, NamedValueType};
use block::{BlockBuilder, Mil, OperationBuilder, data_type};
use columns::Columns;

/// A graph as a function.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The body.
    pub function: Function,
    /// The weights it refers to.
    pub weights: WeightFile,
    /// Inputs in order, under the names of the program.
    pub inputs: Vec<(String, TensorType)>,
    /// Outputs in order, under the names of the program.
    pub outputs: Vec<(String, TensorType)>,
}

impl Lowered {
    /// The features for the manifest.
    pub(crate) fn features(list: &[(String, TensorType)]) -> Vec<Feature> {
        list.iter()
            .map(|(name, ty)| Feature::new(name, ty))
            .collect()
    }
}

/// How inputs of integers are declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntegerFeatures {
    /// As int32.
    Int32,
    /// As fp32 and cast inside, as in Apple's packages; the IR has no such cast.
    Float32,
}

/// Lowers a graph without open batch. Its weights join those of `weights`.
///
/// # Errors
/// [`TargetError::Unsupported`] for what the format has no form for, naming the node; [`TargetError::Weight`] when a
/// small constant cannot be made.
pub(crate) fn lower(
    graph: &Graph,
    level: Level,
    integers: IntegerFeatures,
    attention: AttentionForm,
    weights: WeightFile,
) -> Result<Lowered, TargetError> {
    let mut lowering = Lowering::new(graph, level, Columns::of(attention), weights);
    lowering.features(integers)?;
    for node in graph.nodes() {
        if let Some(value) = lowering.node_in_columns(node)? {
            lowering.columns.insert(node.result, value);
            continue;
        }
        let value = lowering.node(node)?;
        lowering.values.insert(node.result, value);
    }
    lowering.finish()
}

/// The state of lowering one graph.
struct Lowering<'a> {
    graph: &'a Graph,
    level: Level,
    block: BlockBuilder,
    values: BTreeMap<ValueId, Mil>,
    /// Values `[N,S,C]` that stand as `[N,C,1,S]`, beside or instead of those above.
    columns: Columns,
    inputs: Vec<(String, TensorType)>,
    /// Names of the outputs, by position.
    output_names: Vec<String>,
    /// The values that take the name of an output when they are made.
    named: BTreeMap<ValueId, String>,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a Graph, level: Level, columns: Columns, weights: WeightFile) -> Self {
        Lowering {
            graph,
            level,
            block: BlockBuilder::new(level, weights),
            values: BTreeMap::new(),
            columns,
            inputs: Vec::new(),
            output_names: Vec::new(),
            named: BTreeMap::new(),
        }
    }

    /// Declares the features, whose names no other value may take.
    fn features(&mut self, integers: IntegerFeatures) -> Result<(), TargetError> {
        let graph = self.graph;
        for input in graph.inputs() {
            let mut ty = graph.ty(input.value).clone();
            self.check_feature(&input.name, &ty)?;
            let shape = self.fixed(&input.name, "input", &ty.shape)?;
            let name = self.block.names.fresh(&input.name);
            if integers == IntegerFeatures::Float32 && ty.dtype == DType::I32 {
                ty.dtype = DType::F32;
            }
            let dtype = ty.dtype;
            self.inputs.push((name.clone(), ty));
            self.values.insert(input.value, Mil { name, dtype, shape });
        }
        for output in graph.outputs() {
            self.check_feature(&output.name, graph.ty(output.value))?;
            let name = self.block.names.fresh(&output.name);
            if let ValueDef::Node(_) = graph.value(output.value).def {
                self.named
                    .entry(output.value)
                    .or_insert_with(|| name.clone());
            }
            self.output_names.push(name);
        }
        for input in graph
            .inputs()
            .iter()
            .filter(|i| graph.ty(i.value).dtype == DType::I32)
        {
            let feature = self.values[&input.value].clone();
            if feature.dtype == DType::F32 {
                let name = self.block.names.fresh(&format!("{}_int32", input.name));
                let cast = self.op("cast").tensor("x", &feature).text("dtype", "int32");
                let ids = cast.finish(name, DType::I32, &feature.shape);
                self.values.insert(input.value, ids);
            }
        }
        Ok(())
    }

    fn unsupported(&self, node: &str, op: &'static str, reason: impl Into<String>) -> TargetError {
        TargetError::Unsupported {
            graph: self.graph.name().to_owned(),
            node: node.to_owned(),
            op,
            reason: reason.into(),
        }
    }

    fn refuse(&self, node: &Node, reason: impl Into<String>) -> TargetError {
        self.unsupported(&node.name, node.op.name(), reason)
    }

    fn check_feature(&self, name: &str, ty: &TensorType) -> Result<(), TargetError> {
        let reason = if ty.shape.rank() == 0 {
            "a feature needs at least one dimension".to_owned()
        } else if !matches!(ty.dtype, DType::F16 | DType::F32 | DType::I32) {
            format!(
                "a feature cannot hold {} elements; cast it to f16, f32 or i32",
                ty.dtype
            )
        } else {
            return Ok(());
        };
        Err(self.unsupported(name, "feature", reason))
    }

    /// The sizes of a shape, which all fit the 31 bits that parameters have.
    fn fixed(
        &self,
        node: &str,
        op: &'static str,
        shape: &Shape,
    ) -> Result<Vec<usize>, TargetError> {
        let Some(sizes) = shape.to_fixed() else {
            return Err(self.unsupported(node, op, "the batch is open; bind it to a size"));
        };
        if sizes.iter().any(|&n| i32::try_from(n).is_err()) {
            let reason = format!("shape {shape} has a dimension beyond 31 bits");
            return Err(self.unsupported(node, op, reason));
        }
        Ok(sizes)
    }

    /// The value of an operand; a weight becomes a constant at its first use.
    fn operand(&mut self, node: &Node, index: usize) -> Result<Mil, TargetError> {
        let id = node.operands[index];
        if self.columns.is_current {
            return self.operand_in_columns(node, id);
        }
        if let Some(value) = self.rows_of(id) {
            return Ok(value);
        }
        let weight = self
            .graph
            .weight_of(id)
            .expect("inputs and earlier nodes have values");
        let value = self.constant(node, &weight.name, &weight.tensor)?;
        self.values.insert(id, value.clone());
        Ok(value)
    }

    /// All operands in order.
    fn operands(&mut self, node: &Node) -> Result<Vec<Mil>, TargetError> {
        (0..node.operands.len())
            .map(|i| self.operand(node, i))
            .collect()
    }

    /// Adds a constant tensor.
    fn constant(
        &mut self,
        node: &Node,
        name: &str,
        tensor: &LazyTensor,
    ) -> Result<Mil, TargetError> {
        if data_type(tensor.dtype()).is_none() {
            let reason = format!(
                "constant '{name}' has {} elements, which Core ML lacks",
                tensor.dtype()
            );
            return Err(self.refuse(node, reason));
        }
        let form = compressed(tensor, self.level).map_err(|reason| {
            let reason = format!("weight '{name}': {reason}");
            self.refuse(node, reason)
        })?;
        let made = match form {
            Some(form) => self.block.compressed(name, tensor, &form),
            None => self.block.weight(name, tensor),
        };
        made.map_err(|source| TargetError::Weight {
            graph: self.graph.name().to_owned(),
            weight: name.to_owned(),
            source,
        })
    }

    /// The data of an operand that is a weight.
    fn weight_of(&self, node: &Node, index: usize) -> Option<&'a snapc_ir::Weight> {
        self.graph.weight_of(*node.operands.get(index)?)
    }

    /// Begins an operation.
    fn op(&mut self, kind: &'static str) -> OperationBuilder<'_> {
        self.block.operation(kind)
    }

    /// A name for an intermediate result of a node.
    fn inner_name(&mut self, node: &Node, what: &str) -> String {
        self.block.names.fresh(&format!("{}_{what}", node.name))
    }

    /// The name for the result of a node.
    fn result_name(&mut self, node: &Node) -> String {
        match self.named.get(&node.result) {
            // An output has the dimensions of the graph.
            Some(name) if !self.columns.is_current => name.clone(),
            _ => self.block.names.fresh(&node.name),
        }
    }

    /// Element type and sizes of the result of a node.
    fn result_type(&self, node: &Node) -> Result<(DType, Vec<usize>), TargetError> {
        let ty = self.graph.ty(node.result);
        if data_type(ty.dtype).is_none() {
            let reason = format!(
                "Core ML has no {} values; cast to f16, f32 or i32",
                ty.dtype
            );
            return Err(self.refuse(node, reason));
        }
        Ok((ty.dtype, self.fixed(&node.name, node.op.name(), &ty.shape)?))
    }

    /// Lowers one node and gives the value of its result.
    fn node(&mut self, node: &Node) -> Result<Mil, TargetError> {
        let (dtype, shape) = self.result_type(node)?;
        let result = Mil {
            name: String::new(),
            dtype,
            shape,
        };
        match &node.op {
            Op::Add(_) => self.binary(node, "add", &result),
            Op::Sub(_) => self.binary(node, "sub", &result),
            Op::Mul(_) => self.binary(node, "mul", &result),
            Op::Div(_) => self.div(node, &result),
            Op::Equal(_) => self.binary(node, "equal", &result),
            Op::Cos(_) => self.unary(node, "cos", &result),
            Op::Sin(_) => self.unary(node, "sin", &result),
            Op::Exp(_) => self.unary(node, "exp", &result),
            Op::Erf(_) => self.unary(node, "erf", &result),
            Op::Sqrt(_) => self.unary(node, "sqrt", &result),
            Op::Sigmoid(_) => self.unary(node, "sigmoid", &result),
            Op::Silu(_) => self.unary(node, "silu", &result),
            Op::Gelu(_) => self.gelu(node, "EXACT", &result),
            Op::QuickGelu(_) => self.gelu(node, "SIGMOID_APPROXIMATION", &result),
            Op::Cast(op) => self.cast(node, op, &result),
            Op::Softmax(op) => self.softmax(node, op, &result),
            Op::ReduceMean(op) => self.reduce_mean(node, op, &result),
            Op::ArgMax(op) => self.arg_max(node, op, &result),
            Op::MatMul(_) => self.matmul(node, &result),
            Op::Conv2d(op) => self.conv2d(node, op, &result),
            Op::Linear(_) => self.linear(node, &result),
            Op::LayerNorm(op) => self.layer_norm(node, op, &result),
            Op::GroupNorm(op) => self.group_norm(node, op, &result),
            Op::Attention(op) => self.attention(node, op, &result),
            Op::Concat(op) => self.concat(node, op, &result),
            Op::Gather(op) => self.gather(node, op, &result),
            Op::Reshape(_) => self.reshape(node, &result),
            Op::Transpose(op) => self.transpose(node, op, &result),
            Op::Slice(op) => self.slice(node, op, &result),
            Op::UpsampleNearest(op) => self.upsample_nearest(node, op, &result),
            Op::FakeQuantize(op) => self.fake_quantize(node, op, &result),
            Op::TimestepEmbedding(_) => Err(self.refuse(
                node,
                "it has no operation of its own; legalize the graph first",
            )),
        }
    }

    fn finish(mut self) -> Result<Lowered, TargetError> {
        let graph = self.graph;
        let mut outputs = Vec::new();
        for (output, name) in graph
            .outputs()
            .iter()
            .zip(std::mem::take(&mut self.output_names))
        {
            let ty = graph.ty(output.value).clone();
            self.rows_of(output.value);
            if self.named.get(&output.value) != Some(&name) {
                self.forward(output, &name)?;
            }
            outputs.push((name, ty));
        }
        let (operations, weights) = self.block.finish();
        let outputs_of_block: Vec<String> = outputs.iter().map(|(name, _)| name.clone()).collect();
        let block = Block {
            operations: self.columns.without_unused(operations, &outputs_of_block),
            outputs: outputs_of_block,
            ..Block::default()
        };
        let inputs = self
            .inputs
            .iter()
            .map(|(name, ty)| named_type(name, ty))
            .collect();
        let function = Function {
            inputs,
            opset: self.level.opset().to_owned(),
            block_specializations: BTreeMap::from([(self.level.opset().to_owned(), block)]),
            ..Function::default()
        };
        Ok(Lowered {
            function,
            weights,
            inputs: self.inputs,
            outputs,
        })
    }

    /// Gives out an input, a weight, or a value that already has the name of another output: an output must be the
    /// result of an operation of its own.
    fn forward(&mut self, output: &snapc_ir::GraphOutput, name: &str) -> Result<(), TargetError> {
        let value = match (
            self.values.get(&output.value),
            self.graph.weight_of(output.value),
        ) {
            (Some(value), _) => value.clone(),
            (None, Some(weight)) => {
                let made = self.block.weight(&weight.name, &weight.tensor);
                made.map_err(|source| TargetError::Weight {
                    graph: self.graph.name().to_owned(),
                    weight: weight.name.clone(),
                    source,
                })?
            }
            (None, None) => unreachable!("inputs and nodes have values"),
        };
        let identity = self.op("identity").tensor("x", &value);
        identity.finish(name.to_owned(), value.dtype, &value.shape);
        Ok(())
    }
}

/// Name and type of a function's input.
fn named_type(name: &str, ty: &TensorType) -> NamedValueType {
    let dtype = data_type(ty.dtype).expect("features are checked when declared");
    NamedValueType {
        name: name.to_owned(),
        ty: Some(proto::tensor_type(dtype, &ty.shape.bind(1))),
    }
}
