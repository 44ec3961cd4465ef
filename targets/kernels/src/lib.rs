//! CPU kernels of the device side: packed GEMM, convolution, attention, normalization and activations over f32.
//!
//! [`Kernels`] is the table of the widest instruction set that the processor has; [`Pool`] is the threads that share a call.
//! Activations are channels last: a matrix is `[rows][columns]`, an image `[batch][height][width][channels]`, so that a 1×1
//! convolution is a matrix product. Weights are packed once, into panels ([`PanelMatrix`]), and may be stored in 16 bit;
//! sums are f32.
//!
//! [`mod@reference`] holds the same operators as plain loops; the tests hold every instruction set to them. Which element is
//! computed by which thread has no influence on the results, but instruction sets differ in their last bits.
//!
//! ```
//! use snapc_kernels::{Activation, Epilogue, Kernels, PanelMatrix, Pool, Weights};
//!
//! let (kernels, pool) = (Kernels::detect(), Pool::new(2)?);
//! // Two rows of three inputs, and a layer of two outputs.
//! let weights = PanelMatrix::pack(Weights::F32(&[1., 0., 0., 0., 1., 1.]), 2, 3)?;
//! let epilogue = Epilogue { bias: Some(&[10.0, 20.0]), ..Epilogue::default() };
//! let mut out = [0.0; 4];
//! kernels.gemm(&pool, 2, &[1., 2., 3., 4., 5., 6.], &weights, epilogue, &mut out)?;
//! assert_eq!(out, [11.0, 25.0, 14.0, 31.0]);
//! # Ok::<(), snapc_kernels::KernelError>(())
//! ```

mod activation;
mod attention;
mod binary;
mod codes;
mod conv2d;
mod direct;
mod elementwise;
mod error;
mod gemm;
mod integers;
mod kernels;
mod matmul;
mod norm;
mod panels;
mod permute;
mod pool;
pub mod reference;
mod result;
mod rows;
mod simd;
mod strided;
mod table;
mod tile;
mod upsample;

pub use activation::{Activation, Epilogue, Unary};
pub use attention::{Attention, Heads};
pub use binary::Binary;
pub use codes::{Codebook, Codes, code_bytes, pack_codes};
pub use conv2d::Conv2d;
pub use elementwise::Storage;
pub use error::KernelError;
pub use integers::Quantized;
pub use kernels::{InstructionSet, Kernels};
pub use matmul::Matmul;
pub use norm::GroupNorm;
pub use panels::{PANEL_WIDTH, PanelMatrix, Weights, pack_panel, panel_elements};
pub use pool::{Pool, Scratch};
pub use strided::Strided;
pub use upsample::upsample_nearest;
