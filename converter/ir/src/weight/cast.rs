//! Conversion of elements.

use std::borrow::Cow;

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::WeightError;
use crate::types::DType;

/// The bytes as elements; copied only when they are not aligned.
pub(super) fn pods<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(s) => Cow::Borrowed(s),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

fn to_bytes<T: Pod>(v: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(v).to_vec()
}

/// The elements as f32; copied only when they are narrower or not aligned.
pub(super) fn widen(bytes: &[u8], from: DType) -> Result<Cow<'_, [f32]>, WeightError> {
    Ok(match from {
        DType::F32 => pods(bytes),
        DType::F16 => Cow::Owned(pods::<f16>(bytes).to_f32_vec()),
        DType::BF16 => Cow::Owned(pods::<bf16>(bytes).to_f32_vec()),
        _ => {
            let wide = cast_integers(bytes, from, DType::F32)?;
            Cow::Owned(pods(&wide).into_owned())
        }
    })
}

/// Elements of another type, rounded to nearest even. `first` is the position of the first element, for errors.
pub(super) fn cast_bytes(
    bytes: &[u8],
    from: DType,
    to: DType,
    first: usize,
) -> Result<Vec<u8>, WeightError> {
    if from == to {
        return Ok(bytes.to_vec());
    }
    if !from.is_float() || !to.is_float() {
        return cast_integers(bytes, from, to);
    }
    let wide = widen(bytes, from)?;
    match to {
        DType::F32 => Ok(to_bytes(&wide)),
        DType::F16 => {
            let mut narrow = vec![f16::ZERO; wide.len()];
            narrow.convert_from_f32_slice(&wide);
            check_overflow(&wide, |i| narrow[i].is_finite(), to, first)?;
            Ok(to_bytes(&narrow))
        }
        _ => {
            let mut narrow = vec![bf16::ZERO; wide.len()];
            narrow.convert_from_f32_slice(&wide);
            check_overflow(&wide, |i| narrow[i].is_finite(), to, first)?;
            Ok(to_bytes(&narrow))
        }
    }
}

/// Every element times the factor at its index along `axis`, rounded to its own type.
pub(super) fn scale_bytes(
    bytes: &[u8],
    dtype: DType,
    shape: &[usize],
    axis: usize,
    factors: &[f32],
) -> Result<Vec<u8>, WeightError> {
    let wide = cast_bytes(bytes, dtype, DType::F32, 0)?;
    let mut values = pods::<f32>(&wide).into_owned();
    let inner: usize = shape[axis + 1..].iter().product();
    let runs = values.chunks_exact_mut(inner.max(1));
    for (run, &factor) in runs.zip(factors.iter().cycle()) {
        run.iter_mut().for_each(|x| *x *= factor);
    }
    cast_bytes(bytemuck::cast_slice(&values), DType::F32, dtype, 0)
}

/// Weighted sums along `axis`, rounded to the elements' own type; `matrix` has a row of weights per index of the result.
pub(super) fn combine_bytes(
    bytes: &[u8],
    dtype: DType,
    shape: &[usize],
    axis: usize,
    matrix: &[f32],
) -> Result<Vec<u8>, WeightError> {
    let wide = cast_bytes(bytes, dtype, DType::F32, 0)?;
    let values = pods::<f32>(&wide);
    let size = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let mut sums = Vec::with_capacity(values.len() / size * (matrix.len() / size));
    for block in values.chunks_exact((size * inner).max(1)) {
        for weights in matrix.chunks_exact(size) {
            for i in 0..inner {
                let terms = weights.iter().zip(block[i..].iter().step_by(inner));
                // Zero weights are left out, so that what they drop cannot make a NaN.
                let terms = terms.filter(|(w, _)| **w != 0.0);
                sums.push(terms.map(|(w, x)| w * x).sum::<f32>());
            }
        }
    }
    cast_bytes(bytemuck::cast_slice(&sums), DType::F32, dtype, 0)
}

fn check_overflow(
    wide: &[f32],
    finite: impl Fn(usize) -> bool,
    dtype: DType,
    first: usize,
) -> Result<(), WeightError> {
    match (0..wide.len()).find(|&i| !finite(i) && wide[i].is_finite()) {
        None => Ok(()),
        Some(i) => Err(WeightError::Overflow {
            value: wide[i],
            index: first + i,
            dtype,
        }),
    }
}

fn cast_integers(bytes: &[u8], from: DType, to: DType) -> Result<Vec<u8>, WeightError> {
    let ints: Vec<i64> = match from {
        DType::I64 => pods::<i64>(bytes).into_owned(),
        DType::I32 => pods::<i32>(bytes).iter().map(|&x| i64::from(x)).collect(),
        DType::Bool => bytes.iter().map(|&x| i64::from(x != 0)).collect(),
        DType::I8 => bytes.iter().map(|&x| i64::from(x.cast_signed())).collect(),
        DType::U8 => bytes.iter().map(|&x| i64::from(x)).collect(),
        _ => return Err(WeightError::Conversion { from, to }),
    };
    match to {
        DType::I64 => Ok(to_bytes(&ints)),
        DType::F32 => Ok(to_bytes(
            &ints.iter().map(|&x| x as f32).collect::<Vec<_>>(),
        )),
        DType::I32 => ints
            .iter()
            .map(|&x| i32::try_from(x).map_err(|_| WeightError::Conversion { from, to }))
            .collect::<Result<Vec<_>, _>>()
            .map(|v| to_bytes(&v)),
        _ => Err(WeightError::Conversion { from, to }),
    }
}
