//! Which weights do not fit a narrower float type, found before anything is written.

use rayon::prelude::*;
use snapc_ir::{DType, Graph, LazyTensor, Weight, WeightError};

use super::Overflow;
use super::kept::Kept;
use crate::name_patterns::shortened;
use crate::pass::{PassContext, PassError, WeightFault, WeightProblem};

/// Share of the non-zero elements of a weight that may become zero before a note says so.
const ZEROS: f64 = 0.01;
/// Share of the non-zero elements of a weight that may lose bits below the smallest normal number, zeros included.
const SUBNORMAL: f64 = 0.1;

/// What the weights of a graph lose.
pub(super) struct WeightCheck {
    /// Position of the weight and what is wrong with it.
    faults: Vec<(usize, WeightFault)>,
    /// Name of the weight and its losses at the lower end.
    underflow: Vec<(String, Underflow)>,
}

/// Non-zero elements that are too small, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Underflow {
    elements: usize,
    zeros: usize,
    subnormal: usize,
}

impl WeightCheck {
    /// Looks over every weight that is to be cast.
    ///
    /// # Errors
    /// When the user stops the run.
    pub(super) fn of(
        to: DType,
        graph: &Graph,
        kept: &Kept,
        context: &PassContext<'_>,
    ) -> Result<Self, PassError> {
        let weights = graph.weights().par_iter().enumerate().filter(|(_, w)| {
            let is_cast = w.tensor.dtype().is_float() && kept.is_cast_for_some(w.value);
            is_cast && w.tensor.is_present()
        });
        let looked = weights.map(|(i, weight)| {
            if (context.cancelled)() {
                return Err(PassError::Cancelled);
            }
            let found = fault(to, weight).map_or_else(|| underflow(to, &weight.tensor), Err);
            Ok((i, found))
        });
        let mut check = WeightCheck {
            faults: Vec::new(),
            underflow: Vec::new(),
        };
        for (i, found) in looked.collect::<Result<Vec<_>, PassError>>()? {
            match found {
                Ok(count) => check
                    .underflow
                    .push((graph.weights()[i].name.clone(), count)),
                Err(fault) => check.faults.push((i, fault)),
            }
        }
        Ok(check)
    }

    /// The positions of the weights that overflow, when they may; everything else that is wrong is an error.
    ///
    /// # Errors
    /// All faults that the option does not allow.
    pub(super) fn refuse(
        &self,
        pass: &'static str,
        graph: &Graph,
        overflow: Overflow,
    ) -> Result<Vec<usize>, PassError> {
        let may_stay = |fault: &WeightFault| {
            let overflows = matches!(fault, WeightFault::Data(WeightError::Overflow { .. }));
            overflows && overflow == Overflow::Keep
        };
        let (allowed, refused): (Vec<_>, Vec<_>) =
            self.faults.iter().partition(|(_, fault)| may_stay(fault));
        if refused.is_empty() {
            return Ok(allowed.into_iter().map(|(i, _)| *i).collect());
        }
        let problem = |(i, fault): &(usize, WeightFault)| WeightProblem {
            graph: graph.name().to_owned(),
            weight: graph.weights()[*i].name.clone(),
            source: fault.clone(),
        };
        Err(PassError::Weights {
            pass,
            problems: refused.into_iter().map(problem).collect(),
        })
    }

    /// Weights of which much is lost at the lower end.
    pub(super) fn underflow_notes(&self, to: DType) -> Vec<String> {
        let share = |part: usize, of: &Underflow| part as f64 / of.elements.max(1) as f64;
        let note = |limit: f64, part: &dyn Fn(&Underflow) -> usize, what: &str| {
            let beyond = self
                .underflow
                .iter()
                .filter(|(_, u)| share(part(u), u) > limit);
            let named =
                beyond.map(|(name, u)| format!("{name} {:.1} %", 100.0 * share(part(u), u)));
            let named: Vec<String> = named.collect();
            (!named.is_empty()).then(|| {
                let count = named.len();
                format!(
                    "of {count} weights, elements {what} {to}: {}",
                    shortened(&named)
                )
            })
        };
        let zeros = note(ZEROS, &|u| u.zeros, "become zero in");
        let subnormal = |u: &Underflow| u.zeros + u.subnormal;
        let subnormal = note(SUBNORMAL, &subnormal, "are below the normal numbers of");
        zeros.into_iter().chain(subnormal).collect()
    }
}

