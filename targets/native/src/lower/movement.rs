//! Operators that move elements and compute nothing.

use snapc_ir::Node;
use snapc_program::{Op, Operand, Rounding, Storage};
use snapc_target::TargetError;

use super::order::{channels_last, is_plain, plain, position, reshaped, transposed};
use super::{Lowering, Place, physical, site};

/// Operands of a concatenation that the format holds.
const MAX_CONCAT: usize = 64;

impl Lowering<'_> {
    /// No instruction: only the order is another one.
    pub(super) fn transpose(&mut self, node: &Node, perm: &[usize]) -> Result<Place, TargetError> {
        let x = self.placed(node.operands[0], node)?;
        Ok(Place {
            operand: x.operand,
            order: transposed(&x.order, perm),
        })
    }

    /// A view where the elements stay, otherwise a movement to plain order first.
    pub(super) fn reshape(&mut self, node: &Node) -> Result<Place, TargetError> {
        let value = node.operands[0];
        let (from, to) = (self.graph.ty(value), self.graph.ty(node.result));
        let x = self.placed(value, node)?;
        let stays = reshaped(&x.order, from.shape.dims(), to.shape.dims());
        let (operand, order) = match stays {
            Some(order) => (x.operand, order),
            None => {
                let rows = plain(from.shape.rank());
                let operand = self.reorder(&x, &rows, from, site(node))?;
                (operand, plain(to.shape.rank()))
            }
        };
        let ty = physical(to, &order);
        if self.program.ty(operand) == Some(&ty) {
            return Ok(Place { operand, order });
        }
        self.movement(node, Op::View { dims: ty.dims }, vec![operand], order)
    }

    pub(super) fn slice(
        &mut self,
        node: &Node,
        axis: usize,
        start: usize,
        end: usize,
    ) -> Result<Place, TargetError> {
        let x = self.placed(node.operands[0], node)?;
        let op = Op::Slice {
            axis: position(&x.order, axis) as u8,
            start: self.size(node, start)?,
            end: self.size(node, end)?,
        };
        self.movement(node, op, vec![x.operand], x.order)
    }

    /// In the order of the first operand that is not plain, since a convolution is near; else plain.
    pub(super) fn concat(&mut self, node: &Node, axis: usize) -> Result<Place, TargetError> {
        let places = node
            .operands
            .iter()
            .map(|v| self.places[v.index()].as_ref());
        let moved = places.zip(&node.operands).find_map(|(place, v)| {
            let order = &place?.order;
            (!is_plain(order, self.dims(*v))).then(|| order.clone())
        });
        let order = moved.unwrap_or_else(|| plain(self.dims(node.result).len()));
        let mut parts = Vec::with_capacity(node.operands.len());
        for &value in &node.operands {
            parts.push(self.ordered(value, &order, site(node))?);
        }
        let operand = self.join(node, parts, position(&order, axis))?;
        Ok(Place { operand, order })
    }

    /// The parts one after the other along a physical axis, in several steps when there are many.
    pub(super) fn join(
        &mut self,
        node: &Node,
        mut parts: Vec<Operand>,
        axis: usize,
    ) -> Result<Operand, TargetError> {
        let op = Op::Concat { axis: axis as u8 };
        while parts.len() > MAX_CONCAT {
            let mut joined = Vec::with_capacity(parts.len().div_ceil(MAX_CONCAT));
            for some in parts.chunks(MAX_CONCAT) {
                joined.push(self.push(site(node), op.clone(), some.to_vec(), Rounding::None)?);
            }
            parts = joined;
        }
        self.push(site(node), op, parts, Rounding::None)
    }

    /// From rows that stay in their storage type when they are those of an embedding table.
    pub(super) fn gather(
        &mut self,
        node: &Node,
        axis: usize,
        batch_dims: usize,
    ) -> Result<Place, TargetError> {
        let &[x, indices] = node.operands.as_slice() else {
            unreachable!("a verified gather has two operands");
        };
        let table = self.constants[x.index()].clone();
        let rows = match table {
            Some(table) if axis == 0 && batch_dims == 0 && table.tensor.dtype().is_float() => {
                self.check_size(x, &node.name, node.op.name())?;
                self.weight(&table.name, Storage::Rows, table.tensor)
            }
            _ => {
                let order = plain(self.dims(x).len());
                self.ordered(x, &order, site(node))?
            }
        };
        let order = plain(self.dims(indices).len());
        let indices = self.ordered(indices, &order, site(node))?;
        let op = Op::Gather {
            axis: axis as u8,
            batch_dims: batch_dims as u8,
        };
        let order = plain(self.dims(node.result).len());
        self.movement(node, op, vec![rows, indices], order)
    }

    pub(super) fn upsample(&mut self, node: &Node, scale: usize) -> Result<Place, TargetError> {
        let order = channels_last();
        let x = self.ordered(node.operands[0], &order, site(node))?;
        let scale = self.size(node, scale)?;
        self.movement(node, Op::UpsampleNearest { scale }, vec![x], order)
    }

    pub(super) fn arg_max(&mut self, node: &Node, axis: usize) -> Result<Place, TargetError> {
        let x = self.placed(node.operands[0], node)?;
        let op = Op::ArgMax {
            axis: position(&x.order, axis) as u8,
        };
        let kept = x.order.iter().filter(|&&d| d != axis);
        let order = kept.map(|&d| if d > axis { d - 1 } else { d }).collect();
        self.movement(node, op, vec![x.operand], order)
    }
}
