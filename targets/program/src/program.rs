//! The networks of one file, and the bounds on what a file may say.

use std::collections::BTreeMap;

use snapc_format::Stage;

use crate::graph::Graph;

/// Version of the encoding, which a reader must know.
pub(crate) const VERSION: u16 = 1;

/// Inputs, and outputs, of a graph.
pub(crate) const MAX_PORTS: usize = 1024;

/// Weights of a graph: as many as a tensor table holds.
pub(crate) const MAX_WEIGHTS: usize = 65_536;

/// Instructions of a graph.
pub(crate) const MAX_INSTRUCTIONS: usize = 65_536;

/// Operands of an instruction other than [`crate::Op::Concat`].
pub(crate) const MAX_OPERANDS: usize = 8;

/// Operands of [`crate::Op::Concat`].
pub(crate) const MAX_CONCAT: usize = 64;

/// Bytes of a name.
pub(crate) const MAX_NAME: usize = 512;

/// Bit of an operand that tells a weight from a value.
pub(crate) const WEIGHT_BIT: u32 = 1 << 31;

/// The graphs of a `.snap` file, at most one per stage.
///
/// ```
/// use snapc_format::Stage;
/// use snapc_program::{Dim, Graph, Instruction, Op, Program, Rounding, Type, Unary};
///
/// let mut graph = Graph::new();
/// let x = graph.input("x", Type::f32([Dim::Batch, Dim::Fixed(4)]))?;
/// graph.push(Instruction {
///     name: "act".to_owned(),
///     op: Op::Unary(Unary::Silu),
///     operands: vec![x],
///     rounding: Rounding::None,
/// })?;
/// graph.output("y", 1)?;
///
/// let mut program = Program::new();
/// program.insert(Stage::Unet, graph);
/// let bytes = program.encode()?;
/// assert_eq!(Program::decode(&bytes)?, program);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    graphs: BTreeMap<Stage, Graph>,
}

impl Program {
    /// No graphs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the graph of a stage and gives the one that was there.
    pub fn insert(&mut self, stage: Stage, graph: Graph) -> Option<Graph> {
        self.graphs.insert(stage, graph)
    }

    /// The graph of a stage.
    pub fn graph(&self, stage: Stage) -> Option<&Graph> {
        self.graphs.get(&stage)
    }

    /// The stages that have a graph, in the order of a run, with their graphs.
    pub fn graphs(&self) -> impl ExactSizeIterator<Item = (Stage, &Graph)> {
        self.graphs.iter().map(|(stage, graph)| (*stage, graph))
    }

    /// The graphs alone, by stage.
    pub fn into_graphs(self) -> BTreeMap<Stage, Graph> {
        self.graphs
    }
}
