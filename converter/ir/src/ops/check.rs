//! Checks that operators share, and what they report.

use crate::types::{DType, Dim, Shape, TensorType};

/// Why operands do not fit an operator. Operands are counted from 0.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InferError {
    /// Wrong number of operands.
    #[error("operand count must be {expected}, is {found}")]
    Arity {
        /// The number or range it takes.
        expected: &'static str,
        /// The number given.
        found: usize,
    },
    /// An operand has the wrong element type.
    #[error("operand {operand} must be {expected}, is {found}")]
    DType {
        /// Which operand.
        operand: usize,
        /// What it must be.
        expected: String,
        /// What it is.
        found: DType,
    },
    /// An operand has the wrong shape.
    #[error("operand {operand} must have shape {expected}, has {found}")]
    Shape {
        /// Which operand.
        operand: usize,
        /// What it must be.
        expected: String,
        /// What it is.
        found: Shape,
    },
    /// The operands fit each other, but their result has two batch dimensions or more bytes than can be counted.
    #[error("the result would have type {0}, which is not representable")]
    Result(TensorType),
    /// An attribute does not go with the operands.
    #[error("attribute {attribute} {problem}")]
    Attribute {
        /// Which attribute.
        attribute: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// Checks that a result has at most one batch dimension and a size that can be counted.
pub(super) fn representable(ty: TensorType) -> Result<TensorType, InferError> {
    let batches = ty.shape.dims().iter().filter(|d| **d == Dim::Batch);
    if batches.count() > 1 || ty.bytes_per_batch().is_none() {
        return Err(InferError::Result(ty));
    }
    Ok(ty)
}

/// Checks the number of operands and names the range in the error.
pub(crate) fn arity(
    operands: &[&TensorType],
    range: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<(), InferError> {
    if range.contains(&operands.len()) {
        return Ok(());
    }
    Err(InferError::Arity {
        expected,
        found: operands.len(),
    })
}

/// Checks that an operand is a float.
pub(crate) fn float(operands: &[&TensorType], operand: usize) -> Result<DType, InferError> {
    let found = operands[operand].dtype;
    if found.is_float() {
        return Ok(found);
    }
    let expected = "a float".to_owned();
    Err(InferError::DType {
        operand,
        expected,
        found,
    })
}

/// Checks that all operands have the element type of the first.
pub(crate) fn same_dtype(operands: &[&TensorType]) -> Result<DType, InferError> {
    let first = operands[0].dtype;
    match operands.iter().position(|t| t.dtype != first) {
        None => Ok(first),
        Some(operand) => Err(InferError::DType {
            operand,
            expected: format!("{first} like operand 0"),
            found: operands[operand].dtype,
        }),
    }
}

/// Checks that an operand has exactly this shape.
pub(crate) fn shape_is(
    operands: &[&TensorType],
    operand: usize,
    expected: &[Dim],
) -> Result<(), InferError> {
    if operands[operand].shape.dims() == expected {
        return Ok(());
    }
    Err(shape_error(
        operands,
        operand,
        Shape(expected.to_vec()).to_string(),
    ))
}

/// The error that an operand's shape is not `expected`.
pub(crate) fn shape_error(
    operands: &[&TensorType],
    operand: usize,
    expected: impl Into<String>,
) -> InferError {
    InferError::Shape {
        operand,
        expected: expected.into(),
        found: operands[operand].shape.clone(),
    }
}

/// The error that an attribute does not go with the operands.
pub(crate) fn attribute_error(attribute: &'static str, problem: impl Into<String>) -> InferError {
    InferError::Attribute {
        attribute,
        problem: problem.into(),
    }
}

/// The dimensions of an operand of exactly this rank.
pub(crate) fn dims<'a, const R: usize>(
    operands: &[&'a TensorType],
    operand: usize,
    expected: &str,
) -> Result<&'a [Dim; R], InferError> {
    let dims = operands[operand].shape.dims();
    dims.try_into()
        .map_err(|_| shape_error(operands, operand, expected))
}

/// The size of an operand along an axis at which the batch is not allowed.
///
/// # Panics
/// When the operand has no such axis.
pub(crate) fn size(
    operands: &[&TensorType],
    operand: usize,
    axis: usize,
) -> Result<usize, InferError> {
    operands[operand].shape.dims()[axis].fixed().ok_or_else(|| {
        shape_error(
            operands,
            operand,
            format!("with a fixed size along axis {axis}"),
        )
    })
}

/// The size of operand 0 along the axis that attribute `axis` names; the batch is not allowed there.
pub(crate) fn axis_size(operands: &[&TensorType], axis: usize) -> Result<usize, InferError> {
    let rank = operands[0].shape.rank();
    if axis >= rank {
        let problem = format!("is {axis}, but operand 0 has rank {rank}");
        return Err(attribute_error("axis", problem));
    }
    size(operands, 0, axis)
}

#[cfg(test)]
mod tests {
    use super::InferError;
    use crate::ops::{Add, MatMul, Op};
    use crate::{DType, Shape, TensorType};

    #[test]
    fn a_result_has_one_batch_at_most() {
        let f32 = |dims: &[usize], n: usize| {
            let mut shape = Shape::fixed(dims);
            shape.0.insert(n, crate::Dim::Batch);
            TensorType::new(DType::F32, shape)
        };
        let refused = |op: Op, a: &TensorType, b: &TensorType| {
            matches!(op.infer(&[a, b]), Err(InferError::Result(_)))
        };
        assert!(refused(Add {}.into(), &f32(&[1], 0), &f32(&[1], 1)));
        assert!(refused(MatMul {}.into(), &f32(&[4], 0), &f32(&[4], 1)));
    }
}
