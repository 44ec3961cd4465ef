//! A safetensors file of a graph's parameters, written without holding them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};
use snapc_ir::{DType, Graph, LazyTensor, WeightError};

use super::ExportError;

/// What a header's length is a multiple of, so that the elements behind it are aligned.
const ALIGNMENT: usize = 8;

/// Writes the parameters of a graph under their names, each in the narrowest element type that holds it exactly; wider
/// types first, then by name.
///
/// # Errors
/// When a weight has no data or the file cannot be written.
pub(super) fn write_safetensors(path: &Path, graph: &Graph) -> Result<(), ExportError> {
    let parameters = graph.weights().iter().filter(|w| w.is_parameter);
    let exact = |t: &LazyTensor| t.clone().cast(t.exact_dtype());
    let mut tensors: Vec<(&str, LazyTensor)> = parameters
        .map(|w| (w.name.as_str(), exact(&w.tensor)))
        .collect();
    tensors.sort_by_key(|(name, t)| (std::cmp::Reverse(t.dtype().size()), *name));
    let io = |source| ExportError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = BufWriter::new(File::create_new(path).map_err(io)?);
    let header = header(&tensors);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .map_err(io)?;
    file.write_all(header.as_bytes()).map_err(io)?;
    for (name, tensor) in &tensors {
        let written = tensor.stream(|bytes| file.write_all(bytes).map_err(Failure::Io));
        written.map_err(|failure| match failure {
            Failure::Io(source) => io(source),
            Failure::Weight(source) => ExportError::Weight {
                graph: graph.name().to_owned(),
                weight: (*name).to_owned(),
                source,
            },
        })?;
    }
    file.flush().map_err(io)
}

enum Failure {
    Io(std::io::Error),
    Weight(WeightError),
}

impl From<WeightError> for Failure {
    fn from(source: WeightError) -> Self {
        Failure::Weight(source)
    }
}

/// The header: types, shapes and places by name, and the note that torch wrote the names, which transformers asks for.
fn header(tensors: &[(&str, LazyTensor)]) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for (name, tensor) in tensors {
        let end = start + tensor.byte_len();
        let dtype = match tensor.dtype() {
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            _ => "F32",
        };
        let entry = json!({"dtype": dtype, "shape": tensor.shape(), "data_offsets": [start, end]});
        entries.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut header = Value::Object(entries).to_string();
    while !header.len().is_multiple_of(ALIGNMENT) {
        header.push(' ');
    }
    header
}
