//! What the functions of the ABI do, without pointers.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use snapc_coreml::{
    ArrayFeature, Description, describe, describe_function, read, read_function, verify,
};
use snapc_format::Stage;
use snapc_ir::DType;
use snapc_native::compile_as_stated;
use snapc_passes::recognize;
use snapc_pipeline::{Data, Network, Port, PortType};
use snapc_runtime::{Options, Runtime, RuntimeNetwork};

use crate::failure::Failure;
use crate::features::{INPUT, OUTPUT, Values, check_bytes, count, decode, encode, find};

/// The stage that a package is compiled as. It is the key of the one network of the file and has no other meaning.
const STAGE: Stage = Stage::Unet;

/// Name of the compiled file in its temporary folder.
const COMPILED: &str = "model.snap";

/// The batch of a run, which means nothing to a network whose shapes are fixed numbers.
const BATCH: usize = 1;

/// `snap_coreml_model`: an open package.
#[derive(Debug)]
pub struct Model {
    description: Description,
    json: CString,
    /// By input of the network, the feature of that name.
    inputs: Vec<usize>,
    /// By output of the network, the feature of that name.
    outputs: Vec<usize>,
    /// One prediction at a time; others wait.
    network: Mutex<RuntimeNetwork>,
}

/// Checks a package against the rules of the format.
///
/// # Errors
/// With all findings, when there are any.
pub(crate) fn check(package: &Path) -> Result<(), Failure> {
    let findings = verify::check(package);
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Failure::Findings {
            package: package.display().to_string(),
            findings,
        }),
    }
}

impl Model {
    /// Checks a package and compiles one of its functions, the default one when none is named, in a temporary folder, for the
    /// native engine.
    pub(crate) fn open(package: &Path, function: Option<&str>) -> Result<Self, Failure> {
        check(package)?;
        let (description, graph) = match function {
            None => (describe(package)?, read(package)?),
            Some(name) => (
                describe_function(package, name)?,
                read_function(package, name)?,
            ),
        };
        let graph = recognize(&graph)?;
        let folder = tempfile::tempdir().map_err(Failure::Temporary)?;
        let file = folder.path().join(COMPILED);
        compile_as_stated(&[(STAGE, &graph)], &file)?;
        // The file is mapped when it is open, so that the folder may go.
        let runtime = Runtime::open(&file, &Options::default()).map_err(Failure::Open)?;
        let network = runtime.network(STAGE).map_err(Failure::Open)?;
        let refused = |reason| Failure::Feature {
            package: package.display().to_string(),
            reason,
        };
        let inputs = features_of(network.inputs(), &description.inputs, takes);
        let outputs = features_of(network.outputs(), &description.outputs, gives);
        Ok(Model {
            json: snapc_ffi::c_string(json_of(&description).to_string()),
            description,
            inputs: inputs.map_err(refused)?,
            outputs: outputs.map_err(refused)?,
            network: Mutex::new(network),
        })
    }

    /// The description as JSON.
    pub(crate) fn json(&self) -> &CStr {
        &self.json
    }

    /// The position of an output whose buffer has this length.
    ///
    /// # Errors
    /// When there is none of that name, or it has another length.
    pub(crate) fn output(&self, name: &str, bytes: usize) -> Result<usize, Failure> {
        let features = &self.description.outputs;
        let index = find(OUTPUT, features, name)?;
        check_bytes(OUTPUT, &features[index], bytes)?;
        Ok(index)
    }

