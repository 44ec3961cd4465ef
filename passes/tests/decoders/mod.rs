//! Decoders to prune, latents to decode, and how near two images are.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use snapc_import::{ImportOptions, open};
use snapc_ir::{Graph, Program, Tensor, eval};

/// A checkpoint among the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(name)
}

pub fn import(path: &Path) -> Program {
    let checkpoint = open(path, &ImportOptions::default()).unwrap();
    checkpoint.import().unwrap()
}

pub fn decoder(path: &Path) -> Graph {
    import(path).graph("vae_decoder").unwrap().clone()
}

/// A sequence of evenly distributed numbers from 0 to 1, the same for the same seed.
pub fn uniform(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some((state >> 11) as f64 / (1u64 << 53) as f64)
    })
}

/// A latent of normal numbers in the range of SD v1, as the graph takes it.
pub fn latent(graph: &Graph, seed: u64) -> BTreeMap<String, Tensor> {
    let shape = graph.ty(graph.inputs()[0].value).shape.bind(1);
    let mut numbers = uniform(seed);
    let mut normal = || numbers.by_ref().take(12).sum::<f64>() - 6.0;
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|_| (normal() / 0.18215) as f32).collect();
    let name = graph.inputs()[0].name.clone();
    BTreeMap::from([(name, Tensor::float(&shape, values))])
}

pub fn decode(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Tensor {
    eval::run(graph, inputs).unwrap()["sample"].clone()
}

/// 20 log10((max - min) / RMSE), over all elements.
pub fn psnr(reference: &Tensor, found: &Tensor) -> f64 {
    assert_eq!(reference.shape, found.shape);
    let (reference, found) = (reference.floats(), found.floats());
    let fold = |f: fn(f32, f32) -> f32, start| reference.iter().copied().fold(start, f);
    let range = f64::from(fold(f32::max, f32::MIN)) - f64::from(fold(f32::min, f32::MAX));
    let pairs = reference.iter().zip(found);
    let squares = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let rmse = (squares.sum::<f64>() / reference.len() as f64).sqrt();
    20.0 * (range / rmse).log10()
}
