//! Activations: a product of a value with a function of it.

use std::f64::consts::FRAC_1_SQRT_2;

use snapc_ir::ops::{Gelu, QuickGelu, Silu};
use snapc_ir::{BuildError, Node, Op, Rebuild, ValueId};

use super::matcher::Matcher;

/// Products nest this deep in the forms of GELU that exporters write.
const MAX_DEPTH: usize = 3;
/// The slope of the sigmoid in transformers' `QuickGELUActivation`.
const QUICK_GELU_SLOPE: f64 = 1.702;

/// `x · sigmoid(x)`.
pub(crate) fn silu(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let x = gated(matcher, node, |x, inside| x == inside);
    x.map(|x| {
        let x = rebuild.operand(x)?;
        rebuild.graph.add(Silu {}, &[x], node.name.clone())
    })
    .transpose()
}

/// `x · sigmoid(1.702 x)`.
pub(crate) fn quick_gelu(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    let x = gated(matcher, node, |x, inside| {
        matcher.scaling(inside).is_some_and(|(inner, slope)| {
            inner == x && matcher.is_near(slope, QUICK_GELU_SLOPE, matcher.dtype(x))
        })
    });
    x.map(|x| {
        let x = rebuild.operand(x)?;
        rebuild.graph.add(QuickGelu {}, &[x], node.name.clone())
    })
    .transpose()
}

/// The `x` of a product `x · sigmoid(inside)` whose two parts fit.
fn gated(
    matcher: &Matcher<'_>,
    node: &Node,
    fits: impl Fn(ValueId, ValueId) -> bool,
) -> Option<ValueId> {
    if !matches!(node.op, Op::Mul(_)) {
        return None;
    }
    let mut orders = matcher.orders(node).into_iter();
    let found = orders.find(|&(x, gate)| match matcher.node(gate) {
        Some(gate) if matches!(gate.op, Op::Sigmoid(_)) => fits(x, gate.operands[0]),
        _ => false,
    });
    found.map(|(x, _)| x)
}

/// `x/2 · (1 + erf(x/√2))`, the three factors in any order.
pub(crate) fn gelu(
    matcher: &Matcher<'_>,
    node: &Node,
    rebuild: &mut Rebuild<'_>,
) -> Result<Option<ValueId>, BuildError> {
    if !matches!(node.op, Op::Mul(_)) {
        return Ok(None);
    }
    let Some((gate, x)) = error_gate(matcher, node.result, MAX_DEPTH) else {
        return Ok(None);
    };
    let mut factors = Factors {
        matcher,
        parts: [x, gate],
        found: [0, 0],
        scale: 1.0,
    };
    let half = factors.collect(node.result, MAX_DEPTH)
        && factors.found == [1, 1]
        && factors.scale == 0.5
        && rebuild.old().ty(x) == rebuild.old().ty(node.result);
    if !half {
        return Ok(None);
    }
    let x = rebuild.operand(x)?;
    rebuild
        .graph
        .add(Gelu {}, &[x], node.name.clone())
        .map(Some)
}

/// A factor `1 + erf(x/√2)` of nested products, and its `x`.
fn error_gate(matcher: &Matcher<'_>, value: ValueId, depth: usize) -> Option<(ValueId, ValueId)> {
    let node = matcher.node(value)?;
    match node.op {
        Op::Mul(_) if depth > 0 => {
            let mut operands = node.operands.iter();
            operands.find_map(|&v| error_gate(matcher, v, depth - 1))
        }
        Op::Add(_) => {
            let mut orders = matcher.orders(node).into_iter();
            let (error, _) = orders.find(|&(_, one)| matcher.scalar(one) == Some(1.0))?;
            let error = matcher.node(error).filter(|n| matches!(n.op, Op::Erf(_)))?;
            let (x, slope) = matcher.scaling(error.operands[0])?;
            let fits = matcher.is_near(slope, FRAC_1_SQRT_2, matcher.dtype(x));
            fits.then_some((value, x))
        }
        _ => None,
    }
}

/// The factors of nested products.
struct Factors<'a> {
    matcher: &'a Matcher<'a>,
    /// Values that are not taken apart.
    parts: [ValueId; 2],
    /// How often each of them is a factor.
    found: [usize; 2],
    /// Product of the scalar constants.
    scale: f32,
}

impl Factors<'_> {
    /// Takes a value apart; whether nothing else than the parts and scalars is left.
    fn collect(&mut self, value: ValueId, depth: usize) -> bool {
        if let Some(i) = self.parts.iter().position(|&p| p == value) {
            self.found[i] += 1;
            return true;
        }
        if let Some(scalar) = self.matcher.scalar(value) {
            self.scale *= scalar;
            return true;
        }
        match self.matcher.node(value) {
            Some(node) if matches!(node.op, Op::Mul(_)) && depth > 0 => {
                let mut operands = node.operands.iter();
                operands.all(|&v| self.collect(v, depth - 1))
            }
            _ => false,
        }
    }
}