    /// Runs the model on named buffers of all inputs, and gives the buffers of these outputs, as [`Model::output`] counts them.
    ///
    /// # Errors
    /// When a buffer is missing, given twice or unfit, or the network does not run.
    pub(crate) fn predict(
        &self,
        inputs: &[(&str, &[u8])],
        outputs: &[usize],
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let buffers = self.buffers(inputs)?;
        for (position, &index) in outputs.iter().enumerate() {
            if outputs[..position].contains(&index) {
                return Err(twice(OUTPUT, &self.description.outputs[index]));
            }
        }
        // A network keeps nothing between runs, so that one whose run panicked is as good as new.
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = network.inputs().iter().zip(&self.inputs);
        let values = ports.map(|(port, &index)| {
            let feature = &self.description.inputs[index];
            decode(feature, port.dtype, buffers[index])
        });
        let values: Vec<Values> = values.collect::<Result<_, Failure>>()?;
        let data: Vec<Data<'_>> = values.iter().map(Values::data).collect();
        let mut results: Vec<Vec<f32>> = outputs.iter().map(|&i| self.result(i)).collect();
        let mut wanted: Vec<Option<&mut [f32]>> = self.outputs.iter().map(|_| None).collect();
        for (&index, result) in outputs.iter().zip(&mut results) {
            let port = self.outputs.iter().position(|&of| of == index);
            wanted[port.expect("every output feature has its port")] = Some(result);
        }
        let ran = network.run(BATCH, &data, &mut wanted);
        ran.map_err(Failure::Run)?;
        let encoded = outputs.iter().zip(&results);
        let encoded = encoded.map(|(&i, values)| encode(&self.description.outputs[i], values));
        Ok(encoded.collect())
    }

    /// The buffers of the inputs in the order of the description.
    fn buffers<'a>(&self, given: &[(&str, &'a [u8])]) -> Result<Vec<&'a [u8]>, Failure> {
        let features = &self.description.inputs;
        let mut buffers: Vec<Option<&[u8]>> = vec![None; features.len()];
        for (name, buffer) in given {
            let index = find(INPUT, features, name)?;
            check_bytes(INPUT, &features[index], buffer.len())?;
            if buffers[index].replace(buffer).is_some() {
                return Err(twice(INPUT, &features[index]));
            }
        }
        let buffers = buffers.into_iter().zip(features).map(|(buffer, feature)| {
            let missing = || Failure::Missing(feature.name.clone());
            buffer.ok_or_else(missing)
        });
        buffers.collect()
    }

    /// Room for the values of an output.
    fn result(&self, output: usize) -> Vec<f32> {
        let count = count(&self.description.outputs[output]);
        vec![0.0; count.expect("the caller has a buffer of that length")]
    }
}

fn twice(kind: &'static str, feature: &ArrayFeature) -> Failure {
    let name = feature.name.clone();
    Failure::Twice { kind, name }
}

/// Whether the values of a feature can be given to a port.
fn takes(feature: DType, port: PortType) -> bool {
    feature.is_float() || port == PortType::I32
}

/// Whether a feature can have what a port gives. The engine gives integers as f32, which has not all of them, but all levels of
/// an image.
fn gives(feature: DType, _: PortType) -> bool {
    feature.is_float() || feature == DType::U8
}

/// By port, the position of the feature of that name.
///
/// # Errors
/// When there is none, a feature has no port, or the types do not fit each other.
fn features_of(
    ports: &[Port],
    features: &[ArrayFeature],
    fits: fn(DType, PortType) -> bool,
) -> Result<Vec<usize>, String> {
    for feature in features {
        if !ports.iter().any(|port| port.name == feature.name) {
            return Err(format!("the program has no feature '{}'", feature.name));
        }
    }
    let found = ports.iter().map(|port| {
        let found = features.iter().position(|f| f.name == port.name);
        let index = found.ok_or_else(|| format!("{port} is not described"))?;
        let dtype = features[index].dtype;
        match fits(dtype, port.dtype) {
            true => Ok(index),
            false => Err(format!("{port} has no form as a feature of {dtype}")),
        }
    });
    found.collect()
}

fn json_of(description: &Description) -> Value {
    let features = |list: &[ArrayFeature]| -> Vec<Value> {
        let features = list.iter().map(|feature| {
            json!({
                "name": feature.name,
                "dtype": feature.dtype.name(),
                "shape": feature.shape,
            })
        });
        features.collect()
    };
    let metadata = &description.metadata;
    json!({
        "specification_version": description.specification_version,
        "inputs": features(&description.inputs),
        "outputs": features(&description.outputs),
        "metadata": {
            "description": metadata.description,
            "version": metadata.version,
            "author": metadata.author,
            "license": metadata.license,
            "user_defined": metadata.user_defined,
        },
    })
}
