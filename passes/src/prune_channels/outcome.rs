//! What the correction is worth at the outputs.

use std::collections::BTreeMap;

use snapc_ir::eval::{EvalError, Evaluation, run};
use snapc_ir::{Graph, Tensor};

/// Elements of an output, of all samples.
#[derive(Default)]
struct Output {
    expected: Vec<f32>,
    uncorrected: Vec<f32>,
    corrected: Vec<f32>,
}

/// How near the outputs come to the original's with and without the correction, over the samples that went on to
/// the end; one line per output.
///
/// # Errors
/// When a weight has no data.
pub(super) fn output_notes(
    thinned: &Graph,
    samples: &[BTreeMap<String, Tensor>],
    mut original_run: Evaluation<'_>,
    mut thinned_run: Evaluation<'_>,
) -> Result<Vec<String>, EvalError> {
    let count = original_run.samples();
    let outputs = (original_run.outputs()?, thinned_run.outputs()?);
    drop((original_run, thinned_run));
    let mut all: BTreeMap<String, Output> = BTreeMap::new();
    for ((original, corrected), sample) in outputs.0.into_iter().zip(outputs.1).zip(samples) {
        let uncorrected = run(thinned, sample)?;
        for (name, expected) in original {
            let output = all.entry(name.clone()).or_default();
            output.expected.extend_from_slice(expected.floats());
            output.uncorrected.extend_from_slice(uncorrected[&name].floats());
            output.corrected.extend_from_slice(corrected[&name].floats());
        }
    }
    let line = |(name, output): (&String, &Output)| {
        format!(
            "output '{name}' on {count} of the calibration samples: {:.2} dB without correction, {:.2} dB with it",
            psnr(&output.expected, &output.uncorrected),
            psnr(&output.expected, &output.corrected)
        )
    };
    Ok(all.iter().map(line).collect())
}

/// 20 log10((max - min) / RMSE), over all elements.
fn psnr(expected: &[f32], found: &[f32]) -> f64 {
    let largest = expected.iter().copied().fold(f32::MIN, f32::max);
    let smallest = expected.iter().copied().fold(f32::MAX, f32::min);
    let pairs = expected.iter().zip(found);
    let squares = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let rmse = (squares.sum::<f64>() / expected.len().max(1) as f64).sqrt();
    20.0 * ((f64::from(largest) - f64::from(smallest)) / rmse).log10()
}
