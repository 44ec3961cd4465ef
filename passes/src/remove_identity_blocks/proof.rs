//! Residual branches that provably add nothing.

use snapc_ir::{BuildError, Graph, LazyTensor, Node, Op, Rebuild, ValueId};

use crate::output_values::OutputValues;

/// Why the search stops.
pub(super) enum Stop {
    /// The new graph cannot be built.
    Build(BuildError),
    /// The user wants to.
    Cancelled,
}

impl From<BuildError> for Stop {
    fn from(error: BuildError) -> Self {
        Stop::Build(error)
    }
}

/// A graph without its zero branches.
pub(super) struct Proven {
    /// The new graph; what led to the branches alone is still in it.
    pub(super) graph: Graph,
    /// The last projection of every branch that went.
    pub(super) projections: Vec<String>,
}

/// Removes sums with, and differences to, a branch that ends in a projection with weights of zero.
///
/// # Errors
/// When the new graph cannot be built, or the user stops.
pub(super) fn remove_zero_branches(
    graph: &Graph,
    cancelled: &dyn Fn() -> bool,
) -> Result<Proven, Stop> {
    let mut outputs = OutputValues::of(graph);
    let mut projections = Vec::new();
    let graph = graph.rebuild(|rebuild, node| {
        let found = zero_operand(rebuild, node, cancelled)?
            .filter(|(kept, _)| outputs.may_replace(&rebuild.graph, node.result, *kept));
        let value = match found {
            Some((kept, projection)) => {
                projections.push(projection);
                kept
            }
            None => rebuild.copy(node)?,
        };
        outputs.record(node.result, value);
        Ok::<_, Stop>(Some(value))
    })?;
    Ok(Proven { graph, projections })
}

/// The operand that a sum or difference equals, and the name of the projection that makes the other one zero.
fn zero_operand(
    rebuild: &mut Rebuild<'_>,
    node: &Node,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<(ValueId, String)>, Stop> {
    let orders: &[(usize, usize)] = match node.op {
        Op::Add(_) => &[(0, 1), (1, 0)],
        Op::Sub(_) => &[(0, 1)],
        _ => &[],
    };
    for &(kept, branch) in orders {
        let old = rebuild.old();
        if old.ty(node.operands[kept]) != old.ty(node.result) {
            continue;
        }
        if cancelled() {
            return Err(Stop::Cancelled);
        }
        // The new operand, so that what an earlier removal has made of a branch counts.
        let branch = rebuild.operand(node.operands[branch])?;
        if let Some(projection) = zero_projection(&rebuild.graph, branch) {
            return Ok(Some((rebuild.operand(node.operands[kept])?, projection)));
        }
    }
    Ok(None)
}

/// The projection that a value comes from by moves alone, when its weights are all zero.
fn zero_projection(graph: &Graph, mut value: ValueId) -> Option<String> {
    loop {
        let node = graph.node_of(value)?;
        match node.op {
            Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Cast(_) => {
                value = node.operands[0];
            }
            Op::Conv2d(_) | Op::Linear(_) => {
                let mut weights = node.operands[1..].iter().rev();
                let is_zero = |&v: &ValueId| {
                    graph
                        .weight_of(v)
                        .is_some_and(|weight| is_zero(&weight.tensor))
                };
                return weights.all(is_zero).then(|| node.name.clone());
            }
            _ => return None,
        }
    }
}

/// Whether all elements are zero. Reads them only when no scan has found their largest magnitude, and up to the first
/// chunk that holds another value.
fn is_zero(tensor: &LazyTensor) -> bool {
    if !tensor.is_present() || !tensor.dtype().is_float() {
        return false;
    }
    if let Some(max) = tensor.max_abs() {
        return max == 0.0;
    }
    let size = tensor.dtype().size();
    tensor
        .stream(|bytes| {
            // A float is zero when all bits but its sign are, and the sign is in its last byte.
            let zero = |element: &[u8]| {
                let (sign, rest) = element.split_last().expect("an element has bytes");
                sign & 0x7f == 0 && rest.iter().all(|&b| b == 0)
            };
            if bytes.chunks_exact(size).all(zero) {
                Ok(())
            } else {
                Err(NotZero)
            }
        })
        .is_ok()
}

/// Ends the reading of a weight.
struct NotZero;

impl From<snapc_ir::WeightError> for NotZero {
    fn from(_: snapc_ir::WeightError) -> Self {
        NotZero
    }
}
