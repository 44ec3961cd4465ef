//! How far encoded weights are from what they were.

use rayon::prelude::*;
use serde::Serialize;
use snapc_ir::{Codebook, Encoding, Graph, Weight, WeightError};

use crate::pass::{WeightFault, WeightProblem};

/// How many of the worst layers a note names.
const WORST: usize = 5;

/// How far an encoded weight is from what it was before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightFidelity {
    /// Name of the weight.
    pub weight: String,
    /// `int8`, `int4` or `palette` with its bits.
    pub form: String,
    /// Number of elements.
    pub elements: usize,
    /// Bytes before.
    pub bytes_before: usize,
    /// Bytes of codes and what they stand for.
    pub bytes_after: usize,
    /// Sum of the squared elements before.
    pub signal: f64,
    /// Sum of the squared differences.
    pub noise: f64,
    /// Largest absolute difference.
    pub max_error: f64,
}

impl WeightFidelity {
    /// Signal-to-noise ratio in dB; infinite without noise.
    pub fn snr(&self) -> f64 {
        snr(self.signal, self.noise)
    }

    /// Norm of the difference over the norm of the weight.
    pub fn relative_error(&self) -> f64 {
        if self.noise == 0.0 {
            0.0
        } else {
            (self.noise / self.signal).sqrt()
        }
    }
}

/// `10 log10(signal / noise)`; infinite without noise.
pub(crate) fn snr(signal: f64, noise: f64) -> f64 {
    if noise == 0.0 {
        f64::INFINITY
    } else {
        10.0 * (signal / noise).log10()
    }
}

/// How far every weight that is encoded in this graph is from what it was, in the order of the weights. Weights that were
/// read as codes have no before and are left out. Reads every such weight once.
///
/// # Errors
/// When the data of a weight cannot be made; the first of them.
pub fn weight_fidelity(graph: &Graph) -> Result<Vec<WeightFidelity>, WeightProblem> {
    let encoded = graph.weights().par_iter().filter_map(|weight| {
        let encoding = weight.tensor.encoding()?;
        weight.tensor.before_encoding()?;
        Some(compared(weight, encoding).map_err(|source| WeightProblem {
            graph: graph.name().to_owned(),
            weight: weight.name.clone(),
            source: WeightFault::Data(source),
        }))
    });
    encoded.collect::<Vec<_>>().into_iter().collect()
}

fn compared(weight: &Weight, encoding: &Encoding) -> Result<WeightFidelity, WeightError> {
    let (mut signal, mut noise, mut max_error) = (0.0f64, 0.0f64, 0.0f64);
    weight.tensor.stream_beside(|before, after| {
        for (&b, &a) in before.iter().zip(after) {
            let (b, a) = (f64::from(b), f64::from(a));
            signal += b * b;
            noise += (a - b) * (a - b);
            max_error = max_error.max((a - b).abs());
        }
    })?;
    let tensor = &weight.tensor;
    Ok(WeightFidelity {
        weight: weight.name.clone(),
        form: form(encoding),
        elements: tensor.elements(),
        bytes_before: tensor.byte_len(),
        bytes_after: tensor.stored_bytes_len(),
        signal,
        noise,
        max_error,
    })
}

fn form(encoding: &Encoding) -> String {
    let name = match encoding.codebook() {
        Codebook::Affine { .. } => "int",
        Codebook::Palette { .. } => "palette",
    };
    format!("{name}{}", encoding.bits())
}

/// The figures of all weights together and the worst of them.
pub(super) fn notes(all: &[WeightFidelity]) -> Vec<String> {
    let sum = |each: fn(&WeightFidelity) -> f64| all.iter().map(each).sum::<f64>();
    let (signal, noise) = (sum(|f| f.signal), sum(|f| f.noise));
    let mut worst: Vec<&WeightFidelity> = all.iter().collect();
    worst.sort_by(|a, b| a.snr().total_cmp(&b.snr()));
    let named = worst
        .iter()
        .take(WORST)
        .map(|f| format!("{} {:.1} dB", f.weight, f.snr()));
    vec![format!(
        "encoded weights have {:.1} dB over noise, relative error {:.2e}; worst: {}",
        snr(signal, noise),
        (noise / signal.max(f64::MIN_POSITIVE)).sqrt(),
        named.collect::<Vec<_>>().join(", ")
    )]
}
