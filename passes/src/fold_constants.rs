//! Computes what depends on weights and constants only.
//!
//! # What it does
//! Moves of a weight (reshape, transpose, slice, cast between floats) become steps of the weight itself, carried out when
//! it is written; no data is read. Every other operator on weights is evaluated now and its result becomes a constant.
//!
//! # When it applies
//! A move folds when all users of its operand are moves, so that no data is stored twice, or when its result has at most
//! 1 MiB. Other operators fold when the result has at most 1 MiB, the operands 16 MiB together, and the data is there,
//! which it is not in a graph read from text. A node whose result is an output stays, since an output needs a value of
//! its own. It runs before floats are narrowed, so that a result is rounded once.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None: constants are computed as the reference evaluator does.
//!
//! # Example
//! ```text
//! before: wt = transpose(w, perm=[1,0]); y = matmul(x, wt)
//! after:  y = matmul(x, w)        where w is stored transposed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use snapc_ir::eval::weight_tensor;
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Graph, LazyTensor, Node, Op, Rebuild, Tensor, ValueId};

use crate::info::Describe;
use crate::output_values::OutputValues;
use crate::pass::{Change, Pass, PassContext, PassError, Property};

/// Largest constant that may be made, in bytes.
const MAX_RESULT: usize = 1 << 20;

/// Most operand data that is read to make one, in bytes.
const MAX_OPERANDS: usize = 16 << 20;

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldConstants {}

impl Describe for FoldConstants {
    const NAME: &'static str = "fold-constants";
    const REQUIRES: &'static [Property] = &[Property::FullPrecision];
    const INVALIDATES: &'static [Property] = &[Property::NoDeadCode];
}

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        let mut folding = Folding::new(graph);
        let rebuilt = graph.rebuild(|rebuild, node| {
            if folding.fold(node) {
                return Ok(None);
            }
            folding.store_operands(rebuild, node);
            rebuild.copy(node).map(Some)
        });
        let rebuilt = rebuilt.map_err(PassError::build(Self::NAME))?;
        if folding.moved + folding.computed == 0 {
            return Ok(None);
        }
        Ok(Some(Change::new(rebuilt, vec![
                ("moves folded", folding.moved),
                ("nodes computed", folding.computed),
            ])))
    }
}

/// A value known at compile time.
#[derive(Clone)]
struct Constant {
    tensor: LazyTensor,
    /// The weight it is a moved form of.
    moved_from: Option<ValueId>,
    /// Name for the case that it has none from a weight.
    node: String,
    is_parameter: bool,
    stored: bool,
}

struct Folding<'a> {
    graph: &'a Graph,
    outputs: OutputValues,
    /// Per value, whether all that use it are moves.
    only_moved: Vec<bool>,
    uses: Vec<usize>,
    /// Results of folded nodes, by old value.
    constants: BTreeMap<ValueId, Constant>,
    /// Names of weights, before and after; a name stands for one tensor.
    taken: BTreeSet<String>,
    /// Old weights whose name a moved form has taken over.
    renamed: BTreeSet<ValueId>,
    moved: usize,
    computed: usize,
}

impl<'a> Folding<'a> {
    fn new(graph: &'a Graph) -> Self {
        let outputs = OutputValues::of(graph);
        let mut only_moved = vec![true; graph.values().len()];
        for node in graph.nodes() {
            if !is_move(graph, node) || outputs.contains(node.result) {
                node.operands.iter().for_each(|v| only_moved[v.index()] = false);
            }
        }
        for output in graph.outputs() {
            only_moved[output.value.index()] = false;
        }
        Folding {
            graph,
            outputs,
            only_moved,
            uses: graph.use_counts(),
            constants: BTreeMap::new(),
            taken: graph.weights().iter().map(|w| w.name.clone()).collect(),
            renamed: BTreeSet::new(),
            moved: 0,
            computed: 0,
        }
    }

    /// Folds a node if it can be, and says so.
    fn fold(&mut self, node: &Node) -> bool {
        if node.operands.is_empty() || self.outputs.contains(node.result) {
            return false;
        }
        let operands: Option<Vec<Constant>> = node.operands.iter().map(|&v| self.constant(v)).collect();
        let Some(operands) = operands else {
            return false;
        };
        let constant = if is_move(self.graph, node) {
            self.move_constant(node, &operands[0])
        } else {
            self.compute(node, &operands)
        };
        match constant {
            Some(constant) => {
                self.constants.insert(node.result, constant);
                true
            }
            None => false,
        }
    }

    fn constant(&self, value: ValueId) -> Option<Constant> {
        if let Some(constant) = self.constants.get(&value) {
            return Some(constant.clone());
        }
        let weight = self.graph.weight_of(value)?;
        Some(Constant {
            tensor: weight.tensor.clone(),
            moved_from: Some(value),
            node: String::new(),
            is_parameter: weight.is_parameter,
            stored: true,
        })
    }

