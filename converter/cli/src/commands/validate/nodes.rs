//! What the nodes of a graph give in one call, and which nodes of two graphs are the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use snapc_ir::tensor::{Elements, strides};
use snapc_pipeline::{Data, Network, Port, Stage};
use snapc_runtime::RuntimeNetwork;

use crate::accuracy::Accuracy;
use crate::engines::{self, EvaluatorNetwork};
use crate::failure::Failure;
use crate::reference_file::Reference;

/// Operators that only move values. A module's name may be left to such a node when the rest went into another one.
const MOVEMENTS: [&str; 4] = ["permute", "reshape", "transpose", "view"];

/// The result of a node, as it was observed; integers are left out.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Name of the node, several of which may share one.
    pub name: String,
    /// Operator of the node.
    pub op: &'static str,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// A node that two graphs have.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedNode {
    /// Name in the expected graph.
    pub name: String,
    /// Operator in the expected graph.
    pub op: &'static str,
    /// How far the results are apart.
    pub accuracy: Accuracy,
}

/// A network that shows what its nodes give.
pub trait Observable: Network {
    /// As [`Network::run`], with every result of floats given to `observer`.
    ///
    /// # Errors
    /// As [`Network::run`].
    fn run_observed(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
        observer: &mut dyn FnMut(Observed),
    ) -> Result<(), Self::Error>;
}

impl Observable for EvaluatorNetwork {
    fn run_observed(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
        observer: &mut dyn FnMut(Observed),
    ) -> Result<(), Self::Error> {
        EvaluatorNetwork::run_observed(self, batch, inputs, outputs, |node, tensor| {
            if let Elements::Float(values) = &tensor.elements {
                observer(Observed {
                    name: node.name.clone(),
                    op: node.op.name(),
                    shape: tensor.shape.clone(),
                    values: values.clone(),
                });
            }
        })
    }
}

impl Observable for RuntimeNetwork {
    fn run_observed(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
        observer: &mut dyn FnMut(Observed),
    ) -> Result<(), Self::Error> {
        RuntimeNetwork::run_observed(self, batch, inputs, outputs, &mut |seen| {
            if let Data::F32(values) = seen.data {
                observer(Observed {
                    name: seen.instruction.name.clone(),
                    op: seen.instruction.op.name(),
                    shape: seen.dims.to_vec(),
                    values: values.to_vec(),
                });
            }
        })
    }
}

/// A network that remembers what its nodes gave in the last run.
struct Watched<N> {
    network: N,
    seen: Rc<RefCell<Vec<Observed>>>,
}

impl<N: Observable> Network for Watched<N> {
    type Error = N::Error;

    fn inputs(&self) -> &[Port] {
        self.network.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.network.outputs()
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), N::Error> {
        let mut seen = self.seen.borrow_mut();
        seen.clear();
        let mut keep = |node| seen.push(node);
        self.network.run_observed(batch, inputs, outputs, &mut keep)
    }
}

/// Runs one call on the reference's inputs, with networks that were made for these timesteps, and gives the results of all nodes.
///
/// # Errors
/// When the networks do not make a pipeline, or the call fails.
pub fn observe<N: Observable + 'static>(
    networks: [N; 3],
    timesteps: &[usize],
    reference: &Reference,
    scaling_factor: f32,
    stage: Stage,
) -> Result<Vec<Observed>, Failure> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let networks = networks.map(|network| Watched {
        network,
        seen: Rc::clone(&seen),
    });
    let mut engine = engines::engine(networks, timesteps)?;
    let texts = match stage {
        Stage::Unet { .. } => super::texts_for_unet(&mut engine, reference)?,
        _ => Vec::new(),
    };
    super::call(&mut engine, reference, &texts, scaling_factor, stage)
        .map_err(|e| super::failed(stage, e))?;
    Ok(seen.take())
}

/// Pairs nodes of the same name and shape, in the order of `found`. A name may stand for several nodes, of which the last
/// gives what the module gives; formats number them, and some have no dots in names.
pub fn matched(expected: &[Observed], found: &[Observed]) -> Vec<ComparedNode> {
    let expected: BTreeMap<String, &Observed> = expected
        .iter()
        .map(|node| (key(&node.name), node))
        .collect();
    let mut last: BTreeMap<&str, (usize, &Observed, &Observed)> = BTreeMap::new();
    for (at, node) in found.iter().enumerate() {
        let own = key(&node.name);
        let unnumbered = own.trim_end_matches(|c: char| c.is_ascii_digit());
        let base = unnumbered.strip_suffix('_').unwrap_or(&own);
        let entry = expected
            .get_key_value(&own)
            .or_else(|| expected.get_key_value(base));
        if let Some((name, other)) = entry {
            last.insert(name, (at, other, node));
        }
    }
    let mut pairs: Vec<_> = last.into_values().collect();
    pairs.sort_by_key(|(at, ..)| *at);
    let moves = |node: &Observed| MOVEMENTS.contains(&node.op);
    let compared = pairs.into_iter().filter_map(|(_, expected, found)| {
        if moves(expected) != moves(found) {
            return None;
        }
        Some(ComparedNode {
            name: expected.name.clone(),
            op: expected.op,
            accuracy: compare(found, expected)?,
        })
    });
    compared.collect()
}

