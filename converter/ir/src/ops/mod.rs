//! The operators. Adding one is a new file and a line in `ops!`; `docs/adding-an-op.md` walks through it.
//!
//! An operator is **primitive**, and every target lowers it, or **composite**, and carries [`Operator::decompose`], so
//! that a target without it gets simpler ones.

mod attribute;
mod check;
mod elementwise;

use std::fmt::Debug;

pub(crate) use attribute::operator;
pub use attribute::{Attribute, AttributeError, AttributeMap, AttributeValue};
pub use check::InferError;

use crate::graph::{BuildError, Graph, ValueId};
use crate::tensor::Tensor;
use crate::types::{DType, Shape, TensorType};

/// What an operator is: its types, its meaning, its cost.
pub trait Operator: Clone + Debug + PartialEq + Into<Op> {
    /// Name in the text form: ONNX or PyTorch spelling in snake case.
    const NAME: &'static str;

    /// Whether it decomposes into simpler operators.
    const COMPOSITE: bool = false;

    /// Attributes in declaration order. Written by `operator!`.
    fn attributes(&self) -> Vec<(&'static str, Attribute)>;

    /// The operator with these attributes. Written by `operator!`.
    ///
    /// # Errors
    /// When one is missing, unknown or of the wrong kind.
    fn from_attributes(attributes: &mut AttributeMap) -> Result<Self, AttributeError>;

    /// Type of the result.
    ///
    /// # Errors
    /// When the operands do not fit; the message names the operand.
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError>;

    /// The meaning: the result in f32 (integers exact). Clear rather than fast. Operand types have passed
    /// [`Operator::infer`]. Rounding to the result's element type is done by the caller.
    fn eval(&self, operands: &[&Tensor]) -> Tensor;

    /// The same value in simpler operators, added to `graph` under `name`; `None` for a primitive.
    ///
    /// # Errors
    /// Only for operands that [`Operator::infer`] refuses.
    fn decompose(
        &self,
        graph: &mut Graph,
        operands: &[ValueId],
        name: &str,
    ) -> Result<Option<ValueId>, BuildError> {
        let _ = (graph, operands, name);
        Ok(None)
    }

    /// Multiply-adds per unit of batch; bias and elementwise work are not counted.
    fn macs(&self, operands: &[&TensorType], result: &TensorType) -> u64 {
        let _ = (operands, result);
        0
    }

    /// Instances with operand types that [`Operator::infer`] accepts, for the tests that run over all operators.
    fn examples() -> Vec<Example>;
}

/// An operator with operand types it accepts.
#[derive(Clone, Debug)]
pub struct Example {
    /// The operator.
    pub op: Op,
    /// One type per operand.
    pub operands: Vec<TensorType>,
    /// For integer operands, the first value that is out of range (a vocabulary size, say).
    pub int_bound: i64,
}

impl Example {
    /// An example; integer operands take values below 2.
    pub fn new(op: impl Into<Op>, operands: Vec<TensorType>) -> Self {
        Example {
            op: op.into(),
            operands,
            int_bound: 2,
        }
    }

    /// An example whose operands are all f32, of these shapes.
    pub fn f32(op: impl Into<Op>, shapes: &[Shape]) -> Self {
        let ty = |s: &Shape| TensorType::new(DType::F32, s.clone());
        Example::new(op, shapes.iter().map(ty).collect())
    }

    /// The same with another bound for integers.
    pub fn with_int_bound(mut self, bound: i64) -> Self {
        self.int_bound = bound;
        self
    }
}

macro_rules! ops {
    ($($module:ident $name:ident),* $(,)?) => {
        $(mod $module; pub use $module::$name;)*

        /// Any operator.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $(#[doc = concat!("`", stringify!($module), "`")] $name($name)),*
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op {
                Op::$name(op)
            }
        })*

        impl Op {
            /// Names of all operators, in the order of the list.
            pub const NAMES: &'static [&'static str] = &[$($name::NAME),*];

            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name(_) => $name::NAME),* }
            }

            /// See [`Operator::COMPOSITE`].
            pub fn is_composite(&self) -> bool {
                match self { $(Op::$name(_) => $name::COMPOSITE),* }
            }

            /// See [`Operator::attributes`].
            pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
                match self { $(Op::$name(op) => op.attributes()),* }
            }

            /// The operator of that name with these attributes.
            ///
            /// # Errors
            /// When the name or an attribute is unknown, or one is missing.
            pub fn from_parts(name: &str, mut attributes: AttributeMap) -> Result<Op, AttributeError> {
                let op = match name {
                    $($name::NAME => Op::$name($name::from_attributes(&mut attributes)?),)*
                    _ => return Err(AttributeError::UnknownOperator(name.to_owned())),
                };
                attributes.finish()?;
                Ok(op)
            }

            /// See [`Operator::infer`].
            ///
            /// # Errors
            /// When the operands do not fit, or give a shape with two batch dimensions or beyond the address space.
            pub fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, InferError> {
                let ty = match self { $(Op::$name(op) => op.infer(operands)),* }?;
                check::representable(ty)
            }

            /// See [`Operator::eval`].
            pub fn eval(&self, operands: &[&Tensor]) -> Tensor {
                match self { $(Op::$name(op) => op.eval(operands)),* }
            }

            /// See [`Operator::decompose`].
            ///
            /// # Errors
            /// Only for operands that [`Op::infer`] refuses.
            pub fn decompose(
                &self,
                graph: &mut Graph,
                operands: &[ValueId],
                name: &str,
            ) -> Result<Option<ValueId>, BuildError> {
                match self { $(Op::$name(op) => op.decompose(graph, operands, name)),* }
            }

            /// See [`Operator::macs`].
            pub fn macs(&self, operands: &[&TensorType], result: &TensorType) -> u64 {
                match self { $(Op::$name(op) => op.macs(operands, result)),* }
            }

            /// The examples of all operators.
            pub fn examples() -> Vec<Example> {
                let mut all = Vec::new();
                $(all.extend($name::examples());)*
                all
            }
        }
    };
}

ops! {
    add Add,
    arg_max ArgMax,
    attention Attention,
    cast Cast,
    concat Concat,
    conv2d Conv2d,
    cos Cos,
    div Div,
    equal Equal,
    erf Erf,
    exp Exp,
    fake_quantize FakeQuantize,
    gather Gather,
    gelu Gelu,
    group_norm GroupNorm,
    layer_norm LayerNorm,
    linear Linear,
    matmul MatMul,
    mul Mul,
    quick_gelu QuickGelu,
    reduce_mean ReduceMean,
    reshape Reshape,
    sigmoid Sigmoid,
    silu Silu,
    sin Sin,
    slice Slice,
    softmax Softmax,
    sqrt Sqrt,
    sub Sub,
    timestep_embedding TimestepEmbedding,
    transpose Transpose,
    upsample_nearest UpsampleNearest,
}
