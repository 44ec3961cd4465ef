//! Harness of the tests over the whole of snapc: running the command, copying fixtures and damaging them, looking at
//! what a run leaves behind. The tests themselves are the files beside this crate's manifest.

#![forbid(unsafe_code)]

mod checkpoint;
mod command;
mod folder;
mod python;
mod tensors;

pub use checkpoint::{SafetensorsFile, StoredTensor, edit_json};
pub use command::{Run, Snapc};
pub use folder::{contents, copy_folder, names, workspace_root};
pub use python::{onnxruntime_library, python};
pub use tensors::psnr;