/// A name in the letters that every format has.
fn key(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).collect()
}

/// Compares results whose shapes are equal but for dimensions of one, or of which the found one has its channels last.
fn compare(found: &Observed, expected: &Observed) -> Option<Accuracy> {
    let squeezed =
        |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|&d| d != 1).collect() };
    let same = squeezed(&found.shape) == squeezed(&expected.shape);
    let plain = same.then(|| Accuracy::of(&found.values, &expected.values));
    let moved = channels_first(found, &expected.shape);
    let moved = moved.map(|values| Accuracy::of(&values, &expected.values));
    // A shape of equal sides fits both ways.
    match (plain, moved) {
        (Some(a), Some(b)) => Some(if b.psnr > a.psnr { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Values `[N,H,W,C]` as `[N,C,H,W]`, when that is the shape.
fn channels_first(found: &Observed, shape: &[usize]) -> Option<Vec<f32>> {
    let (&[n, c, h, w], &[fn_, fh, fw, fc]) = (shape, found.shape.as_slice()) else {
        return None;
    };
    if [n, h, w, c] != [fn_, fh, fw, fc] {
        return None;
    }
    let steps = strides(&found.shape);
    let mut values = Vec::with_capacity(found.values.len());
    for image in 0..n {
        for channel in 0..c {
            let first = image * steps[0] + channel;
            values.extend((0..h * w).map(|pixel| found.values[first + pixel * c]));
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(name: &str, shape: &[usize], values: &[f32]) -> Observed {
        Observed {
            name: name.to_owned(),
            op: "add",
            shape: shape.to_vec(),
            values: values.to_vec(),
        }
    }

    #[test]
    fn nodes_are_matched_by_name_and_shape() {
        let expected = [
            observed("down.0.norm", &[4], &[0.0, 1.0, 2.0, 3.0]),
            observed("down.0.conv", &[2, 2], &[0.0, 1.0, 2.0, 3.0]),
            observed("mid.norm", &[4], &[9.0, 9.0, 9.0, 9.0]),
            observed("mid.norm", &[4], &[0.0, 1.0, 2.0, 4.0]),
        ];
        let found = [
            // No dots, and a dimension of one.
            observed("down_0_norm", &[1, 4], &[0.0, 1.0, 2.0, 3.0]),
            // Another shape: not compared.
            observed("down.0.conv", &[4, 1], &[0.0, 1.0, 2.0, 3.0]),
            // Numbered: the last one counts.
            observed("mid.norm", &[4], &[5.0, 5.0, 5.0, 5.0]),
            observed("mid.norm_1", &[4], &[0.0, 1.0, 2.0, 4.4]),
            observed("unknown", &[4], &[0.0; 4]),
        ];
        let nodes = matched(&expected, &found);
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["down.0.norm", "mid.norm"]);
        assert_eq!(nodes[0].accuracy.max_error, 0.0);
        // An error of 0.4 in one of four values over a range of 4: 20 log10(4 / 0.2) = 26.02.
        let psnr = nodes[1].accuracy.psnr;
        assert!((psnr - 26.02).abs() < 0.01, "{psnr}");
    }

    #[test]
    fn what_is_left_of_a_fused_module_is_not_compared() {
        let expected = [observed("proj_out", &[2], &[1.0, 2.0])];
        let mut found = expected.clone();
        assert_eq!(matched(&expected, &found).len(), 1);
        found[0].op = "view";
        assert_eq!(matched(&expected, &found).len(), 0);
    }

    #[test]
    fn channels_may_come_last() {
        let expected = [observed(
            "conv",
            &[1, 2, 1, 3],
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        )];
        let found = [observed(
            "conv",
            &[1, 1, 3, 2],
            &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0],
        )];
        assert_eq!(matched(&expected, &found)[0].accuracy.max_error, 0.0);
        // Two by two by two fits both ways.
        let square = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let expected = [observed("conv", &[1, 2, 2, 2], &square)];
        let last = [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0];
        for values in [square, last] {
            let found = [observed("conv", &[1, 2, 2, 2], &values)];
            assert_eq!(matched(&expected, &found)[0].accuracy.max_error, 0.0);
        }
    }
}