    fn move_constant(&mut self, node: &Node, operand: &Constant) -> Option<Constant> {
        let tensor = moved(self.graph, node, operand.tensor.clone())?;
        if !self.only_moved[node.operands[0].index()] && tensor.byte_len() > MAX_RESULT {
            return None;
        }
        self.moved += 1;
        Some(Constant {
            tensor,
            node: node.name.clone(),
            stored: false,
            ..operand.clone()
        })
    }

    fn compute(&mut self, node: &Node, operands: &[Constant]) -> Option<Constant> {
        let ty = self.graph.ty(node.result);
        let read: usize = operands.iter().map(|c| c.tensor.byte_len()).sum();
        if ty.bytes_per_batch()? > MAX_RESULT || ty.shape.has_batch() || read > MAX_OPERANDS {
            return None;
        }
        let tensors = operands.iter().map(|c| weight_tensor(&c.tensor).ok());
        let tensors: Vec<Tensor> = tensors.collect::<Option<_>>()?;
        let mut result = node.op.eval(&tensors.iter().collect::<Vec<_>>());
        result.round_to(ty.dtype);
        let tensor = to_weight(&result, ty.dtype)?;
        self.computed += 1;
        Some(Constant {
            tensor,
            moved_from: None,
            node: node.name.clone(),
            is_parameter: operands.iter().any(|c| c.is_parameter),
            stored: false,
        })
    }

    /// Puts the folded operands of a node that stays into the new graph.
    fn store_operands(&mut self, rebuild: &mut Rebuild<'_>, node: &Node) {
        for &operand in &node.operands {
            let Some(constant) = self.constants.get_mut(&operand) else {
                continue;
            };
            if std::mem::replace(&mut constant.stored, true) {
                continue;
            }
            let constant = constant.clone();
            let name = self.name(&constant);
            let new = if constant.is_parameter {
                rebuild.graph.parameter(name, constant.tensor)
            } else {
                rebuild.graph.constant(name, constant.tensor)
            };
            rebuild.bind(operand, new);
        }
    }

    /// A moved weight keeps its name where it replaces the weight; otherwise the name of the node comes first.
    fn name(&mut self, constant: &Constant) -> String {
        let weight = constant.moved_from.and_then(|v| self.graph.weight_of(v));
        let Some(weight) = weight else {
            return self.unique(constant.node.clone());
        };
        let namesakes = self.graph.weights().iter().filter(|w| w.name == weight.name);
        let replaces = self.uses[weight.value.index()] == 1 && namesakes.count() == 1;
        if replaces && self.renamed.insert(weight.value) {
            return weight.name.clone();
        }
        self.unique(format!("{}.{}", constant.node, weight.name))
    }

    fn unique(&mut self, name: String) -> String {
        let numbered = (2..).map(|i| format!("{name}.{i}"));
        let mut candidates = std::iter::once(name.clone()).chain(numbered);
        let free = candidates.find(|c| !self.taken.contains(c));
        let free = free.expect("the numbers do not end");
        self.taken.insert(free.clone());
        free
    }
}

/// Whether a node only moves elements or changes the width of floats.
fn is_move(graph: &Graph, node: &Node) -> bool {
    let is_float = |v: ValueId| graph.ty(v).dtype.is_float();
    match &node.op {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) => true,
        Op::Cast(_) => is_float(node.operands[0]) && is_float(node.result),
        _ => false,
    }
}

fn moved(graph: &Graph, node: &Node, tensor: LazyTensor) -> Option<LazyTensor> {
    match &node.op {
        Op::Reshape(_) => Some(tensor.reshape(&graph.ty(node.result).shape.to_fixed()?)),
        Op::Transpose(op) => Some(tensor.permute(&op.perm)),
        Op::Slice(op) => Some(tensor.slice(op.axis, op.start, op.end)),
        Op::Cast(op) => Some(tensor.cast(op.to)),
        _ => None,
    }
}

