//! The empty prompt, encoded when an artifact is made: most runs have no negative prompt, and need not encode it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use snapc_ir::eval::{self, EvalError};
use snapc_ir::{Graph, PipelineSpec, Tensor};
use snapc_pipeline::Tokenizer;

use crate::artifact::{ArtifactFile, write_file};
use crate::error::TargetError;
use crate::tokenizer::pad_token_id;

/// Name of the file in an artifact whose target has no place for it in its own.
pub const FILE_NAME: &str = "empty_prompt.bin";

/// The merges of the tokenizer among the files of a pipeline.
const MERGES: &str = "tokenizer/merges.txt";

/// Tokens and values of a prompt at most, which is far more than any model has.
const MAX_COUNT: usize = 1 << 28;

/// A prompt and what the text encoder gives for it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownPrompt {
    /// Token ids, padded.
    pub input_ids: Vec<u32>,
    /// The embeddings, and behind them the outputs of the text encoder that the UNet takes, in the order of its inputs: what
    /// [`snapc_pipeline::Engine::encode_text`] gives.
    pub values: Vec<f32>,
}

impl KnownPrompt {
    /// The empty prompt of a program, by the reference evaluator. `None` when the pipeline has no tokenizer, or no text
    /// encoder of its length.
    ///
    /// # Errors
    /// When the data of a weight cannot be made.
    pub fn empty(graphs: &[&Graph], pipeline: &PipelineSpec) -> Result<Option<Self>, TargetError> {
        let Some((encoder, names)) = outputs(graphs) else {
            return Ok(None);
        };
        let merges = pipeline
            .files
            .get(MERGES)
            .zip(pad_token_id(&pipeline.files));
        let tokenizer =
            merges.and_then(|(merges, pad)| Tokenizer::new(merges, pad, pipeline.tokens).ok());
        let (Some(tokenizer), [input]) = (tokenizer, encoder.inputs()) else {
            return Ok(None);
        };
        let shape = encoder.ty(input.value).shape.bind(1);
        let input_ids = tokenizer.encode("");
        if shape.len() != 2 || shape[1] != input_ids.len() {
            return Ok(None);
        }
        let ids: Vec<i64> = input_ids.iter().map(|&id| id.into()).collect();
        let ids = Tensor::int(&shape, ids.repeat(shape[0]));
        let ran = eval::run(encoder, &BTreeMap::from([(input.name.clone(), ids)]));
        let results = match ran {
            Ok(results) => results,
            Err(EvalError::Weight {
                graph,
                weight,
                source,
            }) => {
                return Err(TargetError::Weight {
                    graph,
                    weight,
                    source,
                });
            }
            // Ids of another type are not those of this tokenizer.
            Err(_) => return Ok(None),
        };
        let mut values = Vec::new();
        for name in &names {
            let row = results[*name].floats();
            values.extend_from_slice(&row[..row.len() / shape[0]]);
        }
        Ok(Some(KnownPrompt { input_ids, values }))
    }

    /// A prompt of the sizes that [`KnownPrompt::empty`] gives, to plan with.
    pub fn planned(graphs: &[&Graph]) -> Option<Self> {
        let (encoder, names) = outputs(graphs)?;
        let input = encoder.inputs().first()?;
        let row = |value| -> Option<usize> {
            let dims = encoder.ty(value).shape.bind(1);
            dims.iter()
                .skip(1)
                .try_fold(1usize, |n, &d| n.checked_mul(d))
        };
        let mut values = 0usize;
        for output in encoder.outputs() {
            if names.contains(&output.name.as_str()) {
                values = values.checked_add(row(output.value)?)?;
            }
        }
        Some(KnownPrompt {
            input_ids: vec![0; row(input.value)?],
            values: vec![0.0; values],
        })
    }

    /// The bytes of [`FILE_NAME`]: the number of ids, the ids, the values, 4 bytes each, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        // Prompts have a few dozen tokens.
        let count = self.input_ids.len() as u32;
        let ids = [count].into_iter().chain(self.input_ids.iter().copied());
        let mut bytes: Vec<u8> = ids.flat_map(u32::to_le_bytes).collect();
        bytes.extend(self.values.iter().flat_map(|v| v.to_le_bytes()));
        bytes
    }

    /// Reads those bytes; `None` when they are cut.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let (count, words) = words.split_first()?;
        let (ids, values) = words.split_at_checked(u32::from_le_bytes(*count) as usize)?;
        rest.is_empty().then(|| KnownPrompt {
            input_ids: ids.iter().map(|w| u32::from_le_bytes(*w)).collect(),
            values: values.iter().map(|w| f32::from_le_bytes(*w)).collect(),
        })
    }

    /// Reads the file of an artifact; `None` when it has none.
    ///
    /// # Errors
    /// When the file cannot be read or is cut.
    pub fn read(dir: &Path) -> Result<Option<Self>, TargetError> {
        let path = dir.join(FILE_NAME);
        let size = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(TargetError::io(&path)(e)),
        };
        let malformed = |reason: &str| TargetError::Malformed {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        if size > 8 * MAX_COUNT as u64 {
            return Err(malformed("it is far larger than a prompt's encoding"));
        }
        let bytes = std::fs::read(&path).map_err(TargetError::io(&path))?;
        let prompt = Self::decode(&bytes);
        prompt.map(Some).ok_or_else(|| malformed("it is cut"))
    }

    /// Writes the file into an artifact.
    ///
    /// # Errors
    /// When it exists or cannot be written.
    pub fn write(&self, dir: &Path) -> Result<ArtifactFile, TargetError> {
        write_file(dir, FILE_NAME, &self.encode())
    }
}

/// The text encoder of a program, and the names of its outputs that make up a prompt's values, in their order.
fn outputs<'a>(graphs: &[&'a Graph]) -> Option<(&'a Graph, Vec<&'a str>)> {
    let graph = |name: &str| graphs.iter().copied().find(|g| g.name() == name);
    let (encoder, unet) = (graph("text_encoder")?, graph("unet")?);
    let given: BTreeSet<&str> = encoder.outputs().iter().map(|o| o.name.as_str()).collect();
    let embeddings = given.get("last_hidden_state").copied()?;
    let inputs = unet.inputs().iter().map(|i| i.name.as_str());
    let taken = inputs.filter(|name| given.contains(name) && *name != embeddings);
    Some((encoder, [embeddings].into_iter().chain(taken).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back_and_cut_ones_refused() {
        let prompt = KnownPrompt {
            input_ids: vec![49406, 49407],
            values: vec![0.5, -2.0, f32::MIN_POSITIVE],
        };
        let bytes = prompt.encode();
        // Two ids.
        assert_eq!(bytes[..8], [2, 0, 0, 0, 0xfe, 0xc0, 0, 0]);
        assert_eq!(KnownPrompt::decode(&bytes), Some(prompt));
        for cut in [0, 3, 4, 11, bytes.len() - 1] {
            assert_eq!(KnownPrompt::decode(&bytes[..cut]), None, "{cut}");
        }
        let hostile = u32::MAX.to_le_bytes();
        assert_eq!(KnownPrompt::decode(&hostile), None);
    }

    #[test]
    fn an_artifact_may_have_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(KnownPrompt::read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(FILE_NAME), [9, 0, 0, 0]).unwrap();
        let error = KnownPrompt::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("it is cut"), "{error}");
    }
}
