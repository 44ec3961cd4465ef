//! A model as a network.

use std::path::Path;

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session};
use ort::value::{Outlet, ValueType};
use snapc_pipeline::{Data, Network, NetworkKind, Port};

use crate::element::Element;
use crate::library::environment;
use crate::options::fixed_batch;
use crate::sizes::Sizes;
use crate::{Error, Options};

/// Names of the batch axis in snapc's and in Optimum's models.
const BATCH_NAMES: [&str; 2] = ["batch", "batch_size"];

/// Accuracy of products with dequantized weights, `MatMulNBits`: 1 computes in f32. The default, 4, rounds the other operand
/// to int8 as well, so that a model would give other values than it states.
const PRODUCTS_OF_CODES: &str = "session.qdq_matmulnbits_accuracy_level";

/// A model loaded by ONNX Runtime. Its first axes may be open; f16 and int64 are converted at its edges.
#[derive(Debug)]
pub struct OrtNetwork {
    kind: NetworkKind,
    session: Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    input_elements: Vec<Element>,
    output_elements: Vec<Element>,
}

impl OrtNetwork {
    /// Loads the model of one network of the folder, `unet/model.onnx` for example.
    ///
    /// # Errors
    /// When the library or the model cannot be loaded, or the model has a type or shape that a pipeline does not know.
    pub fn open(artifact: &Path, kind: NetworkKind, options: &Options) -> Result<Self, Error> {
        let path = artifact.join(kind.name()).join("model.onnx");
        if !path.is_file() {
            return Err(Error::MissingModel { kind, path });
        }
        let environment = environment(options.library.as_deref())?;
        let refused = |source| Error::Load {
            kind,
            path: path.clone(),
            source,
        };
        let builder = Session::builder(&environment).map_err(refused)?;
        let mut builder = configure(builder, kind, options).map_err(refused)?;
        for provider in &options.providers {
            let dispatch = provider.dispatch(options.fixed_batch)?;
            let added = builder.with_execution_providers([dispatch]);
            builder = added.map_err(|error| Error::Provider {
                kind,
                provider: provider.name(),
                source: error.into(),
            })?;
        }
        let session = builder.commit_from_file(&path).map_err(refused)?;

        let mut edges = Edges {
            kind,
            batch: options.fixed_batch.then(|| fixed_batch(kind)),
            artifact,
            sizes: None,
        };
        let (inputs, input_elements) = edges.ports(session.inputs())?;
        let (outputs, output_elements) = edges.ports(session.outputs())?;
        Ok(Self {
            kind,
            session,
            inputs,
            outputs,
            input_elements,
            output_elements,
        })
    }

    /// Which network this is.
    pub fn kind(&self) -> NetworkKind {
        self.kind
    }

    fn argument(&self, port: &Port, found: String, batch: usize) -> Error {
        Error::Argument {
            kind: self.kind,
            port: port.to_string(),
            found,
            expected: match port.values(batch) {
                Some(values) => format!("{values} values of its type"),
                None => "a smaller batch".to_owned(),
            },
            batch,
        }
    }

    fn check_count(&self, side: &'static str, found: usize, expected: usize) -> Result<(), Error> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Count {
            kind: self.kind,
            side,
            found,
            expected,
        })
    }
}

/// The builder with everything but the providers.
fn configure(
    builder: SessionBuilder,
    kind: NetworkKind,
    options: &Options,
) -> Result<SessionBuilder, ort::Error> {
    let mut builder = builder
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_config_entry(PRODUCTS_OF_CODES, "1")?;
    if let Some(threads) = options.threads {
        builder = builder.with_intra_threads(threads.get())?;
    }
    if options.fixed_batch {
        for name in BATCH_NAMES {
            builder = builder.with_dimension_override(name, fixed_batch(kind) as i64)?;
        }
    }
    Ok(builder)
}

/// Reads what a session says of its inputs and outputs.
struct Edges<'a> {
    kind: NetworkKind,
    /// The batch, where it is fixed.
    batch: Option<usize>,
    artifact: &'a Path,
    /// Read when the first axis other than a batch is open.
    sizes: Option<Sizes>,
}