fn fault(to: DType, weight: &Weight) -> Option<WeightFault> {
    let of_constant = (!weight.is_parameter).then(|| not_finite(&weight.tensor));
    if let Some(fault) = of_constant.flatten() {
        return Some(fault);
    }
    let known = weight.tensor.max_abs();
    if to == DType::F32 || known.is_some_and(|max| max < overflow_bound(to)) {
        return None;
    }
    // Casting is what finds the value that overflows; the bytes themselves are not needed.
    let cast = weight.tensor.clone().cast(to);
    let made = cast.stream::<WeightError>(|_| Ok(()));
    made.err().map(WeightFault::Data)
}

/// Every magnitude below this rounds to a finite value.
fn overflow_bound(to: DType) -> f32 {
    match to {
        DType::F16 => 65520.0,
        DType::BF16 => half_way_beyond_bf16(),
        _ => f32::INFINITY,
    }
}

/// The middle between the largest bf16 value and the power of two above it: 2^128 - 2^119.
fn half_way_beyond_bf16() -> f32 {
    f32::from_bits(0x7f7f_8000)
}

fn not_finite(tensor: &LazyTensor) -> Option<WeightFault> {
    match tensor.to_f32() {
        Ok(values) => {
            let index = values.iter().position(|v| !v.is_finite())?;
            let value = values[index];
            Some(WeightFault::NotFinite { value, index })
        }
        Err(error) => Some(WeightFault::Data(error)),
    }
}

/// Elements that f16 has no normal number for. bf16 reaches as far down as f32, and what comes from f16 has lost nothing.
fn underflow(to: DType, tensor: &LazyTensor) -> Result<Underflow, WeightFault> {
    let narrowed = tensor.clone().cast(to).transforms().len() > tensor.transforms().len();
    let mut count = Underflow::default();
    if to != DType::F16 || !narrowed {
        return Ok(count);
    }
    tensor.stream_f32::<WeightError>(|values| {
        // Magnitudes as integers stand in the same order. 2^-25 is half way to the smallest number and becomes zero.
        let (zero, normal) = (2f32.powi(-25).to_bits(), 2f32.powi(-14).to_bits());
        let (mut elements, mut zeros, mut small) = (0u32, 0u32, 0u32);
        for x in values {
            let magnitude = x.to_bits() & 0x7fff_ffff;
            elements += u32::from(magnitude != 0);
            zeros += u32::from(magnitude != 0 && magnitude <= zero);
            small += u32::from(magnitude > zero && magnitude < normal);
        }
        count.elements += elements as usize;
        count.zeros += zeros as usize;
        count.subnormal += small as usize;
        Ok(())
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bit patterns of numpy's float16 for these: 1, 6.1e-5 (1024), 6.0976e-5 (1023), 3e-8 (1), 2.98e-8 (0).
    const VALUES: [f32; 8] = [1.0, 6.104e-5, 6.096e-5, 3e-8, 2.98e-8, -1e-12, 0.0, -0.0];

    #[test]
    fn elements_below_the_grid_are_counted() {
        let tensor = LazyTensor::from_f32(&[8], &VALUES);
        let expected = Underflow {
            elements: 6,
            zeros: 2,
            subnormal: 2,
        };
        assert_eq!(underflow(DType::F16, &tensor).unwrap(), expected);
        // The count is that of what the cast gives.
        let cast = tensor.clone().cast(DType::F16).to_f32().unwrap();
        let pairs = || VALUES.iter().zip(&cast);
        assert_eq!(pairs().filter(|&(&x, &y)| x != 0.0 && y == 0.0).count(), 2);
        let subnormal = |&(_, &y): &(&f32, &f32)| y != 0.0 && y.abs() < 2f32.powi(-14);
        assert_eq!(pairs().filter(subnormal).count(), 2);
        let none = Underflow::default();
        assert_eq!(underflow(DType::BF16, &tensor).unwrap(), none);
        let from_half = tensor.cast(DType::F16).cast(DType::F32);
        assert_eq!(underflow(DType::F16, &from_half).unwrap(), none);
    }

    #[test]
    fn notes_name_what_loses_much() {
        let lost = |elements, zeros, subnormal| Underflow {
            elements,
            zeros,
            subnormal,
        };
        let check = WeightCheck {
            faults: Vec::new(),
            underflow: vec![
                ("fine".to_owned(), lost(1000, 10, 90)),
                ("zeros".to_owned(), lost(1000, 11, 0)),
                ("small".to_owned(), lost(1000, 1, 100)),
            ],
        };
        let expected = [
            "of 1 weights, elements become zero in f16: zeros 1.1 %",
            "of 1 weights, elements are below the normal numbers of f16: small 10.1 %",
        ];
        assert_eq!(check.underflow_notes(DType::F16), expected);
    }
}
