//! The `.snap` container: one file that holds a compiled pipeline, with its program, weights, tokenizer, schedule and
//! metadata. `docs/native-format.md` gives the layout byte by byte.
//!
//! The crate runs on the device as well as in the compiler. It knows sections and tensors and nothing of operators: the
//! program, the tokenizer and the schedule are bytes to it. The reader takes every field for hostile: it gives an error
//! that names file and section, and never panics, whatever the bytes are.
//!
//! A writer makes a [`Plan`], asks for its [`Layout`], puts the weights at the offsets given there and seals the file. A
//! reader opens a [`Container`]; that reads everything but the weights, which stay where they are, mapped.
//!
//! ```
//! use std::io::Cursor;
//! use std::sync::Arc;
//!
//! use snapc_format::{Container, DType, Plan, Stage, TensorPlan};
//!
//! let mut plan = Plan::new();
//! plan.set_program(b"a compiled program".to_vec());
//! plan.add_tensor(Stage::Unet, TensorPlan::new("conv_in.bias", &[2], DType::F32));
//! let layout = plan.layout()?;
//!
//! let mut file = Cursor::new(Vec::new());
//! layout.write(&mut file, |placement, out| {
//!     assert_eq!((placement.name.as_str(), placement.length), ("conv_in.bias", 8));
//!     out.write_all(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40])
//! })?;
//!
//! let container = Container::from_bytes("memory", Arc::new(file.into_inner()))?;
//! container.verify()?;
//! let bias = container.tensor(Stage::Unet, "conv_in.bias")?;
//! assert_eq!(bias.shape(), [2]);
//! assert_eq!(bias.canonical().as_ref(), [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Not `forbid`: mapping a file has no safe form, and `mmap.rs` lifts the lint for that one call.
#![deny(unsafe_code)]

mod error;
mod hash;
mod header;
mod layout;
mod limits;
mod metadata;
mod mmap;
mod reader;
mod section;
mod table;
mod tensor;
pub mod wire;
mod writer;

pub use error::{FormatError, PlanError, Problem, TableFault};
pub use header::{MAGIC, VERSION, Version};
pub use layout::{Layout, Placement, Plan, TensorPlan};
pub use limits::{SEGMENT_ALIGN, SEGMENT_LIMIT, TENSOR_ALIGN};
pub use reader::{Container, SharedBytes, TensorView};
pub use section::{Section, SectionId, SectionKind, Stage};
pub use tensor::{DType, LayoutId, PANEL_WIDTH, Tensor, Variant};
