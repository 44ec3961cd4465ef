//! Codes of few bits that stand in bytes without gaps, found before the nodes are read one by one.
//!
//! Nodes take such codes apart by shifting and masking bytes. Computed as they are written they would need the codes of
//! every weight in memory, so the whole expression becomes one lazy constant. It ends in a `BitwiseAnd` with the mask:
//!
//! ```text
//! bytes [rows,1] ─ BitShift right ─ BitwiseAnd                                        1, 2, 4 bits
//! bytes [rows,3] ┬ Gather ─ BitShift right ┬ BitwiseOr ─ BitwiseAnd                   3, 6 bits
//!                └ Gather ─ BitShift left ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::{DType, LazyTensor};

use super::builder::Builder;
use crate::proto::{GraphProto, NodeProto};

/// What is found in a graph, by positions of nodes.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// The codes, one per byte, that a node ends in.
    pub(super) codes: BTreeMap<usize, LazyTensor>,
    /// Nodes that nothing but such expressions uses.
    pub(super) inner: BTreeSet<usize>,
}

/// Finds the expressions whose bytes are initializers, which the builder has read.
pub(super) fn find(graph: &GraphProto, builder: &Builder) -> Unpacked {
    let mut found = Unpacked::default();
    let is_mask = |n: &NodeProto| {
        n.op_type.as_deref() == Some("BitwiseAnd")
            && super::is_onnx(n.domain.as_deref())
            && n.output.len() == 1
            && !n.output[0].is_empty()
    };
    if !graph.node.iter().any(is_mask) {
        return found;
    }
    let search = Search::new(graph, builder);
    for (i, node) in graph.node.iter().enumerate() {
        if is_mask(node)
            && let Some((codes, inner)) = search.codes(node)
        {
            found.codes.insert(i, codes);
            found.inner.extend(inner);
        }
    }
    found
}

struct Search<'a> {
    graph: &'a GraphProto,
    builder: &'a Builder,
    /// The node that defines a value, by name; `None` when several do.
    producers: BTreeMap<&'a str, Option<usize>>,
    /// How often a value is used.
    uses: BTreeMap<&'a str, usize>,
}

/// One byte per code, shifted.
struct Shifted<'a> {
    bytes: &'a str,
    by: Vec<i64>,
}

