//! The type of a result, derived from the operands. Readers trust no type that a file states.

use crate::op::Op;
use crate::types::{Dim, Element, MAX_RANK, Storage, Type};

/// What an operand is, as inference sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OperandType<'a> {
    /// A result, an input, or a weight that stands for a value.
    Value(&'a Type),
    /// A weight that only certain instructions read.
    Weight(Storage, &'a [u32]),
}

/// Why an instruction does not accept its operands.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InferError {
    /// Too few or too many operands.
    #[error("it takes {expected} operands, {found} are given")]
    Arity {
        /// Number it takes.
        expected: usize,
        /// Number given.
        found: usize,
    },
    /// An operand of the wrong kind, element or dimensions.
    #[error("operand {operand} must be {expected}, is {found}")]
    Operand {
        /// Its position.
        operand: usize,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// An attribute that fits no operand or not these.
    #[error("attribute {attribute} {problem}")]
    Attribute {
        /// Its name.
        attribute: &'static str,
        /// What is wrong.
        problem: String,
    },
}

type Inferred = Result<Type, InferError>;

/// The operands of one instruction.
pub(crate) struct Operands<'a>(pub &'a [OperandType<'a>]);

impl<'a> Operands<'a> {
    fn arity(&self, expected: usize) -> Result<(), InferError> {
        let found = self.0.len();
        if found == expected {
            return Ok(());
        }
        Err(InferError::Arity { expected, found })
    }

    fn unfit(&self, operand: usize, expected: impl Into<String>) -> InferError {
        let found = match self.0[operand] {
            OperandType::Value(ty) => ty.to_string(),
            OperandType::Weight(storage, dims) => format!("a weight in {storage:?}{dims:?}"),
        };
        InferError::Operand {
            operand,
            expected: expected.into(),
            found,
        }
    }

    fn value(&self, operand: usize) -> Result<&'a Type, InferError> {
        match self.0[operand] {
            OperandType::Value(ty) => Ok(ty),
            OperandType::Weight(..) => Err(self.unfit(operand, "a value")),
        }
    }

    fn float(&self, operand: usize) -> Result<&'a [Dim], InferError> {
        match self.value(operand)? {
            ty if ty.element == Element::F32 => Ok(&ty.dims),
            _ => Err(self.unfit(operand, "a value of f32")),
        }
    }

    fn panels(&self, operand: usize, rank: usize) -> Result<&'a [u32], InferError> {
        match self.0[operand] {
            OperandType::Weight(Storage::Panels | Storage::Codes(_), dims)
                if dims.len() == rank =>
            {
                Ok(dims)
            }
            _ => Err(self.unfit(operand, format!("a weight in panels of {rank} dimensions"))),
        }
    }

    /// The operand is f32 of exactly these dimensions.
    fn is(&self, operand: usize, dims: &[Dim]) -> Result<(), InferError> {
        if self.float(operand)? == dims {
            return Ok(());
        }
        Err(self.unfit(operand, Type::f32(dims).to_string()))
    }

    /// The last dimension, which is not the batch.
    fn last(&self, operand: usize) -> Result<u32, InferError> {
        match self.float(operand)?.last() {
            Some(Dim::Fixed(n)) => Ok(*n),
            _ => Err(self.unfit(operand, "f32[…,C]")),
        }
    }
}

fn attribute(attribute: &'static str, problem: impl Into<String>) -> InferError {
    InferError::Attribute {
        attribute,
        problem: problem.into(),
    }
}

/// The dimension at an axis that must not be the batch.
fn fixed(dims: &[Dim], axis: u8) -> Result<u32, InferError> {
    match dims.get(usize::from(axis)) {
        Some(Dim::Fixed(n)) => Ok(*n),
        _ => {
            let rank = dims.len();
            let problem = format!("is {axis}, which is the batch or outside of {rank} dimensions");
            Err(attribute("axis", problem))
        }
    }
}

/// Dimensions of two operands broadcast as in numpy; `None` when they do not.
pub(crate) fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| match (i + dims.len()).checked_sub(rank) {
        Some(i) => dims[i],
        None => Dim::Fixed(1),
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (Dim::Fixed(1), y) => Some(y),
            (x, Dim::Fixed(1)) => Some(x),
            _ => None,
        })
        .collect()
}

impl Op {
    /// The type of the result.
    pub(crate) fn infer(&self, operands: &Operands<'_>) -> Inferred {
        let ty = self.result(operands)?;
        let batches = ty.dims.iter().filter(|d| **d == Dim::Batch).count();
        let zero = ty.dims.contains(&Dim::Fixed(0));
        if batches > 1 || zero || ty.dims.len() > MAX_RANK || ty.elements_per_batch().is_none() {
            let problem = "is not a tensor that can be kept: one batch, no empty dimension, few enough elements";
            return Err(attribute("result", format!("{ty} {problem}")));
        }
        Ok(ty)
    }

