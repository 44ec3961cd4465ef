//! Which channels stay: those in whose weights most of the norm lies.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use snapc_ir::{Graph, ValueId, Weight};

use super::dimensions::Dimensions;
use crate::pass::{PassContext, PassError, WeightFault, WeightProblem};

/// Ratios closer than this to a whole number of groups count as it.
const TOLERANCE: f64 = 1e-9;

/// Classes, each with sums of squares per channel.
type Shares = Vec<(usize, Vec<f64>)>;

/// The kept channels of every class that loses some.
pub(super) struct Selection {
    dimensions: Dimensions,
    kept: BTreeMap<usize, Vec<usize>>,
}

/// The classes that may lose channels.
pub(super) struct Prunable {
    dimensions: Dimensions,
    /// Channels that go together, by class.
    units: BTreeMap<usize, usize>,
}

impl Prunable {
    /// The classes of a graph that may lose channels: those under a GroupNorm, and the inner channels of attentions.
    pub(super) fn find(graph: &Graph) -> Self {
        let dimensions = Dimensions::trace(graph);
        let mut units = BTreeMap::new();
        for weight in graph.weights() {
            for axis in 0..weight.tensor.shape().len() {
                let class = dimensions.class(weight.value, axis);
                let facts = dimensions.facts(class);
                if !facts.held && (facts.norm_group > 0 || facts.inner) {
                    units.insert(class, facts.norm_group.max(1));
                }
            }
        }
        Prunable { dimensions, units }
    }

    /// Whether nothing may go.
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Into how many parts of equal size every class can be cut: a valid ratio is a multiple of one over this.
    fn parts(&self) -> usize {
        let gcd = |mut a: usize, mut b: usize| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let counts = self.units.iter().map(|(&class, unit)| self.dimensions.size(class) / unit);
        counts.fold(0, gcd)
    }

    /// How many of [`Prunable::parts`] parts go.
    ///
    /// # Errors
    /// The valid ratios, in words.
    pub(super) fn parts_to_go(&self, ratio: f64) -> Result<(usize, usize), String> {
        let parts = self.parts();
        let exact = ratio * parts as f64;
        let gone = exact.round();
        if (exact - gone).abs() <= TOLERANCE * parts as f64 && gone >= 1.0 && gone < parts as f64 {
            return Ok((gone as usize, parts));
        }
        Err(match parts {
            1 => "no ratio leaves whole groups of the GroupNorms, since they have one group".to_owned(),
            _ => format!(
                "a ratio of {ratio} does not leave whole groups of the GroupNorms; use a multiple of 1/{parts} from {} to {}",
                1.0 / parts as f64,
                (parts - 1) as f64 / parts as f64
            ),
        })
    }

    /// Chooses what stays when `gone` of `parts` parts of every class go: of each class the units with the largest share
    /// of the squared norms of its matrices and filters, earlier ones first where they are equal.
    ///
    /// # Errors
    /// When a weight has no data, or the run was cancelled.
    pub(super) fn select(
        self,
        graph: &Graph,
        (gone, parts): (usize, usize),
        pass: &'static str,
        context: &PassContext<'_>,
    ) -> Result<Selection, PassError> {
        let shares = self.shares(graph, pass, context)?;
        let mut kept = BTreeMap::new();
        for (&class, &unit) in &self.units {
            let of_unit = |u: usize| -> f64 { shares[&class][u * unit..][..unit].iter().sum() };
            let units = self.dimensions.size(class) / unit;
            let mut order: Vec<usize> = (0..units).collect();
            order.sort_by(|&a, &b| of_unit(b).total_cmp(&of_unit(a)));
            order.truncate(units - units / parts * gone);
            order.sort_unstable();
            let channels = order.iter().flat_map(|u| u * unit..(u + 1) * unit);
            kept.insert(class, channels.collect());
        }
        Ok(Selection {
            dimensions: self.dimensions,
            kept,
        })
    }

    /// For every channel of a class, the sum over its matrices and filters of the share of squared norm at the channel.
    fn shares(
        &self,
        graph: &Graph,
        pass: &'static str,
        context: &PassContext<'_>,
    ) -> Result<BTreeMap<usize, Vec<f64>>, PassError> {
        let axes = |weight: &Weight| -> Vec<(usize, usize)> {
            let rank = weight.tensor.shape().len();
            let classes = (0..rank).map(|axis| (axis, self.dimensions.class(weight.value, axis)));
            classes.filter(|(_, class)| rank > 1 && self.units.contains_key(class)).collect()
        };
        let found: Vec<Result<Shares, PassError>> = graph
            .weights()
            .par_iter()
            .map(|weight| {
                if (context.cancelled)() {
                    return Err(PassError::Cancelled);
                }
                let axes = axes(weight);
                if axes.is_empty() {
                    return Ok(Shares::new());
                }
                let data = weight.tensor.to_f32().map_err(|source| PassError::Weights {
                    pass,
                    problems: vec![WeightProblem {
                        graph: graph.name().to_owned(),
                        weight: weight.name.clone(),
                        source: WeightFault::Data(source),
                    }],
                })?;
                let share = |&(axis, class): &(usize, usize)| {
                    (class, squares_along(&data, weight.tensor.shape(), axis))
                };
                Ok(axes.iter().map(share).collect())
            })
            .collect();
        let classes = self.units.keys();
        let zeros = |&class: &usize| (class, vec![0.0; self.dimensions.size(class)]);
        let mut shares: BTreeMap<usize, Vec<f64>> = classes.map(zeros).collect();
        for weight in found {
            for (class, squares) in weight? {
                let total: f64 = squares.iter().sum();
                let all = shares.entry(class).or_default();
                if total > 0.0 {
                    all.iter_mut().zip(squares).for_each(|(s, x)| *s += x / total);
                }
            }
        }
        Ok(shares)
    }
}

/// Sums of squares of the elements at each index along an axis.
fn squares_along(data: &[f32], shape: &[usize], axis: usize) -> Vec<f64> {
    let inner: usize = shape[axis + 1..].iter().product();
    let mut sums = vec![0.0; shape[axis]];
    for (run, at) in data.chunks_exact(inner.max(1)).zip((0..shape[axis]).cycle()) {
        sums[at] += run.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    }
    sums
}

impl Selection {
    /// The channels of a dimension that stay; `None` when all do.
    pub(super) fn kept(&self, value: ValueId, axis: usize) -> Option<&[usize]> {
        let class = self.dimensions.class(value, axis);
        self.kept.get(&class).map(Vec::as_slice)
    }

    /// How many classes lose channels.
    pub(super) fn classes(&self) -> usize {
        self.kept.len()
    }

    /// How many channels go, a class counted once.
    pub(super) fn removed(&self) -> usize {
        let removed = |(&class, kept): (&usize, &Vec<usize>)| self.dimensions.size(class) - kept.len();
        self.kept.iter().map(removed).sum()
    }

    /// How many weights are thinned out.
    pub(super) fn weights(&self, graph: &Graph) -> usize {
        let thinned: BTreeSet<ValueId> = graph
            .weights()
            .iter()
            .filter(|w| (0..w.tensor.shape().len()).any(|a| self.kept(w.value, a).is_some()))
            .map(|w| w.value)
            .collect();
        thinned.len()
    }
}
