//! From a graph of the IR to a device program.
//!
//! Every value of the IR has a place: a constant that is still lazy, or a value of the program and the order of its
//! dimensions. Operators ask for their operands in the order that they work in; an instruction that moves data is added only
//! when the elements are elsewhere.

mod constants;
mod elementwise;
mod encoded;
mod fusion;
mod movement;
mod norm;
mod order;
mod product;
mod weights;

use std::collections::BTreeMap;
use std::sync::Arc;

use snapc_ir::{DType, Dim, Encoding, Graph, LazyTensor, Node, Op, TensorType, ValueId, Verified};
use snapc_program::{
    Codebook, Codes, Element, Instruction, Operand, Rounding, Storage, Type, Unary,
};
use snapc_target::TargetError;

use crate::compile::Activations;
use constants::{Constant, constants};
use encoded::{Book, Encoded};
use fusion::Fate;
use order::{Order, moving, plain, position};
pub use weights::StoredWeight;
use weights::WeightTable;
pub(crate) use weights::layout;

/// Bytes of the longest instruction name that the format holds.
const MAX_NAME: usize = 512;

/// A graph as the device runs it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The instructions.
    pub program: snapc_program::Graph,
    /// The weights of the program, in its order.
    pub weights: Vec<StoredWeight>,
    /// What the graph asks for and the device does not do, one sentence each.
    pub notes: Vec<String>,
}

/// Lowers a graph.
///
/// # Errors
/// [`TargetError::Unsupported`] names the graph and the node that the device has no form for.
pub fn lower(graph: &Verified<'_>, activations: Activations) -> Result<Lowered, TargetError> {
    let constants = constants(graph);
    let fates = fusion::plan(graph, &constants, activations);
    let mut lowering = Lowering {
        graph,
        activations,
        program: snapc_program::Graph::new(),
        weights: WeightTable::default(),
        notes: Vec::new(),
        places: vec![None; graph.values().len()],
        constants,
        reordered: BTreeMap::new(),
    };
    lowering.inputs()?;
    let live = graph.live_values();
    for (node, fate) in graph.nodes().iter().zip(&fates) {
        if live[node.result.index()] {
            lowering.check_size(node.result, &node.name, node.op.name())?;
            lowering.node(node, fate)?;
        }
    }
    lowering.outputs()?;
    Ok(Lowered {
        program: lowering.program,
        weights: lowering.weights.into_weights(),
        notes: lowering.notes,
    })
}

/// Where a value of the IR is that is known at run time only.
#[derive(Clone, Debug)]
struct Place {
    operand: Operand,
    order: Order,
}

/// A graph that is being lowered.
struct Lowering<'a> {
    graph: &'a Graph,
    activations: Activations,
    program: snapc_program::Graph,
    weights: WeightTable,
    notes: Vec<String>,
    /// By value of the IR, as they are defined.
    places: Vec<Option<Place>>,
    /// By value of the IR.
    constants: Vec<Option<Constant>>,
    /// Operands whose dimensions have been moved so, for those who want the same.
    reordered: BTreeMap<(Operand, Vec<usize>), Operand>,
}

impl<'a> Lowering<'a> {
    fn dims(&self, value: ValueId) -> &'a [Dim] {
        self.graph.ty(value).shape.dims()
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

    /// Checks that a value is one that the device can have.
    fn check_size(&self, value: ValueId, name: &str, op: &'static str) -> Result<(), TargetError> {
        let ty = self.graph.ty(value);
        let dims = ty.shape.dims();
        let fits = |d: &Dim| d.fixed().is_none_or(|n| n > 0 && u32::try_from(n).is_ok());
        if dims.len() <= snapc_program::MAX_RANK && dims.iter().all(fits) {
            return Ok(());
        }
        let limit = snapc_program::MAX_RANK;
        let reason =
            format!("{ty} has an empty dimension, one beyond 32 bits, or more than {limit}");
        Err(self.unsupported(name, op, reason))
    }