    fn result(&self, operands: &Operands<'_>) -> Inferred {
        match self {
            Op::View { .. } | Op::Permute { .. } | Op::Slice { .. } | Op::Concat { .. } => {
                self.movement(operands)
            }
            Op::Gather { axis, batch_dims } => gather(operands, *axis, *batch_dims),
            Op::UpsampleNearest { scale } => {
                operands.arity(1)?;
                let [n, Dim::Fixed(h), Dim::Fixed(w), c] = *operands.float(0)? else {
                    return Err(operands.unfit(0, "f32[N,H,W,C]"));
                };
                match (h.checked_mul(*scale), w.checked_mul(*scale)) {
                    (Some(h), Some(w)) => Ok(Type::f32([n, Dim::Fixed(h), Dim::Fixed(w), c])),
                    _ => Err(attribute("scale", format!("is {scale}, too large"))),
                }
            }
            Op::Unary(_) => {
                operands.arity(1)?;
                Ok(Type::f32(operands.float(0)?))
            }
            Op::FakeQuantize { scale, .. } => {
                operands.arity(1)?;
                if !(*scale > 0.0 && scale.is_finite()) {
                    let problem = format!("is {scale}, must be positive and finite");
                    return Err(attribute("scale", problem));
                }
                Ok(Type::f32(operands.float(0)?))
            }
            Op::Binary(_) => {
                operands.arity(2)?;
                let dims = broadcast(operands.float(0)?, operands.float(1)?);
                let dims = dims.ok_or_else(|| operands.unfit(1, "of dimensions that broadcast"))?;
                Ok(Type::f32(dims))
            }
            Op::Equal => {
                operands.arity(2)?;
                let (a, b) = (operands.value(0)?, operands.value(1)?);
                match broadcast(&a.dims, &b.dims) {
                    Some(dims) if a.element == b.element => Ok(Type::i32(dims)),
                    _ => Err(operands.unfit(1, format!("like {a}"))),
                }
            }
            Op::Cast { to } => {
                operands.arity(1)?;
                let x = operands.value(0)?;
                if x.element == Element::F32 && *to == Element::I32 {
                    return Err(operands.unfit(0, "a value of i32"));
                }
                Ok(Type {
                    element: *to,
                    dims: x.dims.clone(),
                })
            }
            Op::Softmax => {
                operands.arity(1)?;
                operands.last(0)?;
                Ok(Type::f32(operands.float(0)?))
            }
            Op::ReduceMean { axes } => {
                operands.arity(1)?;
                let mut dims = operands.float(0)?.to_vec();
                if axes.is_empty() || axes.windows(2).any(|w| w[0] >= w[1]) {
                    return Err(attribute("axes", format!("are {axes:?}, must ascend")));
                }
                for &axis in axes {
                    fixed(&dims, axis)?;
                    dims[usize::from(axis)] = Dim::Fixed(1);
                }
                Ok(Type::f32(dims))
            }
            Op::ArgMax { axis } => {
                operands.arity(1)?;
                let mut dims = operands.value(0)?.dims.clone();
                fixed(&dims, *axis)?;
                dims.remove(usize::from(*axis));
                Ok(Type::i32(dims))
            }
            Op::TimestepEmbedding {
                dim,
                freq_shift,
                max_period,
                ..
            } => {
                operands.arity(1)?;
                let half = *dim as f32 / 2.0;
                let valid = *dim > 0 && dim % 2 == 0 && *freq_shift < half && *max_period > 0.0;
                if !valid || !max_period.is_finite() {
                    return Err(attribute(
                        "dim",
                        "does not go with freq_shift and max_period",
                    ));
                }
                match *operands.float(0)? {
                    [] => Ok(Type::f32([Dim::Fixed(1), Dim::Fixed(*dim)])),
                    [n] => Ok(Type::f32([n, Dim::Fixed(*dim)])),
                    _ => Err(operands.unfit(0, "f32[] or f32[N]")),
                }
            }
            _ => self.product_or_norm(operands),
        }
    }

