//! Random operands, instruction sets and comparison of the tests over operators.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed, TestRng};
use snapc_kernels::{InstructionSet, Kernels, Pool};

/// Uniform numbers from -1 to 1.
pub fn numbers(rng: &mut TestRng, len: usize) -> Vec<f32> {
    (0..len)
        .map(|_| (rng.next_u32() as f32 / u32::MAX as f32) * 2.0 - 1.0)
        .collect()
}

/// A generator that gives the same numbers for the same seed.
pub fn rng(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])
}

/// The same `cases` random cases in every run.
pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The instruction sets of this processor, each with one and with three threads.
pub fn engines() -> Vec<(Kernels, Pool)> {
    let sets = InstructionSet::ALL.into_iter();
    sets.filter_map(|set| Kernels::with(set).ok())
        .flat_map(|k| [1, 3].map(|threads| (k, Pool::new(threads).expect("threads start"))))
        .collect()
}

/// Differences up to 1e-5 of the larger of the number and `unit`, the size of the terms that were added up.
pub fn assert_near(what: &str, found: &[f32], expected: &[f32], unit: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let near = (f - e).abs() <= 1e-5 * e.abs().max(unit);
        assert!(near, "{what}: element {i} is {f}, expected {e}");
    }
}