/// A tensor as stored data; `None` when an integer does not fit.
fn to_weight(tensor: &Tensor, dtype: DType) -> Option<LazyTensor> {
    let shape = &tensor.shape;
    match (&tensor.elements, dtype) {
        (Elements::Float(v), _) if dtype.is_float() => Some(LazyTensor::from_f32(shape, v).cast(dtype)),
        (Elements::Int(v), DType::I64) => Some(LazyTensor::from_i64(shape, v)),
        (Elements::Int(v), DType::I32) => {
            let v: Vec<i32> = v.iter().map(|&x| x.try_into().ok()).collect::<Option<_>>()?;
            Some(LazyTensor::from_i32(shape, &v))
        }
        (Elements::Int(v), DType::Bool) => {
            let bytes: Vec<u8> = v.iter().map(|&x| u8::from(x != 0)).collect();
            let range = 0..bytes.len();
            Some(LazyTensor::from_buffer(Arc::new(bytes), range, dtype, shape))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Cast, Equal, MatMul, Mul, Reshape, Slice, Transpose};
    use snapc_ir::{Shape, TensorType};

    fn run(graph: &Graph) -> Option<Change> {
        FoldConstants {}.run(graph, &PassContext::default()).unwrap()
    }

    fn start() -> (Graph, ValueId) {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        (g, x)
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.weights().iter().map(|w| w.name.as_str()).collect()
    }

    #[test]
    fn moves_become_steps_of_the_weight() {
        let (mut g, x) = start();
        let w = g.parameter("w", LazyTensor::from_f32(&[6], &[0., 1., 2., 3., 4., 5.]));
        let shape = Shape::fixed(&[3, 2]).0;
        let a = g.add(Reshape { shape }, &[w], "a").unwrap();
        let b = g.add(Transpose { perm: vec![1, 0] }, &[a], "b").unwrap();
        let c = g.add(Slice { axis: 1, start: 1, end: 3 }, &[b], "c").unwrap();
        let y = g.add(MatMul {}, &[x, c], "y").unwrap();
        g.output("y", y);
        let change = run(&g).unwrap();
        assert_eq!(change.counts, [("moves folded", 3), ("nodes computed", 0)]);
        let weight = &change.graph.weights()[0];
        assert!(weight.is_parameter && weight.name == "w");
        // numpy: arange(6).reshape(3, 2).T[:, 1:3]
        assert_eq!(weight.tensor.to_f32().unwrap(), [2., 4., 3., 5.]);
        assert!(run(&change.graph).is_none());
    }

    #[test]
    fn parts_of_one_weight_get_names_of_their_own() {
        let (mut g, x) = start();
        let w = g.parameter("qkv", LazyTensor::from_f32(&[4], &[0., 1., 2., 3.]));
        let first = g.add(Slice { axis: 0, start: 0, end: 2 }, &[w], "to_q").unwrap();
        let second = g.add(Slice { axis: 0, start: 2, end: 4 }, &[w], "to_q").unwrap();
        let a = g.add(Add {}, &[x, first], "a").unwrap();
        let y = g.add(Mul {}, &[a, second], "y").unwrap();
        g.output("y", y);
        let change = run(&g).unwrap();
        assert_eq!(names(&change.graph), ["to_q.qkv", "to_q.qkv.2"]);
    }

    #[test]
    fn a_large_weight_that_is_also_used_as_it_is_stays() {
        let (mut g, x) = start();
        let n = MAX_RESULT / 4 + 2;
        let w = g.parameter("w", LazyTensor::absent(DType::F32, &[2, n]));
        let t = g.add(Transpose { perm: vec![1, 0] }, &[w], "t").unwrap();
        let a = g.add(MatMul {}, &[x, w], "a").unwrap();
        let y = g.add(MatMul {}, &[a, t], "y").unwrap();
        g.output("y", y);
        assert!(run(&g).is_none());
    }

    #[test]
    fn arithmetic_is_computed_and_rounded_to_the_type() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F16, Shape::batched(&[2])));
        let half = |v: &[f32]| LazyTensor::from_f32(&[2], v).cast(DType::F16);
        let a = g.constant("a", half(&[2048.0, 0.5]));
        let b = g.constant("b", half(&[1.0, 0.25]));
        let sum = g.add(Add {}, &[a, b], "sum").unwrap();
        let y = g.add(Add {}, &[x, sum], "y").unwrap();
        g.output("y", y);
        let change = run(&g).unwrap();
        assert_eq!(names(&change.graph), ["sum"]);
        let folded = &change.graph.weights()[0];
        assert!(!folded.is_parameter);
        // 2049 lies between 2048 and 2050 on the f16 grid; the even mantissa is 2048.
        assert_eq!(folded.tensor.to_f32().unwrap(), [2048.0, 0.75]);
        assert_eq!(folded.tensor.dtype(), DType::F16);
    }

    #[test]
    fn integers_and_truth_values_are_computed() {
        let (mut g, x) = start();
        let a = g.constant("a", LazyTensor::from_i32(&[2], &[7, 8]));
        let b = g.constant("b", LazyTensor::from_i32(&[2], &[7, 9]));
        let same = g.add(Equal {}, &[a, b], "same").unwrap();
        let mask = g.add(Cast { to: DType::F32 }, &[same], "mask").unwrap();
        let y = g.add(Mul {}, &[x, mask], "y").unwrap();
        g.output("y", y);
        let change = run(&g).unwrap();
        assert_eq!(change.graph.weights()[0].tensor.to_f32().unwrap(), [1.0, 0.0]);
        assert_eq!(change.graph.nodes().len(), 1);
    }

    #[test]
    fn what_depends_on_an_input_or_on_absent_data_stays() {
        let (mut g, x) = start();
        let w = g.parameter("w", LazyTensor::absent(DType::F32, &[2]));
        let v = g.add(Mul {}, &[w, w], "v").unwrap();
        let y = g.add(Add {}, &[x, v], "y").unwrap();
        g.output("y", y);
        assert!(run(&g).is_none());
    }

    #[test]
    fn an_output_keeps_its_node() {
        let mut g = Graph::new("g");
        let w = g.constant("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]));
        let y = g.add(Add {}, &[w, w], "y").unwrap();
        g.output("y", y);
        assert!(run(&g).is_none());
    }
}