    fn inputs(&mut self) -> Result<(), TargetError> {
        let graph = self.graph;
        for input in graph.inputs() {
            self.check_size(input.value, &input.name, "input")?;
            let ty = graph.ty(input.value);
            let declared = physical(ty, &plain(ty.shape.rank()));
            let operand = self
                .program
                .input(input.name.as_str(), declared)
                .map_err(|e| self.unsupported(&input.name, "input", e.to_string()))?;
            let order = plain(ty.shape.rank());
            self.places[input.value.index()] = Some(Place { operand, order });
        }
        for input in graph.inputs() {
            let dtype = graph.ty(input.value).dtype;
            if !self.activations.rounds(dtype) {
                continue;
            }
            let place = self.place_of(input.value);
            let rounded = self.rounded(place, dtype, (&input.name, "input"))?;
            self.places[input.value.index()] = Some(rounded);
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), TargetError> {
        let graph = self.graph;
        for output in graph.outputs() {
            let site = (output.name.as_str(), "output");
            let order = plain(graph.ty(output.value).shape.rank());
            let mut operand = self.ordered(output.value, &order, site)?;
            if let Operand::Weight(_) = operand {
                let to = element(graph.ty(output.value).dtype);
                let copy = snapc_program::Op::Cast { to };
                operand = self.push(site, copy, vec![operand], Rounding::None)?;
            }
            let Operand::Value(value) = operand else {
                unreachable!("the result of an instruction is a value");
            };
            self.program
                .output(output.name.as_str(), value)
                .map_err(|e| self.unsupported(&output.name, "output", e.to_string()))?;
        }
        Ok(())
    }

    /// The place of a value that is not constant.
    fn place_of(&self, value: ValueId) -> Place {
        let place = self.places[value.index()].clone();
        place.expect("operands are lowered before the nodes that use them")
    }

    fn is_constant(&self, value: ValueId) -> bool {
        self.constants[value.index()].is_some()
    }

    /// What the graph rounds a result of this element type to.
    fn rounding(&self, dtype: DType) -> Rounding {
        match dtype {
            DType::F16 if self.activations.rounds(dtype) => Rounding::F16,
            DType::BF16 if self.activations.rounds(dtype) => Rounding::Bf16,
            _ => Rounding::None,
        }
    }

    /// Appends an instruction. `site` is the name of the node and of its operator.
    fn push(
        &mut self,
        site: (&str, &'static str),
        op: snapc_program::Op,
        operands: Vec<Operand>,
        rounding: Rounding,
    ) -> Result<Operand, TargetError> {
        let (name, ir_op) = site;
        let pushed = self.program.push(Instruction {
            name: name[..name.floor_char_boundary(MAX_NAME)].to_owned(),
            op,
            operands,
            rounding,
        });
        pushed.map_err(|e| self.unsupported(name, ir_op, e.to_string()))
    }

    /// Appends the instruction of a node, rounded as the node's result is, and gives the place of its result.
    fn compute(
        &mut self,
        node: &Node,
        op: snapc_program::Op,
        operands: Vec<Operand>,
        order: Order,
    ) -> Result<Place, TargetError> {
        let rounding = self.rounding(self.graph.ty(node.result).dtype);
        let operand = self.push(site(node), op, operands, rounding)?;
        Ok(Place { operand, order })
    }

    /// Appends an instruction that moves elements, which are rounded already.
    fn movement(
        &mut self,
        node: &Node,
        op: snapc_program::Op,
        operands: Vec<Operand>,
        order: Order,
    ) -> Result<Place, TargetError> {
        let operand = self.push(site(node), op, operands, Rounding::None)?;
        Ok(Place { operand, order })
    }

    /// A value rounded to the element type.
    fn rounded(
        &mut self,
        place: Place,
        dtype: DType,
        site: (&str, &'static str),
    ) -> Result<Place, TargetError> {
        let to = Element::F32;
        let cast = snapc_program::Op::Cast { to };
        let operand = self.push(site, cast, vec![place.operand], self.rounding(dtype))?;
        Ok(Place {
            operand,
            order: place.order,
        })
    }

    /// A weight that stands for a value.
    fn known_value(&mut self, name: &str, tensor: LazyTensor) -> Operand {
        let storage = match element(tensor.dtype()) {
            Element::F32 => Storage::F32,
            Element::I32 => Storage::I32,
        };
        self.weight(name, storage, tensor)
    }

    /// A weight of the program, in floats or integers.
    fn weight(&mut self, name: &str, storage: Storage, tensor: LazyTensor) -> Operand {
        let reason = match storage {
            Storage::Rows => "the device gathers from floats",
            _ => "the device reads it as a value",
        };
        self.decoded_weight(name, storage, tensor, reason)
    }

    /// A weight of the program, with a note when it has codes, which for this reason are not what is stored.
    fn decoded_weight(
        &mut self,
        name: &str,
        storage: Storage,
        tensor: LazyTensor,
        reason: &str,
    ) -> Operand {
        let was_encoded = encoded::was_encoded(&tensor);
        let (position, added) = self.weights.add(name, storage, tensor);
        if let Some(weight) = added {
            let declared = self.program.weight(weight.clone());
            declared.expect("the sizes of every constant were checked");
            if was_encoded {
                let note = format!("weight '{name}' is stored in floats: {reason}");
                self.notes.push(note);
            }
        }
        Operand::Weight(position as u32)
    }

    /// The weight of a product, whose dimensions are read in this order, as a matrix or kernel of dimensions `shape`: as
    /// codes when it has some that kernels read.
    fn product_panels(
        &mut self,
        name: &str,
        tensor: LazyTensor,
        order: &[usize],
        shape: &[usize],
    ) -> Operand {
        let reason = match (encoded::encoded(&tensor, order), tensor.encoding()) {
            (Some(Ok(found)), Some(encoding)) => {
                let encoding = Arc::clone(encoding);
                return self.codes(name, found, encoding, shape);
            }
            (Some(Err(reason)), _) => reason,
            _ => "a movement behind the codes hides them",
        };
        let tensor = tensor.permute(order).reshape(shape);
        self.decoded_weight(name, Storage::Panels, tensor, reason)
    }

    /// A weight of codes, behind what they stand for.
    fn codes(
        &mut self,
        name: &str,
        found: Encoded,
        encoding: Arc<Encoding>,
        shape: &[usize],
    ) -> Operand {
        if let Some(position) = self.weights.find_codes(&found.rows, &encoding) {
            return Operand::Weight(position as u32);
        }
        let mut number = |part: &str, storage, tensor| {
            let name = format!("{name}.{part}");
            match self.weight(&name, storage, tensor) {
                Operand::Weight(number) => number,
                Operand::Value(_) => unreachable!("a weight was asked for"),
            }
        };
        let book = match found.book {
            Book::Scales { scale, zero_point } => Codebook::Scales {
                scale: number("scale", Storage::Panels, scale),
                zero_point: zero_point.map(|zero| number("zero_point", Storage::Panels, zero)),
            },
            Book::Palette(table) => Codebook::Palette {
                table: number("palette", Storage::F32, table),
            },
        };
        let bits = found.bits;
        let added = self
            .weights
            .add_codes(name, Codes { bits, book }, shape, found.rows, encoding);
        let declared = self.program.weight(added.1.clone());
        declared.expect("codes were made for what they stand for");
        Operand::Weight(added.0 as u32)
    }

    /// The operand of a value with its dimensions in this order.
    fn ordered(
        &mut self,
        value: ValueId,
        order: &[usize],
        site: (&str, &'static str),
    ) -> Result<Operand, TargetError> {
        if let Some(constant) = self.constants[value.index()].clone() {
            self.check_size(value, site.0, site.1)?;
            return Ok(self.known_value(&constant.name, constant.tensor.permute(order)));
        }
        let place = self.place_of(value);
        self.reorder(&place, order, self.graph.ty(value), site)
    }

    /// The place of any value; a constant becomes a weight in plain order.
    fn placed(&mut self, value: ValueId, node: &Node) -> Result<Place, TargetError> {
        if !self.is_constant(value) {
            return Ok(self.place_of(value));
        }
        let order = plain(self.dims(value).len());
        let operand = self.ordered(value, &order, site(node))?;
        Ok(Place { operand, order })
    }

    /// The value in another order.
    fn reorder(
        &mut self,
        place: &Place,
        order: &[usize],
        ty: &TensorType,
        site: (&str, &'static str),
    ) -> Result<Operand, TargetError> {
        if place.order == order {
            return Ok(place.operand);
        }
        // Several values of the IR may be one operand under different orders; what counts is how its dimensions move.
        let moves = order.iter().map(|&d| position(&place.order, d));
        let key = (place.operand, moves.collect::<Vec<_>>());
        if let Some(&known) = self.reordered.get(&key) {
            return Ok(known);
        }
        let dims = ty.shape.dims();
        let op = if moving(&place.order, dims) == moving(order, dims) {
            snapc_program::Op::View {
                dims: physical(ty, order).dims,
            }
        } else {
            snapc_program::Op::Permute {
                order: key.1.iter().map(|&d| d as u8).collect(),
            }
        };
        let operand = self.push(site, op, vec![place.operand], Rounding::None)?;
        self.reordered.insert(key, operand);
        Ok(operand)
    }

    /// Lowers a node, unless it is part of another one's instruction.
    fn node(&mut self, node: &Node, fate: &Fate) -> Result<(), TargetError> {
        let place = match fate {
            Fate::Absorbed => return Ok(()),
            Fate::Chain(chain) => self.chain(node, chain)?,
            Fate::Geglu(x) => self.geglu(node, *x)?,
            Fate::Alone => self.operator(node)?,
        };
        self.places[node.result.index()] = Some(place);
        Ok(())
    }

    /// Lowers one operator by itself. There is no wildcard: a new operator needs a form here.
    fn operator(&mut self, node: &Node) -> Result<Place, TargetError> {
        use snapc_program::Binary;
        match &node.op {
            Op::Add(_) => self.binary(node, Binary::Add),
            Op::Sub(_) => self.binary(node, Binary::Sub),
            Op::Mul(_) => self.binary(node, Binary::Mul),
            Op::Div(_) => self.binary(node, Binary::Div),
            Op::Equal(_) => self.equal(node),
            Op::Cast(op) => self.cast(node, op.to),
            Op::Cos(_) => self.unary(node, Unary::Cos),
            Op::Erf(_) => self.unary(node, Unary::Erf),
            Op::Exp(_) => self.unary(node, Unary::Exp),
            Op::Gelu(_) => self.unary(node, Unary::Gelu),
            Op::QuickGelu(_) => self.unary(node, Unary::QuickGelu),
            Op::Sigmoid(_) => self.unary(node, Unary::Sigmoid),
            Op::Silu(_) => self.unary(node, Unary::Silu),
            Op::Sin(_) => self.unary(node, Unary::Sin),
            Op::Sqrt(_) => self.unary(node, Unary::Sqrt),
            Op::Transpose(op) => self.transpose(node, &op.perm),
            Op::Reshape(_) => self.reshape(node),
            Op::Slice(op) => self.slice(node, op.axis, op.start, op.end),
            Op::Concat(op) => self.concat(node, op.axis),
            Op::Gather(op) => self.gather(node, op.axis, op.batch_dims),
            Op::UpsampleNearest(op) => self.upsample(node, op.scale),
            Op::Softmax(op) => self.softmax(node, op.axis),
            Op::ReduceMean(op) => self.reduce_mean(node, &op.axes),
            Op::ArgMax(op) => self.arg_max(node, op.axis),
            Op::LayerNorm(op) => self.layer_norm(node, op.epsilon),
            Op::Attention(op) => self.attention(node, op.heads, op.scale),
            Op::MatMul(_) => self.matmul(node),
            Op::Conv2d(op) => self.grouped_conv2d(node, op),
            Op::Linear(_) => self.linear_of_values(node),
            Op::GroupNorm(_) => unreachable!("every group norm is the head of a chain"),
            Op::FakeQuantize(op) => self.fake_quantize(node, op),
            Op::TimestepEmbedding(op) => self.timestep_embedding(node, op),
        }
    }

    /// A size that the device counts in 32 bits.
    fn size(&self, node: &Node, n: usize) -> Result<u32, TargetError> {
        u32::try_from(n).map_err(|_| self.refuse(node, format!("{n} does not fit 32 bits")))
    }
}

/// Names of a node and of its operator, for instructions and errors.
fn site(node: &Node) -> (&str, &'static str) {
    (&node.name, node.op.name())
}

/// What values of an IR type are made of on the device.
fn element(dtype: DType) -> Element {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Element::F32,
        DType::I32 | DType::I64 | DType::Bool | DType::I8 | DType::U8 => Element::I32,
    }
}

/// A dimension on the device. The lowering has checked that sizes fit.
fn dim(dim: Dim) -> snapc_program::Dim {
    match dim {
        Dim::Batch => snapc_program::Dim::Batch,
        Dim::Fixed(n) => snapc_program::Dim::Fixed(n as u32),
    }
}

/// The type of a value whose dimensions are in this order.
fn physical(ty: &TensorType, order: &[usize]) -> Type {
    let dims = ty.shape.dims();
    Type {
        element: element(ty.dtype),
        dims: order.iter().map(|&d| dim(dims[d])).collect(),
    }
}
