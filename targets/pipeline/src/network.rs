//! Networks as compilers leave them, graphs with named tensors, and the engine that three of them make.

mod engine;
mod error;
mod interface;

use std::error::Error;
use std::fmt;

pub use engine::NetworkEngine;
pub use error::{InterfaceError, NetworkKind};

/// Element type at the edge of a network: what the caller hands over. An implementation converts to f16 or i64 itself
/// where its graph takes those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortType {
    /// 32-bit float.
    F32,
    /// 32-bit signed integer.
    I32,
}

/// A named input or output of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name of the feature.
    pub name: String,
    /// Element type.
    pub dtype: PortType,
    /// Sizes of the axes; `None` is an axis that the caller's batch binds. Empty for a scalar.
    pub dims: Vec<Option<usize>>,
}

impl Port {
    /// A port.
    pub fn new(name: impl Into<String>, dtype: PortType, dims: &[Option<usize>]) -> Self {
        Self {
            name: name.into(),
            dtype,
            dims: dims.to_vec(),
        }
    }

    /// Number of values at this batch; `None` when it does not fit.
    pub fn values(&self, batch: usize) -> Option<usize> {
        let mut dims = self.dims.iter().map(|dim| dim.unwrap_or(batch));
        dims.try_fold(1usize, |values, dim| values.checked_mul(dim))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = match self.dtype {
            PortType::F32 => "f32",
            PortType::I32 => "i32",
        };
        let dims = self.dims.iter().map(|dim| match dim {
            Some(size) => size.to_string(),
            None => "N".to_owned(),
        });
        let dims: Vec<String> = dims.collect();
        write!(f, "'{}' {dtype} [{}]", self.name, dims.join(","))
    }
}

/// Values of an input, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// For a port of [`PortType::F32`].
    F32(&'a [f32]),
    /// For a port of [`PortType::I32`].
    I32(&'a [i32]),
}

impl Data<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I32(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> PortType {
        match self {
            Self::F32(_) => PortType::F32,
            Self::I32(_) => PortType::I32,
        }
    }
}

/// One compiled graph.
pub trait Network {
    /// Why the graph could not run.
    type Error: Error + Send + Sync + 'static;

    /// What the graph takes, in the order of [`Network::run`].
    fn inputs(&self) -> &[Port];

    /// What the graph gives, in the order of [`Network::run`].
    fn outputs(&self) -> &[Port];

    /// Runs the graph once. `batch` binds the open axes of all ports and means nothing to a graph without any. `inputs` are
    /// in the order of [`Network::inputs`]; results, in the order of [`Network::outputs`], are written over the whole of
    /// the given slices, and an output given as `None` is not wanted.
    ///
    /// # Errors
    /// When an input or output has another type or number of values than its port at this batch, or the graph cannot run.
    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), Self::Error>;
}

impl<T: Network + ?Sized> Network for Box<T> {
    type Error = T::Error;

    fn inputs(&self) -> &[Port] {
        (**self).inputs()
    }

    fn outputs(&self) -> &[Port] {
        (**self).outputs()
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), Self::Error> {
        (**self).run(batch, inputs, outputs)
    }
}