    fn movement(&self, operands: &Operands<'_>) -> Inferred {
        if !matches!(self, Op::Concat { .. }) {
            operands.arity(1)?;
        } else if operands.0.is_empty() {
            return Err(InferError::Arity {
                expected: 1,
                found: 0,
            });
        }
        let x = operands.value(0)?;
        let typed = |dims: Vec<Dim>| Type {
            element: x.element,
            dims,
        };
        match self {
            Op::View { dims } => {
                let ty = typed(dims.clone());
                let same = ty.elements_per_batch() == x.elements_per_batch();
                if !same || ty.has_batch() != x.has_batch() {
                    return Err(attribute("dims", format!("make {ty}, which is not {x}")));
                }
                Ok(ty)
            }
            Op::Permute { order } => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if !sorted.iter().map(|&i| usize::from(i)).eq(0..x.dims.len()) {
                    return Err(attribute("order", format!("is {order:?}, not one of {x}")));
                }
                Ok(typed(
                    order.iter().map(|&i| x.dims[usize::from(i)]).collect(),
                ))
            }
            Op::Slice { axis, start, end } => {
                let size = fixed(&x.dims, *axis)?;
                if start >= end || *end > size {
                    let problem = format!("is {start}..{end}, not a part of 0..{size}");
                    return Err(attribute("range", problem));
                }
                let mut dims = x.dims.clone();
                dims[usize::from(*axis)] = Dim::Fixed(end - start);
                Ok(typed(dims))
            }
            Op::Concat { axis } => {
                let mut dims = x.dims.clone();
                let mut size = fixed(&dims, *axis)?;
                for i in 1..operands.0.len() {
                    let y = operands.value(i)?;
                    let mut other = y.dims.clone();
                    let more = match other.get_mut(usize::from(*axis)) {
                        Some(Dim::Fixed(n)) => std::mem::replace(n, size),
                        _ => return Err(operands.unfit(i, format!("like {x}"))),
                    };
                    dims[usize::from(*axis)] = Dim::Fixed(size);
                    if other != dims || y.element != x.element {
                        return Err(operands.unfit(i, format!("like {x}")));
                    }
                    size = size
                        .checked_add(more)
                        .ok_or_else(|| attribute("axis", "grows beyond 32 bits"))?;
                }
                dims[usize::from(*axis)] = Dim::Fixed(size);
                Ok(typed(dims))
            }
            _ => unreachable!("called for movements only"),
        }
    }

    fn product_or_norm(&self, operands: &Operands<'_>) -> Inferred {
        match self {
            Op::Linear { bias, residual, .. } => {
                operands.arity(2 + usize::from(*bias) + usize::from(*residual))?;
                let weight = operands.panels(1, 2)?;
                let mut dims = operands.float(0)?.to_vec();
                if operands.last(0)? != weight[1] {
                    return Err(operands.unfit(0, format!("f32[…,{}]", weight[1])));
                }
                *dims.last_mut().expect("there is a last dimension") = Dim::Fixed(weight[0]);
                epilogue(operands, weight[0], &dims, *bias, *residual)
            }
            Op::Conv2d {
                strides,
                pads,
                bias,
                residual,
                ..
            } => {
                operands.arity(2 + usize::from(*bias) + usize::from(*residual))?;
                let &[cout, kh, kw, cin] = operands.panels(1, 4)? else {
                    unreachable!("four dimensions were asked for");
                };
                let [n, Dim::Fixed(h), Dim::Fixed(w), c] = *operands.float(0)? else {
                    return Err(operands.unfit(0, "f32[N,H,W,Cin]"));
                };
                if c != Dim::Fixed(cin) {
                    return Err(operands.unfit(0, format!("f32[N,H,W,{cin}]")));
                }
                let extent = |size: u32, before: u32, after: u32, kernel: u32, stride: u32| {
                    let padded = size.checked_add(before)?.checked_add(after)?;
                    let steps = padded.checked_sub(kernel)?.checked_div(stride)?;
                    steps.checked_add(1).map(Dim::Fixed)
                };
                let oh = extent(h, pads[0], pads[2], kh, strides[0]);
                let ow = extent(w, pads[1], pads[3], kw, strides[1]);
                let (Some(oh), Some(ow)) = (oh, ow) else {
                    return Err(attribute("strides", "and pads do not fit image and kernel"));
                };
                epilogue(
                    operands,
                    cout,
                    &[n, oh, ow, Dim::Fixed(cout)],
                    *bias,
                    *residual,
                )
            }
            Op::Geglu => {
                operands.arity(1)?;
                let width = operands.last(0)?;
                if width % 2 != 0 {
                    return Err(operands.unfit(0, "f32[…,2K]"));
                }
                let mut dims = operands.float(0)?.to_vec();
                *dims.last_mut().expect("there is a last dimension") = Dim::Fixed(width / 2);
                Ok(Type::f32(dims))
            }
            Op::MatMul { transposed } => matmul(operands, *transposed),
            Op::Attention { heads, mask, .. } => attention(operands, *heads, *mask),
            Op::GroupNorm { groups, .. } => {
                let channels = norm(operands)?;
                if operands.float(0)?.len() < 2 {
                    return Err(operands.unfit(0, "f32[N,…,C]"));
                }
                if *groups == 0 || channels % groups != 0 {
                    let problem = format!("are {groups}, which do not divide {channels} channels");
                    return Err(attribute("groups", problem));
                }
                if operands.float(0)?[1..].contains(&Dim::Batch) {
                    return Err(operands.unfit(0, "f32[N,…,C] with the batch first"));
                }
                Ok(Type::f32(operands.float(0)?))
            }
            Op::LayerNorm { .. } => {
                norm(operands)?;
                Ok(Type::f32(operands.float(0)?))
            }
            _ => unreachable!("the caller has the others"),
        }
    }
}