impl<'a> Search<'a> {
    fn new(graph: &'a GraphProto, builder: &'a Builder) -> Self {
        let mut producers = BTreeMap::new();
        let mut uses = BTreeMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            for output in &node.output {
                let only = |known: &mut Option<usize>| *known = None;
                producers
                    .entry(output.as_str())
                    .and_modify(only)
                    .or_insert(Some(i));
            }
            for input in &node.input {
                *uses.entry(input.as_str()).or_default() += 1;
            }
        }
        for output in &graph.output {
            *uses
                .entry(output.name.as_deref().unwrap_or_default())
                .or_default() += 1;
        }
        Search {
            graph,
            builder,
            producers,
            uses,
        }
    }

    /// The codes that a mask leaves, and the nodes before it.
    fn codes(&self, mask: &'a NodeProto) -> Option<(LazyTensor, Vec<usize>)> {
        let [masked, ones] = inputs(mask)?;
        let &[ones] = self.integers(ones)?.as_slice() else {
            return None;
        };
        let bits = (1..8).find(|&bits| ones == (1 << bits) - 1)?;
        let mut inner = Vec::new();
        let bytes = if 8 % bits == 0 {
            let shifted = self.shifted(masked, "RIGHT", &mut inner)?;
            let expected: Vec<i64> = (0..8 / bits).map(|lane| i64::from(lane * bits)).collect();
            (shifted.by == expected).then_some(shifted.bytes)?
        } else {
            self.across_bytes(masked, bits, &mut inner)?
        };
        let packed = self.builder.data(*self.builder.values.get(bytes)?)?;
        let &[rows, width] = packed.shape() else {
            return None;
        };
        let lanes = 8 * width / bits as usize;
        let expected = if 8 % bits == 0 { 1 } else { 3 };
        if packed.dtype() != DType::U8 || width != expected {
            return None;
        }
        let flat = packed.clone().reshape(&[rows * width]);
        Some((flat.unpack(bits, DType::U8, &[rows, lanes]), inner))
    }

    /// The bytes of codes of which some lie in two of them.
    fn across_bytes(&self, masked: &'a str, bits: u32, inner: &mut Vec<usize>) -> Option<&'a str> {
        let [low, high] = inputs(self.inner(masked, "BitwiseOr", inner)?)?;
        let low = self.shifted(low, "RIGHT", inner)?;
        let high = self.shifted(high, "LEFT", inner)?;
        let (bytes, first) = self.columns(low.bytes, inner)?;
        let (same, second) = self.columns(high.bytes, inner)?;
        let lanes = 24 / bits as usize;
        let lists = [&low.by, &high.by, &first, &second];
        if bytes != same || bits > 6 || 24 % bits != 0 || lists.iter().any(|l| l.len() != lanes) {
            return None;
        }
        let right = (0..lanes).all(|lane| {
            let start = lane as i64 * i64::from(bits);
            let (byte, shift) = (start / 8, start % 8);
            let behind = if shift + i64::from(bits) > 8 {
                second[lane] == byte + 1 && high.by[lane] == 8 - shift
            } else {
                // Whatever byte it is, the mask takes it away.
                (0..3).contains(&second[lane]) && (i64::from(bits)..8).contains(&high.by[lane])
            };
            first[lane] == byte && low.by[lane] == shift && behind
        });
        right.then_some(bytes)
    }

    /// The node that defines a value, when it is of that operator and nothing else uses the value.
    fn inner(&self, value: &str, op: &str, inner: &mut Vec<usize>) -> Option<&'a NodeProto> {
        let index = self.producers.get(value).copied().flatten()?;
        let node = &self.graph.node[index];
        let is_onnx = super::is_onnx(node.domain.as_deref());
        let fits = node.op_type.as_deref() == Some(op) && is_onnx && node.output.len() == 1;
        (fits && self.uses.get(value) == Some(&1)).then_some(())?;
        inner.push(index);
        Some(node)
    }

    fn shifted(&self, value: &str, direction: &str, inner: &mut Vec<usize>) -> Option<Shifted<'a>> {
        let node = self.inner(value, "BitShift", inner)?;
        let [bytes, by] = inputs(node)?;
        let [attribute] = node.attribute.as_slice() else {
            return None;
        };
        let fits = attribute.name.as_deref() == Some("direction")
            && attribute.s.as_deref() == Some(direction.as_bytes());
        let by = self.integers(by)?;
        fits.then_some(Shifted { bytes, by })
    }

    /// `Gather` along axis 1.
    fn columns(&self, value: &str, inner: &mut Vec<usize>) -> Option<(&'a str, Vec<i64>)> {
        let node = self.inner(value, "Gather", inner)?;
        let [bytes, columns] = inputs(node)?;
        let [attribute] = node.attribute.as_slice() else {
            return None;
        };
        let fits = attribute.name.as_deref() == Some("axis") && attribute.i == Some(1);
        let columns = self.integers(columns)?;
        fits.then_some((bytes, columns))
    }

    /// The elements of a small initializer.
    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.builder.data(*self.builder.values.get(name)?)?;
        let small = tensor.elements() <= 8 && tensor.shape().len() <= 1;
        let whole = matches!(tensor.dtype(), DType::U8 | DType::I32 | DType::I64);
        (small && whole).then(|| tensor.to_i64().ok()).flatten()
    }
}

/// The operands of a node with two.
fn inputs(node: &NodeProto) -> Option<[&str; 2]> {
    match node.input.as_slice() {
        [a, b] => Some([a.as_str(), b.as_str()]),
        _ => None,
    }
}
