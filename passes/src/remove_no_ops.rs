//! Removes operators that change nothing and joins chains of moves.
//!
//! # What it does
//! Removes a reshape, cast or slice whose result is its operand, a transpose that keeps the order, a concat of one
//! operand, an upsampling by 1, the addition or subtraction of a constant that is zero, and the multiplication with or
//! division by a constant that is one. Joins a reshape of a reshape, a transpose of a transpose, and a cast of a cast
//! that loses nothing, each into one node, which may turn out to change nothing itself.
//!
//! # When it applies
//! To any graph. A constant is looked into up to 65536 elements. An operator that stands between an input or a weight and an
//! output stays, since an output needs a value of its own.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None: values stay the same; only the sign of a zero may change.
//!
//! # Example
//! ```text
//! before: a = transpose(x, perm=[0,2,1]); b = transpose(a, perm=[0,2,1]); y = silu(b)
//! after:  y = silu(x)
//! ```

use serde::Deserialize;
use snapc_ir::eval::weight_tensor;
use snapc_ir::ops::{Cast, Reshape, Transpose};
use snapc_ir::tensor::Elements;
use snapc_ir::{BuildError, DType, Graph, Node, Op, Rebuild, ValueId};

use crate::info::Describe;
use crate::output_values::OutputValues;
use crate::pass::{Change, Pass, PassContext, PassError, Property};

/// Constants with more elements are not looked into.
const MAX_CONSTANT: usize = 1 << 16;

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveNoOps {}

impl Describe for RemoveNoOps {
    const NAME: &'static str = "remove-no-ops";
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for RemoveNoOps {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let mut outputs = OutputValues::of(graph);
        let (mut removed, mut joined) = (0, 0);
        let rebuilt = graph.rebuild(|rebuild, node| {
            let value = match simplify(rebuild, node)? {
                Simpler::Value(value) if outputs.may_replace(&rebuild.graph, node.result, value) => {
                    removed += 1;
                    value
                }
                Simpler::Node(op, operand) => {
                    joined += 1;
                    rebuild.graph.add(op, &[operand], node.name.clone())?
                }
                Simpler::Value(_) | Simpler::Nothing => rebuild.copy(node)?,
            };
            outputs.record(node.result, value);
            Ok::<_, BuildError>(Some(value))
        });
        let graph = rebuilt.map_err(PassError::build(Self::NAME))?;
        if removed + joined == 0 {
            return Ok(None);
        }
        Ok(Some(Change::new(graph, vec![("nodes removed", removed), ("nodes joined", joined)])))
    }
}

/// What can stand for a node, in terms of the new graph.
enum Simpler {
    /// Nothing else.
    Nothing,
    /// A value that is there.
    Value(ValueId),
    /// An operator on a value further back.
    Node(Op, ValueId),
}

