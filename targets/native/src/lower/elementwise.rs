//! Operators that work element by element: they take their operands in whatever order these have.

use snapc_ir::ops::FakeQuantize;
use snapc_ir::{DType, Dim, Node, TensorType, ValueId};
use snapc_program::{Binary, Element, Op, Operand, Rounding, Unary};
use snapc_target::TargetError;

use super::order::{Order, is_plain, moving, plain};
use super::{Lowering, Place, dim, element, site};

impl Lowering<'_> {
    pub(super) fn unary(&mut self, node: &Node, function: Unary) -> Result<Place, TargetError> {
        let x = self.placed(node.operands[0], node)?;
        self.compute(node, Op::Unary(function), vec![x.operand], x.order)
    }

    pub(super) fn fake_quantize(
        &mut self,
        node: &Node,
        grid: &FakeQuantize,
    ) -> Result<Place, TargetError> {
        let x = self.placed(node.operands[0], node)?;
        let op = Op::FakeQuantize {
            scale: grid.scale,
            // A verified operator has one of at most 255.
            zero_point: grid.zero_point as u8,
        };
        self.compute(node, op, vec![x.operand], x.order)
    }

    pub(super) fn binary(&mut self, node: &Node, function: Binary) -> Result<Place, TargetError> {
        let dtype = self.graph.ty(node.result).dtype;
        if !dtype.is_float() {
            let reason = format!("the device computes in f32, not {dtype}; fold it or cast it");
            return Err(self.refuse(node, reason));
        }
        let (operands, order) = self.broadcast(node)?;
        self.compute(node, Op::Binary(function), operands, order)
    }

    pub(super) fn equal(&mut self, node: &Node) -> Result<Place, TargetError> {
        let (operands, order) = self.broadcast(node)?;
        self.compute(node, Op::Equal, operands, order)
    }

    /// Nothing where no element changes; between floats only a rounding is left.
    pub(super) fn cast(&mut self, node: &Node, to: DType) -> Result<Place, TargetError> {
        let from = self.graph.ty(node.operands[0]).dtype;
        let x = self.placed(node.operands[0], node)?;
        if element(from) != element(to) {
            let to = Element::F32;
            return self.compute(node, Op::Cast { to }, vec![x.operand], x.order);
        }
        if self.activations.rounds(to) && from != to {
            return self.rounded(x, to, site(node));
        }
        Ok(x)
    }

    /// Two operands in one order, such that they broadcast as the logical ones do, and that order.
    fn broadcast(&mut self, node: &Node) -> Result<(Vec<Operand>, Order), TargetError> {
        let result = self.graph.ty(node.result);
        let (order, leading) = self.common_order(node, result);
        let mut operands = Vec::with_capacity(2);
        for (i, &value) in node.operands.iter().enumerate() {
            operands.push(self.aligned(value, &order, i == leading, node)?);
        }
        Ok((operands, order))
    }

    /// The order of the result, and which operand has its rank: that operand's order, of two the one that is not plain,
    /// since a convolution is near.
    fn common_order(&self, node: &Node, result: &TensorType) -> (Order, usize) {
        let rank = result.shape.rank();
        let place = |i: usize| self.places[node.operands[i].index()].as_ref();
        let is_full = |i: &usize| self.graph.ty(node.operands[*i]).shape == result.shape;
        let has_rank = |i: &usize| self.dims(node.operands[*i]).len() == rank;
        let known = |i: &usize| place(*i).is_some();
        let candidates: Vec<usize> = [0, 1].into_iter().filter(known).collect();
        let full = candidates.iter().copied().filter(is_full);
        let ranked = candidates.iter().copied().filter(has_rank);
        let leading = full
            .clone()
            .find(|&i| place(i).is_some_and(|p| !is_plain(&p.order, result.shape.dims())))
            .or(full.clone().next())
            .or(ranked.clone().next());
        match leading.and_then(|i| Some((place(i)?.order.clone(), i))) {
            Some(found) => found,
            None => (plain(rank), usize::from(!has_rank(&0))),
        }
    }

    /// An operand with its dimensions in `order`, which counts those of the result. Leading dimensions of size 1 are left out
    /// unless `whole`.
    fn aligned(
        &mut self,
        value: ValueId,
        order: &[usize],
        whole: bool,
        node: &Node,
    ) -> Result<Operand, TargetError> {
        let own = self.dims(value);
        let missing = order.len() - own.len();
        let size = |d: usize| d.checked_sub(missing).map_or(Dim::Fixed(1), |d| own[d]);
        let mut wanted: Vec<usize> = order.to_vec();
        if !whole {
            let ones = wanted.iter().take_while(|&&d| size(d) == Dim::Fixed(1));
            wanted.drain(..ones.count());
        }
        let dims: Vec<Dim> = wanted.iter().map(|&d| size(d)).collect();
        // The operand's own dimensions in the order that is wanted.
        let own_order: Order = order
            .iter()
            .filter_map(|d| d.checked_sub(missing))
            .collect();
        if let Some(constant) = self.constants[value.index()].clone() {
            self.check_size(value, &node.name, node.op.name())?;
            let fixed: Vec<usize> = dims.iter().filter_map(|d| d.fixed()).collect();
            let tensor = constant.tensor.permute(&own_order).reshape(&fixed);
            return Ok(self.known_value(&constant.name, tensor));
        }
        let place = self.place_of(value);
        let ty = self.graph.ty(value);
        let operand = if moving(&place.order, own) == moving(&own_order, own) {
            place.operand
        } else {
            self.reorder(&place, &own_order, ty, site(node))?
        };
        let dims: Vec<snapc_program::Dim> = dims.into_iter().map(dim).collect();
        if self.program.ty(operand).is_some_and(|ty| ty.dims == dims) {
            return Ok(operand);
        }
        self.push(site(node), Op::View { dims }, vec![operand], Rounding::None)
    }
}
