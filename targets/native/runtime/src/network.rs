//! One network of a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapc_format::Stage;
use snapc_pipeline::{Data, Network, Port, PortType};
use snapc_program::{Element, Graph, Plan, plan};

use crate::error::RuntimeError;
use crate::run::{Observation, Prepared, Run};
use crate::runtime::{BoundGraph, Shared};

/// A network of a [`crate::Runtime`]. Clones share weights, threads and memory.
#[derive(Clone)]
pub struct RuntimeNetwork {
    shared: Arc<Shared>,
    graph: Arc<BoundGraph>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// By batch.
    prepared: BTreeMap<usize, Prepared>,
}

impl std::fmt::Debug for RuntimeNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeNetwork")
            .field("stage", &self.graph.stage)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

fn ports(graph: &Graph, ports: &[snapc_program::Port]) -> Vec<Port> {
    let port = |port: &snapc_program::Port| {
        let ty = &graph.values()[port.value as usize];
        let dims = ty.dims.iter().map(|dim| match dim {
            snapc_program::Dim::Batch => None,
            snapc_program::Dim::Fixed(n) => Some(*n as usize),
        });
        Port {
            name: port.name.clone(),
            dtype: match ty.element {
                Element::F32 => PortType::F32,
                Element::I32 => PortType::I32,
            },
            dims: dims.collect(),
        }
    };
    ports.iter().map(port).collect()
}

impl RuntimeNetwork {
    pub(crate) fn new(shared: Arc<Shared>, graph: Arc<BoundGraph>) -> Self {
        RuntimeNetwork {
            inputs: ports(&graph.graph, graph.graph.inputs()),
            outputs: ports(&graph.graph, graph.graph.outputs()),
            shared,
            graph,
            prepared: BTreeMap::new(),
        }
    }

    /// Which network it is.
    pub fn stage(&self) -> Stage {
        self.graph.stage
    }

    /// The instructions.
    pub fn graph(&self) -> &Graph {
        &self.graph.graph
    }

    /// Bytes of values that a run at this batch needs besides the weights.
    ///
    /// # Errors
    /// When the batch is 0 or the values exceed the address space.
    pub fn arena_bytes(&self, batch: usize) -> Result<usize, RuntimeError> {
        self.plan(batch).map(|plan| plan.len())
    }

    /// Bytes of values that are held between runs, for all networks of the runtime.
    pub fn held_bytes(&self) -> usize {
        self.shared.arena().held()
    }

    /// Gives the memory for values back to the system; the next run of any network takes it again.
    pub fn release_memory(&self) {
        self.shared.arena().release();
    }

    /// As [`Network::run`], and shows every instruction's result to `observer` when it is made.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn run_observed(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
        observer: &mut dyn FnMut(Observation<'_>),
    ) -> Result<(), RuntimeError> {
        if !self.prepared.contains_key(&batch) {
            let plan = self.plan(batch)?;
            let values = self.graph.graph.values();
            let dims = values.iter().map(|ty| ty.bind(batch)).collect();
            self.prepared.insert(batch, Prepared { plan, dims });
        }
        let run = Run {
            shared: &self.shared,
            graph: &self.graph,
            prepared: &self.prepared[&batch],
        };
        run.check_ports(&self.inputs, inputs, &self.outputs, outputs)?;
        let mut arena = self.shared.arena();
        run.run(&mut arena, inputs, outputs, observer)
    }

    fn plan(&self, batch: usize) -> Result<Plan, RuntimeError> {
        let stage = self.graph.stage;
        plan(&self.graph.graph, batch).map_err(|source| RuntimeError::Plan { stage, source })
    }
}

impl Network for RuntimeNetwork {
    type Error = RuntimeError;

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), RuntimeError> {
        self.run_observed(batch, inputs, outputs, &mut |_| {})
    }
}
