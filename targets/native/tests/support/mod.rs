//! What the tests of this target share.

#![allow(dead_code, reason = "every test file uses a part")]

pub mod encodings;
pub mod engine;
pub mod listing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use snapc_import::{ImportOptions, open};
use snapc_ir::{Program, Tensor};
use snapc_passes::{Pipeline, RunOptions};

/// The folder of the fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A checkpoint of the fixtures after the passes of a precision.
pub fn program(checkpoint: &str, passes: &str) -> Program {
    let path = fixtures().join(checkpoint);
    // Single-file fixtures have networks that are smaller than those of the releases.
    let config = path.with_extension("config.json");
    let options = ImportOptions {
        config: config.exists().then_some(config),
        ..ImportOptions::default()
    };
    let program = open(&path, &options).expect("opens");
    let program = program.import().expect("imports");
    let pipeline: Pipeline = passes.parse().expect("is a pipeline");
    let (program, _) = pipeline
        .run(program, &RunOptions::default())
        .expect("the passes run");
    program
}

/// All tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("is safetensors");
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, tensor(&view)))
        .collect()
}

fn tensor(view: &TensorView<'_>) -> Tensor {
    let (data, shape) = (view.data(), view.shape());
    match view.dtype() {
        Dtype::F32 => Tensor::float(shape, elements(data, f32::from_le_bytes)),
        Dtype::I64 => Tensor::int(shape, elements(data, i64::from_le_bytes)),
        Dtype::I32 => Tensor::int(shape, elements(data, |b| i64::from(i32::from_le_bytes(b)))),
        other => panic!("unexpected element type {other:?}"),
    }
}

fn elements<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let chunks = data.as_chunks().0.iter();
    chunks.map(|chunk| read(*chunk)).collect()
}

/// PSNR in dB of the contract: 20 log10((max(ref) - min(ref)) / RMSE).
pub fn psnr(reference: &[f32], found: &[f32]) -> f64 {
    assert_eq!(reference.len(), found.len());
    let (mut low, mut high, mut squares) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
    for (&a, &b) in reference.iter().zip(found) {
        let (a, b) = (f64::from(a), f64::from(b));
        low = low.min(a);
        high = high.max(a);
        squares += (a - b) * (a - b);
    }
    20.0 * ((high - low) / (squares / reference.len() as f64).sqrt()).log10()
}

/// Values that look random, the same on every machine.
pub struct Noise(u64);

impl Noise {
    /// A sequence.
    pub fn new(seed: u64) -> Self {
        Noise(seed)
    }

    /// Knuth's MMIX generator; the upper bits are good enough for test data.
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as u32
    }

    /// Floats in [low, high).
    pub fn floats(&mut self, n: usize, (low, high): (f32, f32)) -> Vec<f32> {
        let unit = |x: u32| x as f32 / (1 << 24) as f32;
        (0..n)
            .map(|_| low + (high - low) * unit(self.next()))
            .collect()
    }

    /// Integers from 0 to below `bound`.
    pub fn ints(&mut self, n: usize, bound: i64) -> Vec<i64> {
        (0..n).map(|_| i64::from(self.next()) % bound).collect()
    }
}
