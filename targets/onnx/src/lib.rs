//! The ONNX target: one model per graph, with external data, in the layout that Optimum's
//! `ORTStableDiffusionPipeline.from_pretrained` loads.
//!
//! ```text
//! model_index.json
//! text_encoder/  config.json  model.onnx  model.onnx_data
//! unet/          config.json  model.onnx  model.onnx_data
//! vae_decoder/   config.json  model.onnx  model.onnx_data
//! tokenizer/  scheduler/      as in the checkpoint
//! ```
//!
//! Inputs and outputs are those of Optimum's own export: `input_ids` → `last_hidden_state`, `pooler_output`; `sample`,
//! `timestep`, `encoder_hidden_states` → `out_sample`; `latent_sample` → `sample`. The batch is the symbolic dimension
//! `batch`, everything else is static.
//!
//! Weights with an encoding are stored as packed codes: `DequantizeLinear` for scales, `Gather` in a table for palettes. Such
//! models are in a later operator set than others, see `docs/decisions/0005-onnx-opset.md`.
//!
//! [`OnnxTarget`] is the entry point. This crate runs no model, reads no checkpoint and changes no number: what it
//! writes is the graph it is given. [`read`] turns a model, ours or foreign, into a graph again. Verifier and reader share
//! the messages of [`proto`] with the writer, nothing else.

#![forbid(unsafe_code)]

mod companion;
mod emit;
mod external_data;
mod lower;
pub mod proto;
mod read;
mod target;
mod verify;

pub use read::{ReadError, read};
pub use target::OnnxTarget;
