//! The spans that values take on calibration inputs.

use std::collections::BTreeMap;

use snapc_ir::{Graph, Tensor, ValueDef, ValueId};

use crate::pass::{PassContext, PassError};

/// A span of values that holds zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Range {
    low: f32,
    high: f32,
}

impl Range {
    /// The span of the elements but for the share that `percentile` leaves, half of which lies beyond each end.
    fn of(values: &[f32], percentile: f64) -> Self {
        let beyond = ((100.0 - percentile) / 200.0 * values.len() as f64) as usize;
        let mut sorted = values.to_vec();
        let mut at = |position: usize| {
            let (_, &mut value, _) = sorted.select_nth_unstable_by(position, f32::total_cmp);
            value
        };
        match values.len().checked_sub(1) {
            None => Range::default(),
            Some(last) => Range {
                low: at(beyond.min(last)).min(0.0),
                high: at(last - beyond.min(last)).max(0.0),
            },
        }
    }

    fn join(self, other: Range) -> Self {
        Range {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }

    /// Distance of two values of the grid; 1 for a value that is always zero.
    pub(super) fn scale(self) -> f32 {
        let scale = (self.high - self.low) / 255.0;
        if scale >= f32::MIN_POSITIVE {
            scale
        } else {
            1.0
        }
    }

    /// The code of zero.
    pub(super) fn zero_point(self) -> usize {
        (-self.low / self.scale()).round().clamp(0.0, 255.0) as usize
    }
}

/// The spans of some values over all samples, each with the nodes that it came with.
///
/// # Errors
/// When the graph cannot be run, or a value is not finite.
pub(super) fn measure(
    pass: &'static str,
    graph: &Graph,
    values: &BTreeMap<ValueId, Vec<usize>>,
    samples: &[BTreeMap<String, Tensor>],
    percentile: f64,
    context: &PassContext<'_>,
) -> Result<BTreeMap<ValueId, (Range, Vec<usize>)>, PassError> {
    let mut ranges: BTreeMap<ValueId, Range> = BTreeMap::new();
    let mut note = |value: ValueId, tensor: &Tensor| {
        if values.contains_key(&value) {
            let range = Range::of(tensor.floats(), percentile);
            let joined = ranges.entry(value).or_default().join(range);
            ranges.insert(value, joined);
        }
    };
    context.trace(pass, graph, samples, |node, evaluation| {
        for sample in 0..evaluation.samples() {
            note(node.result, evaluation.result(sample, node));
        }
        Ok(())
    })?;
    for &value in values.keys() {
        if let ValueDef::Input(i) = graph.value(value).def {
            let name = &graph.inputs()[i].name;
            samples.iter().for_each(|sample| note(value, &sample[name]));
        }
    }
    let bad = ranges.iter().find(|(_, r)| !(r.high - r.low).is_finite());
    if let Some((value, _)) = bad {
        let reader = &graph.nodes()[values[value][0]].name;
        return Err(PassError::Refused {
            pass,
            graph: graph.name().to_owned(),
            reason: format!(
                "on the calibration inputs, what '{reader}' reads is not finite; keep that layer, or use other inputs"
            ),
        });
    }
    let with_readers = ranges
        .into_iter()
        .map(|(value, range)| (value, (range, values[&value].clone())));
    Ok(with_readers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_leaves_out_as_much_at_both_ends() {
        let values: Vec<f32> = (0..=1000).rev().map(|i| i as f32 - 400.0).collect();
        assert_eq!(
            Range::of(&values, 100.0),
            Range {
                low: -400.0,
                high: 600.0
            }
        );
        // 1 % of 1001 values: five at each end.
        assert_eq!(
            Range::of(&values, 99.0),
            Range {
                low: -395.0,
                high: 595.0
            }
        );
    }

    #[test]
    fn zero_is_on_the_grid() {
        let range = Range::of(&[3.0, 5.1], 100.0);
        assert_eq!((range.scale(), range.zero_point()), (5.1 / 255.0, 0));
        let range = Range::of(&[-2.55, -1.0], 100.0);
        assert_eq!(range.zero_point(), 255);
        let nothing = Range::of(&[0.0], 100.0);
        assert_eq!((nothing.scale(), nothing.zero_point()), (1.0, 0));
        assert_eq!(Range::of(&[], 99.0), Range::default());
    }
}