impl Edges<'_> {
    fn ports(&mut self, outlets: &[Outlet]) -> Result<(Vec<Port>, Vec<Element>), Error> {
        let (mut ports, mut elements) = (Vec::new(), Vec::new());
        for outlet in outlets {
            let (port, element) = self.port(outlet)?;
            ports.push(port);
            elements.push(element);
        }
        Ok((ports, elements))
    }

    fn port(&mut self, outlet: &Outlet) -> Result<(Port, Element), Error> {
        let (name, dtype) = (outlet.name(), outlet.dtype());
        let known = match dtype {
            ValueType::Tensor { ty, shape, .. } => {
                Element::new(*ty).map(|element| (element, shape))
            }
            _ => None,
        };
        let (element, shape) = known.ok_or_else(|| Error::PortType {
            kind: self.kind,
            port: name.to_owned(),
            found: dtype.to_string(),
        })?;
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, &dim) in shape.iter().enumerate() {
            // Open axes are negative.
            dims.push(match (usize::try_from(dim), axis) {
                (Ok(size), _) => Some(size),
                (Err(_), 0) => self.batch,
                (Err(_), _) => Some(self.open_axis(name, axis, shape.len())?),
            });
        }
        Ok((Port::new(name, element.port_type(), &dims), element))
    }

    /// The size of an open axis that is not the batch.
    fn open_axis(&mut self, port: &str, axis: usize, rank: usize) -> Result<usize, Error> {
        let sizes = match &mut self.sizes {
            Some(sizes) => sizes,
            none => none.insert(Sizes::read(self.artifact)?),
        };
        let behind = sizes.behind_batch(self.kind, port);
        let found = behind.get(axis - 1).copied().flatten();
        let found = found.filter(|_| behind.len() + 1 == rank);
        found.ok_or_else(|| Error::OpenAxis {
            kind: self.kind,
            port: port.to_owned(),
            axis,
        })
    }
}

impl Network for OrtNetwork {
    type Error = Error;

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
    ) -> Result<(), Error> {
        self.check_count("inputs", inputs.len(), self.inputs.len())?;
        self.check_count("outputs", outputs.len(), self.outputs.len())?;
        let kind = self.kind;
        let failed = |source| Error::Run { kind, source };

        let mut values = Vec::with_capacity(inputs.len());
        for ((port, element), data) in self.inputs.iter().zip(&self.input_elements).zip(inputs) {
            let dims = port.dims.iter().map(|dim| dim.unwrap_or(batch)).collect();
            let fits = port.values(batch) == Some(data.len());
            let tensor = element.tensor(dims, *data).filter(|_| fits);
            let found = || format!("{} values of {:?}", data.len(), data.dtype());
            let tensor = tensor.ok_or_else(|| self.argument(port, found(), batch))?;
            values.push(tensor.map_err(failed)?);
        }
        let mut selector = OutputSelector::no_default();
        for ((port, element), output) in self
            .outputs
            .iter()
            .zip(&self.output_elements)
            .zip(&*outputs)
        {
            let Some(output) = output else { continue };
            let float = matches!(element, Element::F32 | Element::F16);
            if !float || port.values(batch) != Some(output.len()) {
                let found = format!("room for {} values of F32", output.len());
                return Err(self.argument(port, found, batch));
            }
            selector = selector.with(&port.name);
        }

        let options = RunOptions::new().map_err(failed)?.with_outputs(selector);
        let ran = self.session.run_with_options(&values[..], &options);
        let results = ran.map_err(failed)?;
        for ((port, element), output) in self.outputs.iter().zip(&self.output_elements).zip(outputs)
        {
            let Some(output) = output else { continue };
            let found = match results.get(&port.name) {
                Some(tensor) => element.read(tensor, output).map_err(failed)?,
                None => 0,
            };
            if found != output.len() {
                return Err(Error::Output {
                    kind,
                    port: port.name.clone(),
                    expected: output.len(),
                    found,
                });
            }
        }
        Ok(())
    }
}