fn simplify(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<Simpler, BuildError> {
    let old = rebuild.old();
    if let Some(same) = unchanged_operand(rebuild, node)? {
        return Ok(Simpler::Value(rebuild.operand(same)?));
    }
    if !matches!(node.op, Op::Reshape(_) | Op::Transpose(_) | Op::Cast(_)) {
        return Ok(Simpler::Nothing);
    }
    let operand = rebuild.operand(node.operands[0])?;
    let Some(inner) = rebuild.graph.node_of(operand) else {
        return Ok(Simpler::Nothing);
    };
    let Some(&source) = inner.operands.first() else {
        return Ok(Simpler::Nothing);
    };
    let Some(op) = join(&inner.op, &node.op, rebuild.graph.ty(source).dtype) else {
        return Ok(Simpler::Nothing);
    };
    let changes_nothing = match &op {
        Op::Transpose(op) => is_identity(&op.perm),
        _ => rebuild.graph.ty(source) == old.ty(node.result),
    };
    Ok(if changes_nothing {
        Simpler::Value(source)
    } else {
        Simpler::Node(op, source)
    })
}

/// The operand that a node gives back as it is, if it does.
fn unchanged_operand(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
) -> Result<Option<ValueId>, BuildError> {
    let old = rebuild.old();
    let mut filled_with = |i: usize, number| is_filled_with(rebuild, node.operands[i], number);
    let kept = match &node.op {
        Op::Transpose(op) => is_identity(&op.perm).then_some(0),
        Op::Concat(_) => (node.operands.len() == 1).then_some(0),
        Op::Reshape(_) | Op::Cast(_) | Op::Slice(_) | Op::UpsampleNearest(_) => Some(0),
        Op::Add(_) if filled_with(1, 0.0)? => Some(0),
        Op::Add(_) if filled_with(0, 0.0)? => Some(1),
        Op::Sub(_) if filled_with(1, 0.0)? => Some(0),
        Op::Mul(_) if filled_with(1, 1.0)? => Some(0),
        Op::Mul(_) if filled_with(0, 1.0)? => Some(1),
        Op::Div(_) if filled_with(1, 1.0)? => Some(0),
        _ => None,
    };
    let operand = kept.map(|i: usize| node.operands[i]);
    Ok(operand.filter(|&v| old.ty(v) == old.ty(node.result)))
}

fn is_identity(perm: &[usize]) -> bool {
    perm.iter().copied().eq(0..perm.len())
}

/// Whether an old value is, by now, a constant of which every element is `number`.
fn is_filled_with(
    rebuild: &mut Rebuild<'_>,
    value: ValueId,
    number: f32,
) -> Result<bool, BuildError> {
    let weight = match rebuild.old().weight_of(value) {
        // It is not asked for in the new graph, which would carry over a weight that goes out of use.
        Some(weight) => Some(weight),
        None => {
            let new = rebuild.operand(value)?;
            rebuild.graph.weight_of(new)
        }
    };
    let Some(tensor) = weight.map(|w| &w.tensor) else {
        return Ok(false);
    };
    if !tensor.is_present() || tensor.elements() > MAX_CONSTANT {
        return Ok(false);
    }
    Ok(match weight_tensor(tensor).map(|t| t.elements) {
        Ok(Elements::Float(v)) => v.iter().all(|&x| x == number),
        Ok(Elements::Int(v)) => v.iter().all(|&x| x as f32 == number),
        Err(_) => false,
    })
}

/// The operator that does `inner`, on a value of type `source`, and then `outer`.
fn join(inner: &Op, outer: &Op, source: DType) -> Option<Op> {
    match (inner, outer) {
        (Op::Reshape(_), Op::Reshape(Reshape { shape })) => {
            let shape = shape.clone();
            Some(Reshape { shape }.into())
        }
        (Op::Transpose(inner), Op::Transpose(outer)) => {
            let perm = outer.perm.iter().map(|&i| inner.perm[i]).collect();
            Some(Transpose { perm }.into())
        }
        (Op::Cast(inner), Op::Cast(outer)) if holds_all_of(inner.to, source) => {
            Some(Cast { to: outer.to }.into())
        }
        _ => None,
    }
}

/// Whether every value of type `narrow` is a value of type `wide`.
fn holds_all_of(wide: DType, narrow: DType) -> bool {
    wide == narrow
        || matches!(
            (narrow, wide),
            (DType::F16 | DType::BF16, DType::F32)
                | (DType::I32, DType::I64)
                | (DType::Bool, DType::I32 | DType::I64 | DType::F32)
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Concat, Div, Mul, Silu, Slice, Sub, UpsampleNearest};
    use snapc_ir::{LazyTensor, Shape, TensorType};

    fn run(graph: &Graph) -> Option<Change> {
        RemoveNoOps {}.run(graph, &PassContext::default()).unwrap()
    }

    fn start(dtype: DType, dims: &[usize]) -> (Graph, ValueId) {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(dtype, Shape::batched(dims)));
        (g, x)
    }

    /// Operators that the output still depends on, after the pass; `None` if it changed nothing.
    fn remaining(mut g: Graph, y: ValueId) -> Option<Vec<&'static str>> {
        let y = g.add(Silu {}, &[y], "y").unwrap();
        g.output("y", y);
        let change = run(&g)?;
        assert!(run(&change.graph).is_none(), "a second run changes the graph again");
        let live = change.graph.live_values();
        let nodes = change.graph.nodes().iter().filter(|n| live[n.result.index()]);
        Some(nodes.map(|n| n.op.name()).collect())
    }

    #[test]
    fn operators_that_give_back_their_operand_go() {
        let full = Shape::batched(&[4, 2, 2]).0;
        let ops: [Op; 6] = [
            Reshape { shape: full }.into(),
            Transpose { perm: vec![0, 1, 2, 3] }.into(),
            Cast { to: DType::F32 }.into(),
            Slice { axis: 1, start: 0, end: 4 }.into(),
            Concat { axis: 1 }.into(),
            UpsampleNearest { scale: 1 }.into(),
        ];
        for op in ops {
            let (mut g, x) = start(DType::F32, &[4, 2, 2]);
            let y = g.add(op.clone(), &[x], "op").unwrap();
            assert_eq!(remaining(g, y).unwrap(), ["silu"], "{op:?}");
        }
    }

    #[test]
    fn operators_that_move_or_select_stay() {
        let ops: [Op; 5] = [
            Reshape { shape: Shape::batched(&[16]).0 }.into(),
            Transpose { perm: vec![0, 2, 1, 3] }.into(),
            Cast { to: DType::F16 }.into(),
            Slice { axis: 1, start: 0, end: 3 }.into(),
            UpsampleNearest { scale: 2 }.into(),
        ];
        for op in ops {
            let (mut g, x) = start(DType::F32, &[4, 2, 2]);
            let y = g.add(op.clone(), &[x], "op").unwrap();
            assert_eq!(remaining(g, y), None, "{op:?}");
        }
    }

    #[test]
    fn neutral_constants_go_and_others_stay() {
        type Case = (Op, f32, bool, bool);
        let cases: [Case; 9] = [
            (Add {}.into(), 0.0, false, true),
            (Add {}.into(), 0.0, true, true),
            (Add {}.into(), 1.0, false, false),
            (Sub {}.into(), 0.0, false, true),
            (Sub {}.into(), 0.0, true, false),
            (Mul {}.into(), 1.0, true, true),
            (Mul {}.into(), 0.0, false, false),
            (Div {}.into(), 1.0, false, true),
            (Div {}.into(), 1.0, true, false),
        ];
        for (op, number, constant_first, goes) in cases {
            let (mut g, x) = start(DType::F32, &[2]);
            let c = g.constant("c", LazyTensor::from_f32(&[2], &[number; 2]));
            let operands = if constant_first { [c, x] } else { [x, c] };
            let y = g.add(op.clone(), &operands, "op").unwrap();
            let expected = goes.then(|| vec!["silu"]);
            assert_eq!(remaining(g, y), expected, "{op:?} {number} {constant_first}");
        }
    }

    #[test]
    fn a_constant_that_broadcasts_the_operand_stays() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[1])));
        let c = g.constant("c", LazyTensor::from_f32(&[3], &[0.0; 3]));
        let y = g.add(Add {}, &[x, c], "y").unwrap();
        assert_eq!(remaining(g, y), None);
    }

    #[test]
    fn chains_of_moves_are_joined() {
        let (mut g, x) = start(DType::F32, &[2, 3, 4]);
        let a = g.add(Transpose { perm: vec![0, 2, 3, 1] }, &[x], "a").unwrap();
        let b = g.add(Transpose { perm: vec![0, 2, 1, 3] }, &[a], "b").unwrap();
        // numpy: x.transpose(0, 2, 3, 1).transpose(0, 2, 1, 3) has the axes 0, 3, 2, 1 of x.
        let mut whole = g.clone();
        let y = whole.add(Silu {}, &[b], "y").unwrap();
        whole.output("y", y);
        let change = run(&whole).unwrap();
        let joined = change.graph.nodes().iter().find(|n| n.name == "b").unwrap();
        assert_eq!(joined.op, Transpose { perm: vec![0, 3, 2, 1] }.into());

        let c = g.add(Transpose { perm: vec![0, 3, 2, 1] }, &[b], "c").unwrap();
        assert_eq!(remaining(g, c).unwrap(), ["silu"]);

        let (mut g, x) = start(DType::F32, &[2, 6]);
        let a = g.add(Reshape { shape: Shape::batched(&[12]).0 }, &[x], "a").unwrap();
        let b = g.add(Reshape { shape: Shape::batched(&[3, 4]).0 }, &[a], "b").unwrap();
        assert_eq!(remaining(g, b).unwrap(), ["reshape", "silu"]);
    }

    #[test]
    fn casts_that_lose_nothing_are_joined_and_rounding_stays() {
        let (mut g, x) = start(DType::F16, &[2]);
        let a = g.add(Cast { to: DType::F32 }, &[x], "a").unwrap();
        let b = g.add(Cast { to: DType::F16 }, &[a], "b").unwrap();
        assert_eq!(remaining(g, b).unwrap(), ["silu"]);

        let (mut g, x) = start(DType::F32, &[2]);
        let a = g.add(Cast { to: DType::F16 }, &[x], "a").unwrap();
        let b = g.add(Cast { to: DType::F32 }, &[a], "b").unwrap();
        assert_eq!(remaining(g, b), None);
    }

    #[test]
    fn an_output_keeps_a_node_of_its_own() {
        let (mut g, x) = start(DType::F32, &[2]);
        let same = g.add(Cast { to: DType::F32 }, &[x], "same").unwrap();
        g.output("same", same);
        assert!(run(&g).is_none());

        let (mut g, x) = start(DType::F32, &[2]);
        let a = g.add(Silu {}, &[x], "a").unwrap();
        let b = g.add(Cast { to: DType::F32 }, &[a], "b").unwrap();
        let c = g.add(Cast { to: DType::F32 }, &[a], "c").unwrap();
        g.output("b", b);
        g.output("c", c);
        let change = run(&g).unwrap();
        assert_eq!(change.graph.nodes().len(), 2);
        assert_ne!(change.graph.outputs()[0].value, change.graph.outputs()[1].value);
    }
}
