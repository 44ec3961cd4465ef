//! Convolutions, linear layers, matrix products, attention and gated units.

use snapc_ir::ops::Conv2d;
use snapc_ir::{LazyTensor, Node, ValueId};
use snapc_program::{Activation, Binary, Op, Operand, Rounding};
use snapc_target::TargetError;

use super::fusion::Chain;
use super::order::{channels_last, plain};
use super::{Lowering, Place, site};

impl Lowering<'_> {
    /// One instruction for a chain. `node` is its last one, whose result this is.
    pub(super) fn chain(&mut self, node: &Node, chain: &Chain) -> Result<Place, TargetError> {
        let graph = self.graph;
        let head = &graph.nodes()[chain.head];
        match &head.op {
            snapc_ir::Op::Conv2d(conv) => self.conv2d(node, head, conv, chain),
            snapc_ir::Op::GroupNorm(norm) => self.group_norm(node, head, norm, chain),
            _ => self.linear(node, head, chain),
        }
    }

    /// The known operand of a product.
    fn product_weight(&self, head: &Node) -> (String, LazyTensor) {
        let constant = self.constants[head.operands[1].index()].clone();
        let constant = constant.expect("the weight of a chain's product is constant");
        (constant.name, constant.tensor)
    }

    fn conv2d(
        &mut self,
        node: &Node,
        head: &Node,
        conv: &Conv2d,
        chain: &Chain,
    ) -> Result<Place, TargetError> {
        let order = channels_last();
        self.check_size(head.operands[1], &head.name, head.op.name())?;
        let x = self.ordered(head.operands[0], &order, site(node))?;
        let (name, weight) = self.product_weight(head);
        let (op, shape) = self.convolution(head, conv, weight.shape(), chain)?;
        let weight = self.product_panels(&name, weight, &order, &shape);
        let mut operands = vec![x, weight];
        operands.extend(self.bias(node, head, chain)?);
        if let Some(residual) = chain.residual {
            operands.push(self.ordered(residual, &order, site(node))?);
        }
        self.compute(node, op, operands, order)
    }

    /// The instruction of a convolution, and the dimensions of its weight when the channels are last. One of single pixels is
    /// a linear layer.
    fn convolution(
        &self,
        head: &Node,
        conv: &Conv2d,
        weight: &[usize],
        chain: &Chain,
    ) -> Result<(Op, Vec<usize>), TargetError> {
        let bias = chain.bias.is_some() || head.operands.len() > 2;
        let (activation, residual) = (chain.activation, chain.residual.is_some());
        let &[columns, depth, kh, kw] = weight else {
            unreachable!("a verified convolution has a weight of four dimensions");
        };
        if (kh, kw) == (1, 1) && conv.strides == [1, 1] && conv.pads == [0; 4] {
            let op = Op::Linear {
                bias,
                activation,
                residual,
            };
            return Ok((op, vec![columns, depth]));
        }
        let mut strides = [0; 2];
        for (to, &from) in strides.iter_mut().zip(&conv.strides) {
            *to = self.size(head, from)?;
        }
        let mut pads = [0; 4];
        for (to, &from) in pads.iter_mut().zip(&conv.pads) {
            *to = self.size(head, from)?;
        }
        let op = Op::Conv2d {
            strides,
            pads,
            bias,
            activation,
            residual,
        };
        Ok((op, vec![columns, kh, kw, depth]))
    }

    /// A convolution whose groups do not mix: one for each, on its channels.
    pub(super) fn grouped_conv2d(
        &mut self,
        node: &Node,
        conv: &Conv2d,
    ) -> Result<Place, TargetError> {
        if !self.is_constant(node.operands[1]) {
            let reason = "the weight is computed at run time; the device takes constant ones only";
            return Err(self.refuse(node, reason));
        }
        self.check_size(node.operands[1], &node.name, node.op.name())?;
        let order = channels_last();
        let x = self.ordered(node.operands[0], &order, site(node))?;
        let bias = node.operands.get(2).copied();
        let bias = bias.map(|b| self.vector(b, node)).transpose()?;
        let (name, weight) = self.product_weight(node);
        let (columns, depth) = (weight.shape()[0] / conv.groups, weight.shape()[1]);
        let alone = Chain {
            head: 0,
            bias: None,
            activation: Activation::None,
            residual: None,
        };
        let mut parts = Vec::with_capacity(conv.groups);
        for group in 0..conv.groups {
            let cut = |size: usize| (group * size, (group + 1) * size);
            let (start, end) = cut(columns);
            let part = weight.clone().slice(0, start, end);
            let (op, shape) = self.convolution(node, conv, part.shape(), &alone)?;
            let mut operands = vec![
                self.range(node, x, 3, cut(depth))?,
                self.product_panels(&name, part, &order, &shape),
            ];
            if let Some(bias) = bias {
                operands.push(self.range(node, bias, 0, (start, end))?);
            }
            parts.push(self.compute(node, op, operands, order.clone())?.operand);
        }
        let operand = self.join(node, parts, 3)?;
        Ok(Place { operand, order })
    }

    /// Some indices along a physical axis.
    fn range(
        &mut self,
        node: &Node,
        x: Operand,
        axis: u8,
        (start, end): (usize, usize),
    ) -> Result<Operand, TargetError> {
        let op = Op::Slice {
            axis,
            start: self.size(node, start)?,
            end: self.size(node, end)?,
        };
        self.push(site(node), op, vec![x], Rounding::None)
    }

    /// A linear layer, or a product with a known matrix.
    fn linear(&mut self, node: &Node, head: &Node, chain: &Chain) -> Result<Place, TargetError> {
        self.check_size(head.operands[1], &head.name, head.op.name())?;
        let x = self.with_innermost(head, self.dims(head.operands[0]).len() - 1)?;
        let (name, weight) = self.product_weight(head);
        let order = match head.op {
            snapc_ir::Op::MatMul(_) => [1, 0],
            _ => [0, 1],
        };
        let shape = order.map(|d| weight.shape()[d]);
        let weight = self.product_panels(&name, weight, &order, &shape);
        let mut operands = vec![x.operand, weight];
        let bias = self.bias(node, head, chain)?;
        operands.extend(bias);
        if let Some(residual) = chain.residual {
            operands.push(self.ordered(residual, &x.order, site(node))?);
        }
        let op = Op::Linear {
            bias: bias.is_some(),
            activation: chain.activation,
            residual: chain.residual.is_some(),
        };
        self.compute(node, op, operands, x.order)
    }

    /// What is added to every position of a product: its bias, a vector that is added behind it, or the sum of both, which
    /// costs less than a pass over the result.
    fn bias(
        &mut self,
        node: &Node,
        head: &Node,
        chain: &Chain,
    ) -> Result<Option<Operand>, TargetError> {
        let own = head.operands.get(2).copied();
        let own = own.map(|bias| self.vector(bias, node)).transpose()?;
        let Some(added) = chain.bias else {
            return Ok(own);
        };
        let added = self.flat(added, node)?;
        let Some(own) = own else {
            return Ok(Some(added));
        };
        let sum = Op::Binary(Binary::Add);
        let sum = self.push(site(node), sum, vec![own, added], Rounding::None)?;
        Ok(Some(sum))
    }

    /// The elements of a value all of whose dimensions but one are 1, as a vector.
    fn flat(&mut self, value: ValueId, node: &Node) -> Result<Operand, TargetError> {
        let sizes = self.dims(value).iter().filter_map(|d| d.fixed());
        let size: usize = sizes.product();
        if let Some(constant) = self.constants[value.index()].clone() {
            let tensor = constant.tensor.reshape(&[size]);
            return Ok(self.known_value(&constant.name, tensor));
        }
        let operand = self.place_of(value).operand;
        let dims = vec![snapc_program::Dim::Fixed(self.size(node, size)?)];
        if self.program.ty(operand).is_some_and(|ty| ty.dims == dims) {
            return Ok(operand);
        }
        self.push(site(node), Op::View { dims }, vec![operand], Rounding::None)
    }

    /// A linear layer whose weight is computed at run time: a product and a sum.
    pub(super) fn linear_of_values(&mut self, node: &Node) -> Result<Place, TargetError> {
        let rank = self.dims(node.result).len();
        let operands = vec![
            self.ordered(node.operands[0], &plain(rank), site(node))?,
            self.ordered(node.operands[1], &plain(2), site(node))?,
        ];
        let product = Op::MatMul { transposed: true };
        let Some(&bias) = node.operands.get(2) else {
            return self.compute(node, product, operands, plain(rank));
        };
        let product = self.push(site(node), product, operands, Rounding::None)?;
        let bias = self.vector(bias, node)?;
        let sum = Op::Binary(Binary::Add);
        self.compute(node, sum, vec![product, bias], plain(rank))
    }

    /// A product of two values. The right one may have its matrices transposed.
    pub(super) fn matmul(&mut self, node: &Node) -> Result<Place, TargetError> {
        let &[left, right] = node.operands.as_slice() else {
            unreachable!("a verified product has two operands");
        };
        let rank = |v| self.dims(v).len();
        let (left_rank, right_rank) = (rank(left), rank(right));
        let mut columns = plain(right_rank);
        columns.swap(right_rank - 1, right_rank - 2);
        let place = self.placed(right, node)?;
        let transposed = place.order == columns;
        let order = if transposed {
            columns
        } else {
            plain(right_rank)
        };
        let operands = vec![
            self.ordered(left, &plain(left_rank), site(node))?,
            self.reorder(&place, &order, self.graph.ty(right), site(node))?,
        ];
        let result = plain(self.dims(node.result).len());
        self.compute(node, Op::MatMul { transposed }, operands, result)
    }

    pub(super) fn attention(
        &mut self,
        node: &Node,
        heads: usize,
        scale: f32,
    ) -> Result<Place, TargetError> {
        let mut operands = Vec::with_capacity(4);
        for &value in &node.operands {
            operands.push(self.vector(value, node)?);
        }
        let op = Op::Attention {
            heads: self.size(node, heads)?,
            scale,
            mask: operands.len() > 3,
        };
        self.compute(node, op, operands, plain(3))
    }

    /// `x` holds values and gates side by side along its last dimension.
    pub(super) fn geglu(&mut self, node: &Node, x: ValueId) -> Result<Place, TargetError> {
        let axis = self.dims(x).len() - 1;
        let place = self.placed(x, node)?;
        let order = super::order::innermost(&place.order, axis);
        let operand = self.reorder(&place, &order, self.graph.ty(x), site(node))?;
        self.compute(node, Op::Geglu, vec![operand], order)
    }
}