/// Checks bias and residual, the last operands, and gives the result.
fn epilogue(
    operands: &Operands<'_>,
    columns: u32,
    dims: &[Dim],
    bias: bool,
    residual: bool,
) -> Inferred {
    if bias {
        operands.is(2, &[Dim::Fixed(columns)])?;
    }
    if residual {
        operands.is(operands.0.len() - 1, dims)?;
    }
    Ok(Type::f32(dims))
}

fn norm(operands: &Operands<'_>) -> Result<u32, InferError> {
    operands.arity(3)?;
    let channels = operands.last(0)?;
    operands.is(1, &[Dim::Fixed(channels)])?;
    operands.is(2, &[Dim::Fixed(channels)])?;
    Ok(channels)
}

fn gather(operands: &Operands<'_>, axis: u8, batch_dims: u8) -> Inferred {
    operands.arity(2)?;
    let indices = operands.value(1)?;
    if indices.element != Element::I32 {
        return Err(operands.unfit(1, "a value of i32"));
    }
    let (element, dims) = match operands.0[0] {
        OperandType::Value(ty) => (ty.element, ty.dims.clone()),
        OperandType::Weight(Storage::Rows, dims) if axis == 0 => {
            (Element::F32, dims.iter().map(|&n| Dim::Fixed(n)).collect())
        }
        OperandType::Weight(..) => {
            return Err(operands.unfit(0, "a value, or a weight in rows with axis 0"));
        }
    };
    fixed(&dims, axis)?;
    let shared = usize::from(batch_dims);
    if shared > 1 || batch_dims > axis {
        let problem = format!("is {batch_dims}, must be 0 or 1 and not above axis {axis}");
        return Err(attribute("batch_dims", problem));
    }
    if indices.dims.get(..shared) != Some(&dims[..shared]) {
        return Err(operands.unfit(1, "with the leading dimension of operand 0"));
    }
    let axis = usize::from(axis);
    Ok(Type {
        element,
        dims: [&dims[..axis], &indices.dims[shared..], &dims[axis + 1..]].concat(),
    })
}

fn matmul(operands: &Operands<'_>, transposed: bool) -> Inferred {
    operands.arity(2)?;
    let ([a_lead @ .., m, k], [b_lead @ .., x, y]) = (operands.float(0)?, operands.float(1)?)
    else {
        return Err(operands.unfit(1, "of two dimensions or more, like operand 0"));
    };
    let (inner, p) = if transposed { (y, x) } else { (x, y) };
    if k != inner || *k == Dim::Batch {
        return Err(operands.unfit(1, format!("of depth {k}")));
    }
    let lead = broadcast(a_lead, b_lead);
    let mut dims = lead.ok_or_else(|| operands.unfit(1, "of dimensions that broadcast"))?;
    dims.extend([*m, *p]);
    Ok(Type::f32(dims))
}

fn attention(operands: &Operands<'_>, heads: u32, mask: bool) -> Inferred {
    operands.arity(3 + usize::from(mask))?;
    let &[n, s @ Dim::Fixed(_), c @ Dim::Fixed(channels)] = operands.float(0)? else {
        return Err(operands.unfit(0, "f32[N,S,C]"));
    };
    if heads == 0 || channels % heads != 0 {
        let problem = format!("are {heads}, which do not divide {channels} channels");
        return Err(attribute("heads", problem));
    }
    let &[_, t @ Dim::Fixed(_), _] = operands.float(1)? else {
        return Err(operands.unfit(1, "f32[N,T,C]"));
    };
    operands.is(1, &[n, t, c])?;
    operands.is(2, &[n, t, c])?;
    if mask {
        let scores = [n, Dim::Fixed(heads), s, t];
        if broadcast(operands.float(3)?, &scores).as_deref() != Some(&scores) {
            return Err(operands.unfit(3, format!("broadcast to {}", Type::f32(scores))));
        }
    }
    Ok(Type::f32([n, s, c]))
}
