//! Functions of single elements.

use snapc_kernels::{Binary as Operator, KernelError, Strided, Unary as Function};
use snapc_program::{Activation, Binary, Element, Unary};

use super::{Call, broadcast, for_each_offset};

/// The kernels' name of an activation.
pub(super) fn activation(activation: Activation) -> snapc_kernels::Activation {
    match activation {
        Activation::None => snapc_kernels::Activation::None,
        Activation::Silu => snapc_kernels::Activation::Silu,
        Activation::Gelu => snapc_kernels::Activation::Gelu,
        Activation::QuickGelu => snapc_kernels::Activation::QuickGelu,
    }
}

pub(super) fn unary(call: &Call<'_>, function: Unary, out: &mut [f32]) -> Result<(), KernelError> {
    if let Some(x) = call.shared_words(0) {
        out.copy_from_slice(x);
    }
    let function = match function {
        Unary::Silu => activation(Activation::Silu).into(),
        Unary::Gelu => activation(Activation::Gelu).into(),
        Unary::QuickGelu => activation(Activation::QuickGelu).into(),
        Unary::Sigmoid => Function::Sigmoid,
        Unary::Exp => Function::Exp,
        Unary::Sqrt => Function::Sqrt,
        Unary::Sin => Function::Sin,
        Unary::Cos => Function::Cos,
        Unary::Erf => Function::Erf,
    };
    call.kernels.unary(call.pool, function, out);
    Ok(())
}

pub(super) fn fake_quantize(
    call: &Call<'_>,
    scale: f32,
    zero_point: u8,
    out: &mut [f32],
) -> Result<(), KernelError> {
    if let Some(x) = call.shared_words(0) {
        out.copy_from_slice(x);
    }
    let function = Function::Grid { scale, zero_point };
    call.kernels.unary(call.pool, function, out);
    Ok(())
}

pub(super) fn binary(
    call: &Call<'_>,
    function: Binary,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let rank = call.dims.len();
    let strides_b = broadcast(call.dims_of(1), rank);
    let b = Strided {
        data: call.words(1),
        strides: &strides_b[..rank],
    };
    let Some(a) = call.shared_words(0) else {
        replace(call, function, b, out);
        return Ok(());
    };
    let strides_a = broadcast(call.dims_of(0), rank);
    let a = Strided {
        data: a,
        strides: &strides_a[..rank],
    };
    let operator = match function {
        Binary::Add => Operator::Add,
        Binary::Sub => Operator::Sub,
        Binary::Mul => Operator::Mul,
        Binary::Div => Operator::Div,
    };
    call.kernels
        .binary(call.pool, operator, call.dims, a, b, out)
}

/// A binary function whose first operand is in `out` and has the dimensions of the result.
fn replace(call: &Call<'_>, function: Binary, b: Strided<'_>, out: &mut [f32]) {
    match function {
        Binary::Add => replace_with(call, b, out, |a, b| a + b),
        Binary::Sub => replace_with(call, b, out, |a, b| a - b),
        Binary::Mul => replace_with(call, b, out, |a, b| a * b),
        Binary::Div => replace_with(call, b, out, |a, b| a / b),
    }
}

fn replace_with(
    call: &Call<'_>,
    b: Strided<'_>,
    out: &mut [f32],
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    let (width, leading) = call.dims.split_last().unwrap_or((&1, &[]));
    let step = b.strides.last().copied().unwrap_or(0);
    call.pool
        .split_rows(out, leading.iter().product(), |rows, own, _| {
            for (row, own) in rows.zip(own.chunks_exact_mut(*width)) {
                let start = offset(row, leading, b.strides);
                if step == 0 {
                    let b = b.data[start];
                    own.iter_mut().for_each(|a| *a = f(*a, b));
                } else {
                    let b = &b.data[start..start + own.len()];
                    own.iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b));
                }
            }
        });
}

/// Where the element with the row-major number `index` of `dims` is.
fn offset(mut index: usize, dims: &[usize], strides: &[usize]) -> usize {
    let mut offset = 0;
    for (&n, stride) in dims.iter().zip(strides).rev() {
        offset += index % n * stride;
        index /= n;
    }
    offset
}

pub(super) fn equal(call: &Call<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    let out = bytemuck::cast_slice_mut(out);
    if call.is_integer(0) {
        compare(call, call.integers(0), call.integers(1), out);
    } else {
        compare(call, call.words(0), call.words(1), out);
    }
    Ok(())
}

fn compare<T: PartialEq>(call: &Call<'_>, a: &[T], b: &[T], out: &mut [i32]) {
    let rank = call.dims.len();
    let strides = [0, 1].map(|i| broadcast(call.dims_of(i), rank));
    let mut results = out.iter_mut();
    for_each_offset(call.dims, [&strides[0], &strides[1]], |[at_a, at_b]| {
        if let Some(out) = results.next() {
            *out = i32::from(a[at_a] == b[at_b]);
        }
    });
}

pub(super) fn cast(call: &Call<'_>, to: Element, out: &mut [f32]) -> Result<(), KernelError> {
    if to == Element::F32 && call.is_integer(0) {
        for (out, &x) in out.iter_mut().zip(call.integers(0)) {
            *out = x as f32;
        }
    } else {
        out.copy_from_slice(call.words(0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::offset;

    #[test]
    fn rows_find_what_is_broadcast_to_them() {
        // numpy: broadcast_to(arange(3).reshape(3, 1), (2, 3, 1)).ravel()
        let found: Vec<usize> = (0..6).map(|row| offset(row, &[2, 3], &[0, 1, 0])).collect();
        assert_eq!(found, [0, 1, 2, 0, 1, 2]);
    }
}
